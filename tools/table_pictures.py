"""Draws docs/images/table.jpg: the robot's table at six moments, with what each sentence means outlined.

    python -m tools.table_pictures

Of each kind it takes the first held-out seed with a sentence that names the kind of the thing, so that several of it are there.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from decaf_ros.datatypes import UInt8Array
from decaf_ros.outputs import OutputFolder
from decaf_ros.synthetic.table.episodes import Episode, sample_episode
from decaf_ros.synthetic.table.sentences import WINDOW_S, sentences_of, times_to_ask
from decaf_ros.synthetic.table.wordings import Sentence

FOLDER, NAME = Path("docs/images"), "table.jpg"
KINDS = ("put_down", "fell_over", "held", "moved")
COLUMNS, TIMES_A_SEED, MOST_SEEDS = 6, 12, 200
SEEN = 0.6  # of the thing, at the end
_BAR_HEIGHT, _OUTLINE_RGB = 24, (255, 0, 255)


def main() -> None:
    """Draw the picture."""
    rows: list[UInt8Array] = []
    seed = 0
    for kind in KINDS:
        episode, sentence, end_s, seed = _example(kind, seed)
        print(f"{kind}: seed {seed}, {end_s:.1f} s: {sentence.text}", flush=True)
        rows += [_caption(sentence.text), _strip(episode, sentence, end_s)]
        seed += 1
    sheet = Image.fromarray(np.concatenate(rows))
    with OutputFolder(FOLDER).file(NAME) as file:
        sheet.save(file, format="JPEG", quality=90, optimize=True)


def _example(kind: str, first_seed: int) -> tuple[Episode, Sentence, float, int]:
    for seed in range(first_seed, MOST_SEEDS):
        episode, rng = sample_episode(seed, samples=2), np.random.default_rng(seed)
        for end_s in times_to_ask(episode, rng, TIMES_A_SEED):
            for sentence in sentences_of(episode, end_s, rng):
                if sentence.kind == kind and sentence.answer in sentence.text:
                    assert sentence.target is not None, "something happened to it"
                    if end_s >= WINDOW_S and episode.visible_fractions(end_s)[sentence.target] >= SEEN:
                        return episode, sentence, end_s, seed
    raise SystemExit(f"no sentence of kind {kind} in {MOST_SEEDS} seeds")


def _strip(episode: Episode, sentence: Sentence, end_s: float) -> UInt8Array:
    """The window at even times, side by side."""
    images = []
    for time_s in np.linspace(end_s - WINDOW_S, end_s, COLUMNS):
        view = episode.render(float(time_s))
        image = view.image_rgb.copy()
        assert sentence.target is not None
        outlines, _ = cv2.findContours(view.mask_of(sentence.target).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, outlines, -1, _OUTLINE_RGB, 1)
        images.append(image)
    return np.concatenate(images, axis=1)


def _caption(text: str) -> UInt8Array:
    bar = np.full((_BAR_HEIGHT, COLUMNS * 256, 3), 255, dtype=np.uint8)
    cv2.putText(bar, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return bar


if __name__ == "__main__":
    main()
