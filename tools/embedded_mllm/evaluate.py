"""Held-out scores of the embedded Qwen2.5-VL alone, on its video path: answers, pointing and presence.

python -m tools.embedded_mllm.evaluate --model decaf_ros/models/embedded/qwen2_5_vl --clips 100

``decaf bench`` judges the whole product; this is quick enough to judge a checkpoint by.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from decaf_ros.evaluation.presence import area_under_curve
from decaf_ros.evaluation.quality import points_at
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.method.fusion import video_map
from decaf_ros.models.yes_or_no import share_of_yes, yes_and_no_ids
from decaf_ros.synthetic.table.sampling import require_held_out
from decaf_ros.synthetic.table.wordings import ABSENT_KINDS, SENTENCE_KINDS, Sentence
from tools.embedded_mllm.attention import prepare
from tools.embedded_mllm.data import VIDEO_GRIDS, View, assemble
from tools.embedded_mllm.forward import Tokens, are_right, build_prefix, run
from tools.embedded_mllm.model import TEMPORAL_PATCH_SIZE
from tools.embedded_mllm.questions import background_question, object_question, presence_question
from tools.table_clips import Clip, ClipWindow, make_clip

FIRST_SEED = 300_000
_GRID_HW = VIDEO_GRIDS[0]
_FRAMES = 16

Scores = dict[str, dict[str, float]]


@torch.no_grad()
def evaluate(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    clips: int,
    first_seed: int = FIRST_SEED,
    sparse: bool = False,
) -> Scores:
    """Mean scores per kind of sentence over held-out clips, one sentence of each kind a window of 16 frames.

    The columns: ``answer``, share of right words; ``point``, share of windows whose hottest token lies within 8 px of the
    thing; ``yes``, mean probability that there is such a thing; and for absent ones ``auc``, the area under the curve of
    present against absent sentences.

    Args:
        clips: scenes.
        first_seed: of the first one.
        sparse: show every second frame only.
    """
    tokens = Tokens(processor)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for seed in range(require_held_out(first_seed), require_held_out(first_seed + clips - 1) + 1):
        clip = make_clip(seed)
        for window in clip.windows:
            if (window.count, window.stride) == (_FRAMES, 1):
                for kind, scores in _window_scores(model, processor, tokens, clip, window, sparse):
                    found[kind].append(scores)
    rows = {kind: found[kind] for kind in SENTENCE_KINDS if found[kind]}
    yes = {kind: [score["yes"] for score in scores] for kind, scores in rows.items()}
    present = [value for kind, values in yes.items() if kind not in ABSENT_KINDS for value in values]
    scores = {kind: _means(values) for kind, values in rows.items()}
    for kind in ABSENT_KINDS:
        scores[kind]["auc"] = area_under_curve(present, yes[kind])
    return scores


def table(scores: Scores) -> str:
    """The scores as a Markdown table."""
    columns = ("n", "answer", "point", "yes", "auc")
    rows = [[kind, *(_cell(column, row) for column in columns)] for kind, row in scores.items()]
    return markdown_table(("kind", *columns), rows)


def _cell(column: str, row: dict[str, float]) -> str:
    if column not in row:
        return ""
    return str(int(row[column])) if column == "n" else f"{row[column]:.3f}"


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    return {"n": len(scores), **{column: float(np.mean([score[column] for score in scores])) for column in scores[0]}}


def _window_scores(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    tokens: Tokens,
    clip: Clip,
    window: ClipWindow,
    sparse: bool,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Of one sentence of each kind: objects and presence in one pass, the background last."""
    rng = np.random.default_rng([clip.seed, window.first])
    by_kind: dict[str, Sentence] = {}
    for index in rng.permutation(len(window.sentences)):
        by_kind[window.sentences[int(index)].kind] = window.sentences[int(index)]
    present = [sentence for sentence in by_kind.values() if sentence.target is not None]
    view = View(clip, window.frames[1::2] if sparse else window.frames)
    asked = [object_question(sentence) for sentence in present]
    asked += [presence_question(sentence) for sentence in by_kind.values()]
    asked.append(background_question(clip.table_top, asked))
    batch = assemble([(view, asked)], _GRID_HW, is_video=True)
    suffixes = tokens.suffixes(batch.questions, batch.pixels.device)
    output = run(model, build_prefix(model, processor, batch), suffixes)
    right = are_right(output, suffixes)[0]
    rollouts = output.rollouts[0].view(len(asked), *batch.grid_thw)
    yes_no = yes_and_no_ids(processor.tokenizer)
    for offset, (kind, sentence) in enumerate(by_kind.items(), start=len(present)):
        logits = output.logits[:, offset, int(suffixes.last[0, offset])]
        scores = {"yes": float(share_of_yes(logits, *yes_no))}
        if sentence.target is not None:
            index = present.index(sentence)
            truth = (clip.instances[view.run] == sentence.target + 1).numpy()
            heat = video_map(rollouts[index], rollouts[-1], TEMPORAL_PATCH_SIZE, len(view.frames))
            scores |= {"answer": float(right[index]), "point": float(points_at(heat, truth))}
        yield kind, scores


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("decaf_ros/models/embedded/qwen2_5_vl"))
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--sparse", action="store_true", help="show every second frame")
    arguments = parser.parse_args()
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(arguments.model, dtype=torch.float32)
    prepare(model)
    processor = AutoProcessor.from_pretrained(arguments.model)
    print(table(evaluate(model, processor, arguments.clips, arguments.first_seed, arguments.sparse)))


if __name__ == "__main__":
    main()
