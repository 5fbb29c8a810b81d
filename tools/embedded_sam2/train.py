"""Trains the embedded SAM 2.1 on the procedural world: ``python -m tools.embedded_sam2.train --out runs/sam2``.

Runs on one CPU core. Started again with the same folder it goes on where it stopped; every step draws its batch from its own
seed, so that the data do not depend on interruptions. The averaged weights are in ``model.safetensors`` of that folder; to
ship them, copy that file to ``decaf_ros/models/embedded/sam2_1``.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sam2.modeling.sam2_base import SAM2Base

from decaf_ros.outputs import OutputFolder
from decaf_ros.strict_json import to_json
from tools.embedded_sam2.data import Batch, Prompt, discs_at_clicks, sample_clips_batch, sample_stills_batch
from tools.embedded_sam2.evaluate import click_scores, tracking_scores
from tools.embedded_sam2.losses import DecoderTap, clip_losses
from tools.embedded_sam2.model import build_sam2, export

EMA_DECAY = 0.998
WARM_UP_STEPS = 50
LOG_EVERY, SAVE_EVERY, SCORE_EVERY = 50, 100, 600


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one kind of batch.

    Attributes:
        name: for the log.
        steps: how many.
        image_size: of the model's input.
        learning_rates: at the start, after the warm-up, and at the end; a cosine in between.
        sample: draws the batch of a step from its random generator.
        frozen_encoder: leave the image encoder as it is.
        forced_presence: chance that a batch's memory is written with the true presence instead of the predicted one.
        tracks: whether held-out clips tell anything yet.
    """

    name: str
    steps: int
    image_size: int
    learning_rates: tuple[float, float]
    sample: Callable[[np.random.Generator], Batch]
    frozen_encoder: bool = False
    forced_presence: float = 0.0
    tracks: bool = True


def _discs(rng: np.random.Generator) -> Batch:
    return discs_at_clicks(sample_stills_batch(rng, image_count=4, clicks=4, size=128))


def _stills(rng: np.random.Generator) -> Batch:
    return sample_stills_batch(rng, image_count=5, clicks=3, size=128)


def _mixed(size: int, frame_counts: tuple[int, int], clips: int, stills: float) -> Callable[[np.random.Generator], Batch]:
    """Batches of clips with 60 % mask prompts, and a share of single images."""

    def sample(rng: np.random.Generator) -> Batch:
        if rng.random() < stills:
            return sample_stills_batch(rng, image_count=5, clicks=3, size=size)
        frame_count = int(rng.integers(frame_counts[0], frame_counts[1] + 1))
        prompt: Prompt = "mask" if rng.random() < 0.6 else "click"
        return sample_clips_batch(rng, clips, objects=2, frame_count=frame_count, prompt=prompt, size=size)

    return sample


# A decoder that never learned to answer the click ignores it for good, hence the discs; the encoder would only spoil them.
PHASES = (
    Phase("discs", 500, 128, (3e-4, 3e-4), _discs, frozen_encoder=True, tracks=False),
    Phase("stills", 2000, 128, (4e-4, 3e-4), _stills, tracks=False),
    Phase("clips", 2200, 128, (4e-4, 2e-4), _mixed(128, (2, 6), clips=3, stills=0.3), forced_presence=0.3),
    Phase("large", 1800, 192, (4e-4, 1e-5), _mixed(192, (3, 8), clips=2, stills=0.25)),
    Phase("polish", 450, 192, (1.5e-4, 5e-6), _mixed(192, (3, 8), clips=2, stills=0.15)),
)


class Training:
    """The state of a run: weights, their running average, optimizer and place in the schedule."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.phase_index, self.step = 0, 0
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        saved = self._load()
        if saved is not None:
            self.phase_index, self.step = saved["phase"], saved["step"]
        self._enter_phase(saved["model"] if saved else None, saved["average"] if saved else None)
        if saved is not None and self.step > 0:
            self.optimizer.load_state_dict(saved["optimizer"])

    @property
    def phase(self) -> Phase:
        """The phase of the next step."""
        return PHASES[self.phase_index]

    def run(self) -> None:
        """Train to the end of the schedule."""
        self._run_phase()
        while self.phase_index + 1 < len(PHASES):
            self.phase_index, self.step = self.phase_index + 1, 0
            self._enter_phase(self.model.state_dict(), self.average.state_dict())
            self._run_phase()

    def _enter_phase(self, weights: dict | None, average: dict | None) -> None:
        self.model, self.average = build_sam2(image_size=self.phase.image_size), build_sam2(image_size=self.phase.image_size)
        if weights is not None:
            self.model.load_state_dict(weights)
        self.average.load_state_dict(average if average is not None else self.model.state_dict())
        self.average.requires_grad_(False).eval()
        self.model.train()
        self.model.image_encoder.requires_grad_(not self.phase.frozen_encoder)
        self.tap = DecoderTap(self.model)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=self.phase.learning_rates[0], weight_decay=0.02)

    def _run_phase(self) -> None:
        started, sums = time.monotonic(), np.zeros(4)
        while self.step < self.phase.steps:
            sums += self._train_step()
            self.step += 1
            if self.step % LOG_EVERY == 0:
                means = dict(zip(("mask", "iou", "presence", "total"), (sums / LOG_EVERY).round(4), strict=True))
                self._log({**means, "s_per_step": round((time.monotonic() - started) / LOG_EVERY, 3)})
                started, sums = time.monotonic(), np.zeros(4)
            if self.step % SAVE_EVERY == 0 or self.step == self.phase.steps:
                self._save()
            if self.step % SCORE_EVERY == 0 or self.step == self.phase.steps:
                self._score()
                started = time.monotonic()

    def _train_step(self) -> np.ndarray:
        rng = np.random.default_rng((self.seed, self.phase_index, self.step))
        batch = self.phase.sample(rng)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        losses = clip_losses(self.model, self.tap, batch, rng, self.phase.forced_presence)
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        _average_into(self.average, self.model, self.step)
        return np.array([float(losses[name].detach()) for name in ("mask", "iou", "presence", "total")])

    def _learning_rate(self) -> float:
        start, end = self.phase.learning_rates
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / self.phase.steps))
        return (end + (start - end) * cosine) * min(1.0, (self.step + 1) / WARM_UP_STEPS)

    def _score(self) -> None:
        scores = click_scores(self.average, image_count=40)
        if self.phase.tracks:
            scores |= tracking_scores(self.average, clip_count=16)
        self._log({name: round(value, 3) for name, value in scores.items()})

    def _log(self, values: dict) -> None:
        line = to_json({"phase": self.phase.name, "step": self.step, **values})
        print(line, flush=True)
        with OutputFolder(self.folder).journal("log.jsonl") as log:
            log.write(f"{line}\n".encode())

    def _save(self) -> None:
        state = {
            "phase": self.phase_index,
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with OutputFolder(self.folder).file("state.pt") as file:
            torch.save(state, file)
        export(self.average, self.folder / "model.safetensors")

    def _load(self) -> dict | None:
        path = self.folder / "state.pt"
        return torch.load(path, weights_only=True) if path.exists() else None


@torch.no_grad()
def _average_into(average: SAM2Base, model: SAM2Base, step: int) -> None:
    """Move the running average on; early in a phase it forgets faster, lest it hang on to the weights before."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def main() -> None:
    """Train the embedded SAM 2.1, or go on training it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, log and weights")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and of all batches")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    Training(arguments.out, arguments.seed).run()


if __name__ == "__main__":
    main()
