"""Scenes of the robot's table as data: what is known, what is refused, what a seed gives. None of it needs a simulator."""

import json
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from decaf_ros.synthetic.table.catalogue import COLOURS_RGB, KINDS, USES
from decaf_ros.synthetic.table.kinematics import HandPose, is_reachable, joints_of, nearest_yaw
from decaf_ros.synthetic.table.sampling import FIRST_TRAINING_SEED, require_held_out, require_training, sample_scene
from decaf_ros.synthetic.table.scene import TABLE_X, TABLE_Y, Action, Camera, Look, Scene, Thing, scene_from_json
from decaf_ros.synthetic.table.things import make_shape
from decaf_ros.synthetic.table.wordings import SENTENCE_KINDS, phrase, vocabulary

CAMERA = Camera(target=(0.0, 0.0, 0.0), distance=1.0, azimuth=0.0, elevation=0.6, fov_y=0.8)


def scene_with(*things: Thing, actions: tuple[Action, ...] = ()) -> Scene:
    return Scene(things or (Thing("mug", "red", 1.0, (0.0, 0.0), 0.0),), actions, CAMERA, Look())


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Thing("muk", "red", 1.0, (0, 0), 0.0), "object 'muk'.*mug.*pear"),
        (lambda: Thing("mug", "beige", 1.0, (0, 0), 0.0), "colour 'beige'.*red.*black"),
        (lambda: Thing("banana", "blue", 1.0, (0, 0), 0.0), "no blue banana.*yellow, green"),
        (lambda: Thing("mug", "red", 9.0, (0, 0), 0.0), r"0\.5 to 1\.5, got 9\.0"),
        (lambda: Thing("mug", "red", 1.0, (7.0, 0), 0.0), r"not on the table.*-0\.76"),
        (lambda: Action("juggle"), "action 'juggle'.*pick, place, push, topple, wait"),
        (lambda: Action("pick"), "action pick: thing is for"),
        (lambda: Action("place"), "action place: xy is for"),
        (lambda: Action("wait", seconds=-1.0), "not negative"),
        (lambda: Look(table="ice"), "table 'ice'.*oak"),
        (lambda: Look(floor="lava"), "floor 'lava'.*tiles"),
        (lambda: Camera((0, 0, 0), 0.1, 0, 0.5, 0.8), r"0\.2 to 10 m"),
        (lambda: Camera((0, 0, 0), math.nan, 0, 0.5, 0.8), "ordinary size, got nan"),
        (lambda: Camera((0, 0, 0), 1.0, 10**400, 0.5, 0.8), "ordinary size, got 1000"),
        (lambda: Camera((0, 0, 0), 1.0, 0, 1.45, 0.8, sway=(0, 0.2, 0)), "neither straight up"),
        (lambda: Thing("mug", "red", 1.0, (0, 0), 0.0, seed=-1), "not negative, got -1"),
        (lambda: Scene((), (), CAMERA, Look()), "1 to 8 objects, got 0"),
        (lambda: scene_with(actions=(Action("pick", 3),)), "no object 3, there are 1"),
        (lambda: scene_with(Thing("plate", "red", 1.0, (0, 0), 0.0), actions=(Action("pick", 0),)), "cannot lift a plate"),
    ],
)
def test_what_cannot_be_is_refused_by_name_with_what_can(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_a_scene_file_gives_the_same_scene():
    for seed in range(20):
        scene = sample_scene(seed)
        assert scene_from_json(scene.to_json()) == scene


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"things": [{"kind": "unicorn", "colour": "red", "scale": 1.0, "xy": [0, 0], "yaw": 0}]},
            r"things\[0\].*'unicorn'.*mug",
        ),
        (
            {"things": [{"kind": "mug", "colour": "red", "scale": "big", "xy": [0, 0], "yaw": 0}]},
            r"things\[0\]: scale is float",
        ),
        ({"things": [{"kind": "mug", "colour": "red", "scale": 1.0, "xy": [0], "yaw": 0}]}, r"things\[0\]: xy is"),
        ({"things": [{"kind": "mug", "colour": "red"}]}, r"things\[0\]:.*scale"),
        ({"things": "mug"}, "things of a scene file is a list"),
        ({"actions": [{"verb": "explode"}]}, r"actions\[0\].*'explode'.*topple"),
        ({"actions": [{"verb": "wait", "seconds": True}]}, r"actions\[0\]: seconds is float"),
        ({"camera": {"lens": 3}}, "key of camera 'lens'.*fov_y"),
        ({"weather": "fine"}, "key of the scene 'weather'.*camera"),
        ({"look": None}, "look is a JSON object, got 'None'"),
    ],
)
def test_what_is_wrong_in_a_scene_file_is_named(change, named):
    given = json.loads(scene_with().to_json()) | change
    with pytest.raises(ValueError, match=named):
        scene_from_json(json.dumps(given))


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"things": NaN}', "[" * 100_000])
def test_what_is_no_scene_file_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        scene_from_json(text)


