"""The SAM 2 network behind four typed calls: encode an image, decode points, memorise given masks, track on.

All of sam2's own modules and weights are used as they are; what is replaced is its string-keyed state, which grows with the
video. The values are those of the official video predictor with ``apply_postprocessing=False``, the setting of the published
evaluation: no hole filling, soft masks into memory, no fallback among masks by stability. In float32 and with one object a
call they are the same bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from PIL import Image
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe

from decaf_ros.datatypes import BoolArray, UInt8Array
from decaf_ros.models.sam2_memory import MemorySpan, Recollection

# Normalisation of the published training data.
_MEAN_RGB, _STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What the tracker counts on; all published configs of SAM 2 and 2.1 are like this.
_REQUIRED_SETTINGS = {
    "use_high_res_features_in_sam": True,
    "use_mask_input_as_output_without_sam": True,
    "use_obj_ptrs_in_encoder": True,
    "directly_add_no_mem_embed": True,
    "memory_temporal_stride_for_eval": 1,
    "max_cond_frames_in_attn": -1,
    "non_overlap_masks_for_mem_enc": False,
}


@dataclass(frozen=True, eq=False)
class Sam2Features:
    """The image encoder's output for one frame.

    Attributes:
        size_hw: height and width in pixels of the camera image.
        levels: ``(1, C_l, H_l, W_l)`` float at strides 4, 8 and 16 of the network's square image.
    """

    size_hw: tuple[int, int]
    levels: tuple[torch.Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""
        return sum(level.nbytes for level in self.levels)

    @property
    def high_resolution(self) -> list[torch.Tensor]:
        """The two finer levels, which sharpen the mask decoder's output."""
        return list(self.levels[:-1])

    def tokens_nbc(self, batch: int) -> torch.Tensor:
        """``(h * w, batch, C)``: the coarsest level as a sequence, shared by all objects of a batch."""
        return self.levels[-1].flatten(2).permute(2, 0, 1).expand(-1, batch, -1)


@dataclass(frozen=True, eq=False)
class MaskBatch:
    """Decoded masks.

    Attributes:
        logits_bhw: ``(B, h, w)`` float32 at a quarter of the network's image size.
        predicted_iou_b: ``(B,)`` float32 in [0, 1].
    """

    logits_bhw: torch.Tensor
    predicted_iou_b: torch.Tensor


@dataclass(frozen=True, eq=False)
class MemoryBatch:
    """What a frame leaves behind for several objects.

    Attributes:
        spatial_bnc: ``(B, h * w, C_mem)`` bfloat16.
        pointers_bc: ``(B, C)`` float.
    """

    spatial_bnc: torch.Tensor
    pointers_bc: torch.Tensor


@dataclass(frozen=True, eq=False)
class TrackedBatch:
    """Several objects on their next frame.

    Attributes:
        masks: their masks; all logits are -1024 for an object that is not there.
        presence_b: ``(B,)`` float32: probability in [0, 1] that the object is on the frame.
        memory: what the frame leaves behind.
    """

    masks: MaskBatch
    presence_b: torch.Tensor
    memory: MemoryBatch


