"""Clips of the robot's table to train on: rendered by a crowd of processes into files, and read while more are being made.

    python -m tools.table_clips --out runs/clips --workers 2

    python -m tools.table_clips --out runs/stills --workers 2 --stills

A clip is 32 frames of an episode with all that is true about them; a still is one frame of a table where nothing happens, about
which nothing is said, for a tenth of the price. Both depend on their seed alone. Seeds begin where training may begin
(:data:`FIRST_TRAINING_SEED`). The crowd goes on until it is stopped, or until there are ``--count`` of them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import torch

from decaf_ros.datatypes import BoolArray, Float32Array, UInt8Array
from decaf_ros.outputs import OutputFolder
from decaf_ros.strict_json import from_json, to_json
from decaf_ros.synthetic.table.sampling import FIRST_TRAINING_SEED, require_training
from decaf_ros.synthetic.table.wordings import Sentence

if TYPE_CHECKING:
    from decaf_ros.synthetic.table.episodes import Episode  # whose simulation is not needed to read clips

CLIP_FRAMES = 32
SIZE_HW = (192, 256)
INTERVALS_S, INTERVAL_ODDS = (0.25, 0.125, 0.4, 0.1), (0.7, 0.1, 0.1, 0.1)
# Windows of a clip about which sentences are noted, as (frames, steps between them): the node's own first.
SHAPES = ((16, 1), (16, 1), (16, 1), (8, 1), (8, 2), (16, 2))
_ABSENT_DRAWS = 3
_STILL_SECONDS = 0.1
_JPEG_QUALITY = 93
_SUFFIX = ".npz"


@dataclass(frozen=True)
class ClipWindow:
    """Some frames of a clip, and what can be said about the time that they span.

    Attributes:
        first, count, stride: the frames ``first, first + stride, ...``.
        sentences: their ``evidence_s`` in seconds of the clip's ``times_s``.
    """

    first: int
    count: int
    stride: int
    sentences: tuple[Sentence, ...]

    @property
    def frames(self) -> npt.NDArray[np.int64]:
        """``(count,)`` indices."""
        return self.first + self.stride * np.arange(self.count)


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of an episode with the truth about them. ``T`` frames, ``N`` things.

    Attributes:
        seed: of the episode.
        kinds, colours: of the things.
        table_top: what the table is made of.
        times_s: ``(T,)`` float32 from the episode's start.
        images: ``(T, H, W, 3)`` uint8 tensor.
        instances: ``(T, H, W)`` uint8 tensor: ``i + 1`` on thing ``i``, 255 on the arm.
        positions_tn3: ``(T, N, 3)`` float32 middles of the things in the world, in metres.
        tilts_tn: ``(T, N)`` float32 angles from the vertical in radians.
        held_tn: ``(T, N)`` bool.
        boxes_tn4: ``(T, N, 4)`` int16: left, top, right, bottom of what is visible of each thing, right and bottom not
            included; all 0 where nothing is.
        windows: what can be said.
    """

    seed: int
    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    table_top: str
    times_s: Float32Array
    images: torch.Tensor
    instances: torch.Tensor
    positions_tn3: Float32Array
    tilts_tn: Float32Array
    held_tn: BoolArray
    boxes_tn4: npt.NDArray[np.int16]
    windows: tuple[ClipWindow, ...]

    def to(self, device: torch.device | str) -> Clip:
        """The same with its pictures on a device."""
        return replace(self, images=self.images.to(device), instances=self.instances.to(device))


def make_clip(seed: int) -> Clip:
    """Simulate and render the clip of a seed, of those for training or of those held out."""
    from decaf_ros.synthetic.table.episodes import sample_episode

    rng = np.random.default_rng(seed)
    interval_s = float(rng.choice(INTERVALS_S, p=INTERVAL_ODDS))
    episode = sample_episode(seed)
    span_s = (CLIP_FRAMES - 1) * interval_s
    start_s = float(rng.uniform(0.0, max(0.0, episode.scene.duration_s - span_s)))
    times_s = start_s + interval_s * np.arange(CLIP_FRAMES)
    times_s = times_s[times_s <= episode.scene.duration_s]
    return _clip(seed, episode, times_s, tuple(_windows(episode, times_s, rng)))


def make_still(seed: int) -> Clip:
    """Render a single frame of the scene of a seed before anything happens in it."""
    from decaf_ros.synthetic.table.episodes import Episode
    from decaf_ros.synthetic.table.sampling import sample_scene

    episode = Episode(replace(sample_scene(seed), actions=(), duration_s=_STILL_SECONDS))
    return _clip(seed, episode, np.array([_STILL_SECONDS]), windows=())


