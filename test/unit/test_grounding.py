"""From attention to objects, with a language model that looks where it is told and a mask model that knows the truth."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from filmed_table import SCENE, FilmedTable

from decaf_ros.config import GroundingConfig
from decaf_ros.datatypes import BoolArray, BoxPrompt, Frame, FrameWindow, ObjectPrompt, PointPrompt, Tracklet
from decaf_ros.models.boxes import BoxFormat
from decaf_ros.models.errors import NoBoxesError
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.protocols import MaskProposals, Reply, TrackOutput
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.session.attention import Attention, MllmAttention
from decaf_ros.session.frames import StoredFrame
from decaf_ros.session.grounding import Grounder, Grounding, merge_same

FRAMES, SIZE_HW, GRID_HW = 5, (48, 64), (12, 16)
CELL = 4
SINK = 10.0  # ten times the object's attention

Box = tuple[int, int, int, int]  # top, left, bottom, right, in cells


def in_cells(box: Box) -> BoolArray:
    grid = np.zeros(GRID_HW, dtype=np.bool_)
    grid[box[0] : box[2], box[1] : box[3]] = True
    return grid


def in_pixels(box: Box) -> BoolArray:
    return np.kron(in_cells(box), np.ones((CELL, CELL), dtype=np.bool_))


@dataclass
class World:
    """Bodies by name, each with its box on every frame, and how much each is attended to under the object prompt."""

    bodies: dict[str, Callable[[int], Box]]
    heat: dict[str, Callable[[int], float]]
    predicted_iou: dict[str, float] = field(default_factory=dict)
    says: Callable[[int], str] = lambda index: ""
    box_iou: float = 0.9

    def attention(self, name: str, frame_index: int) -> torch.Tensor:
        return torch.from_numpy(in_cells(self.bodies[name](frame_index))).float() * self.heat[name](frame_index)


@dataclass
class ToldPrefix:
    """One path: the object prompt looks at the bodies and at a sink in the corner, the background prompt at the sink alone."""

    world: World
    indices: list[int]
    temporal_stride: int
    asked: list[str] = field(default_factory=list)
    yes: float = 0.9

    def probability_of_yes(self, prompt: str) -> tuple[float, ...]:
        self.asked.append(prompt)
        return (self.yes,) if self.temporal_stride > 1 else (self.yes,) * len(self.indices)

    @property
    def grid_thw(self) -> tuple[int, int, int]:
        return (len(self.indices), *GRID_HW)

    def say(self, prompt: str, conversations: Sequence[int], max_new_tokens: int) -> tuple[str, ...]:
        self.asked.append(prompt)
        return tuple(self.world.says(self.indices[conversation]) for conversation in conversations)

    def ask(self, prompt: str, answer: bool = True) -> Reply:
        self.asked.append(prompt)
        return Reply(("Mug",) * len(self.indices) if answer else (), state=prompt)

    def rollout(self, replies: Sequence[Reply]) -> torch.Tensor:
        maps = torch.zeros(len(replies), len(self.indices), *GRID_HW)
        maps[:, :, 0, 0] = SINK
        for row, reply in enumerate(replies):
            if "Which object" in reply.state:
                for step, index in enumerate(self.indices):
                    maps[row, step] += sum(self.world.attention(name, index) for name in self.world.bodies)
        return maps[:, :: self.temporal_stride]


class ToldMllm:
    def __init__(self, world: World, name: str = " A mug. ") -> None:
        self.world, self.name = world, name
        self.prefixes: dict[str, ToldPrefix] = {}
        self.completed: list[str] = []

    def read_video(self, window: FrameWindow, memory: object = None) -> ToldPrefix:
        return self.prefixes.setdefault("video", ToldPrefix(self.world, stamps(window), 2))

    def read_frames(self, window: FrameWindow, memory: object = None) -> ToldPrefix:
        return self.prefixes.setdefault("frame", ToldPrefix(self.world, stamps(window), 1))

    def box_format(self) -> BoxFormat:
        return BoxFormat(cell_px=2)  # half as many pixels as the camera image has

    def complete(self, prompt: str) -> str:
        self.completed.append(prompt)
        return self.name


def stamps(window: FrameWindow) -> list[int]:
    return [frame.stamp_ns for frame in window.frames]


@dataclass(eq=False)
class BodyTrack:
    body: str
    seen: list[int]


class KnowingTracker:
    """A point gives the body that it lies on; a track stays on the body that its mask overlaps most."""

    def __init__(self, world: World) -> None:
        self.world = world

    def encode(self, frame: Frame) -> int:
        return frame.stamp_ns

    def mask(self, body: str, index: int) -> BoolArray:
        return in_pixels(self.world.bodies[body](index))

    def propose(self, features: int, points_xy_px: Sequence[tuple[float, float]]) -> MaskProposals:
        hits = [next((b for b in self.world.bodies if self.mask(b, features)[int(y), int(x)]), "") for x, y in points_xy_px]
        masks = [self.mask(body, features) if body else np.zeros(SIZE_HW, dtype=np.bool_) for body in hits]
        return MaskProposals(np.stack(masks), torch.tensor([self.world.predicted_iou.get(body, 0.9) for body in hits]))

    def prompt(self, features: int, prompt: ObjectPrompt) -> tuple[BodyTrack, TrackOutput]:
        """The body that lies in the box, if one does."""
        left, top, right, bottom = map(round, prompt.box_xyxy_px)
        inside = {body: np.count_nonzero(self.mask(body, features)[top:bottom, left:right]) for body in self.world.bodies}
        body = max(inside, key=inside.__getitem__)
        mask_hw = self.mask(body, features) if inside[body] else np.zeros(SIZE_HW, dtype=np.bool_)
        return BodyTrack(body, [features]), TrackOutput(mask_hw, 1.0, self.world.box_iou)

    def start_track(self, features: int, mask_hw: BoolArray, reversible: bool = False) -> BodyTrack:
        overlaps = {body: np.count_nonzero(self.mask(body, features) & mask_hw) for body in self.world.bodies}
        return BodyTrack(max(overlaps, key=overlaps.__getitem__), [features])

    def condition(self, track: BodyTrack, features: int, mask_hw: BoolArray) -> None:
        track.seen.append(features)

    def step(self, tracks: Sequence[BodyTrack], features: int, gated: bool = True) -> list[TrackOutput]:
        for track in tracks:
            track.seen.append(features)
        return [TrackOutput(self.mask(track.body, features), 1.0) for track in tracks]

    def turned_back(self, track: BodyTrack) -> BodyTrack:
        return BodyTrack(track.body, [])


def left(index: int) -> Box:
    return (3, 1 + index, 6, 4 + index)


def right(index: int) -> Box:
    return (7, 11, 10, 14)


def always(value: float) -> Callable[[int], float]:
    return lambda index: value


def clip_of(tracker: KnowingTracker, count: int = FRAMES) -> list[StoredFrame]:
    image = np.zeros((*SIZE_HW, 3), dtype=np.uint8)
    return [StoredFrame(Frame(index, "camera", image), tracker) for index in range(count)]


def grounder(mllm: ToldMllm, tracker: KnowingTracker, config: GroundingConfig | None = None) -> Grounder:
    config = config or GroundingConfig()
    return Grounder(MllmAttention(mllm, config), tracker, config)


def ground(world: World, config: GroundingConfig | None = None, count: int = FRAMES) -> Grounding:
    tracker = KnowingTracker(world)
    return grounder(ToldMllm(world), tracker, config).ground(clip_of(tracker, count), "the mug")


@pytest.fixture
def one() -> World:
    return World({"left": left, "right": right}, {"left": always(1.0), "right": always(0.0)})


@pytest.mark.parametrize("count", [1, 2, FRAMES])
def test_the_attended_body_becomes_the_one_object_with_its_masks_on_all_frames(one, count):
    grounding = ground(one, count=count)
    assert len(grounding.objects) == 1
    assert grounding.confident
    expected = np.stack([in_pixels(left(index)) for index in range(count)])
    assert np.array_equal(grounding.union_masks(), expected)


def test_all_points_on_a_body_give_one_tracklet(one):
    grounding = ground(one)
    assert len(grounding.point_prompts) > FRAMES
    assert len(grounding.tracklets) == 1
    assert grounding.tracklets[0].score == pytest.approx((grounding.tracklets[0].prompt.attention + 0.9 + 1.0) / 3)


@pytest.mark.parametrize("paths", ["both", "video", "frame"])
def test_the_sink_is_gone_with_contrast_and_rules_without(one, paths):
    with_contrast = ground(one, GroundingConfig(paths=paths)).attention.heat_thw
    without = ground(one, GroundingConfig(paths=paths, contrast=False)).attention.heat_thw
    assert in_cells(left(0))[np.unravel_index(int(with_contrast[0].argmax()), GRID_HW)]
    assert int(without[0].argmax()) == 0


def test_two_attended_bodies_become_two_objects_the_better_one_first(one):
    one.heat["right"] = always(0.95)
    one.predicted_iou = {"left": 0.8, "right": 0.95}
    grounding = ground(one, GroundingConfig(tracklet_threshold=0.5))
    assert [found.score for found in grounding.objects] == sorted((found.score for found in grounding.objects), reverse=True)
    assert len(grounding.objects) == 2
    assert grounding.objects[0].tracklets[0].predicted_iou == pytest.approx(0.95)


def test_a_better_mask_on_a_later_frame_replaces_the_earlier_one(one):
    one.heat["left"] = lambda index: 0.85 + 0.03 * index
    grounding = ground(one, GroundingConfig(paths="video"))
    assert [tracklet.prompt.key_index for tracklet in grounding.tracklets] == [FRAMES - 1]


def test_when_no_tracklet_passes_the_best_is_taken_and_said_to_be_so(one):
    one.predicted_iou = {"left": 0.1}
    grounding = ground(one)
    assert not grounding.confident
    assert len(grounding.objects) == 1


def test_nothing_attended_gives_nothing(one):
    one.heat["left"] = always(0.0)
    grounding = ground(one)
    assert grounding.objects == ()
    assert not grounding.confident
    assert not grounding.union_masks().any()


def test_the_background_prompt_is_the_same_on_both_paths_and_excludes_the_object(one):
    mllm, tracker = ToldMllm(one), KnowingTracker(one)
    attention = MllmAttention(mllm).attend(FrameWindow(tuple(each.frame for each in clip_of(tracker))), "the mug")
    assert attention.object_name == "a mug"
    assert attention.answers == ("Mug",) * (2 * FRAMES)
    for path in ("video", "frame"):
        asked_object, asked_background, asked_presence = mllm.prefixes[path].asked
        assert asked_object.startswith("the mug. Which object")
        assert "scene of the video, excluding any a mug" in asked_background
        assert asked_presence.startswith("the mug. Is there")
    assert "the mug." in mllm.completed[0]


def test_without_a_usable_name_nothing_is_excluded(one):
    mllm, tracker = ToldMllm(one, name="  \n"), KnowingTracker(one)
    grounder(mllm, tracker).ground(clip_of(tracker), "the mug")
    assert "excluding" not in mllm.prefixes["video"].asked[1]


def test_tracks_are_carried_from_their_first_key_frame_to_the_last_frame(one):
    one.heat["left"] = lambda index: 0.85 + 0.03 * index if index < 3 else 0.0
    mllm, tracker = ToldMllm(one), KnowingTracker(one)
    method, clip = grounder(mllm, tracker, GroundingConfig(paths="frame")), clip_of(tracker)
    grounding = method.ground(clip, "the mug")
    (track,) = method.build_tracks(grounding, clip)
    first = min(grounding.objects[0].conditioning_masks())
    assert track.seen == list(range(first, FRAMES))


def test_an_object_of_one_key_frame_goes_on_as_if_it_had_begun_from_its_mask_there():
    views = FilmedTable(SCENE, (48, 64)).views(14)
    tracker = Sam2Tracker.load("embedded", image_size=64, memory_gating=True, motion_gating=True)
    *clip, later = [StoredFrame(Frame(index * 10**8, "camera", view.image_rgb), tracker) for index, view in enumerate(views)]
    heat = torch.zeros(len(clip), 12, 16)
    heat[4] = F.adaptive_avg_pool2d(torch.from_numpy(views[4].mask_of(0)).float()[None], (12, 16))[0]

    class Pointing(MllmAttention):
        def attend(self, window: FrameWindow, expression: str, clock: object = None, grounder: str = "decaf") -> Attention:
            return Attention(heat / heat.max(), "it", ())

    method = Grounder(Pointing(ToldMllm(World({}, {}))), tracker, GroundingConfig(tracklet_threshold=0.0))
    grounding = method.ground(clip, "it")
    [found] = grounding.objects
    assert list(found.conditioning_masks()) == [4]
    assert found.tracklets[0].masks_thw[4:].any(axis=(1, 2)).all()
    anew = method.build_tracks(replace(grounding, tracks={}), clip)
    carried = method.build_tracks(grounding, clip)
    assert (len(grounding.tracks), carried[0].nbytes) == (len(grounding.tracklets) - 1, anew[0].nbytes)
    [expected], [output] = (tracker.step(tracks, later.features()) for tracks in (anew, carried))
    torch.testing.assert_close(output.logits_hw, expected.logits_hw, rtol=0, atol=1e-3)
    assert output.mask_hw.any()


def test_presences_of_several_sentences_share_what_is_read_of_one_frame_on_the_frame_path_of_a_window_on_both(one):
    window = FrameWindow(tuple(stored.frame for stored in clip_of(KnowingTracker(one))))
    for frames, paths in ((window.frames[-1:], {"frame"}), (window.frames, {"frame", "video"})):
        mllm = ToldMllm(one)
        assert MllmAttention(mllm).presences(FrameWindow(frames), ["the mug", "the can"]) == pytest.approx([0.9, 0.9])
        assert mllm.prefixes.keys() == paths
        for prefix in mllm.prefixes.values():
            assert prefix.indices == [frame.stamp_ns for frame in frames]
            assert [asked.split(".")[0] for asked in prefix.asked] == ["the mug", "the can"]


def test_the_refreshed_map_is_the_frame_paths_and_points_at_the_body(one):
    mllm, tracker = ToldMllm(one), KnowingTracker(one)
    heat, again = MllmAttention(mllm).refresh(clip_of(tracker)[3].frame, [("the mug", "mug"), ("the mug", "mug")])
    assert torch.equal(heat, again)
    assert in_cells(left(3))[np.unravel_index(int(heat.argmax()), GRID_HW)]
    assert set(mllm.prefixes) == {"frame"}
    assert (float(heat.min()), float(heat.max())) == (0.0, 1.0)


def test_queries_refreshed_together_get_the_maps_that_each_gets_alone():
    image_rgb = np.full((96, 128, 3), 120, np.uint8)
    image_rgb[20:40, 30:60], image_rgb[50:80, 90:120] = (200, 30, 30), (30, 60, 200)
    frame, source = Frame(1, "camera", image_rgb), MllmAttention(load_mllm("embedded"))
    queries = [("the red cube", "red cube"), ("the blue box", ""), ("what one drinks from", "cup")]
    alone = [heat for query in queries for heat in source.refresh(frame, [query])]
    for one, another in itertools.combinations(alone, 2):
        assert (one - another).abs().max() > 0.01, "they differ"
    torch.testing.assert_close(source.refresh(frame, queries), alone, atol=1e-6, rtol=0)


def box_of(body: Callable[[int], Box], index: int) -> str:
    """What a model says whose image is half as large as the camera's, of 4 pixels a cell."""
    top, left, bottom, right = (2 * cell for cell in body(index))
    return f'[{{"bbox_2d":[{left},{top},{right},{bottom}],"label":"Cup"}}]'


