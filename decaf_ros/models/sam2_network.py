"""The SAM 2 network behind five typed calls: encode an image, propose masks, memorise given masks, prompt, and track on.

All of sam2's own modules and weights are used as they are; what is replaced is its string-keyed state, which grows with the
video. The values are those of the official video predictor with ``apply_postprocessing=False``, the setting of the published
evaluation: no hole filling, soft masks into memory, no fallback among masks by stability. Asked to round as it does, they are
the same bit by bit in float32 with one object a call.

Otherwise what does not depend on the object is computed once (the first self-attention of the memory attention, the image's
part of the memory encoder), masks that are not chosen are not enlarged, and a CPU looks back in an order that suits its cache.
No object waits for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from PIL import Image
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe

from decaf_ros.datatypes import BoolArray, Frame, UInt8Array
from decaf_ros.models.devices import DeviceQueue, on_cpu, on_device
from decaf_ros.models.pictures import resized_by_torch
from decaf_ros.models.sam2_memory import MemorySpan, Recollection
from decaf_ros.models.wanted import require_wanted_in_layers

# Normalisation of the published training data.
_MEAN_RGB, _STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Attention scores of one object up to which they stay in a CPU's cache.
_MOST_SCORES = 1 << 19
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
        stamp_ns: of the frame.
        size_hw: height and width in pixels of the camera image.
        levels: ``(1, C_l, H_l, W_l)`` float at strides 4, 8 and 16 of the network's square image.
    """

    stamp_ns: int
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

    def tokens_bnc(self) -> torch.Tensor:
        """``(1, h * w, C)``: the coarsest level as a sequence."""
        return self.levels[-1].flatten(2).transpose(1, 2)


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
        spatial_bnc: ``(B, h * w, C_mem)`` bfloat16, or float16 where that is computed in.
        pointers_bc: ``(B, C)`` float.
    """

    spatial_bnc: torch.Tensor
    pointers_bc: torch.Tensor


@dataclass(frozen=True, eq=False)
class TrackedBatch:
    """Several objects on one frame.

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

    On a GPU all of it stands in one queue (:attr:`device_queue`), which goes before others: the small kernels of a live frame
    must not wait for the large ones of a language model. A queue of one keeps its order, so that threads may share results.

    Args:
        model: built by :func:`decaf_ros.models.sam2_loading.load_sam2`. It is taken over: its weights must not change any
            more, since what depends on them alone is computed once.
        device: where to compute.
        dtype: float32, or a half precision to compute in under autocast.
        compile_encoder: compile the image encoder, before this returns.
        as_official: whether one object a call is rounded as by the official predictor, which takes longer.

    Raises:
        ValueError: the model has a setting that no published config has and that the tracker cannot honour.
    """

    def __init__(
        self,
        model: SAM2Base,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        compile_encoder: bool = False,
        as_official: bool = False,
    ) -> None:
        settings = {name: getattr(model, name) for name in _REQUIRED_SETTINGS}
        if settings != _REQUIRED_SETTINGS:
            raise ValueError(f"unsupported SAM 2 settings {settings}; they must be {_REQUIRED_SETTINGS}")
        self.device = torch.device(device)
        self._dtype = dtype
        self._as_official = True  # for the warm-up, in which sam2's modules see the image size
        if dtype is not torch.float32:
            _store_in(model, dtype)
        self._model = model.to(self.device).eval()
        self.device_queue = DeviceQueue(self.device, priority=-1)
        _compute_positions_once(self._model)
        with self.device_queue():
            self._mean, self._std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (_MEAN_RGB, _STD_RGB))
        # The encodings of position depend on the image size only, so a blank image gives them; those of a prompt, on nothing.
        blank, self._image_positions_bnc = self._blank()
        self._no_prompt = self._embedded_points(torch.zeros(1, 1, 2), torch.full((1, 1), -1))
        self._dense_positions = self._dense_position_encoding()
        self._memory_positions_anc = self._memory_positions(blank)
        if compile_encoder:  # after an image filled sam2's cache of positions, since a cache that fills makes it compile twice
            self._model.image_encoder.compile(dynamic=False)
            self._blank()
        else:  # a compiled one runs as a whole
            require_wanted_in_layers(self._model.image_encoder)
        self._warm_up(blank)
        self._as_official = as_official

    @property
    def span(self) -> MemorySpan:
        """How far back the network attends."""
        return MemorySpan(spatial=self._model.num_maskmem - 1, pointers=self._model.max_obj_ptrs_in_encoder - 1)

    def encode(self, frame: Frame) -> Sam2Features:
        """Run the image encoder."""
        with self._inference():
            return Sam2Features(frame.stamp_ns, frame.size_hw, self._backbone(frame.image_rgb)[0])

    def propose(self, features: Sam2Features, points_xy_px: Sequence[tuple[float, float]]) -> MaskBatch:
        """Prompt with each point alone and keep the best of its three masks by predicted IoU, as on a still image.

        Args:
            features: of the frame.
            points_xy_px: in pixels of the camera image.
        """
        with self._inference():
            points = self._scaled(points_xy_px, features)[:, None]
            prompt = self._embedded_points(points, torch.ones(points.shape[:2]))
            return self._decode(self._without_memory(features), features, prompt, multimask=True).masks

    def prompt(
        self, features: Sam2Features, points_xy_px: Sequence[tuple[float, float]], labels: Sequence[int]
    ) -> TrackedBatch:
        """One object from points on a frame, and the memory of it.

        Args:
            features: of the frame.
            points_xy_px: in pixels of the camera image.
            labels: what each point is: 0 ground, 1 object, 2 and 3 the upper left and lower right corner of its box.
        """
        with self._inference():
            points, kinds = self._scaled(points_xy_px, features)[None], torch.tensor([labels])
            several = self._model._use_multimask(True, {"point_labels": kinds})
            prompt = self._embedded_points(points, kinds)
            decoded = self._decode_in_video(self._without_memory(features), features, prompt, several)
            square = self._enlarged(decoded.chosen(decoded.logits_bmhw))
            return decoded.remembered(self._spatial_memory(features, square, decoded.presence_logits_b1, prompted=True))

    def memorise(self, features: Sam2Features, masks_bhw: BoolArray) -> MemoryBatch:
        """Take given masks as the truth of a frame and encode them into memory.

        Args:
            features: of the frame.
            masks_bhw: ``(B, H, W)`` bool at camera resolution, resized as the official predictor does.
        """
        with self._inference():
            masks = self._squared(on_device(torch.from_numpy(masks_bhw), self.device))
            image = features.levels[-1].expand(len(masks), -1, -1, -1)
            outputs = self._model._use_mask_as_output(image, features.high_resolution, masks)
            _, _, _, logits, _, pointers, presence_logits = outputs
            # The official predictor keeps the prompt at low resolution until tracking begins; its memory is of that mask.
            spatial = self._spatial_memory(features, self._enlarged(logits), presence_logits, prompted=True)
            return MemoryBatch(spatial, pointers)

    def track(
        self,
        features: Sam2Features,
        memories: Sequence[Recollection],
        strays: Callable[[BoolArray], BoolArray] | None = None,
    ) -> TrackedBatch:
        """Find several objects on a frame by their memories and memorise what was found.

        Args:
            features: of the frame.
            memories: one per object; those with the same :attr:`Recollection.token_counts` stand side by side, so that they
                look back together.
            strays: tells which pixels of the ``(B, h, w)`` masks that were found do not belong to them.
        """
        with self._inference():
            several = self._model._use_multimask(False, None)
            decoded = self._decode_in_video(self._attend_to_memory(features, memories), features, self._no_prompt, several)
            if strays is not None:
                [masks_bhw] = on_cpu(decoded.masks.logits_bhw > 0)
                decoded = decoded.without(strays(masks_bhw.numpy()))
            if self._as_official:  # the other way round is cheaper, and rounded in another way
                square = decoded.chosen(self._enlarged(decoded.logits_bmhw))
            else:
                square = self._enlarged(decoded.chosen(decoded.logits_bmhw))
            return decoded.remembered(self._spatial_memory(features, square, decoded.presence_logits_b1, prompted=False))

    @contextmanager
    def _inference(self) -> Iterator[None]:
        half = self._dtype is not torch.float32
        autocast = torch.autocast(self.device.type, self._dtype if half else None, enabled=half)
        with self.device_queue(), torch.inference_mode(), autocast:
            yield

    def _backbone(self, image_rgb: UInt8Array) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """The three feature levels, and ``(1, C, h, w)`` the position encoding of the coarsest."""
        pixels = self._square_image(image_rgb) / 255
        output = self._model.forward_image(((pixels - self._mean) / self._std)[None])
        return tuple(output["backbone_fpn"]), output["vision_pos_enc"][-1]

    def _square_image(self, image_rgb: UInt8Array) -> torch.Tensor:
        """``(3, S, S)`` float32 in [0, 255]: an image resized as the official predictor does, on a GPU by the GPU."""
        side = self._model.image_size
        if self.device.type == "cpu":
            square = np.array(Image.fromarray(image_rgb).resize((side, side), Image.Resampling.BICUBIC))
            return torch.from_numpy(square).permute(2, 0, 1).float()
        return resized_by_torch(on_device(torch.from_numpy(np.array(image_rgb)), self.device), (side, side))

    def _blank(self) -> tuple[Sam2Features, torch.Tensor]:
        """Features of a black image, and ``(1, h * w, C)`` the position encoding of its coarsest level."""
        size_hw = (self._model.image_size,) * 2
        with self._inference():
            levels, positions = self._backbone(np.zeros((*size_hw, 3), dtype=np.uint8))
            return Sam2Features(0, size_hw, levels), positions.flatten(2).transpose(1, 2)

    def _memory_positions(self, blank: Sam2Features) -> torch.Tensor:
        """``(1 + past frames, h * w, C_mem)``: a memory's encoding by its age in frames; age 0 is for conditioning frames."""
        with self._inference():
            memory = blank.levels[-1].new_zeros(1, self._model.mem_dim, *blank.levels[-1].shape[-2:])
            positions = self._model.memory_encoder.position_encoding(memory).to(memory.dtype)
            # sam2 lists the encodings of time by age from 1 on, and that of conditioning frames last.
            by_age = self._model.maskmem_tpos_enc.squeeze(1).roll(1, dims=0)
            return positions.flatten(2).transpose(1, 2) + by_age

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

    def _scaled(self, points_xy_px: Sequence[tuple[float, float]], features: Sam2Features) -> torch.Tensor:
        """``(P, 2)`` float32 on the CPU: points of the camera image on the network's square image."""
        height, width = features.size_hw
        points = torch.tensor(points_xy_px, dtype=torch.float32).view(-1, 2)
        return points / points.new_tensor([width, height]) * self._model.image_size

    def _embedded_points(self, points_bp2: torch.Tensor, labels_bp: torch.Tensor) -> _Prompt:
        """A prompt for each row of points, given on the CPU; a label of -1 says that there is none."""
        with self._inference():
            points = (on_device(points_bp2, self.device), on_device(labels_bp.to(torch.int32), self.device))
            return _Prompt(*self._model.sam_prompt_encoder(points=points, boxes=None, masks=None))

    def _dense_position_encoding(self) -> torch.Tensor:
        """``(1, C, h, w)``, as the mask decoder wants it."""
        with self._inference():
            return self._model.sam_prompt_encoder.get_dense_pe()

    def _without_memory(self, features: Sam2Features) -> torch.Tensor:
        """``(1, C, h, w)``: the coarsest feature level of a frame that nothing is remembered before."""
        return features.levels[-1] + self._model.no_mem_embed.view(1, -1, 1, 1)

    def _decode(self, image_bchw: torch.Tensor, features: Sam2Features, prompt: _Prompt, multimask: bool) -> _Decoded:
        """Run the mask decoder on each prompt and image (one of them may stand for all), and keep the best of its masks."""
        model = self._model
        batch = max(len(image_bchw), len(prompt.sparse))
        masks, predicted_iou, tokens, presence_logits = model.sam_mask_decoder(
            image_embeddings=image_bchw.expand(batch, -1, -1, -1),
            image_pe=self._dense_positions,
            sparse_prompt_embeddings=prompt.sparse.expand(batch, -1, -1),
            dense_prompt_embeddings=prompt.dense.expand(batch, -1, -1, -1),
            multimask_output=multimask,
            repeat_image=False,
            high_res_features=features.high_resolution,
        )
        rows, best = torch.arange(batch, device=self.device), predicted_iou.argmax(dim=1)
        pointers = model.obj_ptr_proj(tokens[rows, best] if tokens.shape[1] > 1 else tokens[:, 0])
        return _Decoded(masks.float(), predicted_iou.float(), rows, best, presence_logits, pointers)

    def _decode_in_video(self, image_bchw: torch.Tensor, features: Sam2Features, prompt: _Prompt, multimask: bool) -> _Decoded:
        """As :meth:`_decode`, for an object that may be absent: on a still image a prompt always means something."""
        model, decoded = self._model, self._decode(image_bchw, features, prompt, multimask)
        if not model.pred_obj_scores:
            return decoded
        there = decoded.presence_logits_b1 > 0
        masks = torch.where(there[..., None, None], decoded.logits_bmhw, NO_OBJ_SCORE)
        there = decoded.presence_logits_b1.sigmoid() if model.soft_no_obj_ptr else there.float()
        pointers = there * decoded.pointers_bc if model.fixed_no_obj_ptr else decoded.pointers_bc
        return replace(decoded, logits_bmhw=masks, pointers_bc=pointers + (1 - there) * model.no_obj_ptr)

    def _enlarged(self, logits_b1hw: torch.Tensor) -> torch.Tensor:
        """``(B, 1, S, S)``: mask logits at the network's image size."""
        return F.interpolate(logits_b1hw, (self._model.image_size,) * 2, mode="bilinear", align_corners=False)

    def _attend_to_memory(self, features: Sam2Features, memories: Sequence[Recollection]) -> torch.Tensor:
        """``(B, C, h, w)``: the coarsest feature level, told apart by what each object's memory says."""
        attention = self._model.memory_attention
        groups = [self._memories(list(group)) for _, group in groupby(memories, lambda memory: memory.token_counts)]
        here = self._image_positions_bnc
        # Before the first look at the memories all objects are alike: one row stands for all of them.
        tokens = features.tokens_bnc()
        if attention.pos_enc_at_input:
            tokens = tokens + 0.1 * here
        for layer in attention.layers:
            tokens = layer._forward_sa(tokens, here).expand(len(memories), -1, -1)
            rows = tokens.split([len(group.tokens_bnc) for group in groups])
            seen = [self._look_back(layer, own, here, group) for own, group in zip(rows, groups, strict=True)]
            tokens = torch.cat(seen) if len(seen) > 1 else seen[0]
            tokens = tokens + layer.linear2(layer.activation(layer.linear1(layer.norm3(tokens))))
        return attention.norm(tokens).transpose(1, 2).unflatten(2, features.levels[-1].shape[-2:])

    def _memories(self, memories: Sequence[Recollection]) -> _Memories:
        """Memories of equally many tokens, in one tensor."""
        spatial, spatial_positions = self._spatial_tokens(memories)
        pointers, pointer_positions = self._pointer_tokens(memories)
        tokens = torch.cat([spatial, pointers], dim=1)
        return _Memories(tokens, torch.cat([spatial_positions, pointer_positions], dim=1), pointers.shape[1])

    def _look_back(self, layer: Any, tokens: torch.Tensor, here: torch.Tensor, memories: _Memories) -> torch.Tensor:
        """Cross-attention of ``(B, h * w, C)`` tokens to the memories of their objects."""
        fits = tokens.shape[1] * memories.tokens_bnc.shape[1] <= _MOST_SCORES
        if not self._as_official and fits and self.device.type == "cpu" and self._dtype is torch.float32:
            return _look_back_one_by_one(layer, tokens, here, memories)
        attended: torch.Tensor = layer._forward_ca(
            tokens, memories.tokens_bnc, here, memories.positions_bnc, num_k_exclude_rope=memories.pointers
        )
        return attended

    def _spatial_tokens(self, memories: Sequence[Recollection]) -> tuple[torch.Tensor, torch.Tensor]:
        """Spatial memories and their positions in the image and in time, both ``(B, memories * h * w, C_mem)``."""
        tokens = torch.cat([frame_nc for memory in memories for frame_nc in memory.spatial])
        ages = on_device(torch.tensor([memory.spatial_ages for memory in memories]), self.device)
        return tokens.unflatten(0, (len(memories), -1)), self._memory_positions_anc[ages].flatten(1, 2)

    def _pointer_tokens(self, memories: Sequence[Recollection]) -> tuple[torch.Tensor, torch.Tensor]:
        """Object pointers, each cut into tokens of a memory's width, and their positions in time: ``(B, tokens, C_mem)``."""
        pointers = torch.stack([pointer_c for memory in memories for pointer_c in memory.pointers])
        pointers = pointers.unflatten(0, (len(memories), -1))
        ages = torch.tensor([memory.pointer_ages for memory in memories])
        batch, count, channels = pointers.shape
        width = self._model.mem_dim
        if self._model.add_tpos_enc_to_obj_ptrs:
            dim = channels if self._model.proj_tpos_enc_in_obj_ptrs else width
            sines = get_1d_sine_pe(ages / (self._model.max_obj_ptrs_in_encoder - 1), dim=dim)
            positions = self._model.obj_ptr_tpos_proj(on_device(sines, self.device))
        else:
            positions = pointers.new_zeros(batch, count, width)
        pieces = channels // width
        return pointers.reshape(batch, count * pieces, width), positions.repeat_interleave(pieces, dim=1)

    def _spatial_memory(
        self, features: Sam2Features, square_logits: torch.Tensor, presence_logits: torch.Tensor, prompted: bool
    ) -> torch.Tensor:
        """``(B, h * w, C_mem)`` in half precision, as the official predictor keeps it, from ``(B, 1, S, S)`` mask logits."""
        model, encoder = self._model, self._model.memory_encoder
        hard = prompted and model.binarize_mask_from_pts_for_mem_enc
        masks = (square_logits > 0).float() if hard else square_logits.sigmoid()
        masks = masks * model.sigmoid_scale_for_mem_enc + model.sigmoid_bias_for_mem_enc
        # Contiguous, since the layout of the first summand is that of all that follows, and rounding depends on it.
        image = encoder.pix_feat_proj(features.levels[-1]).contiguous()
        summed = image + encoder.mask_downsampler(masks)
        if not self._as_official:  # rounded in another way in the layout that is faster
            summed = summed.contiguous(memory_format=torch.channels_last)
        memory = encoder.out_proj(encoder.fuser(summed))
        if model.no_obj_embed_spatial is not None:
            gone = 1 - (presence_logits > 0).float()
            memory = memory + (gone * model.no_obj_embed_spatial)[..., None, None]
        # Autocast to float16 does not mix with bfloat16, which is what the official predictor always takes.
        return memory.to(torch.float16 if self._dtype is torch.float16 else torch.bfloat16).flatten(2).transpose(1, 2)


