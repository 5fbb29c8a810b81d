"""The demo's picture: what happened over time, one row a query, whatever the query found, and what is not there."""

import numpy as np
import pytest
import torch

from decaf_ros.cli.contact_sheet import AbsentRow, SheetRow, draw_contact_sheet
from decaf_ros.datatypes import Frame, FrameWindow, HeatMap, PointPrompt, Tracklet
from decaf_ros.session.attention import Attention
from decaf_ros.session.grounding import GroundedObject, Grounding

SIZE_HW = (30, 40)
COLUMNS, ROW_PX = 7, 240  # an image of 4 by 3 in a cell


def row(found: bool, frames: int = 2) -> SheetRow:
    """Each frame is brighter than the one before, from 60 to 180; the object, if any, was found on the first."""
    levels = np.linspace(60, 180, frames)
    window = tuple(Frame(i, "camera", np.full((*SIZE_HW, 3), level, dtype=np.uint8)) for i, level in enumerate(levels))
    heat = torch.zeros(frames, 3, 4)
    heat[0, 1, 1] = 1.0
    masks = np.zeros((frames, *SIZE_HW), dtype=np.bool_)
    masks[:, 10:20, 10:20] = True
    point = PointPrompt(0, (15.0, 15.0), 1.0)
    objects = (GroundedObject((Tracklet(point, masks, 0.9, 1.0, 0.95),)),) if found else ()
    points = (point,) if found else ()
    grounding = Grounding(FrameWindow(window), Attention(heat, "mug", ()), points, (), objects, confident=found)
    return SheetRow("the mug", grounding, masks, np.full((*SIZE_HW, 3), 200, dtype=np.uint8))


def absent(**presence: float) -> AbsentRow:
    frame = Frame(0, "camera", np.full((*SIZE_HW, 3), 90, dtype=np.uint8))
    return AbsentRow("the pan", HeatMap(frame, 1, np.zeros((3, 4), np.float32)), presence or {"the pan": 0.5})


def test_every_query_adds_a_row_of_the_same_height():
    heights = [draw_contact_sheet(row(True), [row(found=True)] * count, absent()).shape[0] for count in (0, 1, 2)]
    assert heights[2] - heights[1] == heights[1] - heights[0] > ROW_PX


@pytest.mark.parametrize(("found", "brightness"), [(True, 60), (False, 180)])
def test_the_frame_shown_is_the_one_the_object_was_found_on_or_the_newest(found, brightness):
    before, after = (draw_contact_sheet(row(True), others, absent()) for others in ([], [row(found)]))
    added = after.shape[0] - before.shape[0]
    bottom_of_the_row = before.shape[0] - (ROW_PX + 60 + 6) + added - 10  # above what is not there
    assert after[bottom_of_the_row, 40].tolist() == pytest.approx([brightness] * 3, abs=3)


def test_the_first_query_is_shown_from_the_first_key_frame_to_the_last():
    sheet = draw_contact_sheet(row(True, frames=16), [], absent())
    strip = sheet[60 + 50 + 10, 6 + 20 :: 326, 0].astype(int)
    assert len(strip) == COLUMNS
    assert (np.diff(strip) > 0).all()
    assert strip[[0, -1]].tolist() == pytest.approx([60, 180], abs=3)


def test_bars_are_as_long_as_the_sentences_are_likely():
    sheet = draw_contact_sheet(row(True), [], absent(never=0.0, half=0.5, always=1.0))
    blue = (sheet == (90, 140, 220)).all(axis=-1).sum(axis=1)
    lengths = [int(blue[line]) for line in sheet.shape[0] - 6 - ROW_PX + np.array([40, 120, 200])]
    assert lengths[0] <= 1
    assert lengths[1] * 2 == pytest.approx(lengths[2], abs=3)
    assert lengths[2] > 400
