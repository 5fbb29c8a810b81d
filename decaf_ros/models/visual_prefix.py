"""Images read once, questions asked behind them: what the adapters of all families of transformers give for a window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from decaf_ros.method.loc_head import last_token_attention
from decaf_ros.method.rollout import QueryKeys, attention_rollout
from decaf_ros.models.chat_model import ChatModel, Reading
from decaf_ros.models.devices import on_device
from decaf_ros.models.prompts import Medium
from decaf_ros.models.protocols import Reply, TokenActivations
from decaf_ros.models.wanted import require_wanted


@dataclass(frozen=True, eq=False)
class _Tail:
    """State of a :class:`Reply`: the recorded layers of the prompt's tokens, behind all conversations of the prefix."""

    prefix: CachedVisualPrefix = field(repr=False)
    layers: list[QueryKeys]


class CachedVisualPrefix:
    """Implements :class:`decaf_ros.models.protocols.VisualPrefix` on the key-value cache of transformers.

    Args:
        chat: the model.
        read: what it has read, which together is all conversations, in order; each of any number of them, all of one layout.
        medium: what the chat template calls the images.
        grid_thw: visual tokens in time, height and width; on the frame path T conversations of one H'W' grid.
        temporal_stride: frames that one step of the grid's time covers.
    """

    def __init__(
        self,
        chat: ChatModel,
        read: Sequence[Reading],
        medium: Medium,
        grid_thw: tuple[int, int, int],
        temporal_stride: int,
    ) -> None:
        self.grid_thw = grid_thw
        self.temporal_stride = temporal_stride
        self._chat = chat
        self._medium = medium
        self._read = read

    def ask(self, prompt: str, answer: bool = True) -> Reply:
        """Put the prompt behind the images in every conversation; see the protocol."""
        with self._chat.device_queue():
            answers, layers = self._chat.ask(self._read, self._chat.tail_ids(self._medium, prompt), answer)
        return Reply(answers, _Tail(self, layers))

    def probability_of_yes(self, prompt: str) -> tuple[float, ...]:
        """How likely the answer to a question is yes, for every conversation; see the protocol."""
        with self._chat.device_queue():
            tail_ids = self._chat.tail_ids(self._medium, prompt)
            return tuple(self._chat.share_of_yes(self._read, tail_ids).tolist())

    def say(self, prompt: str, conversations: Sequence[int], max_new_tokens: int) -> tuple[str, ...]:
        """Answers of some length, of some conversations only; see the protocol."""
        with self._chat.device_queue():
            tail_ids = self._chat.tail_ids(self._medium, prompt)
            rows = [(reading, row) for reading in self._read for row in range(len(reading))]
            read = [reading.row(row) for reading, row in (rows[each] for each in conversations)]
            return self._chat.say(read, tail_ids, max_new_tokens) if read else ()

    @torch.inference_mode()
    def rollout(self, replies: Sequence[Reply]) -> torch.Tensor:
        """``(len(replies), T', H', W')`` float32 on the CPU; see the protocol."""
        tails = [reply.state for reply in replies]
        if not tails or any(not isinstance(tail, _Tail) or tail.prefix is not self for tail in tails):
            raise ValueError("rollout needs replies that this prefix gave; ask it first")
        with self._chat.device_queue():
            maps_pbc, first = [], 0
            for group in self._groups():
                rows = slice(first, first := first + sum(map(len, group)))
                prompts = [[QueryKeys(*(tensor[rows] for tensor in layer)) for layer in tail.layers] for tail in tails]
                maps_pbc.append(self._rollout_of(group, prompts))
            return torch.cat(maps_pbc, dim=1).reshape(len(tails), *self.grid_thw).cpu()

    @torch.inference_mode()
    def last_token_attention(self, prompt: str) -> torch.Tensor:
        """``(layers, heads, T', H', W')`` float32 on the CPU; see the protocol."""
        with self._chat.device_queue():
            layers = self._chat.last_token(self._read, self._chat.tail_ids(self._medium, prompt))
            first = self._read[0]
            cells = on_device(first.grid_tokens, layers[0].keys_bgkd.device)
            rows = [last_token_attention(queries[:, :, 0], keys, first.scaling)[..., cells] for queries, keys in layers]
            rows_lhbc = torch.stack(rows).transpose(1, 2)
            return rows_lhbc.reshape(*rows_lhbc.shape[:2], *self.grid_thw).cpu()

    def activations(self, prompt: str) -> list[TokenActivations]:
        """What tokens light up, for every conversation; see the protocol."""
        if any(each.hidden_bvd is None for each in self._read):
            raise ValueError("activations are of images that were read with the option hidden_states")
        grid_thw = self.grid_thw if self._medium == "video" else (1, *self.grid_thw[1:])
        with self._chat.device_queue():
            tail_ids = self._chat.tail_ids(self._medium, prompt)
            prompt_in_tail = self._chat.prompt_in_tail(self._medium, tail_ids)
            return self._chat.activations(self._read, tail_ids, prompt_in_tail, grid_thw)

    def _groups(self) -> Iterator[list[Reading]]:
        """What was read, in its order, in groups of no more tokens than a batch may have, but of one reading at least."""
        group: list[Reading] = []
        for reading in self._read:
            if group and (sum(map(len, group)) + len(reading)) * reading.tokens > self._chat.options.batch_tokens:
                yield group
                group = []
            group.append(reading)
        yield group

    def _rollout_of(self, group: Sequence[Reading], prompts: list[list[QueryKeys]]) -> torch.Tensor:
        """``(prompts, B, cells)``: the rollout in the order of the grid, which may differ from that of the tokens."""
        grid_tokens = group[0].grid_tokens
        visual_n = torch.zeros(group[0].tokens, dtype=torch.bool)
        visual_n[grid_tokens] = True
        layers = [
            QueryKeys(_joined(layer.queries_bhqd for layer in of_readings), _joined(layer.keys_bgkd for layer in of_readings))
            for of_readings in zip(*(reading.layers for reading in group), strict=True)
        ]
        saliency = [_joined(of_layer) for of_layer in zip(*(reading.saliency for reading in group), strict=False)]
        known = bool(saliency)
        options = self._chat.options
        rows_pbv = attention_rollout(
            layers, prompts, visual_n, group[0].scaling, options.rollout, saliency=saliency, check=require_wanted
        )
        if saliency and not known:
            _note(group, saliency)
        return rows_pbv[..., on_device(grid_tokens.argsort().argsort(), rows_pbv.device)]


def _joined(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """One behind another; one alone is left as it is."""
    first, *others = tensors
    return torch.cat([first, *others]) if others else first


def _note(group: Sequence[Reading], saliency: Sequence[torch.Tensor]) -> None:
    """Keep with every reading its part of what a rollout found."""
    sizes = [len(reading) for reading in group]
    for reading, of_layers in zip(group, zip(*(each.split(sizes) for each in saliency), strict=True), strict=True):
        reading.saliency[:] = of_layers
