"""Train the embedded Qwen2.5-VL from scratch on the procedural world, on a CPU.

    python -m tools.embedded_mllm.train --out runs/mllm --export decaf_ros/models/embedded/qwen2_5_vl

Started again with the same ``--out`` it continues from the newest checkpoint. The vision tower alone learns to see first (dense
read-outs of every visual token, on close-ups); then the whole model learns to find objects, one kind of expression after
another.
"""

from __future__ import annotations

import argparse
import bisect
import copy
import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from decaf_ros.outputs import OutputFolder
from tools.embedded_mllm.data import ClipPool, Sample, draw_batch, draw_close_ups
from tools.embedded_mllm.evaluate import evaluate, table
from tools.embedded_mllm.forward import build_prefix, build_suffixes, prepare, run, run_text, run_vision
from tools.embedded_mllm.losses import DenseHeads, dense_truth, rollout_divergence, rollout_targets
from tools.embedded_mllm.model import build_config, build_model, build_processor, save
from tools.embedded_mllm.questions import name_question

LOG = logging.getLogger("train_mllm")
_LOOKS = ("colour", "shape", "colour_shape")
# What is asked about in each stage, by weight: of videos and of single images. Colour comes first: its answer cannot be copied
# from the question, so the model must look; and one new kind at a time, because mixed from the start the harder ones are never
# learned. Motion cannot be seen on a single image: such questions come last, so that attention learns to keep an open mind.
STAGES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    ((), ()),  # the vision tower alone
    (("colour",), ("colour",)),
    (_LOOKS, _LOOKS),
    ((*_LOOKS, *["size"] * 3, *["position"] * 3),) * 2,
    (("colour", "size", *["position"] * 5),) * 2,
    (("colour", "position", *["motion"] * 5), (*_LOOKS, "size", "size", "position")),
    ((*_LOOKS, "size", "size", "position", *["motion"] * 3),) * 2,
)
STAGE_STEPS = (600, 400, 200, 800, 600, 600, 1500)
QUESTIONS = 7
NAME_QUESTIONS, NAME_EVERY = 8, 4
CLOSE_UPS_EVERY = 4
SINGLE_IMAGE_SHARE = 0.4
BACKGROUND_WEIGHT = 0.3
WARM_UP_STEPS, DECAY_SHARE, FINAL_RATE = 100, 0.3, 0.03
EMA_DECAY = 0.998


@dataclass(frozen=True)
class Schedule:
    """How many optimizer steps each of the :data:`STAGES` takes."""

    steps: tuple[int, ...]

    @property
    def look(self) -> int:
        """Steps of the vision tower alone."""
        return self.steps[0]

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return sum(self.steps)

    def kinds(self, step: int, is_video: bool) -> Sequence[str]:
        """Kinds of expressions asked about at a step, by weight."""
        of_video, of_image = STAGES[bisect.bisect_right(list(itertools.accumulate(self.steps)), step)]
        return of_video if is_video else of_image

    def rate(self, step: int) -> float:
        """Learning rate over its peak: warm-up at both beginnings, a plateau, and a linear decay at the end."""
        since = step if step < self.look else step - self.look
        decay = (self.total - step) / (DECAY_SHARE * self.total)
        return min(1.0, (since + 1) / WARM_UP_STEPS, max(FINAL_RATE, decay))


