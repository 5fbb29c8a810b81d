"""sam2's own video predictor, and ours beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from sam2 import sam2_video_predictor
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.utils import misc

from decaf_ros.bench.measuring import Time, timed
from decaf_ros.datatypes import BoolArray, Frame, UInt8Array
from decaf_ros.models.sam2_loading import locate
from decaf_ros.models.sam2_network import Sam2Network
from decaf_ros.models.sam2_stream import Sam2Tracker

_T = TypeVar("_T")


def _plainly(items: Iterable[_T], **_: object) -> Iterable[_T]:
    """Instead of bars of progress, which would fill the log between the rows of a table."""
    return items


sam2_video_predictor.tqdm = misc.tqdm = _plainly


def predictor_of(model: torch.nn.Module, config_path: Path | None = None) -> SAM2VideoPredictor:
    """sam2's own predictor with the weights of a model; of the embedded architecture, unless a config says another."""
    config = OmegaConf.load(config_path or locate("embedded").config).model
    config._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    predictor = instantiate(config)
    predictor.load_state_dict(model.state_dict())
    return predictor.eval()


def in_turn(
    model: SAM2Base,
    config: Path,
    images_rgb: Sequence[UInt8Array],
    first_masks: Sequence[BoolArray],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[tuple[Time, Time]]:
    """The time of each frame but the first with sam2's predictor and with ours, in turn, so that both meet the same machine.

    Args:
        model: a network, and so are the other arguments what both follow.
        config: its architecture.
        images_rgb: the video. Its loading by the predictor is not timed.
        first_masks: ``(H, W)`` of each object on the first image.
        device: of both.
        dtype: float32, or what both compute in under autocast.
    """
    predictor, tracker = predictor_of(model, config).to(device), Sam2Tracker(Sam2Network(model, device, dtype))
    stream = iter([Frame(index, "camera", image_rgb) for index, image_rgb in enumerate(images_rgb)])
    features = tracker.encode(next(stream))
    tracks = [tracker.start_track(features, mask) for mask in first_masks]
    half = dtype is not torch.float32
    times = []
    with (
        tempfile.TemporaryDirectory() as folder,
        torch.inference_mode(),
        torch.autocast(torch.device(device).type, dtype, enabled=half),
    ):
        for index, image_rgb in enumerate(images_rgb):
            Image.fromarray(image_rgb).save(Path(folder) / f"{index:05d}.jpg", format="PNG")
        state = predictor.init_state(folder)
        for index, mask in enumerate(first_masks):
            predictor.add_new_mask(state, 0, index, mask)
        steps = predictor.propagate_in_video(state)
        next(steps)
        for _ in images_rgb[1:]:
            _, official = timed(lambda: next(steps))
            _, ours = timed(lambda: tracker.step(tracks, tracker.encode(next(stream))))
            times.append((official, ours))
    return times
