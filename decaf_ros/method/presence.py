"""Whether there is such a thing at all: what a model answers to a yes-or-no question on both paths becomes one probability.

Not part of DecAF, which takes for granted that a sentence is true of something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

VIDEO_SHARE = 0.5
"""Of the video path in the mean of both. It sees what happens; the frame path sees finer, but one moment at a time."""
_MOST_LOG_ODDS = 7.0  # what one answer may count: no path is so sure that nothing else matters


def combined_presence(video: Sequence[float], frames: Sequence[float]) -> float:
    """The probability that something fits a sentence, by all paths that were asked.

    The mean of the paths' log-odds. Of the frame path that is the log-odds of its frames' mean: what is hidden or out of view
    on some of them counts by how often it is seen.

    Args:
        video: the video path's probability of yes, alone; empty where it was not asked.
        frames: the frame path's, one a frame; empty where it was not asked.

    Returns:
        A probability in [0, 1]; NaN where nothing was asked.
    """
    paths = [(VIDEO_SHARE, video), (1.0 - VIDEO_SHARE, frames)]
    asked = [(share, _log_odds(sum(yes) / len(yes))) for share, yes in paths if yes]
    if not asked:
        return math.nan
    total = sum(share * odds for share, odds in asked) / sum(share for share, _ in asked)
    return 1.0 / (1.0 + math.exp(-total))


def _log_odds(probability: float) -> float:
    least = 1.0 / (1.0 + math.exp(_MOST_LOG_ODDS))
    inside = min(max(probability, least), 1.0 - least)
    return math.log(inside / (1.0 - inside))
