"""Qwen3-VL as a video MLLM: the time of each step of a video stands before it in words.

The visual tokens of a video are therefore not contiguous, and the positions know nothing of time. Features of several depths of
the vision encoder are added to the visual tokens in the first layers of the language model, which is the model's own affair.
"""

from __future__ import annotations

from decaf_ros.datatypes import FrameWindow
from decaf_ros.models.boxes import BoxFormat
from decaf_ros.models.qwen2_5_vl import Qwen25Vl


class Qwen3Vl(Qwen25Vl):
    """Implements :class:`decaf_ros.models.protocols.VideoMllm` for ``Qwen3VLForConditionalGeneration``."""

    _time_inputs = ()

    def box_format(self) -> BoxFormat:
        """Thousandths of the image's sides."""
        return BoxFormat()

    def _video_limit(self, window: FrameWindow) -> int:
        # This family's limit is one of all frames together, the repeated last one included.
        return self._limit("video_processor") // (self._steps(window) * self._temporal_stride)
