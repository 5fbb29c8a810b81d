"""Physics of the robot's table: events of scripted worlds, whose truth is known by construction, and of handmade recordings."""

import math

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs MuJoCo: the extra sim")

from decaf_ros.synthetic.table.catalogue import KINDS
from decaf_ros.synthetic.table.events import EventKind, History
from decaf_ros.synthetic.table.kinematics import REST, HandPose, joints_of
from decaf_ros.synthetic.table.recording import ARM_NUMBERS, Recording, Touch
from decaf_ros.synthetic.table.sampling import sample_scene
from decaf_ros.synthetic.table.scene import Action, Camera, Look, Scene, Thing
from decaf_ros.synthetic.table.simulation import TICK_S, Simulation, record, simulate
from decaf_ros.synthetic.table.things import make_shape

CAMERA = Camera(target=(0.05, 0.0, 0.05), distance=0.85, azimuth=0.0, elevation=0.7, fov_y=0.75)


def thing(kind: str, x: float, y: float, colour: str = "red", yaw: float = 0.0) -> Thing:
    return Thing(kind, colour, 1.0, (x, y), yaw, seed=1)


def scene_of(*things: Thing, actions: tuple[Action, ...] = (), seconds: float = 5.0) -> Scene:
    return Scene(things, actions, CAMERA, Look(), seconds)


def told(recording: Recording) -> list[tuple[EventKind, int]]:
    return [(event.kind, event.thing) for event in History(recording).events]


def put_at(world: Simulation, index: int, position: tuple[float, float, float], quaternion=(1.0, 0.0, 0.0, 0.0)) -> None:
    start = ARM_NUMBERS + 7 * index
    world.data.qpos[start : start + 7] = [*position, *quaternion]
    world.data.qvel[ARM_NUMBERS + 6 * index : ARM_NUMBERS + 6 * index + 6] = 0.0


# --- Recordings made by hand: what is judged, apart from how it came to be.


def by_hand(
    heights: list[float], touches: list[int], x: list[float] | None = None, tilts: list[float] | None = None
) -> Recording:
    """A can at given heights, places, tilts about y, and touches, one of each a tick."""
    can = thing("can", 0.0, 0.0)
    count = len(heights)
    qpos = np.zeros((count, ARM_NUMBERS + 7))
    qpos[:, ARM_NUMBERS] = x or np.zeros(count)
    qpos[:, ARM_NUMBERS + 2] = heights
    half = 0.5 * np.array(tilts or np.zeros(count))
    qpos[:, ARM_NUMBERS + 3], qpos[:, ARM_NUMBERS + 5] = np.cos(half), np.sin(half)
    shape = make_shape(can.kind, can.colour, can.scale, can.seed)
    return Recording(scene_of(can), (shape,), np.arange(count) * TICK_S, qpos, np.array(touches, dtype=np.uint8)[:, None])


GRIP, ONE, GROUND = int(Touch.LEFT | Touch.RIGHT | Touch.ARM), int(Touch.LEFT | Touch.ARM), int(Touch.GROUND)
UP_AND_DOWN = [0.0] * 50 + np.linspace(0, 0.1, 50).tolist() + np.linspace(0.1, 0.0, 50).tolist() + [0.0] * 50


def test_a_lift_in_the_gripper_is_picked_up_and_put_down_at_the_right_times():
    history = History(by_hand(UP_AND_DOWN, [GROUND] * 50 + [GRIP] * 100 + [GROUND] * 50))
    picked, put = history.events
    assert (picked.kind, put.kind) == (EventKind.PICKED_UP, EventKind.PUT_DOWN)
    assert picked.start_s == pytest.approx(50 * TICK_S)
    assert picked.end_s == pytest.approx((50 + math.ceil(0.03 / 0.1 * 49)) * TICK_S)  # 3 cm of 10 in 49 steps
    assert put.start_s == pytest.approx(149 * TICK_S)
    assert put.end_s == pytest.approx(150 * TICK_S)
    assert history.held_at(2.0) == [0]
    assert history.held_at(3.5) == []
    assert history.held_at(50 * TICK_S + 0.1) == []  # not for long enough
    assert history.moved_metres(0.0, 4.0)[0] == pytest.approx(0.1)


@pytest.mark.parametrize("touch", [0, ONE, GRIP | GROUND, int(Touch.ARM)])
def test_what_rises_without_being_gripped_is_not_picked_up(touch):
    assert told(by_hand(UP_AND_DOWN, [GROUND] * 50 + [touch] * 100 + [GROUND] * 50)) == []