BOX = GroundingConfig(grounder="box", min_presence=0)


def test_a_box_on_some_key_frames_becomes_an_object_on_all_and_nothing_else_is_read_or_asked(one):
    one.says = lambda index: box_of(right, index) if index != 1 else "no idea"
    mllm, tracker = ToldMllm(one), KnowingTracker(one)
    grounding = grounder(mllm, tracker, BOX).ground(clip_of(tracker), "the mug")
    assert np.array_equal(grounding.union_masks(), np.stack([in_pixels(right(index)) for index in range(FRAMES)]))
    assert (grounding.grounder, grounding.attention.object_name, grounding.point_prompts) == ("box", "cup", ())
    assert {each.key_index for each in grounding.attention.boxes} == {0, 3, 4}
    assert grounding.tracklets[0].score == pytest.approx((1 + 0.9 + 1) / 3)
    assert grounding.confident
    assert set(mllm.prefixes) == {"frame"}
    assert mllm.prefixes["frame"].indices == [0, 1, 3, 4]
    assert [prompt.partition(". ")[2][:10] for prompt in mllm.prefixes["frame"].asked] == ["Locate the"]
    assert mllm.completed == []


def test_the_object_that_most_boxes_agree_on_wins(one):
    one.says = lambda index: box_of(right if index == 0 else left, index)
    grounding = ground(one, BOX)
    assert np.array_equal(grounding.union_masks(), np.stack([in_pixels(left(index)) for index in range(FRAMES)]))
    assert len(grounding.tracklets) == 2


