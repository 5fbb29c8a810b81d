"""Pictures of the robot's table: colour, depth, masks, poses and intrinsics say the same, at any time and size."""

import math

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")
pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: the extra sim")

from decaf_ros.synthetic.table.catalogue import COLOURS_RGB
from decaf_ros.synthetic.table.episodes import Episode, sample_episode
from decaf_ros.synthetic.table.rendering import Renderer, View
from decaf_ros.synthetic.table.scene import ARM_LABEL, Action, Camera, Look, Scene, Thing
from decaf_ros.synthetic.table.simulation import Simulation

CAMERA = Camera(target=(0.05, 0.0, 0.03), distance=0.8, azimuth=0.3, elevation=0.8, fov_y=0.75)
STILL = Look(noise=0.0, seed=5)


def scene_of(*things: Thing, actions: tuple[Action, ...] = (), seconds: float = 1.0, camera: Camera = CAMERA) -> Scene:
    return Scene(things, actions, camera, STILL, seconds)


@pytest.fixture(scope="module")
def busy() -> Episode:
    """A scene in which the arm works, seen by a camera that moves."""
    camera = Camera((0.05, 0.0, 0.05), 0.85, 0.5, 0.75, 0.8, sway=(0.2, 0.05, 0.05), period_s=9.0)
    things = (
        Thing("mug", "red", 1.0, (0.0, -0.1), 0.5, 1),
        Thing("bottle", "green", 1.0, (0.15, 0.12), 0.0, 2),
        Thing("cube", "blue", 1.0, (0.05, 0.0), 0.3, 3),
        Thing("banana", "yellow", 1.0, (0.2, -0.15), 1.0, 4),
    )
    return Episode(scene_of(*things, actions=(Action("pick", 0),), seconds=3.0, camera=camera))


def world_points(view: View) -> np.ndarray:
    """``(H, W, 3)``: every pixel put back into the world by its depth, by hand."""
    height, width = view.depth_hw.shape
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    k = view.intrinsics
    rays = np.stack([(columns - k[0, 2]) / k[0, 0], (rows - k[1, 2]) / k[1, 1], np.ones((height, width))], axis=-1)
    return (rays * view.depth_hw[..., None]) @ view.world_from_camera[:3, :3].T + view.world_from_camera[:3, 3]


@pytest.mark.parametrize("time_s", [0.0, 1.37, 3.0])
def test_each_pixel_of_a_mask_lies_on_its_thing_by_depth_pose_and_intrinsics(busy, time_s):
    view = busy.render(time_s)
    points = world_points(view)
    for index, shape in enumerate(busy.recording.shapes):
        mask = view.mask_of(index)
        assert mask.sum() > 100
        pose = view.poses_n44[index]
        local = (points[mask] - pose[:3, 3]) @ pose[:3, :3]
        seen = view.points_of(index) @ view.world_from_camera[:3, :3].T + view.world_from_camera[:3, 3]
        assert seen == pytest.approx(points[mask], abs=1e-6)
        low, high = shape.mesh.vertices_n3.min(axis=0), shape.mesh.vertices_n3.max(axis=0)
        assert (local > low - 1e-3).all()
        assert (local < high + 1e-3).all()
    table = (view.instances_hw == 0) & (view.depth_hw > 0) & (np.abs(points[..., 0]) < 0.4) & (np.abs(points[..., 1]) < 0.5)
    table &= points[..., 2] > -0.1  # not the floor
    assert table.sum() > 5000
    assert np.abs(points[table][:, 2]).max() < 1e-3


def test_a_known_point_is_found_where_it_projects_at_its_depth(busy):
    for time_s in (0.0, 2.2):
        view = busy.render(time_s)
        pose = view.poses_n44[2]
        top = pose[:3, :3] @ [0.0, 0.0, 0.05] + pose[:3, 3]  # the middle of the cube's upper face
        pixels, depths = view.project([top])
        column, row = np.round(pixels[0]).astype(int)
        assert view.instances_hw[row, column] == 3
        assert view.depth_hw[row, column] == pytest.approx(depths[0], abs=3e-3)  # half a pixel on a slanted face