def test_a_grip_without_a_lift_is_nothing():
    assert told(by_hand([0.0] * 200, [GROUND] * 50 + [GRIP] * 100 + [GROUND] * 50)) == []


def test_a_contact_that_flickers_ends_no_hold_and_a_gap_does():
    flicker = [GROUND] * 50 + [GRIP] * 40 + [ONE] * 4 + [GRIP] * 56 + [GROUND] * 50
    assert told(by_hand(UP_AND_DOWN, flicker)) == [(EventKind.PICKED_UP, 0), (EventKind.PUT_DOWN, 0)]
    gap = [GROUND] * 50 + [GRIP] * 50 + [0] * 50 + [GROUND] * 50  # let go at 10 cm
    assert told(by_hand(UP_AND_DOWN, gap)) == [(EventKind.PICKED_UP, 0), (EventKind.DROPPED, 0)]


def test_a_way_along_the_table_counts_as_pushed_only_with_the_arm_at_it_and_from_4_cm_on():
    arm = [GROUND] * 50 + [GROUND | int(Touch.ARM)] * 50 + [GROUND] * 50
    for way, touches, expected in (
        (0.06, arm, [(EventKind.PUSHED, 0)]),
        (0.03, arm, []),
        (0.06, [GROUND] * 150, []),
    ):
        x = [0.0] * 50 + np.linspace(0, way, 50).tolist() + [way] * 50
        assert told(by_hand([0.0] * 150, touches, x=x)) == expected
    rising = [0.0] * 50 + np.linspace(0, 0.06, 50).tolist() + [0.06] * 50
    assert told(by_hand(rising, arm, x=rising)) == []  # not along the table


def test_a_fall_goes_from_upright_to_lying_and_a_wobble_does_not():
    wobble = [0.0] * 50 + np.linspace(0, 0.5, 25).tolist() + np.linspace(0.5, 0, 25).tolist() + [0.0] * 50
    assert told(by_hand([0.0] * 150, [GROUND] * 150, tilts=wobble)) == []
    fall = [0.0] * 50 + np.linspace(0, math.pi / 2, 50).tolist() + [math.pi / 2] * 50
    (event,) = History(by_hand([0.0] * 150, [GROUND] * 150, tilts=fall)).events
    assert event.kind is EventKind.FELL_OVER
    assert event.end_s == pytest.approx((50 + math.ceil(49 * 60 / 90)) * TICK_S, abs=TICK_S)  # at 60 degrees
    assert event.start_s == pytest.approx((50 + math.floor(49 * 12 / 90)) * TICK_S, abs=TICK_S)  # stood until 12


def test_poses_between_moments_lie_between_them():
    recording = by_hand([0.0, 0.1], [GROUND, GROUND], tilts=[0.0, 0.2])
    pose = recording.poses_at(0.5 * TICK_S)[0]
    assert pose[2, 3] == pytest.approx(0.05)
    assert math.acos(pose[2, 2]) == pytest.approx(0.1, abs=1e-4)
    assert recording.poses_at(-1.0)[0][2, 3] == 0.0
    assert recording.poses_at(99.0)[0][2, 3] == pytest.approx(0.1)


# --- The simulator: worlds in which it is known what must come of it.


def test_the_hand_goes_where_it_is_told():
    world = Simulation(scene_of(thing("mug", 0.2, 0.2)))
    for x, y, z, yaw in ((0.1, 0.1, 0.1, 0.3), (-0.1, -0.25, 0.02, 1.2), (0.25, 0.0, 0.3, -0.5)):
        pose = HandPose.above((x, y, z), yaw)
        world.data.qpos[:5] = joints_of(pose)
        import mujoco

        mujoco.mj_forward(world.model, world.data)
        assert world.data.site("tip").xpos == pytest.approx([x, y, z], abs=1e-6)
        hand = world.data.body("roll").xmat.reshape(3, 3)
        assert hand[:, 2] == pytest.approx([0, 0, -1], abs=1e-6)  # it points down
        assert abs(hand[:, 1] @ [math.cos(yaw), math.sin(yaw), 0]) == pytest.approx(1.0)  # and closes along its yaw


def test_a_box_that_falls_10_cm_onto_its_foot_neither_fell_over_nor_was_anything_else():
    world = Simulation(scene_of(thing("box", 0.05, 0.0)))
    put_at(world, 0, (0.05, 0.0, 0.10))
    recording = record(world, 2.0)
    assert recording.positions_tn3[0, 0, 2] == pytest.approx(0.10)
    assert recording.positions_tn3[-1, 0, 2] == pytest.approx(0.0, abs=0.003)
    assert told(recording) == []


