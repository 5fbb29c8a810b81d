"""Train the embedded Qwen2.5-VL from scratch on the robot's table, on a GPU or a CPU.

    python -m tools.table_clips --out runs/clips --workers 12 &
    python -m tools.table_clips --out runs/stills --workers 3 --stills &
    python -m tools.embedded_mllm.train --clips runs/clips --stills runs/stills --out runs/mllm --device cuda --minutes 9

Clips are read while they are made. The schedule goes by the share of the time, or of the steps, that has passed. The vision
tower alone learns to see first (dense read-outs of every visual token); then the whole model learns to find objects: by what
they are, by what happened to them, by all that can be said; whether they are there at all comes last. Started again with the
same ``--out`` it continues from the newest checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decaf_ros.outputs import OutputFolder
from decaf_ros.synthetic.table.wordings import EVENT_KINDS
from tools.embedded_mllm.attention import prepare
from tools.embedded_mllm.data import (
    COARSE_VIDEO_GRIDS,
    VIDEO_GRIDS,
    Batch,
    Diet,
    Looks,
    Windows,
    draw_image_batch,
    draw_look_batch,
    draw_video_batch,
    sent,
)
from tools.embedded_mllm.forward import (
    CHAT_BEGIN,
    Prefix,
    Suffixes,
    Tokens,
    answer_losses,
    are_right,
    build_prefix,
    run,
    run_text,
    run_vision,
)
from tools.embedded_mllm.losses import DenseHeads, DenseTruth, rollout_divergence, rollout_targets
from tools.embedded_mllm.model import build_config, build_model, build_processor, save
from tools.embedded_mllm.notes import Notes
from tools.embedded_mllm.questions import name_question
from tools.table_clips import ClipFolder

LOG = logging.getLogger("train_mllm")


@dataclass(frozen=True)
class Stage:
    """A stretch of the training.

    Attributes:
        share: of the whole.
        videos, images: what is asked.
        image_share: share of the other steps with single images.
        look_share: share of the steps that train the vision tower alone.
        sparse, grids: see :func:`draw_video_batch`.
    """

    share: float
    videos: Diet
    images: Diet
    image_share: float = 0.35
    look_share: float = 0.3
    sparse: float = 1.0
    grids: Sequence[tuple[int, int]] = VIDEO_GRIDS


_COLOURS = {"colour": 4.0, "category": 1.0, "colour_category": 1.0}
_LOOKS = {"category": 3.0, "colour": 2.0, "colour_category": 2.0}
_STATIC = {**_LOOKS, "size": 6.0, "position": 7.0, "relation": 8.0, "use": 2.0}
_EVENTS = dict.fromkeys(EVENT_KINDS, 2.0) | {"moved": 4.0, "untouched": 8.0, "taken_away": 5.0, "pushed": 4.0, "fell_over": 4.0}


def _scaled(kinds: Mapping[str, float], factor: float) -> dict[str, float]:
    return {kind: factor * weight for kind, weight in kinds.items()}


# Colours come first: their answer cannot be copied from the question, so the model must look. Events come before what is harder
# to say of things at rest, and alone at first: mixed with all else from the start they are not learned. On single images events
# come late, so that the attention learns to keep an open mind.
STAGES = (
    Stage(0.14, Diet(_COLOURS), Diet(_COLOURS), look_share=1.0),
    Stage(0.03, Diet(_COLOURS), Diet(_COLOURS), grids=COARSE_VIDEO_GRIDS),
    Stage(0.04, Diet(_LOOKS), Diet(_LOOKS), grids=COARSE_VIDEO_GRIDS),
    Stage(0.27, Diet({**_scaled(_LOOKS, 0.6), **_EVENTS}, 7), Diet(_STATIC), 0.2, grids=COARSE_VIDEO_GRIDS),
    Stage(
        0.20,
        Diet({**_STATIC, **_scaled(_EVENTS, 0.8)}, 7, presences=4),
        Diet({**_STATIC, **_scaled(_EVENTS, 0.2)}, 6, 4, 1),
        0.4,
        0.25,
        grids=COARSE_VIDEO_GRIDS,
    ),
    Stage(
        0.32,
        Diet({**_STATIC, **_EVENTS}, 7, presences=5),
        Diet({**_STATIC, **_scaled(_EVENTS, 0.3)}, 6, 5, 1),
        0.35,
        0.2,
        sparse=0.9,
    ),
)
BACKGROUND_WEIGHT = 0.3
NAME_QUESTIONS, NAME_EVERY = 16, 4
WARM_UP_STEPS, DECAY_SHARE, FINAL_RATE = 100, 0.35, 0.02
EMA_DECAY = 0.998
LEAST_CLIPS = 32
TELL_EVERY = 25


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one step learns from.

    Attributes:
        batch, prefix: images.
        suffixes: questions about them; without, the vision tower alone is trained.
        names: questions about names, without images.
    """

    batch: Batch
    prefix: Prefix
    suffixes: Suffixes | None = None
    names: Suffixes | None = None


