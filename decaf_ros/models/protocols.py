"""What the session asks of a language model and of a mask model. Adding a model family means implementing these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from decaf_ros.datatypes import BoolArray, Frame, FrameWindow, ObjectPrompt
from decaf_ros.models.boxes import BoxFormat
from decaf_ros.models.read_memory import ReadMemory


@dataclass(frozen=True, eq=False)
class Reply:
    """What a model answered to one prompt behind a visual prefix.

    Attributes:
        answers: one text per conversation: 1 on the video path, T on the frame path.
        state: what the prefix needs to compute the rollout of this prompt later; opaque to everybody else.
    """

    answers: tuple[str, ...]
    state: Any


@dataclass(frozen=True, eq=False)
class TokenActivations:
    """What the ``K`` tokens of a prompt and of its answer light up, in one conversation: logits, cut off at 0.

    Attributes:
        answer: the text.
        token_ids: of the prompt's tokens, then of the answer's, without the one that ends it.
        prompt_tokens: how many of them are the prompt's.
        visual_kthw: ``(K, T', H', W')`` float32 on the CPU, of each token at the visual tokens.
        textual_kk: ``(K, K)`` float32 on the CPU, of the row's token at the column's place: where a token of the prompt stands,
            or where one of the answer was predicted.
    """

    answer: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    visual_kthw: torch.Tensor
    textual_kk: torch.Tensor


class VisualPrefix(Protocol):
    """Images that a model has read once, ready for several questions.

    The video path is one conversation about all key frames; the frame path is a batch of T conversations about one each.
    Not thread-safe; use it from the thread that made it.
    """

    @property
    def grid_thw(self) -> tuple[int, int, int]:
        """Visual tokens: T' (T on the frame path), H', W'."""

    @property
    def temporal_stride(self) -> int:
        """Frames that one step of the grid's time covers: 2 for the Qwen family on the video path, else 1."""

    def ask(self, prompt: str, answer: bool = True) -> Reply:
        """Put the prompt behind the images in every conversation, and decode the answers.

        Args:
            prompt: what the user says after the images.
            answer: False where only the rollout is wanted: the answers are then empty, and cost nothing.

        Raises:
            PromptError: the prompt holds a control token of the model, such as the one that ends a turn.
        """

    def probability_of_yes(self, prompt: str) -> tuple[float, ...]:
        """Put a question behind the images in every conversation: how likely its answer is yes against no, in [0, 1].

        From the logits of all tokens that mean yes or no; one forward pass, nothing is decoded, and nothing is kept.

        Raises:
            PromptError: as :meth:`ask`.
            ValueError: the model has no token for yes or for no.
        """

    def say(self, prompt: str, conversations: Sequence[int], max_new_tokens: int) -> tuple[str, ...]:
        """Put a prompt behind some of the conversations, and decode an answer of some length to each; nothing is kept.

        Args:
            prompt: as for :meth:`ask`.
            conversations: which ones, from 0 on.
            max_new_tokens: length of an answer, at most, in place of what the model's options say.

        Returns:
            The answers, in the order of the conversations.

        Raises:
            PromptError: as :meth:`ask`.
        """

    def rollout(self, replies: Sequence[Reply]) -> torch.Tensor:
        """Attention rollout from each prompt's last token to the visual tokens (DecAF, section 3.3).

        Prompts of one prefix share most of the work: ask all first, then call this once.

        Returns:
            ``(len(replies), T', H', W')`` float32 on the CPU.

        Raises:
            ValueError: no reply, or one that came from another prefix.
        """

    def last_token_attention(self, prompt: str) -> torch.Tensor:
        """How much the prompt's last token attends to each visual token, head by head, in all layers.

        Returns:
            ``(layers, heads, T', H', W')`` float32 on the CPU.

        Raises:
            PromptError: as :meth:`ask`.
        """

    def activations(self, prompt: str) -> list[TokenActivations]:
        """What the tokens of a prompt and of its answer light up in the images, for every conversation.

        Raises:
            PromptError: as :meth:`ask`.
            ValueError: the images were read without what that takes.
        """


class VideoMllm(Protocol):
    """A video multimodal language model.

    Reading, asking and rolling out take minutes with a large model on a CPU: between their steps, layer by layer, they call
    ``require_wanted`` of :mod:`decaf_ros.models.wanted`, which raises when nobody wants the answer any more.
    """

    def read_video(self, window: FrameWindow, memory: ReadMemory | None = None) -> VisualPrefix:
        """Read all key frames in one conversation (DecAF's video path).

        Args:
            window: the frames.
            memory: of this model and these options: what it holds is not read again, and what is read is put there.
        """

    def read_frames(self, window: FrameWindow, memory: ReadMemory | None = None) -> VisualPrefix:
        """Read each key frame in a conversation of its own, at the finer scale (DecAF's frame path); as :meth:`read_video`."""

    def unread(self, window: FrameWindow, memory: ReadMemory) -> tuple[Frame, ...]:
        """The frames of a window, oldest first, of which :meth:`read_frames` would have to read; takes no time."""

    def read_ahead(self, window: FrameWindow, frame: Frame, memory: ReadMemory) -> None:
        """Put into the memory what both paths read of one frame of a window, as far as it serves other windows, too."""

    def complete(self, prompt: str) -> str:
        """Answer a prompt without images."""

    def box_format(self) -> BoxFormat:
        """How it writes the boxes that it is asked for on the frame path, as JSON; takes no time.

        Raises:
            NoBoxesError: it was not taught to.
        """


class FrameFeatures(Protocol):
    """The image encoder's output for one frame; opaque but for its size in memory. Shared by all objects and never changed."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels of the camera image."""

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""


@dataclass(frozen=True, eq=False)
class MaskProposals:
    """Masks that points on one frame gave, each point on its own.

    Attributes:
        masks_phw: ``(P, H, W)`` bool at camera resolution.
        predicted_iou_p: ``(P,)`` float32 in [0, 1], the model's own estimate.
    """

    masks_phw: BoolArray
    predicted_iou_p: torch.Tensor


@dataclass(frozen=True, eq=False)
class TrackOutput:
    """One object on one frame, as the mask model sees it.

    Attributes:
        mask_hw: ``(H, W)`` bool at camera resolution; all false when the model says that the object is not there.
        presence: probability in [0, 1] that the object is on the frame.
        predicted_iou: the model's own estimate for the mask, in [0, 1]; NaN when it makes none.
        logits_hw: ``(h, w)`` float32 mask logits at the model's own resolution, on its device, when it gives them.
    """

    mask_hw: BoolArray
    presence: float
    predicted_iou: float = float("nan")
    logits_hw: torch.Tensor | None = None


class ObjectTrack(Protocol):
    """The memory of one object: owned by one thread at a time, handed over whole."""


_Features = TypeVar("_Features", bound=FrameFeatures)
_Track = TypeVar("_Track", bound=ObjectTrack)


class MaskTracker(Protocol[_Features, _Track]):
    """A promptable mask model with streaming memory. Stateless: all state is in the tracks, so threads may share it.

    Features and tracks are of the model's own types: one model cannot read those of another. Its steps, as
    those of :class:`VideoMllm`, can be given up; a track whose step was is of no use any more.
    """

    @property
    def reach(self) -> int:
        """How many frames back a track remembers."""

    def encode(self, frame: Frame) -> _Features:
        """Run the image encoder once; everything below shares the result."""

    def propose(self, features: _Features, points_xy_px: Sequence[tuple[float, float]]) -> MaskProposals:
        """Prompt with each point alone, all points in one batch."""

    def appearance(self, features: _Features, mask_hw: BoolArray) -> torch.Tensor:
        """What an object looks like: ``(D,)`` float32 of length 1 on the CPU, the mean feature of its mask.

        Raises:
            ValueError: an empty mask, or one of another size.
        """

    def start_track(self, features: _Features, mask_hw: BoolArray, reversible: bool = False) -> _Track:
        """A new object from its mask on a frame, which becomes its first conditioning frame.

        Only a reversible track can be :meth:`turned_back`: it remembers a little more.
        """

    def turned_back(self, track: _Track) -> _Track:
        """The same object from the first frame of a reversible track, for steps back in time, knowing what came later.

        Once only; the track itself goes on as before.
        """

    def start_backwards(self, features: _Features, mask_hw: BoolArray, later: Sequence[_Features]) -> _Track:
        """A new object from its mask on a frame, for steps back in time, knowing the :attr:`reach` frames after that one."""

    def prompt(self, features: _Features, prompt: ObjectPrompt) -> tuple[_Track, TrackOutput]:
        """A new object from points, a box or a mask on a frame, and where it is there.

        Raises:
            ValueError: a point or a box outside the image, or a mask of another size.
        """

    def condition(self, track: _Track, features: _Features, mask_hw: BoolArray) -> None:
        """Give a track its mask on its next frame: one more conditioning frame (capped: first and newest are kept)."""

    def step(self, tracks: Sequence[_Track], features: _Features, gated: bool = True) -> list[TrackOutput]:
        """Carry every track on to its next frame; by the gates of the model, if it has any and ``gated``."""