def _store_in(model: SAM2Base, dtype: torch.dtype) -> None:
    """Keep weights in the half precision in which autocast takes them, instead of converting them for each use.

    Those of what autocast computes in it; the results are the same to the last bit.
    """
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            module.to(dtype)


def _compute_positions_once(model: SAM2Base) -> None:
    """Keep the image encoder's encodings of position, which sam2 interpolates and copies anew for every image."""
    encoder: Any = model.image_encoder
    encoder.trunk._get_pos_embed = cache(encoder.trunk._get_pos_embed)
    encoder.neck.position_encoding = _Positions(encoder.neck.position_encoding)


class _Positions(torch.nn.Module):
    """A module whose output depends on the shape of its input alone, in the precision of the input."""

    def __init__(self, encoding: torch.nn.Module) -> None:
        super().__init__()
        self._encoding = encoding
        self._known: dict[tuple[torch.Size, torch.dtype], torch.Tensor] = {}

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        kind = features.shape, features.dtype
        if kind not in self._known:
            self._known[kind] = self._encoding(features).to(features.dtype)
        return self._known[kind]


@dataclass(frozen=True, eq=False)
class _Memories:
    """What several objects remember, equally much each.

    Attributes:
        tokens_bnc, positions_bnc: ``(B, N, C_mem)`` memories, and where they are in the image and in time.
        pointers: how many of the last tokens have no place in the image.
    """

    tokens_bnc: torch.Tensor
    positions_bnc: torch.Tensor
    pointers: int