def _clip(seed: int, episode: Episode, times_s: npt.NDArray[np.float64], windows: tuple[ClipWindow, ...]) -> Clip:
    """Some moments of an episode with the truth about them."""
    views = [episode.render(float(time_s), SIZE_HW) for time_s in times_s]
    recording, history = episode.recording, episode.history
    instances = np.stack([view.instances_hw for view in views])
    ticks = [int(np.argmin(np.abs(recording.times_s - time_s))) for time_s in times_s]
    return Clip(
        seed=seed,
        kinds=tuple(thing.kind for thing in episode.scene.things),
        colours=tuple(thing.colour for thing in episode.scene.things),
        table_top=episode.scene.look.table,
        times_s=times_s.astype(np.float32),
        images=torch.from_numpy(np.stack([view.image_rgb for view in views])),
        instances=torch.from_numpy(instances),
        positions_tn3=recording.middles_tn3[ticks].astype(np.float32),
        tilts_tn=recording.tilts_tn[ticks].astype(np.float32),
        held_tn=history.held_tn[ticks],
        boxes_tn4=_boxes(instances, len(episode.scene.things)),
        windows=windows,
    )


def _boxes(instances_thw: UInt8Array, things: int) -> npt.NDArray[np.int16]:
    """``(T, things, 4)``; see :attr:`Clip.boxes_tn4`."""
    boxes = np.zeros((len(instances_thw), things, 4), dtype=np.int16)
    for frame, labels in enumerate(instances_thw):
        for thing in range(things):
            left, top, width, height = cv2.boundingRect((labels == thing + 1).astype(np.uint8))
            boxes[frame, thing] = (left, top, left + width, top + height)
    return boxes


def _windows(episode: Episode, times_s: npt.NDArray[np.float64], rng: np.random.Generator) -> Iterator[ClipWindow]:
    from decaf_ros.synthetic.table.sentences import absent_sentences, sentences_of
    from decaf_ros.synthetic.table.window import Window

    used: set[tuple[int, int, int]] = set()
    for count, stride in SHAPES:
        latest = len(times_s) - 1 - (count - 1) * stride
        if latest < 0:
            continue
        first = int(rng.integers(latest + 1))
        if (first, count, stride) in used:
            continue
        used.add((first, count, stride))
        start_s, end_s = float(times_s[first]), float(times_s[first + (count - 1) * stride])
        sentences = sentences_of(episode, end_s, rng, end_s - start_s)
        window = Window(episode, start_s, end_s)
        for _ in range(_ABSENT_DRAWS):
            sentences += absent_sentences(window, rng)
        yield ClipWindow(first, count, stride, tuple(dict.fromkeys(sentences)))


def write_clip(clip: Clip, folder: Path) -> None:
    """Write a clip as a file of this folder: pictures as JPEG, instances as PNG."""
    jpegs = [_encoded(".jpg", image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY) for image in clip.images.numpy()]
    pngs = [_encoded(".png", labels, cv2.IMWRITE_PNG_COMPRESSION, 1) for labels in clip.instances.numpy()]
    windows = [
        {
            "frames": [window.first, window.count, window.stride],
            "sentences": [[s.text, s.kind, s.target, s.answer, list(s.evidence_s)] for s in window.sentences],
        }
        for window in clip.windows
    ]
    truth = {"kinds": clip.kinds, "colours": clip.colours, "table_top": clip.table_top, "windows": windows}
    with OutputFolder(folder).file(f"{clip.seed}{_SUFFIX}") as file:
        np.savez(
            file,
            jpegs=np.concatenate(jpegs),
            jpeg_ends=np.cumsum([len(data) for data in jpegs]),
            pngs=np.concatenate(pngs),
            png_ends=np.cumsum([len(data) for data in pngs]),
            times_s=clip.times_s,
            positions_tn3=clip.positions_tn3,
            tilts_tn=clip.tilts_tn,
            held_tn=clip.held_tn,
            boxes_tn4=clip.boxes_tn4,
            truth=np.frombuffer(to_json(truth).encode(), dtype=np.uint8),
        )