class Clock:
    """How much of a run has passed, by time or by steps.

    Args:
        minutes: it may take; time that goes by without steps counts.
        steps: it may take.
    """

    def __init__(self, minutes: float | None, steps: int | None) -> None:
        self._minutes, self._steps = minutes, steps
        self._began_s = time.monotonic()
        self._steps_ahead = 0.0

    def passed(self, step: int) -> float:
        """0 to 1, which ends it."""
        if self._steps is not None:
            return min(1.0, (step + self._steps_ahead) / self._steps)
        assert self._minutes is not None
        return min(1.0, (time.monotonic() - self._began_s) / (60 * self._minutes))

    def go_on_from(self, share: float, step: int) -> None:
        """Count so much as passed at this step."""
        if self._steps is not None:
            self._steps_ahead = share * self._steps - step
        if self._minutes is not None:
            self._began_s = time.monotonic() - share * 60 * self._minutes


class Trainer:
    """The model, what is trained beside it, and the state of the run.

    Args:
        windows: what to train on.
        looks: what to learn to see from.
        clock: how long.
        device: where.
        seed: of weights and data.
        peak_rate: highest learning rate.
        patches: of videos a batch; of single images half as many.
    """

    def __init__(
        self,
        windows: Windows,
        looks: Looks,
        clock: Clock,
        device: torch.device,
        seed: int,
        peak_rate: float,
        patches: int,
    ) -> None:
        torch.manual_seed(seed)
        self.windows, self.looks, self.clock, self.device = windows, looks, clock, device
        self.rng = np.random.default_rng(seed)
        self._drawer = ThreadPoolExecutor(1, thread_name_prefix="drawer")  # works while the GPU is told what to do
        self._drawn: Future[Lesson] | None = None
        self.peak_rate, self.patches = peak_rate, patches
        self.processor = build_processor()
        self.tokens = Tokens(self.processor)
        self.model = build_model(build_config(self.processor.tokenizer)).to(device)
        channels = self.model.config.text_config.hidden_size
        self.heads = nn.ModuleDict({"vision": DenseHeads(channels, False), "middle": DenseHeads(channels, True)}).to(device)
        self.average = copy.deepcopy(self.model)
        for model in (self.model, self.average):
            prepare(model)
        self.step = 0
        self.passed = 0.0
        self._rates_from = 0
        self.notes = Notes()
        weights = [p for p in self.parameters() if p.ndim >= 2]
        gains = [p for p in self.parameters() if p.ndim < 2]
        groups = [{"params": weights, "weight_decay": 0.02}, {"params": gains, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=peak_rate, betas=(0.9, 0.98), fused=True)

    def parameters(self) -> list[nn.Parameter]:
        """Of the model and the training heads."""
        return [*self.model.parameters(), *self.heads.parameters()]

    @property
    def stage(self) -> Stage:
        """Of the next step."""
        until = 0.0
        for stage in STAGES:
            until += stage.share
            if self.passed < until - 1e-9:
                return stage
        return STAGES[-1]

    def train_step(self) -> None:
        """One optimizer step on one batch; the parts of the loss are noted in :attr:`notes`."""
        self.passed = self.clock.passed(self.step)
        stage = self.stage
        losses: dict[str, Tensor] = {}
        lesson = self._next_lesson(stage)
        if lesson.suffixes is None:
            losses["look"] = self._vision_loss(lesson)
        else:
            losses |= self._all_losses(lesson, lesson.suffixes)
        rate = self.peak_rate * self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()
        self._update_average()
        self.step += 1
        if lesson.suffixes is not None and self._rates_from == 0:
            self._rates_from = self.step
        self.notes.add_losses(losses)

    def _rate(self) -> float:
        """Of learning, over its peak: warm-up at both beginnings, a plateau, and a linear decay at the end."""
        since = self.step - self._rates_from
        return min(1.0, (since + 1) / WARM_UP_STEPS, max(FINAL_RATE, (1 - self.passed) / DECAY_SHARE))

    def _next_lesson(self, stage: Stage) -> Lesson:
        """What was drawn during the last step; the next one is begun. The first of a stage may still be of the one before."""
        lesson = self._drawn.result() if self._drawn else self._draw(stage)
        self._drawn = self._drawer.submit(self._draw, stage)
        return lesson

    def _draw(self, stage: Stage) -> Lesson:
        """All that the CPU has to do for a step; nothing else draws or tokenizes."""
        if self.rng.random() < stage.look_share:
            batch = draw_look_batch(self.looks, self.rng, self.patches)
            return Lesson(batch, build_prefix(self.model, self.processor, batch))
        if self.rng.random() < stage.image_share:
            batch = draw_image_batch(self.windows, self.rng, stage.images, self.patches // 2)
        else:
            batch = draw_video_batch(self.windows, self.rng, stage.videos, self.patches, stage.sparse, stage.grids)
        names = [[name_question(self.rng) for _ in range(NAME_QUESTIONS)]]
        return Lesson(
            batch,
            build_prefix(self.model, self.processor, batch),
            self.tokens.suffixes(batch.questions, self.device),
            self.tokens.suffixes(names, self.device, CHAT_BEGIN),
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _vision_loss(self, lesson: Lesson) -> Tensor:
        with self._autocast():
            features = run_vision(self.model, lesson.prefix)
        return self.heads["vision"].loss(features.float(), DenseTruth(lesson.batch))

    def _all_losses(self, lesson: Lesson, suffixes: Suffixes) -> dict[str, Tensor]:
        batch = lesson.batch
        with self._autocast():
            output = run(self.model, lesson.prefix, suffixes)
        truth = DenseTruth(batch)
        targets, there = rollout_targets(batch)
        divergence = rollout_divergence(output.rollouts, targets) * there
        asked = torch.tensor([[q.kind not in ("presence", "box", "background") for q in row] for row in batch.questions])
        yes = torch.tensor([[q.kind in ("presence", "box") and q.target >= 0 for q in row] for row in batch.questions])
        asked, yes = sent(asked, self.device) & there, sent(yes, self.device) & there
        # What is asked about something that is out of this view after all has no right answer.
        answered = asked | yes | (batch.targets < 0)
        entropy = answer_losses(output, suffixes)
        losses = {
            "answer": (entropy * answered).sum() / answered.sum().clamp(min=1),
            "rollout": (divergence * asked).sum() / asked.sum().clamp(min=1),
            "yes": 0.3 * (divergence * yes).sum() / yes.sum().clamp(min=1),
            "ground": BACKGROUND_WEIGHT * divergence[:, -1].mean(),
            "dense": self.heads["vision"].loss(output.vision, truth),
            "middle": 0.5 * self.heads["middle"].loss(output.middle, truth),
        }
        if lesson.names is not None and self.step % NAME_EVERY == 0:
            with self._autocast():
                named = run_text(self.model, lesson.names)
            losses["name"] = 0.5 * answer_losses(named, lesson.names).mean()
        self.notes.add_answers(batch, are_right(output, suffixes), divergence, there)
        return losses

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)

    def save(self, path: Path) -> None:
        """Write everything needed to continue."""
        state = {
            "step": self.step,
            "passed": self.passed,
            "rates_from": self._rates_from,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with OutputFolder(path.parent).file(path.name) as file:
            torch.save(state, file)

    def start_from(self, path: Path, passed: float) -> None:
        """Begin somewhere in the schedule with the weights of a trained model, or with a checkpoint of another run.

        A checkpoint brings what is trained beside the model; beside a folder it is fresh.
        """
        self.clock.go_on_from(passed, self.step)
        if path.is_file():
            self._load_parts(torch.load(path, weights_only=True, map_location=self.device))
            return
        trained = type(self.model).from_pretrained(path, dtype=torch.float32)
        for model in (self.model, self.average):
            model.load_state_dict(trained.state_dict())

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; the data that follows is drawn from the seed and the step."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.step, self.passed, self._rates_from = state["step"], state["passed"], state["rates_from"]
        self.clock.go_on_from(self.passed, self.step)
        self._load_parts(state)
        self.rng = np.random.default_rng([self.step, int(self.rng.integers(2**31))])

    def _load_parts(self, state: Mapping[str, Any]) -> None:
        for part in ("model", "average", "heads", "optimizer"):
            getattr(self, part).load_state_dict(state[part])


def train(trainer: Trainer, out: Path, export: Path, save_seconds: float = 60.0) -> None:
    """Run to the end of the schedule, with a line in the log and a checkpoint now and then, and export the average."""
    saved_s = told_s = time.monotonic()
    told_step = trainer.step
    while trainer.clock.passed(trainer.step) < 1:
        trainer.train_step()
        if trainer.step - told_step >= TELL_EVERY:
            line = trainer.notes.tell()
            pace = (time.monotonic() - told_s) / (trainer.step - told_step)
            clips = len(trainer.windows.folder.clips)
            LOG.info("step %d, %.3f of it, %.3f s a step, %d clips: %s", trainer.step, trainer.passed, pace, clips, line)
            told_s, told_step = time.monotonic(), trainer.step
        if time.monotonic() - saved_s > save_seconds:
            trainer.save(out / "checkpoint.pt")
            saved_s = time.monotonic()
    trainer.save(out / "checkpoint.pt")
    save(trainer.average, trainer.processor, export)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=Path("runs/clips"), help="folder of tools.table_clips")
    parser.add_argument("--stills", type=Path, default=Path("runs/stills"), help="folder of tools.table_clips --stills")
    parser.add_argument("--out", type=Path, default=Path("runs/mllm"), help="folder for checkpoints")
    parser.add_argument("--export", type=Path, help="where the model is written (default: OUT/export)")
    parser.add_argument("--minutes", type=float, help="how long to train")
    parser.add_argument("--steps", type=int, help="how long to train, instead (default: 6000)")
    parser.add_argument("--start-from", type=Path, metavar="PATH", help="begin with a trained model, or a checkpoint")
    parser.add_argument(
        "--begin-at",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the schedule, which --start-from's weights have behind them; --minutes are still of the whole (default: 0)",
    )
    parser.add_argument("--rate", type=float, default=1.5e-3, help="highest learning rate (default: %(default)s)")
    parser.add_argument(
        "--patches", type=int, default=120_000, help="of videos a batch; on a CPU, 16000 (default: %(default)s)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.backends.cuda.matmul.allow_tf32 = True
    steps = None if arguments.minutes else arguments.steps or 6000
    device = torch.device(arguments.device)
    folder, stills = ClipFolder(arguments.clips, device), ClipFolder(arguments.stills, device)
    for each in (folder, stills):
        each.wait_for(LEAST_CLIPS)
    clock = Clock(arguments.minutes, steps)
    trainer = Trainer(
        Windows(folder), Looks([folder, stills]), clock, device, arguments.seed, arguments.rate, arguments.patches
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in vars(arguments).items()}
    LOG.info("%s, %d parameters: %s", device, sum(p.numel() for p in trainer.model.parameters()), json.dumps(settings))
    if (checkpoint := arguments.out / "checkpoint.pt").exists():
        trainer.load(checkpoint)
        LOG.info("continuing from step %d", trainer.step)
    elif arguments.start_from:
        trainer.start_from(arguments.start_from, arguments.begin_at)
    train(trainer, arguments.out, arguments.export or arguments.out / "export")


if __name__ == "__main__":
    main()
