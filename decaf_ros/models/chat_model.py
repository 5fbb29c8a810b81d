"""A model of transformers that is talked to about images: what it reads of them is kept, and questions are put behind it.

A conversation is a visual prefix (everything up to the last visual token) and a tail (the rest of the prompt). The prefix goes
through the model once; each tail attends to its cached keys and values. Nothing that a tail does changes the prefix.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, get_args

import torch
from transformers import (
    Cache,
    DynamicCache,
    LogitsProcessorList,
    PreTrainedModel,
    ProcessorMixin,
    RepetitionPenaltyLogitsProcessor,
)

from decaf_ros.method.rollout import QueryKeys, Variant
from decaf_ros.models import attention_tap
from decaf_ros.models.chat_frames import ChatFrame, chat_frames
from decaf_ros.models.devices import DeviceQueue, on_device
from decaf_ros.models.errors import OptionsError, PromptError
from decaf_ros.models.model_files import is_panic
from decaf_ros.models.prompts import Medium
from decaf_ros.models.protocols import TokenActivations
from decaf_ros.models.wanted import require_wanted_in_layers
from decaf_ros.models.yes_or_no import share_of_yes, yes_and_no_ids
from decaf_ros.text import brief, quoted


@dataclass(frozen=True)
class MllmOptions:
    """How a video MLLM reads images and answers (DecAF, section 4.1 for the defaults).

    Attributes:
        video_tokens: visual tokens of one frame on the video path, at most; the model's own limit may be lower.
        frame_tokens: the same on the frame path. The default is InternVL3's 12 tiles of 16 x 16; the Qwen family takes no more
            than four times ``video_tokens``.
        multi_scale: read frames on the frame path at a finer scale than on the video path: at twice the height and width, in
            tokens, or in several tiles, as the family has it.
        rollout: how attention heads are joined.
        first_layer: first layer of the rollout; half of all layers by default.
        max_new_tokens: length of an answer, at most.
        batch_tokens: tokens of one batch on the frame path, at most (but one frame at least): bounds the working memory.
        hidden_states: whether what is read is kept with what the last layer makes of the visual tokens, which is then computed.
    """

    video_tokens: int = 400
    frame_tokens: int = 3072
    multi_scale: bool = True
    rollout: Variant = "v_max"
    first_layer: int | None = None
    max_new_tokens: int = 8
    batch_tokens: int = 8192
    hidden_states: bool = False

    def __post_init__(self) -> None:
        for name in ("video_tokens", "frame_tokens", "max_new_tokens", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.rollout not in get_args(Variant):
            raise ValueError(f"rollout must be one of {', '.join(get_args(Variant))}, got {quoted(self.rollout)}")

    def require_budgets(self, reader: str, video_tokens: int, frame_tokens: int) -> None:
        """Refuse budgets that a model with images of fixed sizes cannot keep.

        Args:
            reader: what the model is called in the message.
            video_tokens: visual tokens that it makes of a frame on the video path.
            frame_tokens: the fewest that it makes of one on the frame path.

        Raises:
            OptionsError: a budget is smaller than that.
        """
        for name, least in (("video_tokens", video_tokens), ("frame_tokens", frame_tokens)):
            if getattr(self, name) < least:
                raise OptionsError(
                    f"{name} must be at least {least}, the size of one image of {reader}; got {getattr(self, name)}"
                )


@dataclass(frozen=True, eq=False)
class Conversations:
    """A batch of conversations of one layout, up to their last visual token, as the model's own processor made them on the CPU.

    Attributes:
        input_ids_bn: ``(B, P)`` int64.
        grid_tokens: ``(cells,)`` int64, for each cell of the visual grid, row by row, the index of the token that shows it.
            Other tokens of the images, such as ends of lines or a thumbnail, are in no cell and count as text.
        images: the model's arguments that carry the images. Those of whole numbers say how images are laid out: the model
            looks at them on the CPU.
        positions: from the number of tokens that follow, the position ids of the whole, ``(..., B, P + tokens)``.
    """

    input_ids_bn: torch.Tensor
    grid_tokens: torch.Tensor
    images: dict[str, torch.Tensor]
    positions: Callable[[int], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Reading:
    """Conversations of one layout that the model has read, without their images.

    Attributes:
        input_ids_bn: ``(B, P)`` int64.
        positions, grid_tokens: as of :class:`Conversations`, on the CPU.
        cache: keys and values of all layers.
        queries: ``(B, heads, P, channels)`` of the layers that are rolled out, the last ones.
        scaling: of the attention.
        saliency: what the first rollout has found of these tokens, for those that follow; see
            :func:`~decaf_ros.method.rollout.attention_rollout`.
        hidden_bvd: ``(B, cells, channels)``, what the last layer makes of the grid's tokens, where it is kept.
    """

    input_ids_bn: torch.Tensor
    positions: Callable[[int], torch.Tensor]
    grid_tokens: torch.Tensor
    cache: Cache
    queries: list[torch.Tensor]
    scaling: float
    saliency: list[torch.Tensor] = field(default_factory=list)
    hidden_bvd: torch.Tensor | None = None

    def __len__(self) -> int:
        """Conversations."""
        return len(self.input_ids_bn)

    @property
    def tokens(self) -> int:
        """Of each conversation."""
        return self.input_ids_bn.shape[1]

    @property
    def layers(self) -> list[QueryKeys]:
        """Queries and keys of the layers that are rolled out."""
        keys = (layer.keys for layer in _layers(self.cache)[-len(self.queries) :])
        return [QueryKeys(queries, of_layer) for queries, of_layer in zip(self.queries, keys, strict=True)]

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""
        held = [*self.queries, *(tensor for layer in _layers(self.cache) for tensor in (layer.keys, layer.values))]
        return sum(tensor.nbytes for tensor in (*held, *([] if self.hidden_bvd is None else [self.hidden_bvd])))

    def forked_cache(self) -> Cache:
        """A cache that starts from this one: the tensors are shared, and replaced by longer ones when the fork grows."""
        return _with_layers(self.cache, [(layer.keys, layer.values) for layer in _layers(self.cache)])

    def rows(self) -> list[Reading]:
        """Each conversation on its own; see :meth:`row`."""
        return [self.row(row) for row in range(len(self))]

    def row(self, row: int) -> Reading:
        """One conversation on its own, with memory of its own: a view would keep that of all."""
        if len(self) == 1:
            return self
        return Reading(
            self.input_ids_bn[row : row + 1],
            partial(_row_of, self.positions, row),
            self.grid_tokens,
            _with_layers(
                self.cache,
                [(layer.keys[row : row + 1].clone(), layer.values[row : row + 1].clone()) for layer in _layers(self.cache)],
            ),
            [queries_bhnd[row : row + 1].clone() for queries_bhnd in self.queries],
            self.scaling,
            [saliency_bh[row : row + 1].clone() for saliency_bh in self.saliency],
            None if self.hidden_bvd is None else self.hidden_bvd[row : row + 1].clone(),
        )


def joined_cache(readings: Sequence[Reading]) -> Cache:
    """The keys and values of several readings as those of one batch."""
    if len(readings) == 1:
        return readings[0].forked_cache()
    layers = zip(*(_layers(reading.cache) for reading in readings), strict=True)
    joined = [(torch.cat([each.keys for each in layer]), torch.cat([each.values for each in layer])) for layer in layers]
    return _with_layers(readings[0].cache, joined)


def _layers(cache: Cache) -> list[Any]:
    """With their keys and values: those of a model whose layers all attend."""
    return cache.layers


def _row_of(positions: Callable[[int], torch.Tensor], row: int, tail_tokens: int) -> torch.Tensor:
    return positions(tail_tokens)[..., row : row + 1, :]


def _with_layers(cache: Cache, keys_and_values: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Cache:
    """A cache like another one, that holds these instead."""
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    for layer, (keys, values) in zip(_layers(other), keys_and_values, strict=True):
        layer.keys, layer.values = keys, values
    return other


class ChatModel:
    """A model of transformers and its processor: prompts through the model's own chat template, answers decoded greedily.

    On a GPU it computes in a queue of its own (:meth:`device_queue`): a prefill is put in line within milliseconds and takes
    seconds, and a tracker in another thread must not stand behind it.

    Args:
        model: an image-text-to-text model; its attention is routed through the tap.
        processor: the processor that belongs to it.
        options: see :class:`MllmOptions`.

    Raises:
        OptionsError: ``first_layer`` is not a layer of the model.
        ValueError: its attention cannot be rolled out, or its chat template cannot be used (:func:`chat_frames`).
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, options: MllmOptions) -> None:
        attention_tap.install(model)
        require_wanted_in_layers(model)
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.tokenizer: Any = processor.tokenizer
        self.options = options
        layers = model.config.get_text_config().num_hidden_layers
        self.first_layer, self._last_layer = self._resolve_first_layer(layers), layers - 1
        self._eos_ids = self._find_eos_ids()
        self._adjusted = self._find_logits_processors()
        self._frames = self._find_frames()
        self.device_queue = DeviceQueue(model.device)

    def _resolve_first_layer(self, layers: int) -> int:
        first = layers // 2 if self.options.first_layer is None else self.options.first_layer
        if not 0 <= first < layers:
            raise OptionsError(f"first_layer must lie in [0, {layers - 1}] for a model of {layers} layers, got {first}")
        return first

    def _find_eos_ids(self) -> torch.Tensor:
        """All tokens that end an answer; the tokenizer's own comes first."""
        generation_config = self.model.generation_config
        ids = generation_config.eos_token_id if generation_config is not None else None
        listed = ids if isinstance(ids, list) else [ids]
        unique = dict.fromkeys(token for token in (self.tokenizer.eos_token_id, *listed) if token is not None)
        if not unique:
            raise ValueError("the tokenizer and the generation config name no token that ends an answer")
        return torch.tensor(list(unique), device=self.model.device)

    def _find_logits_processors(self) -> LogitsProcessorList:
        """What the model's generation config says of greedy decoding, as ``generate`` would have it."""
        penalty = getattr(self.model.generation_config, "repetition_penalty", None) or 1.0
        return LogitsProcessorList([RepetitionPenaltyLogitsProcessor(float(penalty))] if penalty != 1.0 else [])

    def processed(self, medium: Medium, conversations: int, **images: Any) -> Mapping[str, torch.Tensor]:
        """What the processor makes of conversations up to their last visual token: token ids on the CPU, images on the device.

        Args:
            medium: what the chat template calls the images.
            conversations: how many, each with the same text.
            images: the processor's own arguments for the images of all conversations.
        """
        placeholder, device = self._placeholder(medium), self.model.device
        if device.type != "cpu":
            images["device"] = device
        text = [self._frames[medium].head.partition(placeholder)[0] + placeholder] * conversations
        with _panics_told():
            # What the tokenizer's files say about padding is of no use here, and may be any length.
            return self.processor(text=text, return_tensors="pt", padding=False, truncation=False, **images)

    def tail_ids(self, medium: Medium, prompt: str) -> torch.Tensor:
        """``(S,)`` int64: what follows the last visual token, up to where the model answers."""
        _, _, tail = self._rendered(medium, prompt).partition(self._placeholder(medium))
        return self._tokenized(tail, add_special_tokens=False)

    def prompt_in_tail(self, medium: Medium, tail_ids: torch.Tensor) -> slice:
        """Which tokens of a tail are of the prompt itself, and not of the chat template."""
        head, after = self._frames[medium]
        before = head.partition(self._placeholder(medium))[2]
        first, last = (self._tokenized(text, add_special_tokens=False).numel() if text else 0 for text in (before, after))
        return slice(first, len(tail_ids) - last)

    def _placeholder(self, medium: Medium) -> str:
        return getattr(self.processor, f"{medium}_token")

    def _find_frames(self) -> Mapping[str | None, ChatFrame]:
        """What the chat template puts around a sentence, by the medium of the images before it."""
        template = self.processor.chat_template
        if isinstance(template, Mapping):
            template = template.get("default")
        if not isinstance(template, str):
            raise ValueError("the model comes without a chat template, so that there is no way to ask it")
        frames = chat_frames(template, self.tokenizer.special_tokens_map)
        for medium in get_args(Medium):
            head, tail = frames[medium]
            if head.count(self._placeholder(medium)) != 1 or self._placeholder(medium) in tail:
                raise ValueError(f"the model's chat template does not put a {medium} before the text that asks about it")
        return frames

    def _rendered(self, medium: Medium | None, prompt: str) -> str:
        for token in (*self.tokenizer.all_special_tokens, self._placeholder("image"), self._placeholder("video")):
            if token in prompt:
                raise PromptError(f"the prompt holds {quoted(token)}, which the model takes for a control token; leave it out")
        head, tail = self._frames[medium]
        return head + prompt + tail

    def _tokenized(self, text: str, add_special_tokens: bool) -> torch.Tensor:
        with _panics_told():
            ids = self.tokenizer(text, add_special_tokens=add_special_tokens, return_tensors="pt")["input_ids"]
        return on_device(ids[0], self.model.device)

    @torch.inference_mode()
    def complete(self, prompt: str) -> str:
        """Answer a prompt without images."""
        ids_bn = self._tokenized(self._rendered(None, prompt), add_special_tokens=True)[None]
        positions_bn = torch.arange(ids_bn.shape[1], device=ids_bn.device)[None]
        cache = DynamicCache(config=self.model.config)
        logits_bv = self._next_logits(ids_bn, positions_bn, cache)
        return self._texts(self._decode(logits_bv, ids_bn, positions_bn, cache, self.options.max_new_tokens))[0]

    @torch.inference_mode()
    def prefill(self, conversations: Conversations) -> Reading:
        """Read a batch of visual prefixes, as far as later tokens and the rollout need: nothing is predicted from them."""
        cache, device = DynamicCache(config=self.model.config), self.model.device
        ids_bn, positions = on_device(conversations.input_ids_bn, device), on_device(conversations.positions(0), device)
        images, hidden_bvd = self._on_device(conversations.images), None
        end_layer = None if self.options.hidden_states else self._last_layer
        with attention_tap.recording(self.first_layer, end_layer) as record:
            hidden_bvd = self._last_hidden(ids_bn, positions, cache, **images)[:, on_device(conversations.grid_tokens, device)]
        queries = [layer.queries_bhqd for layer in record.layers]
        grid_tokens = conversations.grid_tokens
        return Reading(ids_bn, conversations.positions, grid_tokens, cache, queries, record.scaling, hidden_bvd=hidden_bvd)

    @torch.inference_mode()
    def see(self, video: Mapping[str, torch.Tensor]) -> None:
        """Have the vision tower alone look at a video, given as the images of :class:`Conversations` are."""
        self.model.model.get_video_features(**self._on_device(video))

    def _on_device(self, images: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        device = self.model.device
        return {
            name: on_device(tensor, device) if tensor.is_floating_point() and tensor.device != device else tensor
            for name, tensor in images.items()
        }

    @torch.inference_mode()
    def ask(self, read: Sequence[Reading], tail_ids: torch.Tensor, answer: bool) -> tuple[tuple[str, ...], list[QueryKeys]]:
        """Put one tail behind every conversation, all in one batch: the answers and the recorded layers of the tail.

        Args:
            read: what stands before it, all of one layout.
            tail_ids: ``(S,)``.
            answer: whether answers are decoded.
        """
        ids_bn, positions, cache = self._behind(read, tail_ids)
        with attention_tap.recording(self.first_layer, end_layer=None if answer else self._last_layer) as record:
            logits_bv = self._next_logits(ids_bn, positions[..., read[0].tokens :], cache)
        if not answer:
            return ("",) * len(ids_bn), record.layers
        answers_bn = self._decode(logits_bv, _said(read, ids_bn), positions, cache, self.options.max_new_tokens)
        return tuple(self._texts(answers_bn)), record.layers

    @torch.inference_mode()
    def say(self, read: Sequence[Reading], tail_ids: torch.Tensor, max_new_tokens: int) -> tuple[str, ...]:
        """As the answers of :meth:`ask`, of up to so many tokens; nothing is recorded."""
        ids_bn, positions, cache = self._behind(read, tail_ids)
        logits_bv = self._next_logits(ids_bn, positions[..., read[0].tokens :], cache)
        return tuple(self._texts(self._decode(logits_bv, _said(read, ids_bn), positions, cache, max_new_tokens)))

    @torch.inference_mode()
    def share_of_yes(self, read: Sequence[Reading], tail_ids: torch.Tensor) -> torch.Tensor:
        """``(B,)`` float32: how likely yes is against no behind every conversation; no answer is decoded."""
        ids_bn, positions, cache = self._behind(read, tail_ids)
        logits_bv = self._next_logits(ids_bn, positions[..., read[0].tokens :], cache)
        return share_of_yes(logits_bv, *self._yes_and_no_ids)

    @torch.inference_mode()
    def last_token(self, read: Sequence[Reading], tail_ids: torch.Tensor) -> list[QueryKeys]:
        """Of every layer, the query of a tail's last token, and the keys of all tokens up to it; as :meth:`ask`."""
        ids_bn, positions, cache = self._behind(read, tail_ids)
        with attention_tap.recording(0, end_layer=self._last_layer) as record:
            self._next_logits(ids_bn, positions[..., read[0].tokens :], cache)
        layers = zip(record.layers, _layers(cache), strict=True)
        return [QueryKeys(layer.queries_bhqd[:, :, -1:], held.keys) for layer, held in layers]

    @torch.inference_mode()
    def activations(
        self, read: Sequence[Reading], tail_ids: torch.Tensor, prompt: slice, grid_thw: tuple[int, int, int]
    ) -> list[TokenActivations]:
        """What the prompt's and the answer's tokens light up in each conversation, once it is answered.

        Args:
            read: what stands before the tail, all of one layout, with ``hidden_bvd``.
            tail_ids: ``(S,)``.
            prompt: which of these are the prompt's.
            grid_thw: of the visual tokens of one conversation.
        """
        ids_bn, positions, cache = self._behind(read, tail_ids)
        logits_bv = self._next_logits(ids_bn, positions[..., read[0].tokens :], cache)
        answers_bn = self._decode(logits_bv, _said(read, ids_bn), positions, cache, self.options.max_new_tokens)
        ids_bn, positions, cache = self._behind(read, torch.cat([ids_bn, answers_bn], dim=1))
        hidden_bnd = self._last_hidden(ids_bn, positions[..., read[0].tokens :], cache)
        rows = (hidden_vd for each in read if each.hidden_bvd is not None for hidden_vd in each.hidden_bvd)
        found = []
        for answer_n, text, visual_vd, textual_nd in zip(answers_bn, self._texts(answers_bn), rows, hidden_bnd, strict=True):
            words_n = answer_n[: int((~torch.isin(answer_n, self._eos_ids)).cumprod(dim=0).sum())]
            token_ids = torch.cat([tail_ids[prompt], words_n])
            # A word of the answer is looked for where it was predicted: one place before its own.
            predicted = torch.arange(len(words_n), device=tail_ids.device) + len(tail_ids) - 1
            places_kd = torch.cat([textual_nd[prompt], textual_nd[predicted]])
            of_tokens_kd = self.model.get_output_embeddings().weight[token_ids].float()
            visual_kv, textual_kk = ((of_tokens_kd @ there.float().T).clamp(min=0.0).cpu() for there in (visual_vd, places_kd))
            visual_kthw = visual_kv.reshape(-1, *grid_thw)
            prompt_tokens = len(token_ids) - len(words_n)
            found.append(TokenActivations(text, tuple(token_ids.tolist()), prompt_tokens, visual_kthw, textual_kk))
        return found

    def _behind(self, read: Sequence[Reading], tail_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Cache]:
        """For a tail behind each conversation, ``(S,)`` or ``(B, S)``: its ids, the whole's positions, and a cache to grow."""
        positions = torch.cat([each.positions(tail_ids.shape[-1]) for each in read], dim=-2)
        ids_bn = tail_ids.expand(positions.shape[-2], -1)
        return ids_bn, on_device(positions, self.model.device), joined_cache(read)

    @cached_property
    def _yes_and_no_ids(self) -> tuple[list[int], list[int]]:
        return yes_and_no_ids(self.tokenizer)

    def _next_logits(self, ids_bn: torch.Tensor, positions: torch.Tensor, cache: Cache, **images: torch.Tensor) -> torch.Tensor:
        """Append tokens to the cache; ``(B, vocabulary)`` logits of what follows the last one."""
        output = self.model(
            input_ids=ids_bn, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1, **images
        )
        return output.logits[:, -1]

    def _last_hidden(self, ids_bn: torch.Tensor, positions: torch.Tensor, cache: Cache, **images: torch.Tensor) -> torch.Tensor:
        """Append tokens to the cache; ``(B, tokens, channels)``, what the last layer makes of each, from which logits come."""
        output = self.model.model(input_ids=ids_bn, position_ids=positions, past_key_values=cache, use_cache=True, **images)
        return output.last_hidden_state

    def _texts(self, answers_bn: torch.Tensor) -> list[str]:
        return self.tokenizer.batch_decode(answers_bn, skip_special_tokens=True)

    def _decode(
        self, logits_bv: torch.Tensor, said_bn: torch.Tensor, positions: torch.Tensor, cache: Cache, max_new_tokens: int
    ) -> torch.Tensor:
        """``(B, n)`` tokens of greedy answers, from the logits after the prompt, until all have ended or the limit is reached.

        An answer that ends before others is filled up with tokens that end it.
        """
        ended_b = torch.zeros(len(logits_bv), dtype=torch.bool, device=logits_bv.device)
        prompt_tokens = said_bn.shape[1]
        for step in range(1, max_new_tokens + 1):
            scores_bv = self._adjusted(said_bn, logits_bv.float())  # type: ignore[arg-type]
            token_b = scores_bv.argmax(dim=-1).where(~ended_b, self._eos_ids[0])
            said_bn = torch.cat([said_bn, token_b[:, None]], dim=1)
            ended_b |= torch.isin(token_b, self._eos_ids)
            if step == max_new_tokens or ended_b.all():
                break
            logits_bv = self._next_logits(token_b[:, None], positions[..., -1:] + step, cache)
        return said_bn[:, prompt_tokens:]


def _said(read: Sequence[Reading], ids_bn: torch.Tensor) -> torch.Tensor:
    """All tokens of conversations whose tails are given."""
    return torch.cat([torch.cat([each.input_ids_bn for each in read]), ids_bn], dim=1)


@contextmanager
def _panics_told() -> Iterator[None]:
    """A tokenizer that gives up, with a panic that would end the thread, gives up the question only."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise PromptError(f"the model's tokenizer cannot read this ({brief(error)}); use other words") from error
