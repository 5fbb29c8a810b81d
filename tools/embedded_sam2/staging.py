"""What is made to happen to clips of the table, in batches on the device, so that a tracker loses its objects often enough.

The camera looks at a part of the table, away from it and back; doubles of an object stand beside it; things, arms and screens
cut out of other clips pass in front of it. Of each clip one thing, its *target*, is what all this is about.

Places are ``(x, y)`` in fractions of half the image from its middle, -1 to 1, as torch's ``grid_sample`` takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import torch
import torch.nn.functional as F  # noqa: N812

from decaf_ros.synthetic.table.scene import ARM_LABEL as ARM

# Labels beside 0 for the table, i + 1 for thing i, and ARM.
SCREEN = 254
DOUBLE = 128
ELSEWHERE = 64  # is added to the things of another clip

_FAR_AWAY = 10.0


@dataclass(frozen=True, eq=False)
class Shots:
    """``B`` clips of ``T`` frames.

    Attributes:
        images: ``(B, T, 3, S, S)`` float32 in [0, 1].
        labels: ``(B, T, S, S)`` uint8.
    """

    images: torch.Tensor
    labels: torch.Tensor


def stage(images: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor, size: int) -> Shots:
    """Clips as they could have been.

    Args:
        images: ``(B, T, H, W, 3)`` uint8.
        labels: ``(B, T, H, W)`` uint8.
        targets: ``(B,)`` uint8, the label of each clip's target.
        size: side of the result in pixels.
    """
    shots = look_around(images, labels, targets, size)
    shots = add_others(shots, targets)
    shots = let_pass(shots, targets)
    return Shots(light(shots.images), shots.labels)


def look_around(images: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor, size: int) -> Shots:
    """What a camera sees that shows the target first. Where it looks beyond the image, the next clip of the batch is."""
    clips, steps = labels.shape[:2]
    device = labels.device
    here = whereabouts(labels[:, :1] == targets[:, None, None, None])
    place, reach = here.places[:, 0], here.reaches[:, 0]
    still = _chance(0.35, (clips, 1), device)
    zoom = torch.where(still, 1.0, _uniform(0.55, 1.15, (clips, 1), device))
    room = (1 - zoom).abs() + 0.1
    centre = torch.clamp(place + _uniform(-0.8, 0.8, (clips, 2), device) * zoom, -room, room).masked_fill(still, 0.0)
    time = torch.linspace(0, 1, steps, device=device)[None, :, None]
    drift = _uniform(-0.2, 0.2, (clips, 1, 2), device) * time * (_chance(0.5, (clips, 1), device) & ~still)[:, None]
    away = _directions(clips, device)
    far = zoom + (away * (place - centre)).sum(dim=1, keepdim=True) + (away.abs() * reach).sum(dim=1, keepdim=True)
    excursion = away * far * _uniform(1.05, 1.6, (clips, 1), device) * _chance(0.35, (clips, 1), device)
    centres = centre[:, None] + drift + excursion[:, None] * _pulse(clips, steps, device)[..., None]
    stretch = zoom * torch.where(still, 1.0, _uniform(0.85, 1.15, (clips, 2), device))
    stretch = stretch * torch.stack([_signs(clips, device), torch.ones(clips, device=device)], dim=1)  # mirrored or not
    seen = centres[:, :, None, None] + stretch[:, None, None, None] * _grid(size, device)
    inside = (seen.abs() <= 1).all(dim=-1, keepdim=True)
    wrapped = (seen + 1) % 2 - 1
    halves = torch.where(inside, wrapped[..., :1] / 2 - 0.5, wrapped[..., :1] / 2 + 0.5)
    seen = torch.cat([halves, wrapped[..., 1:]], dim=-1).flatten(0, 1)
    beside = labels.roll(1, dims=0)
    beside = beside + ELSEWHERE * ((beside > 0) & (beside < ELSEWHERE))
    pixels = torch.cat([images, images.roll(1, dims=0)], dim=3).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    marks = torch.cat([labels, beside], dim=3).flatten(0, 1)[:, None].float()
    filmed = F.grid_sample(pixels, seen, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)
    marked = F.grid_sample(marks, seen, mode="nearest", padding_mode="border", align_corners=False)[:, 0]
    return Shots(filmed.unflatten(0, (clips, steps)), marked.to(torch.uint8).unflatten(0, (clips, steps)))


def add_others(shots: Shots, targets: torch.Tensor) -> Shots:
    """In half of the clips, put a double of the target beside it, or the target of another clip somewhere."""
    clips, steps = shots.labels.shape[:2]
    device = shots.labels.device
    cut = _cut_out_targets(shots, targets)
    kin = _chance(0.6, (clips, 1), device)
    other = _rolled(cut, 2)
    cut = _Cutouts(
        torch.where(kin[..., None, None], cut.rgba, other.rgba),
        torch.where(kin, cut.places, other.places),
        torch.where(kin, cut.reaches, other.reaches),
    )
    mine = whereabouts(shots.labels[:, 0] == targets[:, None, None])
    turned = _turned(clips, device)
    beside = mine.places + turned * (mine.reaches + cut.reaches) * _uniform(1.1, 3.0, (clips, 1), device)
    start = torch.where(kin, beside, _uniform(-0.9, 0.9, (clips, 2), device))
    way = _uniform(-0.8, 0.8, (clips, 2), device) * _chance(0.4, (clips, 1), device)
    places = start[:, None] + way[:, None] * torch.linspace(0, 1, steps, device=device)[None, :, None]
    places = places + _FAR_AWAY * ~_chance(0.5, (clips, 1, 1), device)
    labels = torch.full((clips,), DOUBLE, dtype=torch.uint8, device=device)
    return _paste(shots, cut, places, _uniform(0.8, 1.25, (clips, 1), device), labels)


def let_pass(shots: Shots, targets: torch.Tensor) -> Shots:
    """In two thirds of the clips, let something pass over the target, or come to rest in front of it."""
    clips, steps = shots.labels.shape[:2]
    device = shots.labels.device
    mine = whereabouts(shots.labels == targets[:, None, None, None]).held()
    first = Whereabouts(mine.places[:, 0], mine.reaches[:, 0], mine.counts[:, 0])
    things = _cut_out_targets(shots, targets)
    arms = _rolled(_cut_out(shots, shots.labels[:, steps // 2] == ARM, steps // 2), 3)
    screens = _screens(shots, first)
    kind = any_of((0.25, 0.15, 0.3, 0.3), (clips,), device)
    cut = _chosen(kind, [_rolled(things, 1), things, arms, screens])
    labels = constant((DOUBLE, DOUBLE, ARM, SCREEN), device).to(torch.uint8)[kind]
    cover = _uniform(0.7, 1.7, (clips, 1), device)
    scale = torch.where(kind[:, None] < 2, cover * (first.reaches / cut.reaches).amax(dim=1, keepdim=True), 1.0)
    rest = _uniform(0.0, 0.5, (clips, 1), device)
    begin = -_uniform(1.0, 2.0, (clips, 1), device) - rest
    if steps == 1:
        begin = -_uniform(0.4, 2.0, (clips, 1), device)
    end = _uniform(-0.3, 2.5, (clips, 1), device) + rest
    along = begin + (end - begin) * torch.linspace(0, 1, steps, device=device)
    along = along.sign() * (along.abs() - rest).clamp(min=0)
    apart = _turned(clips, device) * (first.reaches + cut.reaches * scale)
    places = mine.places + apart[:, None] * along[..., None]
    places = places + _FAR_AWAY * ~_chance(0.65, (clips, 1, 1), device)
    return _paste(shots, cut, places, scale, labels)


def light(images: torch.Tensor) -> torch.Tensor:
    """The images under other light, by another sensor."""
    clips, steps, device = *images.shape[:2], images.device
    order = torch.rand(clips, 3, device=device).argsort(dim=1)
    order = torch.where(_chance(0.1, (clips, 1), device), order, torch.arange(3, device=device))
    images = images.gather(2, order[:, None, :, None, None].expand(images.shape))
    gain = _uniform(0.75, 1.25, (clips, 1, 1, 1, 1), device) * _uniform(0.92, 1.08, (clips, 1, 3, 1, 1), device)
    gain = gain * _uniform(0.97, 1.03, (clips, steps, 1, 1, 1), device)
    noise = torch.randn_like(images) * _uniform(0.0, 0.02, (clips, 1, 1, 1, 1), device)
    return (images * gain + noise).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Whereabouts:
    """Of masks.

    Attributes:
        places: ``(..., 2)`` their middles.
        reaches: ``(..., 2)`` about half their extents, at least a small one.
        counts: ``(...,)`` float pixels.
    """

    places: torch.Tensor
    reaches: torch.Tensor
    counts: torch.Tensor

    def held(self) -> Whereabouts:
        """``(B, T, ...)``: where a mask is empty, the place where it was last."""
        steps = torch.arange(self.counts.shape[1], device=self.counts.device)
        last = torch.where(self.counts > 0, steps, 0).cummax(dim=1).values[..., None].expand(self.places.shape)
        return Whereabouts(self.places.gather(1, last), self.reaches.gather(1, last), self.counts)


@cache
def constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """A tensor of these values. It is brought to the device once: a GPU stops for what is brought from elsewhere."""
    return torch.tensor(values, device=device)


def any_of(shares: tuple[float, ...], shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """int64 numbers of the alternatives, which have these shares."""
    return (torch.rand((*shape, 1), device=device) > constant(tuple(accumulate(shares[:-1])), device)).sum(dim=-1)


def whereabouts(masks: torch.Tensor) -> Whereabouts:
    """Of ``(..., H, W)`` bool masks."""
    height, width = masks.shape[-2:]
    y, x = torch.meshgrid(_ticks(height, masks.device), _ticks(width, masks.device), indexing="ij")
    powers = torch.stack([torch.ones_like(x), x, y, x * x, y * y], dim=-1).flatten(0, 1)
    sums = masks.flatten(-2).float() @ powers
    counts = sums[..., 0]
    means = sums[..., 1:] / counts.clamp(min=1)[..., None]
    places = means[..., :2]
    reaches = 2 * (means[..., 2:] - places.square()).clamp(min=0).sqrt()
    return Whereabouts(places, reaches.clamp(min=0.03), counts)


@dataclass(frozen=True, eq=False)
class _Cutouts:
    """One for each clip: ``(B, 4, S, S)`` picture and opacity, ``(B, 2)`` where it is in that picture, and how large."""

    rgba: torch.Tensor
    places: torch.Tensor
    reaches: torch.Tensor


def _cut_out(shots: Shots, masks: torch.Tensor, step: int) -> _Cutouts:
    """What ``(B, S, S)`` masks show of one frame."""
    found = whereabouts(masks)
    return _Cutouts(torch.cat([shots.images[:, step], masks[:, None].float()], dim=1), found.places, found.reaches)


def _cut_out_targets(shots: Shots, targets: torch.Tensor) -> _Cutouts:
    return _cut_out(shots, shots.labels[:, 0] == targets[:, None, None], 0)


def _screens(shots: Shots, around: Whereabouts) -> _Cutouts:
    """Rectangles and blobs as large as the targets or larger, of one colour or with the picture of another clip."""
    clips, size, device = len(shots.labels), shots.labels.shape[-1], shots.labels.device
    reaches = around.reaches * _uniform(0.9, 2.0, (clips, 2), device)
    x, y = (_grid(size, device) / reaches[:, None, None]).unbind(dim=-1)
    turn = torch.atan2(y, x)
    lobes = torch.randint(2, 6, (clips, 1, 1), device=device)
    ripple = 1 + 0.3 * torch.sin(lobes * turn + _uniform(0, 6.28, (clips, 1, 1), device))
    shapes = torch.where(
        _chance(0.5, (clips, 1, 1), device), torch.maximum(x.abs(), y.abs()) < 1, torch.hypot(x, y) < 1.15 * ripple
    )
    plain = torch.rand(clips, 3, 1, 1, device=device).expand(-1, -1, size, size)
    pictures = torch.where(_chance(0.5, (clips, 1, 1, 1), device), shots.images[:, 0].roll(4, dims=0), plain)
    return _Cutouts(torch.cat([pictures, shapes[:, None].float()], dim=1), torch.zeros_like(reaches), reaches)


def _paste(shots: Shots, cut: _Cutouts, places: torch.Tensor, scale: torch.Tensor, labels: torch.Tensor) -> Shots:
    """Put cutouts, enlarged by ``(B, 1)``, at ``(B, T, 2)`` places, with ``(B,)`` labels."""
    clips, steps, size = *shots.labels.shape[:2], shots.labels.shape[-1]
    shift = cut.places[:, None] - places / scale[:, None]
    turn = torch.eye(2, device=places.device) / scale[:, None, :, None]
    theta = torch.cat([turn.expand(-1, steps, -1, -1), shift[..., None]], dim=-1).flatten(0, 1)
    grid = F.affine_grid(theta, [clips * steps, 4, size, size], align_corners=False)
    rgba = F.grid_sample(cut.rgba.repeat_interleave(steps, dim=0), grid, align_corners=False)
    rgba = rgba.unflatten(0, (clips, steps))
    opacity = rgba[:, :, 3:]
    images = shots.images + (rgba[:, :, :3] - shots.images) * opacity
    return Shots(images, torch.where(opacity[:, :, 0] > 0.5, labels[:, None, None, None], shots.labels))


def _rolled(cut: _Cutouts, by: int) -> _Cutouts:
    return _Cutouts(cut.rgba.roll(by, 0), cut.places.roll(by, 0), cut.reaches.roll(by, 0))


def _chosen(kind: torch.Tensor, choices: list[_Cutouts]) -> _Cutouts:
    """For each clip the cutout of its ``(B,)`` kind."""
    result = choices[0]
    for number, choice in enumerate(choices[1:], start=1):
        is_this = (kind == number)[:, None]
        result = _Cutouts(
            torch.where(is_this[..., None, None], choice.rgba, result.rgba),
            torch.where(is_this, choice.places, result.places),
            torch.where(is_this, choice.reaches, result.reaches),
        )
    return result


def _pulse(clips: int, steps: int, device: torch.device) -> torch.Tensor:
    """``(B, T)``: 0 on the first frame, later 1 for a while."""
    time = torch.arange(steps, device=device)
    slope = _uniform(0.2, 0.2 + 0.3 * steps, (clips, 1), device)
    begin = _uniform(0.0, 0.6, (clips, 1), device) * (steps - 1)
    end = begin + 2 * slope + _uniform(0.5, 0.5 + 0.6 * steps, (clips, 1), device)
    return ((time - begin) / slope).clamp(0, 1) * ((end - time) / slope).clamp(0, 1)


def _grid(size: int, device: torch.device) -> torch.Tensor:
    """``(S, S, 2)`` places of the pixels."""
    y, x = torch.meshgrid(_ticks(size, device), _ticks(size, device), indexing="ij")
    return torch.stack([x, y], dim=-1)


def _ticks(count: int, device: torch.device) -> torch.Tensor:
    return (2 * torch.arange(count, device=device) + 1) / count - 1


def _uniform(low: float, high: float, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, device=device)


def _chance(share: float, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.rand(shape, device=device) < share


def _signs(count: int, device: torch.device) -> torch.Tensor:
    return 1 - 2 * _chance(0.5, (count,), device).float()


def _directions(count: int, device: torch.device) -> torch.Tensor:
    """``(B, 2)``: left, right, up or down."""
    across = _chance(0.5, (count,), device).float()
    return torch.stack([across, 1 - across], dim=1) * _signs(count, device)[:, None]


def _turned(count: int, device: torch.device) -> torch.Tensor:
    """``(B, 2)`` any direction."""
    angle = _uniform(0.0, 6.2832, (count,), device)
    return torch.stack([angle.cos(), angle.sin()], dim=1)
