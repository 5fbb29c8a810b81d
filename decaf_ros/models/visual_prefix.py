"""Images read once, questions asked behind them: what the adapters of all families of transformers give for a window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from decaf_ros.method.rollout import QueryKeys, attention_rollout
from decaf_ros.models.chat_model import ChatModel, Conversations, Reading
from decaf_ros.models.devices import on_device
from decaf_ros.models.prompts import Medium
from decaf_ros.models.protocols import Reply
from decaf_ros.models.wanted import require_wanted


@dataclass(frozen=True, eq=False)
class _Tail:
    """State of a :class:`Reply`: the recorded layers of the prompt's tokens, for each batch of the prefix."""

    prefix: CachedVisualPrefix = field(repr=False)
    batches: list[list[QueryKeys]]


class CachedVisualPrefix:
    """Implements :class:`decaf_ros.models.protocols.VisualPrefix` on the key-value cache of transformers.

    Args:
        chat: the model.
        conversations: batches that together are all conversations, in order; each is read, and let go, before the next.
        medium: what the chat template calls the images.
        grid_thw: visual tokens in time, height and width; on the frame path T conversations of one H'W' grid.
        temporal_stride: frames that one step of the grid's time covers.
    """

    def __init__(
        self,
        chat: ChatModel,
        conversations: Iterable[Conversations],
        medium: Medium,
        grid_thw: tuple[int, int, int],
        temporal_stride: int,
    ) -> None:
        self.grid_thw = grid_thw
        self.temporal_stride = temporal_stride
        self._chat = chat
        self._medium = medium
        self._batches = [chat.prefill(batch) for batch in conversations]

    def ask(self, prompt: str, answer: bool = True) -> Reply:
        """Put the prompt behind the images in every conversation; see the protocol."""
        with self._chat.device_queue():
            tail_ids = self._chat.tail_ids(self._medium, prompt)
            asked = [self._chat.ask(batch, tail_ids, answer) for batch in self._batches]
        answers = tuple(text for texts, _ in asked for text in texts)
        return Reply(answers, _Tail(self, [layers for _, layers in asked]))

    def probability_of_yes(self, prompt: str) -> tuple[float, ...]:
        """How likely the answer to a question is yes, for every conversation; see the protocol."""
        with self._chat.device_queue():
            tail_ids = self._chat.tail_ids(self._medium, prompt)
            shares = [self._chat.share_of_yes(batch, tail_ids) for batch in self._batches]
            return tuple(torch.cat(shares).tolist())

    @torch.inference_mode()
    def rollout(self, replies: Sequence[Reply]) -> torch.Tensor:
        """``(len(replies), T', H', W')`` float32 on the CPU; see the protocol."""
        tails = [reply.state for reply in replies]
        if not tails or any(not isinstance(tail, _Tail) or tail.prefix is not self for tail in tails):
            raise ValueError("rollout needs replies that this prefix gave; ask it first")
        with self._chat.device_queue():
            maps_pbc = [
                self._batch_rollout(batch, [tail.batches[index] for tail in tails]) for index, batch in enumerate(self._batches)
            ]
            return torch.cat(maps_pbc, dim=1).reshape(len(tails), *self.grid_thw).cpu()

    def _batch_rollout(self, batch: Reading, prompts: list[list[QueryKeys]]) -> torch.Tensor:
        """``(prompts, B, cells)``: the rollout in the order of the grid, which may differ from that of the tokens."""
        visual_n = torch.zeros(batch.tokens, dtype=torch.bool)
        visual_n[batch.grid_tokens] = True
        rows_pbv = attention_rollout(
            batch.layers, prompts, visual_n, batch.scaling, self._chat.options.rollout, check=require_wanted
        )
        return rows_pbv[..., on_device(batch.grid_tokens.argsort().argsort(), rows_pbv.device)]