def test_a_bottle_that_is_set_down_tilted_falls_over_without_the_arm():
    world = Simulation(scene_of(thing("bottle", 0.05, 0.0)))
    put_at(world, 0, (0.05, 0.0, 0.012), (math.cos(0.09), math.sin(0.09), 0, 0))  # 10 degrees: it still stands
    world.data.qvel[ARM_NUMBERS + 3] = 4.0  # and turns
    recording = record(world, 2.0)
    assert told(recording) == [(EventKind.FELL_OVER, 0)]
    assert not (recording.touches_tn & Touch.ARM).any()


def test_pick_and_place_brings_a_thing_to_its_place():
    actions = (Action("pick", 0), Action("place", xy=(0.15, 0.1)))
    recording = simulate(scene_of(thing("mug", 0.0, -0.1), thing("can", 0.2, -0.2), actions=actions, seconds=6.0))
    assert told(recording) == [(EventKind.PICKED_UP, 0), (EventKind.PUT_DOWN, 0)]
    assert recording.positions_tn3[-1, 0] == pytest.approx([0.15, 0.1, 0.0], abs=0.008)
    assert recording.positions_tn3[:, 0, 2].max() > 0.1
    assert np.abs(recording.positions_tn3[:, 1] - recording.positions_tn3[0, 1]).max() < 0.002  # the can stood still
    assert recording.failed == ()
    assert recording.deepest_metres < 0.004


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.liftable])
def test_the_gripper_lifts_every_kind_that_it_should(kind):
    colour = KINDS[kind].colours[0]
    recording = simulate(scene_of(thing(kind, 0.05, 0.05, colour, yaw=0.7), actions=(Action("pick", 0),), seconds=3.5))
    assert told(recording) == [(EventKind.PICKED_UP, 0)]
    assert History(recording).held_at(3.4) == [0]


def test_a_push_slides_a_thing_and_is_no_hold_though_both_fingers_touch():
    recording = simulate(scene_of(thing("bottle", 0.0, 0.0), actions=(Action("push", 0, (0.12, 0.0)),), seconds=4.5))
    assert told(recording) == [(EventKind.PUSHED, 0)]
    assert recording.positions_tn3[-1, 0, :2] == pytest.approx([0.12, 0.0], abs=0.03)
    assert (recording.touches_tn & Touch.ARM).any()
    assert not (recording.touches_tn & (Touch.LEFT | Touch.RIGHT)).any()  # not with their inner sides
    assert not History(recording).held_tn.any()


def test_a_topple_is_a_fall_and_no_push():
    recording = simulate(scene_of(thing("bottle", 0.0, 0.0), actions=(Action("topple", 0, (0.0, 0.13)),), seconds=4.5))
    assert told(recording) == [(EventKind.FELL_OVER, 0)]
    assert recording.tilts_tn[-1, 0] == pytest.approx(math.pi / 2, abs=0.1)


def test_a_grip_that_closes_on_nothing_fails_and_nothing_happened():
    world = Simulation(scene_of(thing("apple", 0.0, 0.1), actions=(Action("pick", 0),)))
    while world.hand.height > 0.1 or world.time_s < 0.2:
        world.tick()
    put_at(world, 0, (0.2, -0.2, 0.0))  # as the hand comes down, the apple is elsewhere
    recording = record(world, 3.0)
    assert [action.verb for action in recording.failed] == ["pick"]
    assert told(recording) == []
    assert world.held is None


def test_nothing_is_fastened_unless_both_fingers_touch_it():
    world = Simulation(scene_of(thing("apple", 0.0, 0.1)))
    assert not world.fasten(0)
    world.touches_n[0] = Touch.LEFT | Touch.ARM
    assert not world.fasten(0)
    assert world.held is None
    assert not world.data.eq_active.any()


def test_what_is_let_go_in_the_air_was_dropped_not_put_down():
    world = Simulation(scene_of(thing("cube", 0.0, 0.0), actions=(Action("pick", 0),)))
    first = record(world, 3.0)
    assert told(first) == [(EventKind.PICKED_UP, 0)]
    world.perform(Action("pick", 0))  # refused while it holds something
    world.tick()
    assert [action.verb for action in world.failed] == ["pick"]
    world.let_go()
    before = world.data.qpos.copy()
    assert before[ARM_NUMBERS + 2] > 0.08
    world.perform(Action("wait", seconds=0.1))
    # The fingers stay closed around it; open them as a broken gripper would.
    world.hand = HandPose(*world.hand.as_tuple()[:4], opening=0.05)
    second = record(world, 1.5)
    joined = Recording(
        first.scene,
        first.shapes,
        np.arange(len(first.times_s) + len(second.times_s)) * TICK_S,
        np.concatenate([first.qpos_tq, second.qpos_tq]),
        np.concatenate([first.touches_tn, second.touches_tn]),
    )
    assert told(joined) == [(EventKind.PICKED_UP, 0), (EventKind.DROPPED, 0)]


