"""Whether there is such a thing at all: what a model answers to a yes-or-no question on both paths becomes one probability.

Not part of DecAF, which takes for granted that a sentence is true of something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# Chosen by `python -m tools.fit_presence --write`, which writes these two lines anew.
VIDEO_SHARE = 0.8
LIKELIEST_SHARE = 0.25
_MOST_LOG_ODDS = 7.0  # no path is so sure that the other one does not matter


def combined_presence(
    video: Sequence[float],
    frames: Sequence[float],
    video_share: float = VIDEO_SHARE,
    likeliest_share: float = LIKELIEST_SHARE,
) -> float:
    """The probability that something fits a sentence, by all paths that were asked: the weighted mean of their log-odds.

    The video path sees what happens; the frame path sees finer, but one moment at a time, and what is meant may be hidden or
    out of view at most of them. So it is the mean of its likeliest frames that counts: all would ask that the thing is always
    in view, the likeliest alone would take one slip of many for the truth.

    Args:
        video: the video path's probability of yes, alone; empty where it was not asked.
        frames: the frame path's, one a frame; empty where it was not asked.
        video_share: weight of the video path where both were asked, in [0, 1]; the frame path has the rest.
        likeliest_share: of the frames, in (0, 1]; one of them at least.

    Returns:
        A probability in [0, 1]; NaN where nothing was asked.
    """
    likeliest = sorted(frames, reverse=True)[: max(1, round(likeliest_share * len(frames)))]
    paths = [(video_share, video), (1.0 - video_share, likeliest)]
    asked = [(share, _log_odds(sum(yes) / len(yes))) for share, yes in paths if yes]
    if len(asked) == 1:
        asked = [(1.0, asked[0][1])]
    return _probability(sum(share * odds for share, odds in asked)) if asked else math.nan


def _log_odds(probability: float) -> float:
    least = _probability(-_MOST_LOG_ODDS)
    inside = min(max(probability, least), 1.0 - least)
    return math.log(inside / (1.0 - inside))


def _probability(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds))
