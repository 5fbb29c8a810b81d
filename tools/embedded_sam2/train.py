"""Trains the embedded SAM 2.1 on the robot's table.

    python -m tools.table_clips --out runs/clips --workers 2 &
    python -m tools.embedded_sam2.train --clips runs/clips --out runs/sam2 --minutes 180

The first makes clips, before or meanwhile. The second takes minutes on a GPU and hours on a CPU: the time that it is given is
shared out among the phases. Started again with the same folder it goes on where it stopped. The averaged weights are in
``model.safetensors`` of that folder; to ship them, copy that file to ``decaf_ros/models/embedded/sam2_1``.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sam2.modeling.sam2_base import SAM2Base

from decaf_ros.outputs import OutputFolder
from decaf_ros.strict_json import to_json
from tools.embedded_sam2.data import Batch, Prompt, discs_at_clicks, sample_clips_batch, sample_stills_batch
from tools.embedded_sam2.losses import DecoderTap, clip_losses
from tools.embedded_sam2.model import build_sam2, export
from tools.table_clips import Clip, ClipFolder

EMA_DECAY = 0.998
WARM_UP_STEPS = 50
LOG_EVERY_STEPS, SAVE_EVERY_S = 25, 60.0
FIRST_CLIPS, MOST_CLIPS = 16, 2000  # a clip takes 6 MB
OBJECTS, CLICKS = 2, 3  # for each clip, each image
USUAL_FRAMES = 6  # of a clip of a full batch

Sampler = Callable[[Sequence[Clip], np.random.Generator, int], Batch]


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one kind of batch.

    Attributes:
        name: for the log.
        share: of the time.
        image_size: of the model's input.
        learning_rates: at the start, after the warm-up, and at the end; a cosine in between.
        sample: draws a batch of so many clips.
        frozen_encoder: leave the image encoder as it is.
        forced_presence: chance that a batch's memory is written with the true presence instead of the predicted one.
        absent_weight: see :func:`~tools.embedded_sam2.losses.clip_losses`.
    """

    name: str
    share: float
    image_size: int
    learning_rates: tuple[float, float]
    sample: Sampler
    frozen_encoder: bool = False
    forced_presence: float = 0.0
    absent_weight: float = 2.0


def _discs(clips: Sequence[Clip], rng: np.random.Generator, count: int) -> Batch:
    return discs_at_clicks(sample_stills_batch(clips, rng, count, CLICKS, size=128))


def _stills(size: int) -> Sampler:
    return lambda clips, rng, count: sample_stills_batch(clips, rng, 2 * count, CLICKS, size)


def _mixed(frame_counts: tuple[int, int], stills: float) -> Sampler:
    """Batches of clips with 60 % mask prompts, the fewer clips the longer they are; and a share of single images."""

    def sample(clips: Sequence[Clip], rng: np.random.Generator, count: int) -> Batch:
        if rng.random() < stills:
            return _stills(256)(clips, rng, count)
        frame_count = int(rng.integers(frame_counts[0], frame_counts[1] + 1))
        clip_count = max(2, round(count * min(1.5, USUAL_FRAMES / frame_count)))
        prompt: Prompt = "mask" if rng.random() < 0.6 else "click"
        return sample_clips_batch(clips, rng, clip_count, OBJECTS, frame_count, prompt, size=256)

    return sample


# A decoder that never learned to answer the click ignores it for good, hence the discs; the encoder would only spoil them.
PHASES = (
    Phase("discs", 0.06, 128, (4e-4, 3e-4), _discs, frozen_encoder=True),
    Phase("stills", 0.15, 128, (5e-4, 5e-4), _stills(128)),
    Phase("fine", 0.12, 256, (5e-4, 4e-4), _stills(256)),
    Phase("clips", 0.20, 256, (5e-4, 3e-4), _mixed((2, 4), stills=0.25), forced_presence=0.3),
    Phase("long", 0.47, 256, (4e-4, 5e-6), _mixed((3, 12), stills=0.25), absent_weight=3.0),
)