def test_masks_and_depths_of_two_sizes_agree_but_at_borders(busy):
    fine, coarse = busy.render(1.0, (384, 512)), busy.render(1.0, (96, 128))
    blocks = fine.instances_hw.reshape(96, 4, 128, 4).swapaxes(1, 2).reshape(96, 128, 16)
    uniform = (blocks == blocks[..., :1]).all(axis=-1)
    assert uniform.mean() > 0.85
    assert np.array_equal(coarse.instances_hw[uniform], blocks[..., 0][uniform])
    depths = fine.depth_hw.reshape(96, 4, 128, 4).swapaxes(1, 2).reshape(96, 128, 16)
    between = (coarse.depth_hw >= depths.min(axis=-1) - 2e-3) & (coarse.depth_hw <= depths.max(axis=-1) + 2e-3)
    assert between[uniform].mean() > 0.995
    assert coarse.intrinsics[0, 0] * 4 == pytest.approx(fine.intrinsics[0, 0])


def test_a_view_depends_on_its_time_alone_and_a_scene_on_itself():
    scene = Scene((Thing("mug", "red", 1.0, (0.05, 0.0), 0.0),), (), CAMERA, Look(noise=3.0), 1.0)
    one, other = Episode(scene), Episode(scene)
    one.render(0.9)
    one.render(0.2, (48, 64))
    first, second = one.render(0.4), other.render(0.4)
    assert np.array_equal(first.image_rgb, second.image_rgb)
    assert np.array_equal(first.depth_hw, second.depth_hw)
    assert np.array_equal(first.instances_hw, second.instances_hw)
    assert not np.array_equal(first.image_rgb, one.render(0.5).image_rgb)  # its noise


def test_noise_is_in_the_image_alone():
    thing = Thing("mug", "red", 1.0, (0.05, 0.0), 0.0)
    noisy = Episode(Scene((thing,), (), CAMERA, Look(noise=4.0, seed=5), 1.0)).render(0.0)
    clean = Episode(Scene((thing,), (), CAMERA, STILL, 1.0)).render(0.0)
    difference = noisy.image_rgb.astype(int) - clean.image_rgb.astype(int)
    inside = (clean.image_rgb > 20) & (clean.image_rgb < 235)  # where nothing is cut off
    assert difference[inside].std() == pytest.approx(4.0, rel=0.1)
    assert np.array_equal(noisy.depth_hw, clean.depth_hw)


@pytest.mark.parametrize("colour", sorted(set(COLOURS_RGB) - {"white", "black"}))
def test_a_cube_looks_like_its_colour(colour):
    view = Episode(scene_of(Thing("cube", colour, 1.2, (0.05, 0.0), 0.4, 2))).render(0.0)
    seen = np.median(view.image_rgb[view.mask_of(0)].astype(float), axis=0)

    def direction(rgb: np.ndarray) -> np.ndarray:
        return rgb / np.linalg.norm(rgb)

    nearest = max(COLOURS_RGB, key=lambda name: float(direction(seen) @ direction(np.array(COLOURS_RGB[name], float))))
    assert nearest == colour


def test_the_lamp_casts_shadows():
    things = (Thing("bottle", "green", 1.1, (0.05, 0.0), 0.0),)
    look = Look(noise=0.0, table="laminate", light_azimuth=math.pi / 2, light_elevation=0.8, seed=5)
    view = Episode(Scene(things, (), CAMERA, look, 1.0)).render(0.0)
    points = world_points(view)
    bright = view.image_rgb.mean(axis=-1)
    on_table = (view.instances_hw == 0) & (np.abs(points[..., 2]) < 1e-3) & (np.abs(points[..., 0] - 0.05) < 0.015)
    behind = on_table & (points[..., 1] < -0.06) & (points[..., 1] > -0.12)  # the lamp stands at +y
    before = on_table & (points[..., 1] > 0.06) & (points[..., 1] < 0.12)
    assert bright[behind].mean() < 0.75 * bright[before].mean()


