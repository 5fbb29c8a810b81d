"""Depth images of scenes that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from filmed_table import BOWL, BOX, MUG, TABLE

from decaf_ros.datatypes import BoolArray, Frame, ObjectMask, Segmentation, Visibility
from decaf_ros.geometry import (
    LEAST_POINTS,
    DepthView,
    Intrinsics,
    Placement,
    colours_of,
    locate_objects,
    measure,
    metres_from_depth,
    surface_points,
)

# A pixel at 2 m is 4 mm wide. The rim of masks is 2 pixels.
CAMERA = Intrinsics(fx=500.0, fy=500.0, cx=319.5, cy=239.5, size_hw=(480, 640))
RIM = 2


def view_of(metres: float | np.ndarray, camera: Intrinsics = CAMERA) -> DepthView:
    return DepthView(np.broadcast_to(metres, camera.size_hw).astype(np.float32), camera)


def rectangle(rows: slice, columns: slice, size_hw: tuple[int, int] = CAMERA.size_hw) -> BoolArray:
    mask = np.zeros(size_hw, np.bool_)
    mask[rows, columns] = True
    return mask


def place(mask: BoolArray, view: DepthView) -> Placement:
    placement = measure(surface_points(mask, view))
    assert placement is not None
    return placement


def rays(camera: Intrinsics = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    """``x / z`` and ``y / z`` of every pixel."""
    height, width = camera.size_hw
    rows, columns = np.mgrid[0:height, 0:width]
    return (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy


def test_an_upright_rectangle() -> None:
    # 200 x 100 pixels, of which 196 x 96 are left; its middle is at column 419.5 and row 239.5, which is 0.4 m to the right.
    placement = place(rectangle(slice(190, 290), slice(320, 520)), view_of(2.0))
    assert placement.point_count == 196 * 96
    assert placement.centroid_xyz == pytest.approx([0.4, 0.0, 2.0], abs=1e-6)
    # The variance of n evenly spaced points is (n^2 - 1) / 12 of their distance's square.
    variances = [0.004**2 * (196**2 - 1) / 12, 0.004**2 * (96**2 - 1) / 12, 0.0]
    assert placement.covariance == pytest.approx(np.diag(variances), abs=1e-7)
    assert placement.box_center_xyz == pytest.approx([0.4, 0.0, 2.0], abs=1e-6)
    # 99 % of the columns and rows, to the pixel.
    assert placement.box_size_xyz == pytest.approx([0.99 * 196 * 0.004, 0.99 * 96 * 0.004, 0.0], abs=0.004)


@pytest.mark.parametrize("slope", [0.0, 0.5, -2.0])
def test_a_leaning_plane_loses_nothing_and_shows_its_normal(slope: float) -> None:
    x_over_z, _ = rays()
    mask = rectangle(slice(200, 280), slice(220, 420))
    placement = place(mask, view_of(1.5 / (1 - slope * x_over_z)))  # z = 1.5 + slope * x
    assert placement.point_count == 196 * 76
    variances, axes = np.linalg.eigh(placement.covariance)
    assert variances[0] == pytest.approx(0.0, abs=1e-9)
    normal = np.array([slope, 0.0, -1.0]) / math.hypot(slope, 1.0)
    assert abs(axes[:, 0] @ normal) == pytest.approx(1.0, abs=1e-6)


def test_a_floor_that_runs_from_1_to_5_metres_is_kept_whole() -> None:
    _, y_over_z = rays()
    floor = 0.46 / np.maximum(y_over_z, 1e-6)  # the camera is 0.46 m above it
    mask = rectangle(slice(286, 480), slice(300, 340))
    placement = place(mask, view_of(floor))
    assert placement.point_count == (194 - RIM) * 36  # no rim at the image's own border
    assert placement.box_size_xyz[2] > 3.0


def test_a_ball_far_away() -> None:
    # From 10 m through a long lens a ball of 0.1 m has 50 pixels of radius, and its front is a half sphere.
    camera = Intrinsics(5000.0, 5000.0, 319.5, 239.5, (480, 640))
    x_over_z, y_over_z = rays(camera)
    square = (x_over_z * 10 / 0.1) ** 2 + (y_over_z * 10 / 0.1) ** 2
    depth = np.where(square < 1, 10 - 0.1 * np.sqrt(np.maximum(0, 1 - square)), 14.0)
    placement = place(square < 1, view_of(depth, camera))
    # The mean height of a half sphere over its inner disc of radius a: 2/3 (1 - (1 - a^2)^1.5) / a^2.
    a = (50 - RIM) / 50
    height = 2 / 3 * (1 - (1 - a**2) ** 1.5) / a**2
    assert placement.centroid_xyz == pytest.approx([0.0, 0.0, 10 - 0.1 * height], abs=1e-3)
    # Half a percent of a disc lies beyond 0.959 of its radius: theta - sin(theta) cos(theta) = 0.005 pi, cos(theta) = 0.959.
    assert placement.box_size_xyz[:2] == pytest.approx([0.959 * 2 * a * 0.1] * 2, rel=0.02)


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_flying_pixels_at_the_rim_and_a_view_through_the_object_change_nothing(slope: float) -> None:
    inner, mask = rectangle(slice(202, 278), slice(222, 418)), rectangle(slice(200, 280), slice(220, 420))
    window = rectangle(slice(230, 250), slice(300, 340))
    x_over_z, _ = rays()
    surface = 1 / (1 - slope * x_over_z)
    flying = np.random.default_rng(0).uniform(1.0, 4.0, CAMERA.size_hw)
    depth = np.where(inner & ~window, surface, np.where(mask & ~window, flying, 4.0))
    placement = place(mask, view_of(depth))
    expected = surface[inner & ~window]
    assert placement.point_count == expected.size == 76 * 196 - 20 * 40
    assert placement.centroid_xyz[2] == pytest.approx(expected.mean(), abs=1e-6)
    assert placement.box_size_xyz[2] <= np.ptp(expected) + 1e-6


def test_noise_and_whole_millimetres_are_not_taken_for_outliers() -> None:
    depth = np.full(CAMERA.size_hw, 1000, np.uint16)
    depth[:, ::9] += 1  # so few that quartiles do not see them
    view = DepthView(metres_from_depth(depth), CAMERA)
    assert place(rectangle(slice(200, 280), slice(220, 420)), view).point_count == 196 * 76


def test_invalid_depth_is_left_out_and_two_encodings_say_the_same() -> None:
    metres = np.full(CAMERA.size_hw, 1.25, np.float32)
    metres[200:220] = np.tile(np.array([np.nan, np.inf, -np.inf, 0.0, -1.0], np.float32), 128)
    millimetres = np.where((metres > 0) & np.isfinite(metres), 1250, 0).astype(np.uint16)
    mask = rectangle(slice(198, 282), slice(218, 422))
    of_metres, of_millimetres = (place(mask, DepthView(metres_from_depth(each), CAMERA)) for each in (metres, millimetres))
    assert of_metres.point_count == of_millimetres.point_count == 200 * 60
    assert of_metres.centroid_xyz == pytest.approx(of_millimetres.centroid_xyz, abs=1e-6)


def test_nothing_measured_is_no_placement() -> None:
    mask = rectangle(slice(200, 280), slice(220, 420))
    assert measure(surface_points(mask, view_of(np.nan))) is None
    assert measure(surface_points(np.zeros_like(mask), view_of(1.0))) is None


def test_a_wire_keeps_its_rim() -> None:
    placement = place(rectangle(slice(100, 103), slice(100, 300)), view_of(1.0))
    assert placement.point_count == 600
    assert measure(surface_points(rectangle(slice(100, 103), slice(100, 103)), view_of(1.0))) is None
    assert LEAST_POINTS > 9


def test_intrinsics_of_another_resolution() -> None:
    half = CAMERA.scaled_to((240, 320))
    assert (half.fx, half.fy, half.cx, half.cy) == (250.0, 250.0, 159.5, 119.5)
    again = half.scaled_to((480, 640))
    assert (again.cx, again.cy) == (CAMERA.cx, CAMERA.cy)
    off_centre = Intrinsics(500.0, 500.0, 300.0, 200.0, (480, 640)).scaled_to((240, 320))
    assert (off_centre.cx, off_centre.cy) == (149.75, 99.75)
    with pytest.raises(ValueError, match="640x360 pixels cannot show the same view as one of 640x480"):
        CAMERA.scaled_to((360, 640))
    with pytest.raises(ValueError, match="fx 0, fy 0: the camera is not calibrated"):
        Intrinsics(0.0, 0.0, 0.0, 0.0, (480, 640))


@pytest.mark.parametrize("size_hw", [(240, 320), (960, 1280)])
def test_depth_of_another_resolution_gives_the_same_place(size_hw: tuple[int, int]) -> None:
    mask = rectangle(slice(100, 300), slice(400, 600))
    same, other = (place(mask, view_of(2.0, camera)) for camera in (CAMERA, CAMERA.scaled_to(size_hw)))
    assert other.centroid_xyz == pytest.approx(same.centroid_xyz, abs=1e-6)
    assert other.box_size_xyz == pytest.approx(same.box_size_xyz, abs=0.016)


def test_colours_are_those_of_the_pixel_at_the_same_place() -> None:
    image = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3)
    for camera, step in ((Intrinsics(4, 4, 3.5, 1.5, (4, 8)), 1), (Intrinsics(2, 2, 1.5, 0.5, (2, 4)), 2)):
        mask = np.ones((4, 8), np.bool_)
        view = DepthView(np.ones(camera.size_hw, np.float32), camera)
        points = surface_points(mask, view)
        colours = colours_of(points, image, view).reshape(*camera.size_hw, 3)
        assert np.array_equal(colours, image[step // 2 :: step, step // 2 :: step])


def test_objects_of_a_frame_are_told_apart() -> None:
    near, far = rectangle(slice(100, 200), slice(100, 200)), rectangle(slice(100, 200), slice(400, 500))
    lost = np.zeros(CAMERA.size_hw, np.bool_)
    frame = Frame(1, "camera", np.zeros((*CAMERA.size_hw, 3), np.uint8))
    objects = tuple(
        ObjectMask(object_id, 1, "box", mask, 0.9, 0.9, seen)
        for object_id, mask, seen in (
            (5, far, Visibility.VISIBLE),
            (2, near, Visibility.VISIBLE),
            (3, lost, Visibility.LOST),
        )
    )
    located = locate_objects(Segmentation(frame, objects), view_of(np.where(near, 1.0, 2.0)))
    assert [each.tracked.object_id for each in located] == [2, 5]
    # Middles at columns 149.5 and 449.5, 170 and 130 pixels from the principal point; row 149.5, 90 above it.
    assert located[0].placement.centroid_xyz == pytest.approx([-0.34, -0.18, 1.0], abs=1e-6)
    assert located[1].placement.centroid_xyz == pytest.approx([0.52, -0.36, 2.0], abs=1e-6)


@pytest.mark.parametrize("time_s", [0.0, 1.5])
def test_things_on_the_table_are_where_its_physics_has_them(time_s: float) -> None:
    """From masks and depth, against poses; a rim that is left out moves the middle of what is seen a little."""
    view = TABLE.view(time_s)
    camera = Intrinsics(*view.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]], size_hw=TABLE.size_hw)
    for thing in (MUG, BOX, BOWL):
        seen = place(view.mask_of(thing), DepthView(view.depth_hw, camera)).centroid_xyz
        in_world = view.world_from_camera[:3, :3] @ seen + view.world_from_camera[:3, 3]
        assert in_world[:2] == pytest.approx(view.poses_n44[thing][:2, 3], abs=0.03)
        assert 0.0 < in_world[2] < 0.1, "above the table"
        assert seen == pytest.approx(view.points_of(thing).mean(axis=0), abs=0.015)
