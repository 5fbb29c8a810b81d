"""The demo's picture: one row a query, whatever the query found."""

import numpy as np
import pytest
import torch

from decaf_ros.cli.contact_sheet import SheetRow, draw_contact_sheet
from decaf_ros.datatypes import Frame, FrameWindow, PointPrompt, Tracklet
from decaf_ros.session.grounding import Attention, GroundedObject, Grounding

SIZE_HW = (30, 40)


def row(found: bool) -> SheetRow:
    """Two frames, the second one brighter; the object, if any, was found on the first."""
    frames = tuple(Frame(index, "camera", np.full((*SIZE_HW, 3), 60 + 120 * index, dtype=np.uint8)) for index in range(2))
    heat = torch.zeros(2, 3, 4)
    heat[0, 1, 1] = 1.0
    masks = np.zeros((2, *SIZE_HW), dtype=np.bool_)
    masks[:, 10:20, 10:20] = True
    point = PointPrompt(0, (15.0, 15.0), 1.0)
    objects = (GroundedObject((Tracklet(point, masks, 0.9, 1.0, 0.95),)),) if found else ()
    points = (point,) if found else ()
    grounding = Grounding(FrameWindow(frames), Attention(heat, "mug", ()), points, (), objects, confident=found)
    return SheetRow("the mug", grounding, masks, np.full((*SIZE_HW, 3), 200, dtype=np.uint8))


def test_every_query_adds_a_row_of_the_same_height():
    heights = [draw_contact_sheet([row(found=True)] * count).shape[0] for count in (1, 2, 3)]
    assert heights[2] - heights[1] == heights[1] - heights[0] > 0


@pytest.mark.parametrize(("found", "brightness"), [(True, 60), (False, 180)])
def test_the_frame_shown_is_the_one_the_object_was_found_on_or_the_newest(found, brightness):
    sheet = draw_contact_sheet([row(found)])
    first_cell = sheet[-100, 40]
    assert first_cell.tolist() == pytest.approx([brightness] * 3, abs=3)