def test_boxes_are_asked_about_what_was_read_for_the_question_whether_there_is_such_a_thing(one):
    one.says = lambda index: box_of(right, index)
    mllm, tracker = ToldMllm(one), KnowingTracker(one)
    grounding = grounder(mllm, tracker, GroundingConfig(grounder="box")).ground(clip_of(tracker), "the mug")
    assert grounding.attention.presence == pytest.approx(0.9)
    assert mllm.prefixes["frame"].indices == list(range(FRAMES))
    assert {each.key_index for each in grounding.attention.boxes} == {0, 1, 3, 4}


@pytest.mark.parametrize(
    ("boxed", "box_iou", "found", "winner"),
    [
        (left, 0.95, left, "box"),  # of the same thing, the better mask
        (left, 0.85, left, "decaf"),
        (right, 0.95, left, "decaf"),  # attention is not on it
    ],
)
def test_candidates_of_both_compete_by_the_same_heat_map(one, boxed, box_iou, found, winner):
    one.says, one.box_iou = lambda index: box_of(boxed, index), box_iou
    grounding = ground(one, GroundingConfig(grounder="both"))
    assert np.array_equal(grounding.union_masks(), np.stack([in_pixels(found(index)) for index in range(FRAMES)]))
    assert grounding.grounder == winner
    assert {type(each.prompt) for each in grounding.tracklets} == (
        {PointPrompt, BoxPrompt} if boxed is right else {BoxPrompt if winner == "box" else PointPrompt}
    )
    assert torch.equal(grounding.attention.heat_thw, ground(one).attention.heat_thw)