class Training:
    """The state of a run: weights, their running average, optimizer and place in the schedule.

    Args:
        folder: of checkpoints and log.
        clips: to train on.
        seconds: of training in all, what was done before an interruption included.
        batch: clips of a batch.
        device: where to compute.
        seed: of the first weights and of the batches.
    """

    def __init__(self, folder: Path, clips: ClipFolder, seconds: float, batch: int, device: torch.device, seed: int) -> None:
        self.folder, self.clips, self.seconds, self.batch, self.device = folder, clips, seconds, batch, device
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        saved = self._load()
        self.progress = saved["progress"] if saved else 0.0  # share of the time that is over
        self.total_steps = saved["total_steps"] if saved else 0
        self.rng = np.random.default_rng((seed, self.total_steps))
        if saved:
            torch.manual_seed(seed + self.total_steps)
        self._enter_phase(saved["model"] if saved else None, saved["average"] if saved else None)
        if saved and self.phase.name == saved["phase"]:
            self.step = saved["step"]
            self.optimizer.load_state_dict(saved["optimizer"])

    def run(self) -> None:
        """Train to the end of the schedule."""
        began = logged = saved = time.monotonic()
        before = self.progress
        while self.progress < 1.0:
            self.clips.refresh()
            if self.phase is not phase_at(self.progress):
                self._enter_phase(self.model.state_dict(), self.average.state_dict())
            self._train_step()
            if self.step % LOG_EVERY_STEPS == 0:
                self._log((time.monotonic() - logged) / LOG_EVERY_STEPS)
                logged = time.monotonic()
            if time.monotonic() - saved > SAVE_EVERY_S:
                self._save()
                saved = time.monotonic()
            self.progress = before + (time.monotonic() - began) / self.seconds
        self._save()

    def _enter_phase(self, weights: dict | None, average: dict | None) -> None:
        self.phase, self.step = phase_at(self.progress), 0
        self.sums = torch.zeros(8, device=self.device)  # of losses and counts, for the log
        size = self.phase.image_size
        self.model, self.average = (build_sam2(image_size=size).to(self.device) for _ in range(2))
        if weights is not None:
            self.model.load_state_dict(weights)
        self.average.load_state_dict(average if average is not None else self.model.state_dict())
        self.average.requires_grad_(False).eval()
        self.model.train()
        self.model.image_encoder.requires_grad_(not self.phase.frozen_encoder)
        self.tap = DecoderTap(self.model)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        fused = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(self.trained, lr=self.phase.learning_rates[0], weight_decay=0.02, fused=fused)

    def _train_step(self) -> None:
        with torch.no_grad():
            batch = self.phase.sample(self.clips.clips, self.rng, self.batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        forced, absent = self.phase.forced_presence, self.phase.absent_weight
        losses = clip_losses(self.model, self.tap, batch, self.rng, forced, absent)
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        _average_into(self.average, self.model, self.step)
        self.sums += torch.stack(list(losses.values())).detach()
        self.step, self.total_steps = self.step + 1, self.total_steps + 1

    def _learning_rate(self) -> float:
        start, end = self.phase.learning_rates
        begin = sum(phase.share for phase in PHASES[: PHASES.index(self.phase)])
        done = min(1.0, (self.progress - begin) / self.phase.share)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return (end + (start - end) * cosine) * min(1.0, (self.step + 1) / WARM_UP_STEPS)

    def _log(self, seconds: float) -> None:
        mask, iou, presence, total, right, seen, invented, hidden = self.sums.tolist()
        self.sums.zero_()
        steps = LOG_EVERY_STEPS
        means = {"mask": mask / steps, "iou": iou / steps, "presence": presence / steps, "total": total / steps}
        shares = {"j": right / max(seen, 1), "false_masks": invented / max(hidden, 1), "hidden": hidden / max(seen + hidden, 1)}
        rounded = {name: round(value, 4) for name, value in {**means, **shares, "s_per_step": seconds}.items()}
        place = {"phase": self.phase.name, "step": self.step, "progress": round(self.progress, 4)}
        line = to_json({**place, **rounded, "clips": len(self.clips.clips)})
        print(line, flush=True)
        with OutputFolder(self.folder).journal("log.jsonl") as log:
            log.write(f"{line}\n".encode())

    def _save(self) -> None:
        state = {
            "phase": self.phase.name,
            "step": self.step,
            "total_steps": self.total_steps,
            "progress": self.progress,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with OutputFolder(self.folder).file("state.pt") as file:
            torch.save(state, file)
        export(self.average, self.folder / "model.safetensors")

    def _load(self) -> dict | None:
        path = self.folder / "state.pt"
        return torch.load(path, map_location=self.device, weights_only=True) if path.exists() else None


def phase_at(progress: float) -> Phase:
    """The phase when a share of the time is over."""
    ends = itertools.accumulate(phase.share for phase in PHASES)
    return next((phase for phase, end in zip(PHASES, ends, strict=True) if progress < end), PHASES[-1])


@torch.no_grad()
def _average_into(average: SAM2Base, model: SAM2Base, step: int) -> None:
    """Move the running average on; early in a phase it forgets faster, lest it hang on to the weights before."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def main() -> None:
    """Train the embedded SAM 2.1, or go on training it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, log and weights")
    parser.add_argument("--clips", type=Path, default=Path("runs/clips"), help="folder of clips (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=180.0, help="in all, with the wait for clips (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--batch", type=int, help="clips of a batch; when left out, 24 on a GPU and 3 on a CPU")
    parser.add_argument("--most-clips", type=int, default=MOST_CLIPS, help="to keep in memory (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and of all batches")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("high")
    device = torch.device(arguments.device)
    batch = arguments.batch or (3 if device.type == "cpu" else 24)
    clips = ClipFolder(arguments.clips, device, capacity=arguments.most_clips)
    clips.wait_for(FIRST_CLIPS)
    seconds = 60 * arguments.minutes - (time.monotonic() - began)
    Training(arguments.out, clips, seconds, batch, device, arguments.seed).run()


if __name__ == "__main__":
    main()
