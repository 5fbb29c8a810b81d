"""Masks of a whole video as files: label images, or run lengths."""

from __future__ import annotations

from typing import Any, Protocol

from decaf_ros.datatypes import Segmentation, Visibility
from decaf_ros.evaluation.rle import encode_rle
from decaf_ros.outputs import OutputFolder
from decaf_ros.strict_json import to_json


class MaskFiles(Protocol):
    """Takes the masks of a video, frame by frame."""

    def add(self, segmentation: Segmentation) -> None:
        """Take the next frame."""

    def finish(self) -> None:
        """Write what is not written yet."""


class LabelImages:
    """``masks/000000.png`` and so on: 16-bit images, pixel = object id; where masks overlap the smaller one wins."""

    def __init__(self, out: OutputFolder) -> None:
        self._folder = out.folder("masks")
        self._count = 0

    def add(self, segmentation: Segmentation) -> None:
        """See :class:`MaskFiles`."""
        self._folder.write_png(f"{self._count:06d}.png", segmentation.labels_hw())
        self._count += 1

    def finish(self) -> None:
        """See :class:`MaskFiles`."""


class RunLengths:
    """``masks.json``: each object with a list of its masks in COCO's run-length encoding, as in the results of YouTube-VIS."""

    def __init__(self, out: OutputFolder) -> None:
        self._out = out
        self._stamps_ns: list[int] = []
        self._objects: dict[int, dict[str, Any]] = {}

    def add(self, segmentation: Segmentation) -> None:
        """See :class:`MaskFiles`."""
        for each in segmentation.objects:
            entry = {"object_id": each.object_id, "label": each.label, "score": round(each.score, 4)}
            known = self._objects.setdefault(each.object_id, entry | {"segmentations": [None] * len(self._stamps_ns)})
            known["segmentations"].append(encode_rle(each.mask_hw) if each.visibility is Visibility.VISIBLE else None)
        self._stamps_ns.append(segmentation.frame.stamp_ns)

    def finish(self) -> None:
        """See :class:`MaskFiles`."""
        written = {"stamps_ns": self._stamps_ns, "objects": list(self._objects.values())}
        self._out.write_text("masks.json", to_json(written) + "\n")