def test_without_a_box_nothing_is_found_by_boxes_and_both_is_as_without_them(one):
    assert ground(one, BOX).objects == ()
    assert ground(one, BOX).grounder == ""
    assert ground(one, GroundingConfig(grounder="both")).grounder == "decaf"


def test_a_query_can_ask_for_another_grounder_than_the_settings_do(one):
    one.says = lambda index: box_of(right, index)
    tracker = KnowingTracker(one)
    method = grounder(ToldMllm(one), tracker)
    assert [method.ground(clip_of(tracker), "the mug", grounder=each).grounder for each in (None, "box")] == ["decaf", "box"]


@pytest.mark.parametrize("name", ["box", "both"])
def test_a_model_that_was_not_taught_boxes_is_refused_before_anything_is_read(one, monkeypatch, name):
    def refuse() -> BoxFormat:
        raise NoBoxesError("not taught")

    mllm, tracker = ToldMllm(one), KnowingTracker(one)
    monkeypatch.setattr(mllm, "box_format", refuse)
    with pytest.raises(NoBoxesError, match="not taught"):
        grounder(mllm, tracker).ground(clip_of(tracker), "the mug", grounder=name)
    assert mllm.prefixes == {}


def test_tracklets_that_overlap_directly_or_through_another_are_one_object():
    def tracklet(columns: slice, score: float) -> Tracklet:
        mask = np.zeros((1, 1, 20), dtype=np.bool_)
        mask[:, :, columns] = True
        return Tracklet(PointPrompt(0, (0.0, 0.0), 1.0), mask, 0.9, 1.0, score)

    chain = [
        tracklet(slice(0, 10), 0.9),
        tracklet(slice(3, 13), 0.8),
        tracklet(slice(15, 20), 0.7),
        tracklet(slice(1, 11), 0.6),
    ]
    merged = merge_same(chain, iou_threshold=0.6)
    assert [[each.score for each in found.tracklets] for found in merged] == [[0.9, 0.8, 0.6], [0.7]]


def test_a_box_whose_mask_is_not_finite_ends_the_query_alike(one):
    one.says, one.box_iou = lambda index: box_of(right, index), float("nan")
    with pytest.raises(ValueError, match="not finite"):
        ground(one, BOX)


def test_masks_that_are_not_finite_end_the_query_with_the_way_out(one):
    one.predicted_iou = {"left": float("nan")}
    with pytest.raises(ValueError, match=r"mask model's numbers are not finite.*parameter dtype"):
        ground(one)