def test_a_seed_is_one_scene_and_an_attempt_another():
    assert sample_scene(7) == sample_scene(7)
    assert sample_scene(7) != sample_scene(8)
    assert sample_scene(7) != sample_scene(7, attempt=1)


def test_seeds_give_every_kind_and_colour_and_mostly_several_of_a_kind():
    scenes = [sample_scene(seed) for seed in range(150)]
    things = [thing for scene in scenes for thing in scene.things]
    assert {thing.kind for thing in things} == set(KINDS)
    assert {thing.colour for thing in things} == set(COLOURS_RGB)
    assert len(KINDS) >= 14
    assert len(COLOURS_RGB) >= 8
    several = [max(Counter(thing.kind for thing in scene.things).values()) > 1 for scene in scenes]
    assert np.mean(several) > 0.6
    assert 0.2 < np.mean([scene.camera.moves for scene in scenes]) < 0.5
    assert {action.verb for scene in scenes for action in scene.actions} == {"pick", "place", "push", "topple", "wait"}


def test_held_out_seeds_and_training_seeds_do_not_mix():
    assert require_held_out(FIRST_TRAINING_SEED - 1) == FIRST_TRAINING_SEED - 1
    assert require_training(FIRST_TRAINING_SEED) == FIRST_TRAINING_SEED
    with pytest.raises(ValueError, match=f"seed {FIRST_TRAINING_SEED} is not held out.*{FIRST_TRAINING_SEED - 1}"):
        require_held_out(FIRST_TRAINING_SEED)
    with pytest.raises(ValueError, match="held out for evaluation"):
        require_training(FIRST_TRAINING_SEED - 1)
    with pytest.raises(ValueError, match="not held out"):
        require_held_out(-1)


def test_things_are_planned_apart_from_each_other_and_on_the_table():
    for seed in range(40):
        things = sample_scene(seed).things
        for index, one in enumerate(things):
            assert TABLE_X[0] < one.xy[0] < TABLE_X[1]
            assert TABLE_Y[0] < one.xy[1] < TABLE_Y[1]
            for other in things[:index]:
                reach = [
                    float(np.linalg.norm(make_shape(t.kind, t.colour, t.scale, t.seed).mesh.vertices_n3[:, :2], axis=1).max())
                    for t in (one, other)
                ]
                assert math.dist(one.xy, other.xy) > sum(reach)


def test_the_camera_looks_at_its_target_from_where_it_should():
    # From 1 m away, 0.6 rad above the table, on the side that faces the robot.
    pose = CAMERA.world_from_camera(0.0)
    assert pose[:3, 3] == pytest.approx([math.cos(0.6), 0.0, math.sin(0.6)])
    assert pose[:3, :3].T @ (np.zeros(3) - pose[:3, 3]) == pytest.approx([0.0, 0.0, 1.0])
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
    # It faces the robot, so what is on the robot's left, +y, is on the image's right, and up is up.
    assert (pose[:3, :3].T @ [0.0, 1.0, 0.0])[0] == pytest.approx(1.0)
    assert (pose[:3, :3].T @ [0.0, 0.0, 1.0])[1] < 0
    matrix = CAMERA.intrinsics((192, 256))
    assert matrix[0, 0] == matrix[1, 1] == pytest.approx(96 / math.tan(0.4))
    assert matrix[:2, 2].tolist() == [127.5, 95.5]


