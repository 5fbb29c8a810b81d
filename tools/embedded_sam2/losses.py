"""One training step of a SAM 2.1: the unrolled tracker and its losses.

The losses are those of SAM 2 (appendix on training) adapted to a small world; where they differ, the function says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from sam2.modeling.sam2_base import SAM2Base

from tools.embedded_sam2.data import Batch

# SAM 2 numbers the frames of a stream without end; a clip's length must not show in the time encoding of the pointers.
STREAM_LENGTH = 100_000
_MAX_GAP = 3000


class DecoderTap:
    """Hands out what the mask decoder computed, before sam2 blanks the masks of objects that it takes for absent.

    sam2 goes on with its own prediction of presence, or with ``forced_visible`` (``(N,)`` float32) where that is set.
    """

    def __init__(self, model: SAM2Base) -> None:
        self.forced_visible: torch.Tensor | None = None
        self.masks = self.ious = self.presence = torch.empty(0)
        model.sam_mask_decoder.register_forward_hook(self._keep)

    def _keep(self, module: torch.nn.Module, args: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        self.masks, self.ious, tokens, self.presence = output
        if self.forced_visible is None:
            return output
        return self.masks, self.ious, tokens, (20 * self.forced_visible - 10)[:, None]


def clip_losses(
    model: SAM2Base,
    tap: DecoderTap,
    batch: Batch,
    rng: np.random.Generator,
    forced: float = 0.0,
    absent_weight: float = 2.0,
) -> dict[str, torch.Tensor]:
    """Unroll the tracker over a batch and average the losses of its frames.

    Args:
        model: in training mode, tapped by ``tap``.
        batch: on the model's device.
        rng: decides whether time passes unseen after the first frame, as for an object that was prompted long ago, and whether
            this batch's memory is written with the true presence.
        forced: chance of the latter.
        absent_weight: by how much more than others frames without the object count for presence: they are rare, and a mask
            invented on one is what a tracker follows from then on.

    Returns:
        Scalars ``mask``, ``iou``, ``presence``, and the weighted sum ``total`` to go backwards from; and for the log ``right``
        and ``seen``, ``invented`` and ``hidden``: the IoU of the preferred masks summed over the frames that show their object,
        the number of these frames, and the same for masks where there is nothing.
    """
    levels, positions, sizes = _encode(model, batch)
    memory: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    gap = int(np.exp(rng.uniform(0, np.log(_MAX_GAP)))) if rng.random() < 0.3 else 1
    teach = rng.random() < forced
    losses: list[torch.Tensor] = []
    for step in range(batch.frame_count):
        index = 0 if step == 0 else step - 1 + gap
        tap.forced_visible = batch.visible[:, step] if teach else None
        output = model.track_step(
            frame_idx=index,
            is_init_cond_frame=step == 0,
            current_vision_feats=[_for_each_object(frames[step], batch.objects) for frames in levels],
            current_vision_pos_embeds=[level[:, :1].expand(-1, len(batch.targets), -1) for level in positions],
            feat_sizes=sizes,
            point_inputs=_click_inputs(batch) if step == 0 else None,
            mask_inputs=batch.masks if step == 0 else None,
            output_dict=memory,
            num_frames=STREAM_LENGTH,
            run_mem_encoder=batch.frame_count > 1,
        )
        memory["cond_frame_outputs" if step == 0 else "non_cond_frame_outputs"][index] = output
        losses.append(_frame_losses(tap, batch, step, absent_weight))
    mask, iou, presence, *counts = torch.stack(losses).mean(dim=0)
    counted = dict(zip(("right", "seen", "invented", "hidden"), counts, strict=True))
    return {"mask": mask, "iou": iou, "presence": presence, "total": mask + iou + 2 * presence, **counted}


def _encode(model: SAM2Base, batch: Batch) -> tuple[list[tuple[torch.Tensor, ...]], list[torch.Tensor], list[tuple[int, int]]]:
    """Of each level: ``T`` features ``(h * w, B, C)``, the positions ``(h * w, B * T, C)``, and ``(h, w)``."""
    _, features, positions, sizes = model._prepare_backbone_features(model.forward_image(batch.images))
    return [level.unflatten(1, (-1, batch.frame_count)).unbind(dim=2) for level in features], positions, sizes


def _for_each_object(level: torch.Tensor, objects: int) -> torch.Tensor:
    """``(h * w, N, C)`` from ``(h * w, B, C)``."""
    return level[:, :, None].expand(-1, -1, objects, -1).flatten(1, 2)


def _click_inputs(batch: Batch) -> dict[str, torch.Tensor] | None:
    if batch.points is None:
        return None
    labels = torch.ones(len(batch.points), 1, dtype=torch.int32, device=batch.points.device)
    return {"point_coords": batch.points[:, None], "point_labels": labels}


def _frame_losses(tap: DecoderTap, batch: Batch, step: int, absent_weight: float) -> torch.Tensor:
    """``(7,)``: losses of masks, predicted IoU and presence on one frame, and the counts for the log.

    SAM 2 supervises the mask with the lowest loss alone; here the others count as much together, since these things have no
    parts that a click could mean instead, and then the choice among the masks can do less harm. Cross-entropy pulls the
    predicted IoU, since its gradient does not die where the sigmoid is flat.
    """
    target, visible, clear = batch.targets[:, step], batch.visible[:, step], batch.clear[:, step]
    logits = F.interpolate(tap.masks, size=target.shape[-2:], mode="bilinear", align_corners=False)
    anything = batch.anything[:, step].repeat_interleave(batch.objects, dim=0)
    per_mask = _mask_losses(logits, target, anything)
    supervised = visible * clear
    mask = 0.5 * (per_mask.min(dim=1).values + per_mask.mean(dim=1)) * supervised
    ious = true_ious(logits, target)
    iou = F.binary_cross_entropy(tap.ious.clamp(1e-4, 1 - 1e-4), ious, reduction="none").mean(dim=1) * clear
    weight = clear * (1 + absent_weight * (1 - visible))
    presence = F.binary_cross_entropy_with_logits(tap.presence[:, 0], visible, weight, reduction="none")
    shown = (tap.presence[:, 0].detach() > 0).float()
    right = ious.gather(1, tap.ious.detach().argmax(dim=1, keepdim=True))[:, 0] * shown * supervised
    hidden = (1 - visible) * clear
    counts = torch.stack([right, supervised, hidden * shown, hidden]).sum(dim=1)
    return torch.cat([torch.stack([mask.mean(), iou.mean(), presence.mean()]), counts])


def _mask_losses(logits: torch.Tensor, target: torch.Tensor, anything: torch.Tensor) -> torch.Tensor:
    """``(N, M)``: cross-entropy, with three times the weight where anything is, and dice, of ``(N, M, h, w)`` logits."""
    target = target[:, None].expand_as(logits)
    weight = 1 + 2 * anything[:, None]
    entropy = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).mean(dim=(2, 3))
    probability = logits.sigmoid()
    overlap = 2 * (probability * target).sum(dim=(2, 3)) + 1
    dice = 1 - overlap / (probability.sum(dim=(2, 3)) + target.sum(dim=(2, 3)) + 1)
    return 5 * entropy + dice


@torch.no_grad()
def true_ious(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``(N, M)`` float32: IoU of ``(N, M, h, w)`` logits above 0 with ``(N, h, w)`` targets from a half on; 0 without one."""
    predicted, truth = logits > 0, (target >= 0.5)[:, None]
    union = (predicted | truth).sum(dim=(2, 3))
    return (predicted & truth).sum(dim=(2, 3)) / union.clamp(min=1)