class Trainer:
    """The model, what is trained beside it, and the state of the run.

    Args:
        schedule: length of the phases.
        seed: of weights and data.
        peak_rate: highest learning rate.
    """

    def __init__(self, schedule: Schedule, seed: int, peak_rate: float) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.pool = ClipPool(self.rng)
        self.schedule = schedule
        self.peak_rate = peak_rate
        self.processor = build_processor()
        self.model = build_model(build_config(self.processor.tokenizer))
        channels = self.model.config.text_config.hidden_size
        self.heads = nn.ModuleDict({"vision": DenseHeads(channels, False), "middle": DenseHeads(channels, True)})
        self.average = copy.deepcopy(self.model)
        for model in (self.model, self.average):
            prepare(model)
        self.step = 0
        weights = [p for p in self.parameters() if p.ndim >= 2]
        gains = [p for p in self.parameters() if p.ndim < 2]
        groups = [{"params": weights, "weight_decay": 0.02}, {"params": gains, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=peak_rate, betas=(0.9, 0.98))

    def parameters(self) -> list[nn.Parameter]:
        """Of the model and the training heads."""
        return [*self.model.parameters(), *self.heads.parameters()]

    def train_step(self) -> dict[str, float]:
        """One optimizer step on one batch; returns the parts of the loss."""
        looking = self.step < self.schedule.look
        losses = {} if looking else self._all_losses(self._draw())
        if looking or self.step % CLOSE_UPS_EVERY == 0:
            losses["look"] = self._vision_loss(draw_close_ups(self.rng))
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_rate * self.schedule.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()
        self._update_average()
        self.step += 1
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _draw(self) -> list[Sample]:
        is_video = self.rng.random() > SINGLE_IMAGE_SHARE
        return draw_batch(self.pool, self.rng, is_video, self.schedule.kinds(self.step, is_video), QUESTIONS)

    def _vision_loss(self, samples: Sequence[Sample]) -> Tensor:
        features = run_vision(self.model, build_prefix(self.model, self.processor, samples))
        return self.heads["vision"].loss(features, dense_truth(samples))

    def _all_losses(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        suffixes = build_suffixes(self.processor, [sample.questions for sample in samples])
        output = run(self.model, build_prefix(self.model, self.processor, samples), suffixes)
        truth = dense_truth(samples)
        divergence = rollout_divergence(output.rollouts, rollout_targets(samples))
        end = torch.full_like(suffixes.answers, self.processor.tokenizer.eos_token_id).flatten()
        losses = {
            "answer": F.cross_entropy(output.answer_logits.flatten(0, 1), suffixes.answers.flatten()),
            "end": 0.1 * F.cross_entropy(output.end_logits.flatten(0, 1), end),
            "rollout": divergence[:, :-1].mean(),
            "ground": BACKGROUND_WEIGHT * divergence[:, -1].mean(),
            "dense": self.heads["vision"].loss(output.vision, truth),
            "middle": 0.5 * self.heads["middle"].loss(output.middle, truth),
        }
        if self.step % NAME_EVERY == 0:
            questions = [name_question(self.rng) for _ in range(NAME_QUESTIONS)]
            losses["name"] = 0.5 * run_text(self.model, self.processor, questions)
        return losses

    def _update_average(self) -> None:
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)

    def save(self, path: Path) -> None:
        """Write everything needed to continue; the pool of clips is drawn anew."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with OutputFolder(path.parent).file(path.name) as file:
            torch.save(state, file)

    def start_from(self, folder: Path) -> None:
        """Begin with the weights of a trained model; what is trained beside it is fresh."""
        trained = type(self.model).from_pretrained(folder, dtype=torch.float32)
        for model in (self.model, self.average):
            model.load_state_dict(trained.state_dict())

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; the data that follows is drawn from the seed and the step."""
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        for part in ("model", "average", "heads", "optimizer"):
            getattr(self, part).load_state_dict(state[part])
        self.rng = np.random.default_rng([self.step, int(self.rng.integers(2**31))])
        self.pool = ClipPool(self.rng)


def train(trainer: Trainer, out: Path, export: Path, evaluate_every: int) -> None:
    """Run to the end of the schedule, with a checkpoint, an export and held-out scores every so many steps."""
    sums: dict[str, list[float]] = {}
    began = time.monotonic()
    while trainer.step < trainer.schedule.total:
        for name, loss in trainer.train_step().items():
            sums.setdefault(name, []).append(loss)
        if trainer.step % 20 == 0:
            parts = " ".join(f"{name} {np.mean(losses):.3f}" for name, losses in sums.items())
            LOG.info("step %d, %.2f s a step: %s", trainer.step, (time.monotonic() - began) / 20, parts)
            sums.clear()
            began = time.monotonic()
        if trainer.step % 100 == 0:
            trainer.save(out / "checkpoint.pt")
        is_last = trainer.step == trainer.schedule.total
        if is_last or (trainer.step > trainer.schedule.look and trainer.step % evaluate_every == 0):
            save(trainer.average, trainer.processor, export)
            scores = evaluate(trainer.average, trainer.processor, scenes=100 if is_last else 20)
            LOG.info("held out, step %d\n%s", trainer.step, table(scores))
            began = time.monotonic()
    trainer.save(out / "checkpoint.pt")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/mllm"), help="folder for checkpoints")
    parser.add_argument("--export", type=Path, help="where the model is written (default: OUT/export)")
    parser.add_argument("--stage-steps", type=int, nargs=len(STAGES), default=STAGE_STEPS, help="see STAGES")
    parser.add_argument("--start-from", type=Path, metavar="FOLDER", help="begin with the weights of a trained model")
    parser.add_argument("--evaluate-every", type=int, default=200)
    parser.add_argument("--rate", type=float, default=1.2e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    schedule = Schedule(tuple(arguments.stage_steps))
    trainer = Trainer(schedule, arguments.seed, arguments.rate)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if (checkpoint := arguments.out / "checkpoint.pt").exists():
        trainer.load(checkpoint)
        LOG.info("continuing from step %d", trainer.step)
    elif arguments.start_from:
        trainer.start_from(arguments.start_from)
    train(trainer, arguments.out, arguments.export or arguments.out / "export", arguments.evaluate_every)


if __name__ == "__main__":
    main()
