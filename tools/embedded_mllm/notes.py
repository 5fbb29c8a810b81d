"""What is noted of a training while it runs: parts of the loss, and how each kind of question goes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from tools.embedded_mllm.data import Batch


class Notes:
    """Collects figures since they were last told. They stay on the device until then: to fetch one would stop its queue."""

    def __init__(self) -> None:
        self._losses: dict[str, list[Tensor]] = defaultdict(list)
        self._answers: dict[str, list[Tensor]] = defaultdict(list)
        self._kinds: dict[str, list[str]] = defaultdict(list)

    def add_losses(self, losses: dict[str, Tensor]) -> None:
        """Scalars by name."""
        for name, loss in losses.items():
            self._losses[name].append(loss.detach())

    def add_answers(self, batch: Batch, right: Tensor, divergence: Tensor, there: Tensor) -> None:
        """``(B, Q)`` each: right answers, divergence of the rollout, and whether there was anything to look at."""
        medium = "video" if batch.is_video else "image"
        values = torch.stack([right.float(), divergence.detach(), there.float()], dim=-1)
        self._answers[medium].append(values.flatten(0, 1))
        self._kinds[medium] += [question.kind for row in batch.questions for question in row]

    def tell(self) -> str:
        """Means in one line: losses, then share of right answers and divergence by kind of question."""
        parts = [f"{name} {torch.stack(values).mean():.3f}" for name, values in self._losses.items()]
        for medium, answers in self._answers.items():
            values, kinds = torch.cat(answers).cpu().numpy(), np.array(self._kinds[medium])
            parts.append(f"| {medium}")
            for kind in sorted(set(kinds)):
                right, divergence, there = values[kinds == kind].T
                look = divergence[there > 0].mean() if there.any() else np.nan
                parts.append(f"{kind} {right.mean():.2f}/{look:.2f}")
        for noted in (self._losses, self._answers, self._kinds):
            noted.clear()
        return " ".join(parts)
