"""What the embedded Qwen2.5-VL is trained towards, besides its answers: where to look, and what every visual token shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from decaf_ros.synthetic.table.scene import MAX_THINGS
from tools.embedded_mllm.data import ARM, COLOUR_INDEX, KIND_INDEX, Batch
from tools.embedded_mllm.questions import NOTHING

# Rollouts are trained towards the token's coverage to this power: smoothing widens the map again, and masks are best when the
# attention keeps to the core of the object.
COVERAGE_POWER = 6.0
_LEAST_COVERAGE = 0.25  # that a thing has on some token when it counts as seen


class DenseHeads(nn.Module):
    """Linear read-outs of every visual token, used in training only: what it shows, and what has become of it.

    Args:
        channels: of the features.
        in_context: whether the features come from the language model, which alone can know where a token is in the image, and
            what happened to a thing since the first frame.
    """

    def __init__(self, channels: int, in_context: bool) -> None:
        super().__init__()
        self._in_context = in_context
        # Kinds, arm and ground; colours, none; held, somebody holds; moved, fallen, held before; row and column.
        self._sizes = [len(KIND_INDEX) + 2, len(COLOUR_INDEX) + 1, 2, *((3, 2) if in_context else (0, 0))]
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, sum(self._sizes))

    def loss(self, features: Tensor, truth: DenseTruth) -> Tensor:
        """Sum of the losses of all read-outs of ``(B, N_v, C)`` features."""
        kind, colour, now, before, place = self.linear(self.norm(features)).split(self._sizes, dim=-1)
        weight = (0.15 + truth.on_thing) / (0.15 + truth.on_thing).sum()
        loss = -2 * (weight * (truth.kinds * kind.log_softmax(-1)).sum(-1)).sum()
        loss = loss - (weight * (truth.colours * colour.log_softmax(-1)).sum(-1)).sum()
        on_thing = truth.on_thing / truth.on_thing.sum().clamp(min=1.0)
        loss = loss + 2 * (on_thing[..., None] * F.binary_cross_entropy_with_logits(now, truth.now, reduction="none")).sum()
        if self._in_context:
            entropy = F.binary_cross_entropy_with_logits(before, truth.before, reduction="none")
            loss = loss + 2 * (on_thing[..., None] * entropy).sum() + F.mse_loss(place, truth.place)
        return loss


class DenseTruth:
    """What :class:`DenseHeads` should read, per visual token ``(B, N_v, ...)``; of things, of the one that covers most of it.

    Attributes:
        on_thing: share of the token that shows things.
        kinds, colours: shares of classes.
        now: held, and whether anything is held.
        before: moved, fallen, and held earlier but no more.
        place: row and column in -1..1.
    """

    def __init__(self, batch: Batch) -> None:
        samples, steps, rows, columns, _ = batch.coverage.shape
        flat = batch.coverage.flatten(1, 3)  # (B, N_v, things and arm)
        things, arm = flat[..., :MAX_THINGS], flat[..., ARM:]
        self.on_thing = things.sum(-1)
        rest = (1 - flat.sum(-1, keepdim=True)).clamp(min=0)
        self.kinds = torch.cat([things @ _one_hot(batch.kinds, len(KIND_INDEX)), arm, rest], dim=-1)
        self.colours = torch.cat([things @ _one_hot(batch.colours, len(COLOUR_INDEX)), arm + rest], dim=-1)
        main = things.argmax(-1)
        anything = batch.held.amax(-1, keepdim=True).expand_as(batch.held)
        held_before = (batch.held.cummax(dim=1).values - batch.held).clamp(min=0)
        states = torch.stack([batch.held, anything, batch.moved, batch.fallen, held_before], dim=-1)  # (B, T', things, 5)
        of_tokens = states.repeat_interleave(rows * columns, dim=1)
        chosen = of_tokens.gather(2, main[..., None, None].expand(-1, -1, 1, states.shape[-1]))[:, :, 0]
        self.now, self.before = chosen[..., :2], chosen[..., 2:]
        device = flat.device
        axes = (torch.linspace(-1, 1, rows, device=device), torch.linspace(-1, 1, columns, device=device))
        self.place = (
            torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1).repeat(steps, 1).expand(samples, -1, -1)
        )


def _one_hot(indices: Tensor, count: int) -> Tensor:
    """``(B, things, count)`` float32; a row of zeros for -1."""
    return F.one_hot(indices.clamp(min=0), count).float() * (indices >= 0)[..., None]


def rollout_targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Where each question should look, ``(B, Q, N_v)``, a distribution; and ``(B, Q)`` bool whether there is anything to see.

    The core of the thing asked for, in the steps in which it can be seen that it is meant; for the background, all that is
    neither thing nor arm. Other questions about nothing may look anywhere.
    """
    samples = len(batch.targets)
    ground = (1 - batch.coverage.sum(-1)).clamp(min=0)
    padded = torch.cat([batch.coverage[..., :MAX_THINGS].pow(COVERAGE_POWER), ground[..., None]], dim=-1)
    index = torch.where(batch.targets == NOTHING, MAX_THINGS, batch.targets)
    of_questions = padded.movedim(-1, 1)[torch.arange(samples, device=index.device)[:, None], index]  # (B, Q, T', h, w)
    in_step = of_questions.flatten(3)  # (B, Q, T', h w); every step in which it is well seen counts the same
    seen = in_step.amax(-1, keepdim=True) > _LEAST_COVERAGE**COVERAGE_POWER
    mass = in_step / in_step.sum(-1, keepdim=True).clamp(min=1e-8) * seen * batch.evidence[..., None]
    there = (seen[..., 0] & (batch.evidence > 0)).any(-1)
    flat = mass.flatten(2)
    even = torch.full_like(flat, 1 / flat.shape[-1])
    return torch.where(there[..., None], flat / flat.sum(-1, keepdim=True).clamp(min=1e-8), even), there


def rollout_divergence(rollouts: Tensor, targets: Tensor) -> Tensor:
    """``(B, Q)`` KL divergence of the normalised rollout from the target."""
    log_rollout = (rollouts / rollouts.sum(-1, keepdim=True)).clamp(min=1e-8).log()
    return (torch.xlogy(targets, targets) - targets * log_rollout).sum(-1)
