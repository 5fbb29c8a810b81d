"""What the embedded Qwen2.5-VL is trained towards, besides its answers: where to look, and what every visual token shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from decaf_ros.synthetic.world import BACKGROUNDS, COLOURS_RGB, SHAPES
from tools.embedded_mllm.data import MAX_BODIES, Sample
from tools.embedded_mllm.questions import NO_BODY, ROLES

# Rollouts are trained towards the token's coverage to this power: smoothing widens the map again, and Otsu's masks are best
# (mean IoU about .55 instead of .46 for the ground truth itself) when the attention keeps to the core of the object.
COVERAGE_POWER = 6.0
# Sizes and motions are read in tokens, so that they look the same on every grid.
_TYPICAL_LOG_RADIUS, _TYPICAL_DISPLACEMENT = 0.5, 0.4


class DenseHeads(nn.Module):
    """Linear read-outs of every visual token, used in training only: what it shows, how large, where, how it moves.

    Args:
        channels: of the features.
        with_position: whether the position in the image is read out too; only the language model can know it.
    """

    def __init__(self, channels: int, with_position: bool) -> None:
        super().__init__()
        self._sizes = [len(SHAPES) + 1, len(COLOURS_RGB) + 1, len(BACKGROUNDS), len(ROLES), 1, 2, 2 if with_position else 0]
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, sum(self._sizes))

    def loss(self, features: Tensor, truth: DenseTruth) -> Tensor:
        """Sum of the losses of all read-outs of ``(B, N_v, C)`` features."""
        shape, colour, ground, roles, radius, motion, position = self.linear(self.norm(features)).split(self._sizes, dim=-1)
        on_body = truth.on_body
        weight = (0.15 + on_body) / (0.15 + on_body).sum()
        loss = -2 * (weight * (truth.shapes * shape.log_softmax(-1)).sum(-1)).sum()
        loss = loss - (weight * (truth.colours * colour.log_softmax(-1)).sum(-1)).sum()
        loss = loss + 0.3 * F.cross_entropy(ground.flatten(0, 1), truth.background)
        on_body = on_body / on_body.sum().clamp(min=1.0)
        role_loss = F.binary_cross_entropy_with_logits(roles, truth.roles, reduction="none").sum(-1)
        loss = loss + 0.3 * (on_body * role_loss).sum()
        loss = loss + 3 * (on_body * (radius[..., 0] - truth.log_radius).square()).sum()
        loss = loss + 8 * (on_body * (motion - truth.displacement).square().sum(-1)).sum()
        if position.shape[-1]:
            loss = loss + 3 * F.mse_loss(position, truth.position)
        return loss


@dataclass(frozen=True, eq=False)
class DenseTruth:
    """What :class:`DenseHeads` should read, per visual token ``(B, N_v, ...)``: soft class shares, and values of its body."""

    on_body: Tensor
    shapes: Tensor
    colours: Tensor
    background: Tensor
    roles: Tensor
    log_radius: Tensor
    displacement: Tensor
    position: Tensor


def dense_truth(samples: Sequence[Sample]) -> DenseTruth:
    """Ground truth of every visual token; values of bodies come from the body that covers most of the token."""
    coverage = torch.stack([torch.from_numpy(sample.coverage_thwb) for sample in samples])
    batch, steps, rows, columns, _ = coverage.shape
    flat = coverage.flatten(1, 3)  # (B, N_v, bodies)
    main = flat.argmax(-1)
    shapes = torch.zeros(batch, MAX_BODIES, len(SHAPES))
    colours = torch.zeros(batch, MAX_BODIES, len(COLOURS_RGB))
    log_radius = torch.zeros(batch, MAX_BODIES)
    for index, sample in enumerate(samples):
        for slot, body in enumerate(sample.clip.scene.bodies):
            shapes[index, slot, SHAPES.index(body.shape)] = 1.0
            colours[index, slot, list(COLOURS_RGB).index(body.colour)] = 1.0
            log_radius[index, slot] = (math.log(body.radius * rows) - _TYPICAL_LOG_RADIUS) / 0.4
    rest = (1 - flat.sum(-1, keepdim=True)).clamp(min=0)
    of_main = torch.arange(batch)[:, None], main
    step_of = torch.arange(steps).repeat_interleave(rows * columns)
    displacement = torch.stack([torch.from_numpy(sample.displacement_tb) for sample in samples])
    displacement = displacement * rows / _TYPICAL_DISPLACEMENT
    grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij"), dim=-1)
    backgrounds = torch.tensor([BACKGROUNDS.index(sample.clip.scene.background) for sample in samples])
    return DenseTruth(
        on_body=flat.sum(-1),
        shapes=torch.cat([flat @ shapes, rest], dim=-1),
        colours=torch.cat([flat @ colours, rest], dim=-1),
        background=backgrounds.repeat_interleave(flat.shape[1]),
        roles=torch.stack([torch.from_numpy(sample.roles_br) for sample in samples])[of_main],
        log_radius=log_radius[of_main],
        displacement=displacement[torch.arange(batch)[:, None], step_of[None], main],
        position=grid.flatten(0, 1).repeat(steps, 1).expand(batch, -1, -1),
    )


def rollout_targets(samples: Sequence[Sample]) -> Tensor:
    """``(B, Q, N_v)`` distributions: the core of the body asked for; all that is no body, for the background."""
    targets = []
    for sample in samples:
        coverage = torch.from_numpy(sample.coverage_thwb).flatten(0, 2)  # (N_v, bodies)
        ground = (1 - coverage.sum(-1)).clamp(min=0)
        for question in sample.questions:
            off_body = question.body_index == NO_BODY
            mass = ground if off_body else coverage[:, question.body_index].pow(COVERAGE_POWER)
            targets.append(mass / mass.sum())
    return torch.stack(targets).view(len(samples), -1, targets[0].shape[0])


def rollout_divergence(rollouts: Tensor, targets: Tensor) -> Tensor:
    """``(B, Q)`` KL divergence of the normalised rollout from the target."""
    log_rollout = (rollouts / rollouts.sum(-1, keepdim=True)).clamp(min=1e-8).log()
    return (torch.xlogy(targets, targets) - targets * log_rollout).sum(-1)
