"""Qwen2-VL as a video MLLM: Qwen2.5-VL without a sense of time."""

from __future__ import annotations

from decaf_ros.models.adapter import ChatAdapter
from decaf_ros.models.boxes import BoxFormat
from decaf_ros.models.qwen2_5_vl import Qwen25Vl


class Qwen2Vl(Qwen25Vl):
    """Implements :class:`decaf_ros.models.protocols.VideoMllm` for ``Qwen2VLForConditionalGeneration``.

    Its positions in time count the steps of the visual grid, whatever the rate of the frames.
    """

    _time_inputs = ()

    def box_format(self) -> BoxFormat:
        """None: it was taught to write boxes between tokens of their own, not as JSON."""
        return ChatAdapter.box_format(self)
