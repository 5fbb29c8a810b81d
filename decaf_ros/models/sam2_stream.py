"""SAM 2 as a tracker of many objects over a stream without end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from decaf_ros.datatypes import BoolArray, Frame, ObjectPrompt
from decaf_ros.models.devices import on_cpu, on_device
from decaf_ros.models.model_files import told_as
from decaf_ros.models.protocols import MaskProposals, TrackOutput
from decaf_ros.models.sam2_loading import load_sam2
from decaf_ros.models.sam2_memory import MemoryEntry, ObjectPointer, Recollection, Sam2Track
from decaf_ros.models.sam2_motion import motion_after, stray_parts
from decaf_ros.models.sam2_network import MemoryBatch, Sam2Features, Sam2Network, TrackedBatch
from decaf_ros.models.wanted import require_wanted
from decaf_ros.text import quoted_path

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
# Values of masks that a GPU enlarges to the camera image in one call, but one mask at least, as on a CPU: it bounds the memory.
_VALUES_AT_ONCE = 1 << 24


def _in_line(
    method: Callable[Concatenate[Sam2Tracker, _Arguments], _Result],
) -> Callable[Concatenate[Sam2Tracker, _Arguments], _Result]:
    """All that a method has a GPU do stands in the network's queue."""

    @wraps(method)
    def in_line(self: Sam2Tracker, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with self._network.device_queue(), torch.inference_mode():
            return method(self, *args, **kwargs)

    return in_line


class Sam2Tracker:
    """A :class:`~decaf_ros.models.protocols.MaskTracker`. All state is in the tracks, so threads may share it.

    A step gives what sam2's video predictor gives offline (see :mod:`~decaf_ros.models.sam2_network` for its settings) while a
    track keeps a constant number of bytes. All objects go through the network in one batch; only where they look back, those go
    together whose memories hold equally many tokens. That is every object 15 frames after its last prompt.

    Args:
        network: the network, on its device.
        max_conditioning: conditioning frames that a track keeps: the first and the newest. The official predictor keeps all,
            so that a track prompted more often is not bit by bit the same.
        batch_size: points or objects in one call of the network at most; bounds its working memory.
        memory_gating: whether :meth:`step` forgets at once a frame without the object, so that the memory of the last frames
            that showed it lasts as long as it is hidden. The official predictor remembers all frames.
        motion_gating: whether :meth:`step` gives up a part of a mask that lies apart from where the object was heading, while
            another part is there (:mod:`~decaf_ros.models.sam2_motion`). The official predictor knows no motion.

    Raises:
        ValueError: ``max_conditioning`` below 2 or ``batch_size`` below 1.
    """

    def __init__(
        self,
        network: Sam2Network,
        *,
        max_conditioning: int = 4,
        batch_size: int = 32,
        memory_gating: bool = False,
        motion_gating: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._network = network
        self._span = replace(network.span, conditioning=max_conditioning)
        self._batch_size = batch_size
        self._memory_gating = memory_gating
        self._motion_gating = motion_gating

    @classmethod
    def load(
        cls,
        model_id: str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        image_size: int | None = None,
        compile_encoder: bool = False,
        max_conditioning: int = 4,
        batch_size: int = 32,
        memory_gating: bool = False,
        motion_gating: bool = False,
    ) -> Sam2Tracker:
        """Load a model by id or path.

        Args:
            model_id: ``embedded``, a local folder or checkpoint, or a hub id: see :func:`decaf_ros.models.sam2_loading.locate`.
            device: where to compute.
            dtype: float32, or bfloat16 or float16 to compute under autocast.
            image_size: side in pixels of the square that images are resized to; the model's own by default.
            compile_encoder: compile the image encoder, which takes minutes here and pays on every frame.
            max_conditioning, batch_size, memory_gating, motion_gating: see the class.

        Raises:
            ModelNotFound: nothing usable behind ``model_id``.
            ValueError: ``image_size`` is not a multiple of 32, or another argument is out of range.
        """
        model = load_sam2(model_id, image_size)
        # The first image is computed here; what the compiler says is told apart by its callers.
        telling = told_as(f"{quoted_path(model_id)} cannot track", "Use the config the weights were trained with")
        with nullcontext() if compile_encoder else telling:
            network = Sam2Network(model, device, dtype, compile_encoder=compile_encoder)
        return cls(
            network,
            max_conditioning=max_conditioning,
            batch_size=batch_size,
            memory_gating=memory_gating,
            motion_gating=motion_gating,
        )

    @property
    def reach(self) -> int:
        """How many frames back a track remembers: 15 in the published models."""
        return self._span.pointers

    def encode(self, frame: Frame) -> Sam2Features:
        """Run the image encoder once; everything below shares the result."""
        return self._network.encode(frame)

    @_in_line
    def propose(self, features: Sam2Features, points_xy_px: Sequence[tuple[float, float]]) -> MaskProposals:
        """Prompt with each point alone, all points in one batch; of its three masks the one with the best predicted IoU stays.

        Args:
            features: of the frame.
            points_xy_px: P points in pixels of the camera image.

        Raises:
            ValueError: a point outside the image.
        """
        _require_inside(points_xy_px, features)
        height, width = features.size_hw
        masks = np.zeros((len(points_xy_px), height, width), dtype=np.bool_)
        predicted_iou = torch.zeros(len(points_xy_px))
        for chunk in _chunks(range(len(points_xy_px)), self._batch_size):
            require_wanted()
            decoded = self._network.propose(features, [points_xy_px[index] for index in chunk])
            found, predicted_iou[chunk] = on_cpu(_camera_masks(decoded.logits_bhw, features.size_hw), decoded.predicted_iou_b)
            masks[chunk] = found.numpy()
        return MaskProposals(masks, predicted_iou)

    @_in_line
    def propagate(self, clip: Sequence[Sam2Features], key_index: int, masks_nhw: BoolArray) -> BoolArray:
        """Carry masks given on one frame of a clip over the whole clip, first forwards, then backwards knowing what came later.

        The other frames get what the official predictor gives when it propagates forwards and then in reverse over a clip of
        at least 16 frames. (On shorter ones it scales the age of object pointers by the length of the clip, which a stream
        does not have.) The key frame keeps the masks given.

        Args:
            clip: T frames of one size.
            key_index: the frame that the masks belong to.
            masks_nhw: ``(N, H, W)`` bool at camera resolution.

        Returns:
            ``(N, T, H, W)`` bool.

        Raises:
            ValueError: no such frame, or masks of another size or dtype.
        """
        if not 0 <= key_index < len(clip):
            raise ValueError(f"key_index must be one of the clip's {len(clip)} frames, got {key_index}")
        _require_masks(masks_nhw, clip[key_index])
        result = np.zeros((len(masks_nhw), len(clip), *clip[key_index].size_hw), dtype=np.bool_)
        for chunk in _chunks(range(len(masks_nhw)), self._batch_size):
            result[chunk] = self._propagate_batch(clip, key_index, masks_nhw[chunk])
        return result

    @_in_line
    def appearance(self, features: Sam2Features, mask_hw: BoolArray) -> torch.Tensor:
        """``(D,)`` float32 of length 1 on the CPU: the mean over a mask of the finest features, which tell colour and texture.

        Raises:
            ValueError: an empty mask, or one of another size or dtype.
        """
        _require_masks(mask_hw[None], features)
        if not mask_hw.any():
            raise ValueError("an empty mask looks like nothing")
        finest = features.levels[0][0].float()
        weights = on_device(torch.from_numpy(mask_hw)[None, None], finest.device).to(finest.dtype)
        weights = F.interpolate(weights, finest.shape[-2:], mode="area")[0]
        return on_cpu(F.normalize((finest * weights).sum(dim=(1, 2)), dim=0))[0]

    @_in_line
    def start_track(self, features: Sam2Features, mask_hw: BoolArray, reversible: bool = False) -> Sam2Track:
        """A new object from its ``(H, W)`` bool mask on a frame, which becomes its first conditioning frame.

        Args:
            features: of the frame.
            mask_hw: the object there.
            reversible: whether it is to be :meth:`turned_back`, for which it remembers a little more.

        Raises:
            ValueError: a mask of another size or dtype.
        """
        _require_masks(mask_hw[None], features)
        return Sam2Track.starting(self._span, _entry(self._network.memorise(features, mask_hw[None]), 0, time=0), reversible)

    def turned_back(self, track: Sam2Track) -> Sam2Track:
        """The same object from the first frame of a reversible track, for steps back in time, as in the official predictor.

        The track itself goes on as before, but cannot be turned back again.
        """
        back = track.reversed()
        track.forget_beginning()
        return back

    @_in_line
    def start_backwards(self, features: Sam2Features, mask_hw: BoolArray, later: Sequence[Sam2Features]) -> Sam2Track:
        """A new object from its ``(H, W)`` bool mask on a frame, for steps back in time, as in the official predictor.

        Args:
            features: of the frame, the track's conditioning frame.
            mask_hw: the object there.
            later: the frames after it in order; the first :attr:`reach` of them count.

        Raises:
            ValueError: a mask of another size or dtype.
        """
        track = self.start_track(features, mask_hw, reversible=True)
        for each in later[: self.reach]:
            self.step([track], each, gated=False)
        return track.reversed()

    @_in_line
    def prompt(self, features: Sam2Features, prompt: ObjectPrompt) -> tuple[Sam2Track, TrackOutput]:
        """A new object from points, a box or a mask on a frame, which becomes its first conditioning frame.

        Returns:
            Its track, and where it is on the frame.

        Raises:
            ValueError: a point or a corner outside the image, or a mask of another size.
        """
        if prompt.mask_hw is not None:
            return self.start_track(features, prompt.mask_hw), TrackOutput(prompt.mask_hw, presence=1.0)
        corners = [] if prompt.box_xyxy_px is None else [prompt.box_xyxy_px[:2], prompt.box_xyxy_px[2:]]
        points = [*corners, *prompt.on_xy_px, *prompt.off_xy_px]
        labels = [*(2, 3)[: len(corners)], *(1 for _ in prompt.on_xy_px), *(0 for _ in prompt.off_xy_px)]
        _require_inside(points, features)
        tracked = self._network.prompt(features, points, labels)
        [output] = _outputs(tracked, features.size_hw)
        return Sam2Track.starting(self._span, _entry(tracked.memory, 0, time=0)), output

    @_in_line
    def condition(self, track: Sam2Track, features: Sam2Features, mask_hw: BoolArray) -> None:
        """Give a track its ``(H, W)`` bool mask on its next frame, instead of a :meth:`step`.

        Raises:
            ValueError: a mask of another size or dtype.
        """
        _require_masks(mask_hw[None], features)
        track.condition(_entry(self._network.memorise(features, mask_hw[None]), 0, track.next_time))

    @_in_line
    def step(self, tracks: Sequence[Sam2Track], features: Sam2Features, gated: bool = True) -> list[TrackOutput]:
        """Carry every track on to its next frame, and tell where its object is, in the order of the tracks.

        Args:
            tracks: of any objects.
            features: of the frame.
            gated: whether the gates that this tracker was given hold; else it steps as the official predictor does.

        Raises:
            ValueError: a track is given twice.
        """
        if len({id(track) for track in tracks}) < len(tracks):
            raise ValueError("each track takes one step a frame, but one is given twice")
        outputs: dict[int, TrackOutput] = {}
        for indices, recollections in self._batches(tracks):
            require_wanted()
            moving = [tracks[index] for index in indices]
            strays = partial(_strays, moving, features.stamp_ns) if gated and self._motion_gating else None
            tracked = self._network.track(features, recollections, strays)
            outputs.update(zip(indices, _outputs(tracked, features.size_hw), strict=True))
            for row, index in enumerate(indices):
                if not (gated and self._memory_gating) or outputs[index].mask_hw.any():
                    tracks[index].remember(_entry(tracked.memory, row, tracks[index].next_time))
        return [outputs[index] for index in range(len(tracks))]

    def _batches(self, tracks: Sequence[Sam2Track]) -> Iterator[tuple[Sequence[int], list[Recollection]]]:
        """Indices of tracks that share a call, with what each of them remembers; those that remember as much side by side."""
        recollections = [track.recall() for track in tracks]
        order = sorted(range(len(tracks)), key=lambda index: recollections[index].token_counts)
        for chunk in _chunks(order, self._batch_size):
            yield chunk, [recollections[index] for index in chunk]

    def _propagate_batch(self, clip: Sequence[Sam2Features], key_index: int, masks_nhw: BoolArray) -> BoolArray:
        """Propagate as many masks as one call of the network takes."""
        memory = self._network.memorise(clip[key_index], masks_nhw)
        result = np.empty((len(masks_nhw), len(clip), *masks_nhw.shape[1:]), dtype=np.bool_)
        result[:, key_index] = masks_nhw

        tracks = [Sam2Track.starting(self._span, _entry(memory, row, time=0), True) for row in range(len(masks_nhw))]
        for index in range(key_index + 1, len(clip)):
            result[:, index] = [output.mask_hw for output in self.step(tracks, clip[index], gated=False)]
        tracks = [track.reversed() for track in tracks]
        for index in reversed(range(key_index)):
            result[:, index] = [output.mask_hw for output in self.step(tracks, clip[index], gated=False)]
        return result


def _entry(memory: MemoryBatch, row: int, time: int) -> MemoryEntry:
    """One object's part of a batch, copied: a view would keep the whole batch alive."""
    spatial = memory.spatial_bnc[row].clone(memory_format=torch.contiguous_format)
    return MemoryEntry(spatial, ObjectPointer(time, memory.pointers_bc[row].clone()))


def _strays(tracks: Sequence[Sam2Track], stamp_ns: int, masks_bhw: BoolArray) -> BoolArray:
    """``(B, h, w)`` bool: the parts of each mask that are not where its object was heading; motions learn of the others."""
    strays_bhw = np.zeros_like(masks_bhw)
    for track, mask_hw, stray_hw in zip(tracks, masks_bhw, strays_bhw, strict=True):
        expected_xyxy = track.motion.expected_xyxy(stamp_ns) if track.motion is not None else None
        if expected_xyxy is not None:
            stray_hw[:] = stray_parts(mask_hw, expected_xyxy)
        track.motion = motion_after(track.motion, mask_hw & ~stray_hw, stamp_ns)
    return strays_bhw


def _outputs(tracked: TrackedBatch, size_hw: tuple[int, int]) -> list[TrackOutput]:
    """One result per object, with its mask at camera resolution."""
    logits_bhw = tracked.masks.logits_bhw
    told = on_cpu(_camera_masks(logits_bhw, size_hw), tracked.presence_b, tracked.masks.predicted_iou_b)
    masks, presences, predicted_ious = told[0].numpy(), told[1].tolist(), told[2].tolist()
    return [TrackOutput(*row) for row in zip(masks, presences, predicted_ious, logits_bhw, strict=True)]


def _camera_masks(logits_bhw: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    """``(B, H, W)`` bool on the device: logits interpolated to the camera image, a few at a time, and cut at 0."""
    at_once = 1 if logits_bhw.device.type == "cpu" else max(1, _VALUES_AT_ONCE // math.prod(size_hw))
    chunks = logits_bhw[:, None].split(at_once)
    resized = (F.interpolate(logits, size_hw, mode="bilinear", align_corners=False) for logits in chunks)
    return torch.cat([logits[:, 0] > 0 for logits in resized])


def _require_masks(masks_nhw: BoolArray, features: Sam2Features) -> None:
    if masks_nhw.dtype != np.bool_ or masks_nhw.ndim != 3 or masks_nhw.shape[1:] != features.size_hw:
        raise ValueError(
            f"masks must be bool at their frame's size {features.size_hw}, got {masks_nhw.dtype} of shape {masks_nhw.shape}"
        )


def _require_inside(points_xy_px: Sequence[tuple[float, float]], features: Sam2Features) -> None:
    height, width = features.size_hw
    outside = [(x, y) for x, y in points_xy_px if not (0 <= x <= width and 0 <= y <= height)]
    if outside:
        raise ValueError(f"points outside the image of {width} x {height} pixels: {outside}")


def _chunks(items: Sequence[int], size: int) -> Iterator[list[int]]:
    """The items in their order, in lists of ``size`` at most."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