def read_clip(path: Path) -> Clip:
    """Read a clip that :func:`write_clip` wrote."""
    with np.load(path, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    truth = from_json(arrays["truth"].tobytes().decode())
    jpegs = np.split(arrays["jpegs"], arrays["jpeg_ends"][:-1])
    pngs = np.split(arrays["pngs"], arrays["png_ends"][:-1])
    images = np.stack([cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) for data in jpegs])
    windows = tuple(
        ClipWindow(
            *window["frames"],
            tuple(
                Sentence(text, kind, target, answer, tuple(span)) for text, kind, target, answer, span in window["sentences"]
            ),
        )
        for window in truth["windows"]
    )
    return Clip(
        seed=int(path.name.removesuffix(_SUFFIX)),
        kinds=tuple(truth["kinds"]),
        colours=tuple(truth["colours"]),
        table_top=truth["table_top"],
        images=torch.from_numpy(images),
        instances=torch.from_numpy(np.stack([cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) for data in pngs])),
        windows=windows,
        **{name: arrays[name] for name in ("times_s", "positions_tn3", "tilts_tn", "held_tn", "boxes_tn4")},
    )


class ClipFolder:
    """The clips of a folder, kept on a device, while a crowd goes on adding to it; held-out ones are refused.

    Args:
        folder: where :func:`write_clip` writes.
        device: where the pictures are kept.
        capacity: most clips that are kept; later ones are not read.
        threads: that read and decode.

    Attributes:
        clips: those read so far; it only grows.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu", capacity: int = 100_000, threads: int = 2) -> None:
        self.clips: list[Clip] = []
        self._folder, self._device, self._capacity = folder, device, capacity
        self._known: set[str] = set()
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="clips")
        self._readings: list[Future[None]] = []
        self._looked_s = 0.0

    def refresh(self, seconds: float = 2.0) -> None:
        """Have new files read in the background, unless that was seen to less than so many seconds ago.

        Raises:
            ValueError: a clip of the folder is held out.
            OSError: a file could not be read.
        """
        done = [reading for reading in self._readings if reading.done()]
        self._readings = [reading for reading in self._readings if not reading.done()]
        for reading in done:
            reading.result()
        if time.monotonic() - self._looked_s < seconds:
            return
        self._looked_s = time.monotonic()
        names = sorted(
            entry.name for entry in os.scandir(self._folder) if entry.name.endswith(_SUFFIX) and entry.name[0] != "."
        )
        for name in names:
            if name not in self._known and len(self._known) < self._capacity:
                self._known.add(name)
                self._readings.append(self._readers.submit(self._read, self._folder / name))

    def since(self, count: int) -> list[Clip]:
        """Those read after the first so many; new files are looked for now and then."""
        self.refresh()
        return self.clips[count:]

    def wait_for(self, count: int, seconds: float = 600.0) -> None:
        """Wait until there are so many clips.

        Raises:
            TimeoutError: there are not.
        """
        until = time.monotonic() + seconds
        while len(self.clips) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"{self._folder} holds {len(self.clips)} clips, not {count}: does tools.table_clips run?")
            self.refresh(0.5)
            time.sleep(0.1)

    def _read(self, path: Path) -> None:
        clip = read_clip(path)
        require_training(clip.seed)
        self.clips.append(clip.to(self._device))


def _encoded(kind: str, image: UInt8Array, option: int, value: int) -> UInt8Array:
    good, data = cv2.imencode(kind, image, [option, value])
    assert good
    return np.asarray(data, dtype=np.uint8).reshape(-1)


def _work(make: Callable[[int], Clip], folder: Path, seeds: Sequence[int]) -> None:
    cv2.setNumThreads(1)
    for seed in seeds:
        write_clip(make(seed), folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/clips"), help="folder of the clips (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--count", type=int, default=6000, help="clips or stills (default: %(default)s)")
    parser.add_argument("--stills", action="store_true", help="single frames of tables where nothing happens")
    parser.add_argument("--first-seed", type=int, default=FIRST_TRAINING_SEED)
    arguments = parser.parse_args()
    require_training(arguments.first_seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    make = make_still if arguments.stills else make_clip
    make(arguments.first_seed)  # the renderer is compiled once, before many want it
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.count)
    missing = [seed for seed in seeds if not (arguments.out / f"{seed}{_SUFFIX}").exists()]
    context = multiprocessing.get_context("spawn")
    crowd = [
        context.Process(target=_work, args=(make, arguments.out, missing[number :: arguments.workers]), daemon=True)
        for number in range(arguments.workers)
    ]
    for worker in crowd:
        worker.start()
    for worker in crowd:
        worker.join()


if __name__ == "__main__":
    main()
