"""Held-out scores of the embedded Qwen2.5-VL: answers, pointing and coarse masks, per kind of expression.

python -m tools.embedded_mllm.evaluate --model decaf_ros/models/embedded/qwen2_5_vl --scenes 100
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from decaf_ros.method.fusion import coarse_masks, complement, frame_map, video_map
from decaf_ros.models.prompts import background_prompt, object_prompt
from decaf_ros.models.qwen2_5_vl import fit_grid
from decaf_ros.synthetic.expressions import KINDS, Expression, expressions_of
from decaf_ros.synthetic.world import DEFAULT_SIZE_HW
from tools.embedded_mllm.data import Clip, Sample, coverage_on_grid, render_clip, resize_images
from tools.embedded_mllm.forward import build_prefix, build_suffixes, prepare, run
from tools.embedded_mllm.model import IMAGE_TOKENS, VIDEO_FRAME_TOKENS
from tools.embedded_mllm.questions import NO_BODY, Question

POINTING_TOLERANCE_PX = 8
FRAMES = 8
FIRST_SEED = 300_000
COLUMNS = ("answer_video", "answer_frame", "point_video", "point_frame", "point_fused", "mask_iou")

Scores = dict[str, dict[str, float]]


@torch.no_grad()
def evaluate(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, scenes: int, first_seed: int = FIRST_SEED
) -> Scores:
    """Mean scores per kind over held-out scenes of 8 key frames at 4 Hz, one expression of each kind a scene.

    The columns: share of right answers on the video path and on frames that show the object; share of clips whose argmax lies
    within 8 px of the object, from the video map, the frame map and the fused map; mean IoU of Otsu's masks where it is seen.
    """
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for seed in range(first_seed, first_seed + scenes):
        for kind, scores in _scene_scores(model, processor, seed):
            found[kind].append(scores)
            if kind != "background":
                found["all"].append(scores)
    rows = {kind: found[kind] for kind in (*KINDS, "background", "all") if found[kind]}
    return {kind: _means(scores) for kind, scores in rows.items()}


def table(scores: Scores) -> str:
    """The scores as a Markdown table."""
    lines = ["| kind | n | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for kind, row in scores.items():
        cells = [f"{row[column]:.3f}" if column in row else "" for column in COLUMNS]
        lines.append(f"| {kind} | {int(row['n'])} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _means(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    columns = [column for column in COLUMNS if column in scores[0]]
    return {"n": len(scores), **{column: float(np.nanmean([score[column] for score in scores])) for column in columns}}


def _scene_scores(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, seed: int
) -> list[tuple[str, dict[str, float]]]:
    clip = _views(render_clip(seed, DEFAULT_SIZE_HW, 0.0, 0.25), slice(FRAMES))
    rng = np.random.default_rng(seed)
    expressions = expressions_of(clip.scene, [float(time_s) for time_s in clip.times_s], rng)
    by_kind = {expressions[index].kind: expressions[index] for index in rng.permutation(len(expressions))}
    asked = list(by_kind.values())
    if not asked:
        return []
    video = _ask(model, processor, clip, asked, is_video=True)
    frames = [_ask(model, processor, _views(clip, slice(index, index + 1)), asked, is_video=False) for index in range(FRAMES)]
    results = []
    for index, expression in enumerate(asked):
        masks = clip.instances_thw == expression.body_index + 1
        seen = masks.sum(axis=(1, 2)) >= 0.3 * masks.sum(axis=(1, 2)).max()
        answers = [answers[index] == expression.answer for (answers, _), s in zip(frames, seen, strict=True) if s]
        video_thw = video_map(video[1][index], video[1][-1], 2, FRAMES)
        frame_thw = frame_map(torch.cat([r[index] for _, r in frames]), torch.cat([r[-1] for _, r in frames]))
        fused = complement(video_thw, frame_thw)
        scores = {
            "answer_video": float(video[0][index] == expression.answer),
            "answer_frame": float(np.mean(answers)),
            "point_video": _points_at(video_thw, masks),
            "point_frame": _points_at(frame_thw, masks),
            "point_fused": _points_at(fused, masks),
            "mask_iou": _mean_iou(coarse_masks(fused, clip.scene.size_hw)[seen], masks[seen]),
        }
        results.append((expression.kind, scores))
    background = {
        "answer_video": float(video[0][-1] == clip.scene.background),
        "answer_frame": float(np.mean([answers[-1] == clip.scene.background for answers, _ in frames])),
    }
    return [*results, ("background", background)]


def _ask(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    clip: Clip,
    expressions: Sequence[Expression],
    is_video: bool,
) -> tuple[list[str], torch.Tensor]:
    """Answers and ``(Q, T', h, w)`` rollouts of all expressions, the background last, from one pass."""
    grid_hw = fit_grid(clip.scene.size_hw, VIDEO_FRAME_TOKENS if is_video else IMAGE_TOKENS)
    questions = [Question(object_prompt(e.text), e.answer, e.kind, e.body_index) for e in expressions]
    name = Counter(e.answer for e in expressions).most_common(1)[0][0]
    questions.append(Question(background_prompt(name), clip.scene.background, "background", NO_BODY))
    empty = np.zeros((0, 0), dtype=np.float32)
    coverage = coverage_on_grid(clip.instances_thw, grid_hw)
    images = resize_images(clip.images_thwc, grid_hw)
    sample = Sample(clip, images, coverage, empty, empty, tuple(questions), 0.5, is_video)
    output = run(model, build_prefix(model, processor, [sample]), build_suffixes(processor, [questions]))
    answers = [processor.tokenizer.decode(token) for token in output.answer_logits[0].argmax(-1)]
    return answers, output.rollouts[0].view(len(questions), *coverage.shape[:3])


def _views(clip: Clip, kept: slice) -> Clip:
    return Clip(clip.scene, clip.times_s[kept], clip.images_thwc[kept], clip.instances_thw[kept])


def _points_at(heat_thw: torch.Tensor, masks_thw: np.ndarray) -> float:
    """1.0 when the centre of the hottest cell of the clip lies within the tolerance of the object on its frame."""
    _, rows, columns = heat_thw.shape
    step, cell = divmod(int(heat_thw.argmax()), rows * columns)
    height, width = masks_thw.shape[1:]
    y, x = (cell // columns + 0.5) * height / rows, (cell % columns + 0.5) * width / columns
    reach = 2 * POINTING_TOLERANCE_PX + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return float(cv2.dilate(masks_thw[step].astype(np.uint8), disc)[int(y), int(x)])


def _mean_iou(predicted_thw: np.ndarray, truth_thw: np.ndarray) -> float:
    joint = (predicted_thw & truth_thw).sum(axis=(1, 2))
    return float(np.mean(joint / np.maximum((predicted_thw | truth_thw).sum(axis=(1, 2)), 1)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("decaf_ros/models/embedded/qwen2_5_vl"))
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(arguments.model, dtype=torch.float32)
    prepare(model)
    print(table(evaluate(model, AutoProcessor.from_pretrained(arguments.model), arguments.scenes, arguments.first_seed)))


if __name__ == "__main__":
    main()