def test_a_thing_that_is_pushed_into_another_moves_it_and_does_not_pass_through():
    things = (thing("box", 0.0, 0.0), thing("cube", 0.0, 0.115, "blue"))
    recording = simulate(scene_of(*things, actions=(Action("push", 0, (0.0, 0.12)),), seconds=4.5))
    assert (EventKind.PUSHED, 0) in told(recording)
    assert recording.positions_tn3[-1, 1, 1] > 0.15
    assert (recording.touches_tn[:, 1] & Touch.THING).any()
    assert recording.deepest_metres < 0.004


def test_what_the_arm_carries_out_of_the_image_is_taken_away_and_the_way_back_is_brought():
    away = (-0.30, 0.72)
    there, back = (Action("pick", 0), Action("place", xy=away)), (Action("pick", 0), Action("place", xy=(0.05, 0.0)))
    actions = (*there, Action("wait", seconds=0.3), *back)
    recording = simulate(scene_of(thing("can", 0.1, 0.05), actions=actions, seconds=11.0))
    assert [kind.value for kind, _ in told(recording)] == [
        "picked up", "taken away", "put down", "picked up", "brought into view", "put down",
    ]  # fmt: skip
    history = History(recording)
    gone = next(event for event in history.events if event.kind is EventKind.TAKEN_AWAY)
    for time_s, is_out in ((gone.end_s, True), (gone.start_s, False)):
        # By hand: half the width of the view at the depth where the can is then, and the can's own radius.
        pose = CAMERA.world_from_camera(time_s)
        right, _, forward = (recording.poses_at(time_s)[0, :3, 3] - pose[:3, 3]) @ pose[:3, :3]
        half_width = 4 / 3 * math.tan(0.375) * forward
        assert (abs(right) > half_width + 0.02) if is_out else (abs(right) < half_width)


def test_a_simulation_is_the_same_twice():
    scene = sample_scene(3)
    one, other = simulate(scene), simulate(scene)
    assert np.array_equal(one.qpos_tq, other.qpos_tq)
    assert np.array_equal(one.touches_tn, other.touches_tn)


def test_orders_by_place_mean_the_thing_that_stands_there():
    world = Simulation(scene_of(thing("cube", 0.1, 0.1), thing("mug", 0.0, -0.1)))
    assert world.thing_at((0.11, 0.09, 0.02)) == 0
    assert world.thing_at((0.0, -0.13, 0.05)) == 1
    assert world.thing_at((0.0, -0.1, 0.3)) is None, "far above the mug"
    assert world.thing_at((0.2, 0.3, 0.0)) is None


def test_an_idle_arm_goes_to_rest_and_a_live_world_takes_orders():
    world = Simulation(scene_of(thing("cube", 0.1, 0.1)))
    world.tick()
    assert world.is_idle
    world.perform(Action("push", 0, (0.1, 0.2)))
    while True:
        world.tick()
        if world.is_idle:
            break
        assert world.time_s < 20
    assert world.pose_of(0)[0][1] > 0.14
    assert world.hand.xyz[0] == pytest.approx(REST.xyz[0], abs=0.06)


def test_a_thing_that_is_torn_from_the_fingers_is_lost():
    world = Simulation(scene_of(thing("cube", 0.0, 0.0), actions=(Action("pick", 0), Action("wait", seconds=1.0))))
    record(world, 2.5)
    assert world.held == 0
    world.data.eq_active[:] = 0  # whatever held it there does not; the fingers open
    world.hand = HandPose(*world.hand.as_tuple()[:4], opening=0.05)
    world.perform(Action("place", xy=(0.1, 0.1)))
    for _ in range(20):
        world.data.ctrl[5:7] = 0.05
        world.tick()
    assert world.held is None


@pytest.mark.parametrize(
    ("things", "named"),
    [
        ((thing("mug", 0.0, 0.0), thing("can", 0.02, 0.0)), r"the mug \(0\) and the can \(1\) stand in each other, by \d+ mm"),
        ((thing("box", -0.5, 0.0),), "the arm or the table"),
    ],
)
def test_things_that_stand_in_each_other_are_named(things, named):
    with pytest.raises(ValueError, match=named):
        Simulation(scene_of(*things))
