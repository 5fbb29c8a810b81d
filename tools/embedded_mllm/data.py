"""Training data of the embedded Qwen2.5-VL: windows of clips of the table, questions about them, and the truth on the grid.

What is drawn is decided on the CPU; everything that touches pixels is done for a whole batch on the device where the clips are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from decaf_ros.synthetic.table.catalogue import COLOURS_RGB, KINDS
from decaf_ros.synthetic.table.scene import ARM_LABEL, MAX_THINGS
from decaf_ros.synthetic.table.wordings import STATIC_KINDS, Sentence
from tools.embedded_mllm.model import MERGE_SIZE, PATCH_SIZE, TEMPORAL_PATCH_SIZE, TOKEN_PIXELS
from tools.embedded_mllm.questions import (
    PresenceTally,
    Question,
    background_question,
    box_question,
    draw_sentences,
    object_question,
    presence_question,
)
from tools.table_clips import SIZE_HW, Clip, ClipFolder, ClipWindow

KIND_INDEX = {kind: index for index, kind in enumerate(KINDS)}
COLOUR_INDEX = {colour: index for index, colour in enumerate(COLOURS_RGB)}
ARM = MAX_THINGS  # its place behind the things in coverages
# Grids of tokens for images of 4 by 3 pixels, and now and then of other proportions, as (rows, columns).
VIDEO_GRIDS = ((12, 16),) * 12 + ((11, 15), (13, 14), (10, 18), (11, 17))
COARSE_VIDEO_GRIDS = ((9, 12),) * 3 + ((12, 16),) * 2  # to learn what happens at half the price
IMAGE_GRIDS = ((15, 20),) * 12 + ((14, 19), (17, 17), (13, 22), (14, 21))
# Frames and steps between them of the windows of a batch; a single frame stands for an image.
VIDEO_SHAPES = ((16, 1),) * 10 + ((8, 1), (8, 1), (8, 2), (16, 2), (4, 1), (2, 1))
# Grids of the parts of images around a thing, from which the vision tower learns to see: little of them is bare table.
LOOK_GRIDS = ((4, 4),) * 4 + ((6, 6), (12, 16))
_LOOK_SCALES = (0.7, 1.35)  # pixels of a clip that are one pixel of such a part
_MARGIN = 3  # pixels around a part of an image that it is sampled from
_LEAST_LOOK_PIXELS = 6  # along each side of the box around what is visible of a thing
_MOVED_METRES, _FALLEN_RADIANS = 0.03, 0.6
_EVIDENCE_SLACK_S = 0.13
_CROPPED_OUT = frozenset(("brought", "taken_away"))  # of which a part of the image would tell something else


@dataclass(frozen=True)
class Diet:
    """What a batch is made of.

    Attributes:
        objects: kinds of sentences for the object prompt, by weight.
        questions: object prompts a sample.
        presences, boxes: further prompts a sample; boxes on images only.
        tally: of what was asked for presence.
    """

    objects: Mapping[str, float]
    questions: int = 6
    presences: int = 0
    boxes: int = 0
    tally: PresenceTally = field(default_factory=PresenceTally, compare=False)


@dataclass(frozen=True, eq=False)
class Batch:
    """Conversations that share grid and length. ``B`` samples, ``T'`` steps of two frames, ``Q`` questions.

    Attributes:
        pixels: ``(B * T' * 4 h w, channels)`` float32 patches in the processor's order, normalised.
        coverage: ``(B, T', h, w, MAX_THINGS + 1)`` float32: share of each token's pixels that shows each thing, the arm last.
        kinds, colours: ``(B, MAX_THINGS)`` int64 of the things, -1 for none.
        held, moved, fallen: ``(B, T', MAX_THINGS)`` float32: in the gripper in a step; away from where it was, or tipped over,
            since the first frame.
        seconds_per_step: ``B`` times between the steps of T'.
        is_video: whether the images are one video, or a single image.
        questions: ``B`` times ``Q``, the background last.
        targets: ``(B, Q)`` int64 things asked for, or ``NOTHING``.
        evidence: ``(B, Q, T')`` float32, 1 in steps in which it can be seen that it is meant.
    """

    pixels: Tensor
    coverage: Tensor
    kinds: Tensor
    colours: Tensor
    held: Tensor
    moved: Tensor
    fallen: Tensor
    seconds_per_step: tuple[float, ...]
    is_video: bool
    questions: tuple[tuple[Question, ...], ...]
    targets: Tensor
    evidence: Tensor

    @property
    def grid_thw(self) -> tuple[int, int, int]:
        """T', h, w."""
        return self.coverage.shape[1], self.coverage.shape[2], self.coverage.shape[3]


@dataclass(frozen=True, eq=False)
class View:
    """The part of a clip that a sample shows.

    Attributes:
        frames: indices.
        corner_yx, size_hw: of the part of the image, in pixels of the clip.
        mirrored: left for right.
    """

    clip: Clip
    frames: npt.NDArray[np.int64]
    corner_yx: tuple[float, float] = (0.0, 0.0)
    size_hw: tuple[float, float] = SIZE_HW
    mirrored: bool = False

    @property
    def run(self) -> slice:
        """The frames, evenly spaced as they are, without a tensor of indices that would have to get to the device."""
        step = int(self.frames[1] - self.frames[0]) if len(self.frames) > 1 else 1
        return slice(int(self.frames[0]), int(self.frames[-1]) + 1, step)


Drawn = tuple[View, list[Question]]


class Windows:
    """What is in a growing folder of clips, by the kinds of sentences that it allows."""

    def __init__(self, folder: ClipFolder) -> None:
        self.folder = folder
        self._seen = 0
        self._by_kind: dict[tuple[int, int], dict[str, list[tuple[Clip, ClipWindow]]]] = {}

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int], kinds: Mapping[str, float]
    ) -> tuple[Clip, ClipWindow] | None:
        """Some window of a shape about which something of a kind, drawn by weight, can be said; None if there is none."""
        self._update()
        by_kind = self._by_kind.get(shape, {})
        there = [kind for kind, weight in kinds.items() if weight > 0 and by_kind.get(kind)]
        if not there:
            return None
        odds = np.array([kinds[kind] for kind in there])
        found = by_kind[there[int(rng.choice(len(there), p=odds / odds.sum()))]]
        return found[int(rng.integers(len(found)))]

    def _update(self) -> None:
        for clip in self.folder.since(self._seen):
            self._seen += 1
            for window in clip.windows:
                by_kind = self._by_kind.setdefault((window.count, window.stride), {})
                for kind in {sentence.kind for sentence in window.sentences}:
                    by_kind.setdefault(kind, []).append((clip, window))


class Looks:
    """All that can be seen in growing folders of clips and stills, by kind of thing."""

    def __init__(self, folders: Sequence[ClipFolder]) -> None:
        self.folders = folders
        self._seen = [0] * len(folders)
        self._by_kind: dict[str, list[tuple[Clip, int]]] = {}

    def draw(self, rng: np.random.Generator) -> tuple[Clip, int, int]:
        """A clip, a frame of it, and a thing that is visible there; every kind of thing as often."""
        self._update()
        kinds = list(self._by_kind)
        while True:
            of_kind = self._by_kind[kinds[int(rng.integers(len(kinds)))]]
            clip, thing = of_kind[int(rng.integers(len(of_kind)))]
            frame = int(rng.integers(len(clip.times_s)))
            left, top, right, bottom = clip.boxes_tn4[frame, thing].tolist()
            if min(right - left, bottom - top) >= _LEAST_LOOK_PIXELS:
                return clip, frame, thing

    def _update(self) -> None:
        for number, folder in enumerate(self.folders):
            for clip in folder.since(self._seen[number]):
                self._seen[number] += 1
                for thing in np.flatnonzero(clip.boxes_tn4.any(axis=(0, 2))).tolist():
                    self._by_kind.setdefault(clip.kinds[thing], []).append((clip, thing))


def draw_look_batch(looks: Looks, rng: np.random.Generator, patches: int) -> Batch:
    """Parts of single images around a thing each, as many as fit so many patches; nothing is asked about them."""
    grid_hw = LOOK_GRIDS[int(rng.integers(len(LOOK_GRIDS)))]
    samples: list[Drawn] = []
    for _ in range(_samples_within(patches, 1, grid_hw)):
        clip, frame, thing = looks.draw(rng)
        scale = float(np.exp(rng.uniform(*np.log(_LOOK_SCALES))))
        height, width = (min(scale * TOKEN_PIXELS * tokens, side) for tokens, side in zip(grid_hw, SIZE_HW, strict=True))
        left, top, right, bottom = clip.boxes_tn4[frame, thing].tolist()
        y = 0.5 * (top + bottom) - height * float(rng.uniform(0.25, 0.75))
        x = 0.5 * (left + right) - width * float(rng.uniform(0.25, 0.75))
        corner_yx = (min(max(y, 0.0), SIZE_HW[0] - height), min(max(x, 0.0), SIZE_HW[1] - width))
        view = View(clip, np.array([frame]), corner_yx, (height, width), bool(rng.random() < 0.5))
        samples.append((view, []))
    return assemble(samples, grid_hw, is_video=False, rng=rng)


def draw_video_batch(
    windows: Windows,
    rng: np.random.Generator,
    diet: Diet,
    patches: int,
    sparse: float = 1.0,
    grids: Sequence[tuple[int, int]] = VIDEO_GRIDS,
    shapes: Sequence[tuple[int, int]] = VIDEO_SHAPES,
) -> Batch:
    """Videos that share length and grid, as many as fit so many patches.

    Args:
        windows, rng: from which, and by what.
        diet: what is asked.
        patches: that fit.
        sparse: share of the windows of 16 frames of which every second one is shown, at less than half the price.
        grids: one is drawn.
        shapes: frames and steps between them; one is drawn.
    """
    shape = shapes[int(rng.integers(len(shapes)))]
    grid_hw = grids[int(rng.integers(len(grids)))]
    thin = shape[0] == 16 and rng.random() < sparse
    count = _samples_within(patches, (shape[0] // (2 if thin else 1) + 1) // 2, grid_hw)
    samples = []
    while len(samples) < count:
        samples.append(_draw_sample(windows, rng, diet, shape, grid_hw, is_video=True, thin=thin))
    return assemble(samples, grid_hw, is_video=True, rng=rng)


def draw_image_batch(windows: Windows, rng: np.random.Generator, diet: Diet, patches: int) -> Batch:
    """Single images on one grid, as many as fit so many patches."""
    grid_hw = IMAGE_GRIDS[int(rng.integers(len(IMAGE_GRIDS)))]
    samples = [
        _draw_sample(windows, rng, diet, (16, 1), grid_hw, is_video=False) for _ in range(_samples_within(patches, 1, grid_hw))
    ]
    return assemble(samples, grid_hw, is_video=False, rng=rng)


def _samples_within(patches: int, steps: int, grid_hw: tuple[int, int]) -> int:
    return max(2, patches // (MERGE_SIZE**2 * steps * grid_hw[0] * grid_hw[1]))


def _draw_sample(
    windows: Windows,
    rng: np.random.Generator,
    diet: Diet,
    shape: tuple[int, int],
    grid_hw: tuple[int, int],
    is_video: bool,
    thin: bool = False,
) -> Drawn:
    """Some view with questions, the background last."""
    count, stride = shape
    lasts = count if is_video and count > 4 else 0  # else a few frames, of which only what lasts can be said
    while True:
        drawn = windows.draw(rng, shape if lasts else (16, 1), diet.objects)
        if drawn is None:
            shape, lasts = (16, 1), 16
            continue
        clip, window = drawn
        frames = window.frames
        sentences: Sequence[Sentence] = window.sentences
        if not is_video:
            frames = frames[[int(rng.integers(len(frames)))]]
        elif not lasts:
            frames = frames[-count * stride :: stride][-count:]
            sentences = [s for s in sentences if s.kind in (*STATIC_KINDS, "held", "absent")]
        elif thin:
            frames = frames[1::2]  # the last one among them
        view = _draw_view(clip, frames, rng, grid_hw)
        if view.size_hw != SIZE_HW:
            sentences = [s for s in sentences if s.kind not in _CROPPED_OUT]
        asked = [s for s in draw_sentences(sentences, rng, diet.objects, 2 * diet.questions) if _is_shown(view, s)][
            : diet.questions
        ]
        if not asked:
            continue
        asked = [asked[index % len(asked)] for index in range(diet.questions)]
        questions = [object_question(sentence, rng, view.mirrored) for sentence in asked]
        for _ in range(diet.presences):
            told = diet.tally.draw(sentences, rng)
            if told is None or not _is_shown(view, told):
                told = asked[0]
            questions.append(presence_question(told, rng, view.mirrored))
        for _ in range(diet.boxes):
            questions.append(_box(view, asked, rng, grid_hw) or questions[int(rng.integers(diet.questions))])
        questions.append(background_question(clip.table_top, questions, rng))
        return view, questions


def _draw_view(clip: Clip, frames: npt.NDArray[np.int64], rng: np.random.Generator, grid_hw: tuple[int, int]) -> View:
    """All of the image, or a part of it in the proportions of the grid, as it is or mirrored."""
    height, width = SIZE_HW
    scale = min(height / grid_hw[0], width / grid_hw[1])
    if rng.random() < 0.4:
        scale *= float(rng.uniform(0.75, 1.0))
    size_hw = (scale * grid_hw[0], scale * grid_hw[1])
    corner_yx = (float(rng.uniform(0, height - size_hw[0])), float(rng.uniform(0, width - size_hw[1])))
    return View(clip, frames, corner_yx, size_hw, bool(rng.random() < 0.5))


def _is_shown(view: View, sentence: Sentence) -> bool:
    """Whether some frame of a view that tells shows more than half of the box around what a sentence means."""
    whole = len(view.frames) > 1 and view.size_hw == SIZE_HW  # as it was when the sentence was found to be true
    if sentence.target is None or whole:
        return True
    telling = _telling(view.clip.times_s[view.frames], sentence.evidence_s)
    boxes = view.clip.boxes_tn4[view.frames[telling], sentence.target].astype(np.float64)
    if boxes.size == 0:
        return False
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    (top, left), (height, width) = view.corner_yx, view.size_hw
    wide = np.minimum(boxes[:, 2], left + width) - np.maximum(boxes[:, 0], left)
    high = np.minimum(boxes[:, 3], top + height) - np.maximum(boxes[:, 1], top)
    return bool(((areas > 0) & (np.maximum(wide, 0) * np.maximum(high, 0) > 0.6 * areas)).any())


def _telling(times_s: npt.NDArray[np.float32], evidence_s: tuple[float, float]) -> npt.NDArray[np.bool_]:
    return (times_s >= evidence_s[0] - _EVIDENCE_SLACK_S) & (times_s <= evidence_s[1] + _EVIDENCE_SLACK_S)


def _box(view: View, asked: Sequence[Sentence], rng: np.random.Generator, grid_hw: tuple[int, int]) -> Question | None:
    """The box of one of the things asked for, if it is wholly in the view."""
    sentence = asked[int(rng.integers(len(asked)))]
    assert sentence.target is not None
    left, top, right, bottom = view.clip.boxes_tn4[view.frames[0], sentence.target].astype(np.float64)
    (y, x), (height, width) = view.corner_yx, view.size_hw
    box = np.array([(left - x) / width, (top - y) / height, (right - x) / width, (bottom - y) / height])
    if right <= left or box.min() < 0 or box.max() > 1:
        return None
    if view.mirrored:
        box[[0, 2]] = 1 - box[[2, 0]]
    pixels = np.round(box * TOKEN_PIXELS * np.array([grid_hw[1], grid_hw[0]] * 2)).astype(np.int64)
    return box_question(sentence, pixels, rng, view.mirrored)


def assemble(
    samples: Sequence[Drawn], grid_hw: tuple[int, int], is_video: bool, rng: np.random.Generator | None = None
) -> Batch:
    """A batch from views of equally many frames.

    Args:
        samples: with equally many questions each.
        grid_hw: of the visual tokens.
        is_video: see :class:`Batch`.
        rng: of what the camera's sensor does to the images; they stay as they are without.
    """
    views = [view for view, _ in samples]
    images, labels = _pictures(views, grid_hw)
    if rng is not None:
        images = _as_another_sensor(images, rng)
    device = images.device
    held, moved, fallen = (np.stack(values) for values in zip(*(_states(view) for view in views), strict=True))
    questions = tuple(tuple(asked) for _, asked in samples)
    targets = torch.tensor([[question.target for question in asked] for asked in questions])
    evidence = [
        [_by_steps(_telling(view.clip.times_s[view.frames], question.evidence_s)[:, None])[:, 0] for question in asked]
        for view, asked in samples
    ]
    intervals = [float(np.diff(view.clip.times_s[view.frames]).mean()) if len(view.frames) > 1 else 1.0 for view in views]
    return Batch(
        pixels=_patches(images),
        coverage=_coverage(labels, grid_hw),
        kinds=sent(_of_things([[KIND_INDEX[kind] for kind in view.clip.kinds] for view in views]), device),
        colours=sent(_of_things([[COLOUR_INDEX[colour] for colour in view.clip.colours] for view in views]), device),
        held=sent(torch.from_numpy(held), device),
        moved=sent(torch.from_numpy(moved), device),
        fallen=sent(torch.from_numpy(fallen), device),
        # As the processor has it: a lone frame has a nominal rate of 1 Hz.
        seconds_per_step=tuple(TEMPORAL_PATCH_SIZE * interval for interval in intervals),
        is_video=is_video,
        questions=questions,
        targets=sent(targets, device),
        evidence=sent(torch.from_numpy(np.asarray(evidence, dtype=np.float32)), device),
    )


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, to which it gets without a wait for what the device has to do before."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _of_things(rows: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([[*row, *[-1] * (MAX_THINGS - len(row))] for row in rows])


def _states(view: View) -> tuple[npt.NDArray[np.float32], ...]:
    """``(T', MAX_THINGS)`` each: held, moved, fallen."""
    clip, frames = view.clip, view.frames
    away = np.linalg.norm(clip.positions_tn3[frames] - clip.positions_tn3[frames[:1]], axis=-1) > _MOVED_METRES
    tipped = np.abs(clip.tilts_tn[frames] - clip.tilts_tn[frames[:1]]) > _FALLEN_RADIANS
    states = []
    for flags in (clip.held_tn[frames], away, tipped):
        by_steps = _by_steps(flags)
        state = np.zeros((len(by_steps), MAX_THINGS), dtype=np.float32)
        state[:, : by_steps.shape[1]] = by_steps
        states.append(state)
    return tuple(states)


def _by_steps(flags_tn: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """``(T', N)``: whether either of the two frames of a step; an odd last one is repeated."""
    if len(flags_tn) % TEMPORAL_PATCH_SIZE:
        flags_tn = np.concatenate([flags_tn, flags_tn[-1:]])
    return flags_tn.reshape(-1, TEMPORAL_PATCH_SIZE, flags_tn.shape[1]).any(axis=1)


def _pictures(views: Sequence[View], grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """``(B, T, 3, H, W)`` float32 in 0..1, and ``(B, T, H, W)`` uint8 labels, at the grid's own size."""
    device = views[0].clip.images.device
    part_hw = tuple(
        min(side, math.ceil(max(view.size_hw[axis] for view in views)) + 2 * _MARGIN) for axis, side in enumerate(SIZE_HW)
    )
    origins = [
        [min(max(0, math.floor(view.corner_yx[axis]) - _MARGIN), SIZE_HW[axis] - part_hw[axis]) for axis in range(2)]
        for view in views
    ]
    parts = [
        (view.run, slice(y, y + part_hw[0]), slice(x, x + part_hw[1])) for view, (y, x) in zip(views, origins, strict=True)
    ]
    images = torch.stack([view.clip.images[part] for view, part in zip(views, parts, strict=True)])
    labels = torch.stack([view.clip.instances[part] for view, part in zip(views, parts, strict=True)])
    corners = [
        [view.corner_yx[0] - y, view.corner_yx[1] - x, *view.size_hw, -1.0 if view.mirrored else 1.0]
        for view, (y, x) in zip(views, origins, strict=True)
    ]
    grid = _sampling_grid(corners, (grid_hw[0] * TOKEN_PIXELS, grid_hw[1] * TOKEN_PIXELS), part_hw, device)
    count = images.shape[1]
    flat = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    flat = F.grid_sample(flat, grid.repeat_interleave(count, 0), "bicubic", "border", align_corners=False).clamp(0, 1)
    of_labels = F.grid_sample(
        labels.flatten(0, 1)[:, None].float(), grid.repeat_interleave(count, 0), "nearest", "border", align_corners=False
    )
    batch = len(views)
    return flat.unflatten(0, (batch, count)), of_labels[:, 0].round().to(torch.uint8).unflatten(0, (batch, count))


def _sampling_grid(
    corners: Sequence[Sequence[float]], size_hw: tuple[int, int], of_hw: tuple[int, ...], device: torch.device
) -> Tensor:
    """``(B, H, W, 2)`` where each pixel of a view lies in an image, in -1..1.

    Args:
        corners: for each view, top, left, height and width in pixels of the image, and -1 for its mirror image, else 1.
        size_hw: of the views.
        of_hw: of the images.
        device: where.
    """
    height, width = of_hw
    top, left, high, wide, side = (column[:, None] for column in sent(torch.tensor(corners), device).unbind(1))
    rows = (top + high * (torch.arange(size_hw[0], device=device) + 0.5) / size_hw[0]) * 2 / height - 1
    along = side * ((torch.arange(size_hw[1], device=device) + 0.5) / size_hw[1] - 0.5) + 0.5
    columns = (left + wide * along) * 2 / width - 1
    return torch.stack([columns[:, None].expand(-1, size_hw[0], -1), rows[:, :, None].expand(-1, -1, size_hw[1])], dim=-1)


def _as_another_sensor(images: Tensor, rng: np.random.Generator) -> Tensor:
    """The images with other gains, contrast, sharpness and noise, the same ones for all frames of a sample."""
    batch, device = images.shape[0], images.device
    gains = torch.from_numpy(rng.uniform(0.85, 1.15, (batch, 1, 1, 1, 1)) * rng.uniform(0.95, 1.05, (batch, 1, 3, 1, 1)))
    lift = torch.from_numpy(rng.uniform(-0.05, 0.05, (batch, 1, 1, 1, 1)))
    images = images * sent(gains.float(), device) + sent(lift.float(), device)
    if rng.random() < 0.25:
        flat = images.flatten(0, 1)
        images = flat.lerp(F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, 1), float(rng.uniform(0.2, 0.9)))
        images = images.unflatten(0, (batch, -1))
    if rng.random() < 0.5:
        images = images + float(rng.uniform(0, 0.02)) * torch.randn_like(images)
    return images.clamp(0, 1)


def _coverage(labels: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """``(B, T', h, w, MAX_THINGS + 1)`` from ``(B, T, H, W)`` labels."""
    if labels.shape[1] % TEMPORAL_PATCH_SIZE:
        labels = torch.cat([labels, labels[:, -1:]], dim=1)
    batch, frames = labels.shape[:2]
    flat = labels.flatten(0, 1)
    of_things = [
        F.avg_pool2d((flat == label)[:, None].float(), TOKEN_PIXELS)[:, 0] for label in (*range(1, MAX_THINGS + 1), ARM_LABEL)
    ]
    stacked = torch.stack(of_things, dim=-1)  # (B * T, h, w, things)
    return stacked.view(batch, frames // TEMPORAL_PATCH_SIZE, TEMPORAL_PATCH_SIZE, *grid_hw, MAX_THINGS + 1).mean(dim=2)


def _patches(images: Tensor) -> Tensor:
    """``(B * patches, channels)`` float32: normalised, in the order of Qwen's processor; an odd last frame is repeated."""
    images = torch.stack([(images[:, :, c] - OPENAI_CLIP_MEAN[c]) / OPENAI_CLIP_STD[c] for c in range(3)], dim=2)
    if images.shape[1] % TEMPORAL_PATCH_SIZE:
        images = torch.cat([images, images[:, -1:]], dim=1)
    batch, frames, channels, height, width = images.shape
    cell = MERGE_SIZE * PATCH_SIZE
    patches = images.view(
        batch, frames // TEMPORAL_PATCH_SIZE, TEMPORAL_PATCH_SIZE, channels,
        height // cell, MERGE_SIZE, PATCH_SIZE, width // cell, MERGE_SIZE, PATCH_SIZE,
    )  # fmt: skip
    patches = patches.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
    return patches.reshape(-1, channels * TEMPORAL_PATCH_SIZE * PATCH_SIZE**2)