def _look_back_one_by_one(layer: Any, tokens: torch.Tensor, here: torch.Tensor, memories: _Memories) -> torch.Tensor:
    """Cross-attention, faster on a CPU as long as what one object needs fits into its cache.

    Weights sum to 1, so that memories can be averaged first and projected to values afterwards: they are narrower than values,
    and there are more of them than tokens.
    """
    cross = layer.cross_attn_image
    assert cross.num_heads == 1, "as in all published configs"
    alike = tokens.stride(0) == 0  # one row that stands for all
    queries = layer.norm2(tokens[:1] if alike else tokens)
    queries = cross.q_proj(queries + here if layer.pos_enc_at_cross_attn_queries else queries)
    rotations = cross.freqs_cis  # (h * w, C / 2) complex
    _rotate(queries, rotations)
    queries = (queries * queries.shape[-1] ** -0.5).expand(len(tokens), -1, -1)
    seen = []
    for query, known, where in zip(queries, memories.tokens_bnc, memories.positions_bnc, strict=True):
        keys = cross.k_proj(known + where if layer.pos_enc_at_cross_attn_keys else known)
        _rotate(keys[: len(keys) - memories.pointers].unflatten(0, (-1, len(rotations))), rotations)
        seen.append((query @ keys.T).softmax(dim=-1) @ known)
    return tokens + cross.out_proj(cross.v_proj(torch.stack(seen)))