class Sam2Network:
    """A SAM 2 network on its device. Nothing changes after construction, so threads may share it.

    Args:
        model: built by :func:`decaf_ros.models.sam2_loading.load_sam2`.
        device: where to compute.
        dtype: float32, or a half precision to compute in under autocast.

    Raises:
        ValueError: the model has a setting that no published config has and that the tracker cannot honour.
    """

    def __init__(self, model: SAM2Base, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        settings = {name: getattr(model, name) for name in _REQUIRED_SETTINGS}
        if settings != _REQUIRED_SETTINGS:
            raise ValueError(f"unsupported SAM 2 settings {settings}; they must be {_REQUIRED_SETTINGS}")
        self.device = torch.device(device)
        self._dtype = dtype
        self._model = model.to(self.device).eval()
        self._mean, self._std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (_MEAN_RGB, _STD_RGB))
        # The encodings of position depend on the image size only, so a blank image gives them.
        blank, self._image_positions_nbc = self._blank()
        self._memory_positions_anc = self._memory_positions(blank)
        self._warm_up(blank)

    @property
    def span(self) -> MemorySpan:
        """How far back the network attends."""
        return MemorySpan(spatial=self._model.num_maskmem - 1, pointers=self._model.max_obj_ptrs_in_encoder - 1)

    def encode(self, image_rgb: UInt8Array) -> Sam2Features:
        """Run the image encoder on a ``(H, W, 3)`` uint8 RGB image."""
        with self._inference():
            return Sam2Features(image_rgb.shape[:2], self._backbone(image_rgb)[0])

    def decode_points(self, features: Sam2Features, points_xy_px: Sequence[tuple[float, float]]) -> MaskBatch:
        """Prompt with each point alone and keep the best of its three masks by predicted IoU, as on a still image.

        Args:
            features: of the frame.
            points_xy_px: in pixels of the camera image.
        """
        height, width = features.size_hw
        with self._inference():
            points = torch.tensor(points_xy_px, dtype=torch.float32, device=self.device)
            points = points / points.new_tensor([width, height]) * self._model.image_size
            labels = torch.ones(len(points), 1, dtype=torch.int32, device=self.device)
            sparse, dense = self._model.sam_prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
            logits, predicted_iou, _, _ = self._model.sam_mask_decoder(
                image_embeddings=features.levels[-1] + self._model.no_mem_embed.view(1, -1, 1, 1),
                image_pe=self._model.sam_prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
                repeat_image=True,
                high_res_features=features.high_resolution,
            )
            best = predicted_iou.argmax(dim=1, keepdim=True)
            logits = torch.take_along_dim(logits, best[..., None, None], dim=1)
            return _mask_batch(logits, predicted_iou)

    def memorise(self, features: Sam2Features, masks_bhw: BoolArray) -> MemoryBatch:
        """Take given masks as the truth of a frame and encode them into memory.

        Args:
            features: of the frame.
            masks_bhw: ``(B, H, W)`` bool at camera resolution, resized as the official predictor does.
        """
        with self._inference():
            masks = self._squared(torch.from_numpy(masks_bhw).to(self.device))
            image = features.levels[-1].expand(len(masks), -1, -1, -1)
            outputs = self._model._use_mask_as_output(image, features.high_resolution, masks)
            _, _, _, logits, _, pointers, presence_logits = outputs
            # The official predictor keeps the prompt at low resolution until tracking begins; its memory is of that mask.
            logits = F.interpolate(logits, size=masks.shape[-2:], mode="bilinear", align_corners=False)
            return MemoryBatch(self._spatial_memory(features, logits, presence_logits, prompted=True), pointers)

    def track(self, features: Sam2Features, memories: Sequence[Recollection]) -> TrackedBatch:
        """Find several objects on a frame by their memories and memorise what was found.

        Args:
            features: of the frame.
            memories: one per object, all with the same :attr:`Recollection.token_counts`.
        """
        with self._inference():
            outputs = self._model._forward_sam_heads(
                backbone_features=self._attend_to_memory(features, memories),
                high_res_features=features.high_resolution,
                multimask_output=self._model._use_multimask(False, None),
            )
            _, _, predicted_iou, logits, square_logits, pointers, presence_logits = outputs
            spatial = self._spatial_memory(features, square_logits, presence_logits, prompted=False)
            return TrackedBatch(
                _mask_batch(logits, predicted_iou),
                presence_logits.float().sigmoid().squeeze(1),
                MemoryBatch(spatial, pointers),
            )

    @contextmanager
    def _inference(self) -> Iterator[None]:
        half = self._dtype is not torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, self._dtype if half else None, enabled=half):
            yield

    def _backbone(self, image_rgb: UInt8Array) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """The three feature levels, and ``(1, C, h, w)`` the position encoding of the coarsest."""
        side = self._model.image_size
        square = np.array(Image.fromarray(image_rgb).resize((side, side), Image.Resampling.BICUBIC))
        pixels = torch.from_numpy(square).to(self.device).permute(2, 0, 1).float() / 255
        output = self._model.forward_image(((pixels - self._mean) / self._std)[None])
        return tuple(output["backbone_fpn"]), output["vision_pos_enc"][-1]

    def _blank(self) -> tuple[Sam2Features, torch.Tensor]:
        """Features of a black image, and ``(h * w, 1, C)`` the position encoding of its coarsest level."""
        size_hw = (self._model.image_size,) * 2
        with self._inference():
            levels, positions = self._backbone(np.zeros((*size_hw, 3), dtype=np.uint8))
            return Sam2Features(size_hw, levels), positions.flatten(2).permute(2, 0, 1)

    def _memory_positions(self, blank: Sam2Features) -> torch.Tensor:
        """``(1 + past frames, h * w, C_mem)``: a memory's encoding by its age in frames; age 0 is for conditioning frames."""
        with self._inference():
            logits = torch.zeros(1, 1, *blank.size_hw, device=self.device)
            _, positions = self._encode_memory(blank, logits, presence_logits=logits[:, :, 0, 0], prompted=False)
            # sam2 lists the encodings of time by age from 1 on, and that of conditioning frames last.
            by_age = self._model.maskmem_tpos_enc.squeeze(1).roll(1, dims=0)
            return positions[-1].flatten(2).transpose(1, 2) + by_age

    def _warm_up(self, blank: Sam2Features) -> None:
        """Track once, so that modules that cache by size (rotary frequencies) never change under two threads."""
        memory = self.memorise(blank, np.zeros((1, *blank.size_hw), dtype=np.bool_))
        self.track(blank, [Recollection((memory.spatial_bnc[0],), (0,), (memory.pointers_bc[0],), (1,))])

    def _squared(self, masks_bhw: torch.Tensor) -> torch.Tensor:
        """``(B, 1, S, S)`` float32 in {0, 1}: masks at the network's image size."""
        side = self._model.image_size
        masks = masks_bhw[:, None].float()
        if masks.shape[-2:] == (side, side):
            return masks
        masks = F.interpolate(masks, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        return (masks >= 0.5).float()

    def _attend_to_memory(self, features: Sam2Features, memories: Sequence[Recollection]) -> torch.Tensor:
        """``(B, C, h, w)``: the coarsest feature level, told apart by what each object's memory says."""
        spatial, spatial_positions = self._spatial_tokens(memories)
        pointers, pointer_positions = self._pointer_tokens(memories)
        attended = self._model.memory_attention(
            curr=[features.tokens_nbc(len(memories))],
            curr_pos=[self._image_positions_nbc.expand(-1, len(memories), -1)],
            memory=torch.cat([spatial, pointers]),
            memory_pos=torch.cat([spatial_positions, pointer_positions]),
            num_obj_ptr_tokens=len(pointers),
        )
        return attended.permute(1, 2, 0).view(len(memories), -1, *features.levels[-1].shape[-2:])

    def _spatial_tokens(self, memories: Sequence[Recollection]) -> tuple[torch.Tensor, torch.Tensor]:
        """Spatial memories and their positions in the image and in time, both ``(memories * h * w, B, C_mem)``."""
        tokens = torch.stack([torch.cat(memory.spatial) for memory in memories], dim=1)
        positions = [self._memory_positions_anc[list(memory.spatial_ages)].flatten(0, 1) for memory in memories]
        return tokens, torch.stack(positions, dim=1)

    def _pointer_tokens(self, memories: Sequence[Recollection]) -> tuple[torch.Tensor, torch.Tensor]:
        """Object pointers, each cut into tokens of a memory's width, and their positions in time: ``(tokens, B, C_mem)``."""
        pointers = torch.stack([torch.stack(memory.pointers) for memory in memories], dim=1)
        ages = torch.tensor([memory.pointer_ages for memory in memories], device=self.device).T
        count, batch, channels = pointers.shape
        width = self._model.mem_dim
        if self._model.add_tpos_enc_to_obj_ptrs:
            dim = channels if self._model.proj_tpos_enc_in_obj_ptrs else width
            sines = get_1d_sine_pe(ages / (self._model.max_obj_ptrs_in_encoder - 1), dim=dim)
            positions = self._model.obj_ptr_tpos_proj(sines)
        else:
            positions = pointers.new_zeros(count, batch, width)
        pieces = channels // width
        tokens = pointers.reshape(count, batch, pieces, width).permute(0, 2, 1, 3).flatten(0, 1)
        return tokens, positions.repeat_interleave(pieces, dim=0)

    def _spatial_memory(
        self, features: Sam2Features, square_logits: torch.Tensor, presence_logits: torch.Tensor, prompted: bool
    ) -> torch.Tensor:
        """``(B, h * w, C_mem)`` bfloat16 (as the official predictor keeps it) from ``(B, 1, S, S)`` mask logits."""
        memory, _ = self._encode_memory(features, square_logits, presence_logits, prompted)
        return memory.to(torch.bfloat16).flatten(2).transpose(1, 2)

    def _encode_memory(
        self, features: Sam2Features, square_logits: torch.Tensor, presence_logits: torch.Tensor, prompted: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """``(B, C_mem, h, w)`` memories, and their encodings of position by level (there is one)."""
        memory, positions = self._model._encode_new_memory(
            [features.tokens_nbc(len(square_logits))],
            [features.levels[-1].shape[-2:]],
            square_logits,
            presence_logits,
            is_mask_from_pts=prompted,
        )
        return memory, positions


def _mask_batch(logits_b1hw: torch.Tensor, predicted_iou_bm: torch.Tensor) -> MaskBatch:
    """The chosen masks, with the best of their ``m`` predicted IoUs."""
    return MaskBatch(logits_b1hw.squeeze(1).float(), predicted_iou_bm.float().amax(dim=1).clamp(0, 1))