def test_a_camera_that_moves_goes_slowly_and_one_that_stands_does_not():
    for seed in range(30):
        camera = sample_scene(seed).camera
        places = np.array([camera.world_from_camera(time_s)[:3, 3] for time_s in np.arange(0, 12, 0.1)])
        speeds = np.linalg.norm(np.diff(places, axis=0), axis=1) / 0.1
        assert speeds.max() < 0.25
        assert (speeds.max() > 0.01) == camera.moves


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_shape_stands_on_the_table_closed_and_outside_out(kind):
    shape = make_shape(kind, KINDS[kind].colours[0], 1.0, seed=3)
    mesh = shape.mesh
    assert mesh.vertices_n3[:, 2].min() == pytest.approx(0.0, abs=0.004)
    corners = mesh.vertices_n3[mesh.faces_f3]
    volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6  # divergence theorem
    assert 1e-5 < volume < 2e-3  # a hundredth of a litre to two litres; negative were it inside out
    lengths = np.linalg.norm(mesh.normals_n3(), axis=1)
    assert lengths == pytest.approx(np.ones(len(lengths)))
    assert (mesh.uv_n2 >= 0).all()
    assert (mesh.uv_n2 <= 1).all()
    # What is felt is about as large as what is seen.
    low, high = mesh.vertices_n3.min(axis=0), mesh.vertices_n3.max(axis=0)
    for solid in shape.solids:
        assert (np.array(solid.position) > low - 0.01).all()
        assert (np.array(solid.position) < high + 0.01).all()
    assert (shape.grip is not None) == KINDS[kind].liftable


def test_scale_is_size():
    small, large = (make_shape("mug", "red", scale, seed=1).mesh.vertices_n3 for scale in (0.8, 1.2))
    assert np.ptp(large[:, 1]) / np.ptp(small[:, 1]) == pytest.approx(1.5, rel=0.05)


def test_uses_speak_of_known_kinds():
    for use in USES.values():
        assert use.kinds | use.nearly <= set(KINDS)
        assert not use.kinds & use.nearly


def test_every_phrase_is_made_of_the_vocabulary():
    from decaf_ros.synthetic.table.wordings import PHRASES

    words = set(vocabulary())
    rng = np.random.default_rng(0)
    for name in PHRASES:
        for _ in range(10):
            text = phrase(name, rng, str(rng.choice([*KINDS])), colour="red", a="bowl", b="can")
            assert set(text.split()) <= words, text
            assert " a apple" not in text
    assert len(SENTENCE_KINDS) == len(set(SENTENCE_KINDS))


def test_fingers_are_alike_so_a_turn_by_half_is_none():
    assert nearest_yaw(math.pi, 0.1) == pytest.approx(0.0)
    assert nearest_yaw(0.6 * math.pi, 0.0) == pytest.approx(-0.4 * math.pi)


def test_a_pose_in_cylinder_coordinates_is_the_point_it_was_made_from():
    pose = HandPose.above((0.1, -0.2, 0.3), 0.4)
    assert pose.xyz == pytest.approx([0.1, -0.2, 0.3])
    assert is_reachable(pose)
    assert not is_reachable(HandPose.above((0.9, 0.0, 0.1), 0.0))
    # Upper arm and forearm, as its own joints say, end above the tips by the length of the hand.
    _, shoulder, elbow, wrist, _ = joints_of(pose)
    out = 0.46 * math.sin(shoulder) + 0.44 * math.sin(shoulder + elbow)
    up = 0.34 + 0.46 * math.cos(shoulder) + 0.44 * math.cos(shoulder + elbow)
    assert out == pytest.approx(math.hypot(0.6, 0.2))
    assert up == pytest.approx(0.3 + 0.20)
    assert shoulder + elbow + wrist == pytest.approx(math.pi)  # it points down


@pytest.mark.parametrize("module", ["simulation", "rendering", "episodes", "sentences"])
def test_without_a_simulator_the_error_names_the_extra(module):
    code = f"import sys; sys.modules['mujoco'] = None; import decaf_ros.synthetic.table.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "SimulationMissingError: the simulated table needs mujoco" in done.stderr
    assert "decaf_ros[sim]" in done.stderr