def _rotate(states: torch.Tensor, rotations: torch.Tensor) -> None:
    """Rotary encoding of ``(..., h * w, C)`` float32 queries or keys, in place: they are large, and fresh memory is slow."""
    torch.view_as_complex(states.unflatten(-1, (-1, 2))).mul_(rotations)


@dataclass(frozen=True, eq=False)
class _Prompt:
    """Embedded prompts: ``(B, points, C)`` and ``(B, C, h, w)``; one may stand for all."""

    sparse: torch.Tensor
    dense: torch.Tensor


@dataclass(frozen=True, eq=False)
class _Decoded:
    """What the mask decoder says: ``(B, M, h, w)`` masks, of which one is chosen, and all else by object; rows count them."""

    logits_bmhw: torch.Tensor
    predicted_iou_bm: torch.Tensor
    rows_b: torch.Tensor
    best_b: torch.Tensor
    presence_logits_b1: torch.Tensor
    pointers_bc: torch.Tensor

    def chosen(self, masks_bmhw: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)``: of each object's masks the one with the best predicted IoU."""
        return masks_bmhw[self.rows_b, self.best_b][:, None]

    @cached_property
    def masks(self) -> MaskBatch:
        """The chosen masks."""
        return MaskBatch(self.chosen(self.logits_bmhw).squeeze(1), self.predicted_iou_bm.amax(dim=1).clamp(0, 1))

    def without(self, pixels_bhw: BoolArray) -> _Decoded:
        """With pixels of the chosen masks turned from inside to outside."""
        if not pixels_bhw.any():
            return self
        chosen, masks = self.masks.logits_bhw, self.logits_bmhw.clone()
        turned = on_device(torch.from_numpy(pixels_bhw), masks.device)
        masks[self.rows_b, self.best_b] = torch.where(turned, -chosen.abs(), chosen)
        return replace(self, logits_bmhw=masks)

    def remembered(self, spatial_bnc: torch.Tensor) -> TrackedBatch:
        """With the spatial memory that was made of the masks."""
        presence = self.presence_logits_b1.float().sigmoid().squeeze(1)
        return TrackedBatch(self.masks, presence, MemoryBatch(spatial_bnc, self.pointers_bc))