def test_visible_shares_are_those_of_what_a_thing_would_show_alone():
    wall, hidden = Thing("box", "orange", 1.15, (0.15, 0.0), 0.0, 1), Thing("cube", "blue", 1.25, (0.05, 0.0), 0.0, 1)
    camera = Camera((0.05, 0.0, 0.03), 0.8, 0.0, 0.2, 0.75)
    episode = Episode(scene_of(wall, hidden, Thing("mug", "red", 1.0, (-0.3, 0.7), 0.0), camera=camera))
    shares = episode.visible_fractions(0.0)
    assert shares[0] == pytest.approx(1.0)
    assert shares[1] == pytest.approx(0.0, abs=0.05)  # right behind the box
    assert shares[2] == 0.0  # out of the image
    behind = Episode(scene_of(Thing("box", "orange", 1.15, (0.15, 0.075), 0.0, 1), hidden, camera=camera))
    alone = Episode(scene_of(hidden, camera=camera))
    pixels = [episode.render(0.0, (384, 512)).mask_of(index).sum() for episode, index in ((behind, 1), (alone, 0))]
    assert behind.visible_fractions(0.0)[1] == pytest.approx(pixels[0] / pixels[1], abs=0.1)
    assert 0.2 < pixels[0] / pixels[1] < 0.8


@pytest.mark.parametrize(
    ("time_s", "size_hw", "named"),
    [
        (math.nan, (8, 8), "finite, got nan"),
        (0.0, (0, 8), "1 to 4096"),
        (0.0, (8, -3), "1 to 4096"),
        (0.0, (10**6, 8), "1 to 4096"),
    ],
)
def test_no_picture_of_no_time_or_size(busy, time_s, size_hw, named):
    with pytest.raises(ValueError, match=named):
        busy.render(time_s, size_hw)


def test_a_world_that_goes_on_is_filmed_as_one_that_was_recorded(busy):
    world = Simulation(busy.scene)
    renderer = Renderer(busy.scene, world.shapes)
    while world.time_s < 1.0 - 1e-9:
        world.tick()
    live, recorded = renderer.render(world.data.qpos, 1.0), busy.render(1.0)
    assert np.array_equal(live.image_rgb, recorded.image_rgb)
    assert np.array_equal(live.instances_hw, recorded.instances_hw)


def test_the_arm_has_a_label_of_its_own(busy):
    view = busy.render(2.5)
    assert (view.instances_hw == ARM_LABEL).sum() > 500
    assert set(np.unique(view.instances_hw)) <= {0, 1, 2, 3, 4, ARM_LABEL}


def test_seeds_give_episodes_without_faults_the_same_each_time():
    episode, again = sample_episode(11), sample_episode(11)
    assert episode.faults() == []
    assert np.array_equal(episode.recording.qpos_tq, again.recording.qpos_tq)


def test_an_episode_that_went_wrong_says_why():
    # The mug is gone from where the arm should place it: the place is out of reach.
    thing = Thing("mug", "red", 1.0, (0.05, 0.0), 0.0)
    episode = Episode(scene_of(thing, actions=(Action("pick", 0), Action("place", xy=(0.5, 0.8))), seconds=4.0))
    assert episode.faults() == ["the arm failed to place"]
    away = Camera((2.0, 0.0, 0.0), 0.8, math.pi, 0.3, 0.75)  # looks the other way
    unseen = Episode(scene_of(thing, actions=(Action("pick", 0),), seconds=2.5, camera=away))
    assert unseen.faults() == ["the mug is hidden throughout"]
