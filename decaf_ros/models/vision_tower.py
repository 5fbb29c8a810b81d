"""The vision tower of the Qwen family, told what it would work out for itself, and its windows read together.

Its attention is of segments: frames, and in Qwen2.5-VL windows of a frame, hundreds of an image. transformers makes one call
for each, unless an attention function has "flash" in its name; such a one gets all segments at once, and where they begin. And
where patches lie is worked out on the device of the grid, with a dozen waits for a GPU; here it is on the CPU. Steps in time of
a video attend to themselves alone, so that what was made of one serves every video that it is a part of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from transformers import AttentionInterface
from transformers.utils import ModelOutput

from decaf_ros.models.devices import on_device

try:
    from transformers import vision_utils
except ImportError:  # an older transformers, whose towers can be told nothing
    vision_utils = None  # type: ignore[assignment]

_IMPLEMENTATION = "decaf_flash_segments"


@dataclass(frozen=True, eq=False)
class StepFeatures:
    """What a vision tower makes of one step in time of a video, which attends to no other.

    Attributes:
        kind: of the tower's output.
        parts: by its field ``(tokens, channels)``, or several of these from different depths.
    """

    kind: type[ModelOutput]
    parts: Mapping[str, tuple[torch.Tensor, ...]]

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""
        return sum(tensor.nbytes for tensors in self.parts.values() for tensor in tensors)


# Of each step its features; ``None`` in the place of those that are yet to be seen.
_steps: ContextVar[list[Any] | None] = ContextVar("decaf_steps", default=None)


@contextmanager
def in_steps(known: Sequence[StepFeatures | None]) -> Iterator[list[StepFeatures]]:
    """Within this, a tower in this thread is given one video, and of it only the patches of steps that are not known.

    Args:
        known: of each step of the video, what the tower made of it earlier, or ``None``.

    Yields:
        The same list, with what was not known once the tower was called.
    """
    steps: list[Any] = list(known)
    token = _steps.set(steps)
    try:
        yield steps
    finally:
        _steps.reset(token)


def read_together(tower: Any) -> None:
    """Have a vision tower read segments of one length in one call, take a grid on the CPU, and know :func:`in_steps`."""
    AttentionInterface.register(_IMPLEMENTATION, _segments_attention)
    tower.config._attn_implementation = _IMPLEMENTATION  # past the setter, which looks for the library of that name
    if not isinstance(tower.forward, partial):
        tower.forward = partial(_forward, tower, tower.forward)


def _forward(
    tower: Any, forward: Callable[..., ModelOutput], pixels: torch.Tensor, grid_thw: torch.Tensor, **kwargs: Any
) -> ModelOutput:
    """The tower's own, of the steps that are not known; then of all of them."""
    steps = _steps.get()
    if steps is None:
        return forward(pixels, **_layout(tower, grid_thw, pixels.device), **kwargs)
    ((count, rows, columns),) = grid_thw.tolist()
    assert count == len(steps), "one video"
    if unknown := [index for index, step in enumerate(steps) if step is None]:
        layout = _layout(tower, torch.tensor([[len(unknown), rows, columns]]), pixels.device)
        seen = _by_step(forward(pixels, **layout, **kwargs), rows * columns // tower.spatial_merge_size**2)
        for index, step in zip(unknown, seen, strict=True):
            steps[index] = step
    return _together(steps)


def _by_step(output: ModelOutput, tokens: int) -> list[StepFeatures]:
    """What was made of every step, with memory of its own."""
    fields = {name: value for name, value in output.items() if name != "last_hidden_state"}  # before patches are merged
    split = {name: [part.split(tokens) for part in _listed(value)] for name, value in fields.items()}
    count = len(next(iter(split.values()))[0])
    return [
        StepFeatures(type(output), {name: tuple(part[step].clone() for part in parts) for name, parts in split.items()})
        for step in range(count)
    ]


def _together(steps: Sequence[StepFeatures]) -> ModelOutput:
    parts = {
        name: [torch.cat(of_steps) for of_steps in zip(*(step.parts[name] for step in steps), strict=True)]
        for name in steps[0].parts
    }
    single = {name: of_field[0] if name == "pooler_output" else of_field for name, of_field in parts.items()}
    return steps[0].kind(**single)


def _listed(value: Any) -> Sequence[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else value


def _layout(tower: Any, grid_thw: torch.Tensor, device: torch.device) -> dict[str, Any]:
    """Arguments that tell where patches lie and segments begin: indices on the tower's device, bounds on the CPU."""
    grid_thw = grid_thw.cpu()
    if vision_utils is None:
        return {"grid_thw": grid_thw.to(device)}
    merged = tower.spatial_merge_size
    indices = {"position_ids": vision_utils.get_vision_position_ids(grid_thw, merged)}
    bounds = {"cu_seqlens": vision_utils.get_vision_cu_seqlens(grid_thw)}
    if hasattr(tower, "window_size"):
        indices["window_index"], bounds["cu_window_seqlens"] = vision_utils.get_vision_window_index(
            grid_thw, spatial_merge_size=merged, window_size=tower.window_size, patch_size=tower.patch_size
        )
    if hasattr(tower, "num_grid_per_side"):  # learned positions, interpolated
        indices["interp_indices"], indices["interp_weights"] = vision_utils.get_vision_interpolation_indices_and_weights(
            grid_thw,
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=merged,
        )
    return {"grid_thw": grid_thw, **bounds, **{name: on_device(tensor, device) for name, tensor in indices.items()}}


def _segments_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within segments: ``(1, N, heads, d)`` from three of ``(1, heads, N, d)``; names are transformers' own."""
    return attend_in_segments(query, key, value, cu_seq_lens_q, partial(F.scaled_dot_product_attention, scale=scaling)), None


def attend_in_segments(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Attention within segments, those of one length in one call.

    Args:
        query, key, value: ``(1, heads, N, d)``.
        bounds: ``(segments + 1,)`` where segments begin, and the last one ends.
        attend: attention itself, ``(segments, heads, length, d)`` from three of this shape.

    Returns:
        ``(1, N, heads, d)``.
    """
    segments = _segments_by_length(bounds, query.device)
    if len(segments) == 1:  # one behind another
        q, k, v = (states[0].unflatten(1, segments[0].shape).transpose(0, 1) for states in (query, key, value))
        return attend(q, k, v).transpose(1, 2).flatten(0, 1)[None]
    order = torch.cat([places_sl.flatten() for places_sl in segments])
    sorted_hnd = [states[0].index_select(1, order) for states in (query, key, value)]
    output = torch.empty_like(query[0].transpose(0, 1), memory_format=torch.contiguous_format)
    first = 0
    for places_sl in segments:
        end = first + places_sl.numel()
        q, k, v = (states[:, first:end].unflatten(1, places_sl.shape).transpose(0, 1) for states in sorted_hnd)
        output[places_sl] = attend(q, k, v).transpose(1, 2).to(output.dtype)  # autocast may have chosen another one
        first = end
    return output[None]


def _segments_by_length(bounds: Any, device: torch.device) -> list[torch.Tensor]:
    """For each length, ``(segments, length)``: where the tokens of all segments of that length stand.

    Kept with the bounds, which are the same tensor in all layers of a pass.
    """
    if not hasattr(bounds, "segments_by_length"):
        starts, lengths = bounds[:-1].cpu(), bounds.diff().cpu()
        groups = [(length, starts[lengths == length, None]) for length in dict.fromkeys(lengths.tolist())]
        bounds.segments_by_length = [on_device((first + torch.arange(length)).long(), device) for length, first in groups]
    return bounds.segments_by_length
