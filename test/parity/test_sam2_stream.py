"""The streaming tracker against sam2's own predictors, on the same weights and pixels."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from filmed_table import TABLE
from PIL import Image
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor

from decaf_ros.bench.reference.sam2_predictor import predictor_of
from decaf_ros.datatypes import Frame, ObjectPrompt
from decaf_ros.models.sam2_loading import load_sam2
from decaf_ros.models.sam2_network import Sam2Network
from decaf_ros.models.sam2_stream import Sam2Tracker
from decaf_ros.synthetic.table.rendering import View

FRAMES = 40  # memories and pointers are full 16 frames after an object came, also one that came at 20


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums must run in the same order on both sides."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return load_sam2("embedded")


@pytest.fixture(scope="module")
def tracker(model) -> Sam2Tracker:
    return Sam2Tracker(Sam2Network(model, as_official=True))


@pytest.fixture(scope="module")
def views() -> list[View]:
    return TABLE.views(FRAMES)


@pytest.fixture(scope="module")
def features(tracker, views) -> list:
    return [tracker.encode(Frame(index, "camera", view.image_rgb)) for index, view in enumerate(views)]


@pytest.fixture(scope="module")
def official(model) -> SAM2VideoPredictor:
    return predictor_of(model)


@pytest.fixture(scope="module")
def video(views, tmp_path_factory) -> str:
    """A folder for the official loader, which looks at the names but not into the format: lossless images named as JPEG."""
    folder: Path = tmp_path_factory.mktemp("video")
    for index, view in enumerate(views):
        Image.fromarray(view.image_rgb).save(folder / f"{index:05d}.jpg", format="PNG")
    return str(folder)


def low_resolution_logits(state: dict, object_index: int, frame: int) -> torch.Tensor:
    return state["output_dict_per_obj"][object_index]["non_cond_frame_outputs"][frame]["pred_masks"][0, 0]


def test_stream_is_bit_equal_to_the_official_predictor_with_an_object_added_later(tracker, official, video, views, features):
    added = 20
    state = official.init_state(video)
    official.add_new_mask(state, 0, 1, views[0].mask_of(0))
    expected_masks = {
        frame: masks for frame, _, masks in official.propagate_in_video(state, 0, max_frame_num_to_track=added - 1)
    }
    official.add_new_mask(state, added, 2, views[added].mask_of(1))
    expected_masks |= {frame: masks for frame, _, masks in official.propagate_in_video(state, added)}

    first = tracker.start_track(features[0], views[0].mask_of(0))
    second = tracker.start_track(features[added], views[added].mask_of(1))
    visible = 0
    for frame in range(1, FRAMES):
        tracks = [(0, first)] if frame <= added else [(0, first), (1, second)]
        for index, track in tracks:
            [output] = tracker.step([track], features[frame])
            assert torch.equal(output.logits_hw, low_resolution_logits(state, index, frame)), (index, frame)
            np.testing.assert_array_equal(output.mask_hw, expected_masks[frame][index, 0].numpy() > 0)
            visible += output.mask_hw.any()
    assert visible > FRAMES // 2, "empty masks would agree too"


def test_second_conditioning_frame_is_bit_equal(tracker, official, video, views, features):
    prompted, end = 12, 30
    state = official.init_state(video)
    official.add_new_mask(state, 0, 1, views[0].mask_of(0))
    list(official.propagate_in_video(state, 0, max_frame_num_to_track=prompted - 1))
    official.add_new_mask(state, prompted, 1, views[prompted].mask_of(0))
    list(official.propagate_in_video(state, prompted, max_frame_num_to_track=end - prompted))

    track = tracker.start_track(features[0], views[0].mask_of(0))
    for frame in range(1, end):
        if frame == prompted:
            tracker.condition(track, features[frame], views[frame].mask_of(0))
            continue
        [output] = tracker.step([track], features[frame])
        assert torch.equal(output.logits_hw, low_resolution_logits(state, 0, frame)), frame


@pytest.mark.parametrize("kind", ["point", "points", "box", "box_and_points"])
def test_objects_from_points_and_boxes_are_bit_equal(tracker, official, video, views, features, kind):
    added, end = 2, 12
    rows, columns = np.nonzero(views[added].mask_of(0))
    centre = (float(columns.mean()), float(rows.mean()))
    off = (centre[0] + 60.0, centre[1])
    box = (float(columns.min()), float(rows.min()), float(columns.max()), float(rows.max()))
    prompt = {
        "point": ObjectPrompt(on_xy_px=(centre,)),
        "points": ObjectPrompt(on_xy_px=(centre,), off_xy_px=(off,)),
        "box": ObjectPrompt(box_xyxy_px=box),
        "box_and_points": ObjectPrompt(on_xy_px=(centre,), off_xy_px=(off,), box_xyxy_px=box),
    }[kind]
    state = official.init_state(video)
    points = np.array([*prompt.on_xy_px, *prompt.off_xy_px], dtype=np.float32) if prompt.on_xy_px else None
    labels = np.array([1] * len(prompt.on_xy_px) + [0] * len(prompt.off_xy_px)) if prompt.on_xy_px else None
    _, _, masks = official.add_new_points_or_box(state, added, 1, points, labels, box=prompt.box_xyxy_px)
    list(official.propagate_in_video(state, added, max_frame_num_to_track=end - added))

    track, output = tracker.prompt(features[added], prompt)
    assert output.mask_hw.any()
    np.testing.assert_array_equal(output.mask_hw, masks[0, 0].numpy() > 0)
    for frame in range(added + 1, end):
        [output] = tracker.step([track], features[frame])
        assert torch.equal(output.logits_hw, low_resolution_logits(state, 0, frame)), frame


def test_a_removal_in_between_changes_nothing_for_those_that_stay(tracker, official, video, views, features):
    removed, end = 8, 20
    state = official.init_state(video)
    for body in range(2):
        official.add_new_mask(state, 0, body, views[0].mask_of(body))
    list(official.propagate_in_video(state, 0, max_frame_num_to_track=removed - 1))
    official.remove_object(state, 0, need_output=False)
    list(official.propagate_in_video(state, removed, max_frame_num_to_track=end - removed))

    tracks = [tracker.start_track(features[0], views[0].mask_of(body)) for body in range(2)]
    for frame in range(1, end):
        if frame == removed:
            del tracks[0]
        outputs = [tracker.step([track], features[frame])[0] for track in tracks]  # one a call: only then bit by bit equal
        if frame >= removed:
            assert torch.equal(outputs[-1].logits_hw, low_resolution_logits(state, 0, frame)), frame


def test_a_lost_object_is_bit_equal_and_has_no_mask(model, video, views, features):
    blind = copy.deepcopy(model)
    blind.sam_mask_decoder.pred_obj_score_head.layers[-1].bias -= 100
    official, tracker = predictor_of(blind), Sam2Tracker(Sam2Network(blind, as_official=True))
    state = official.init_state(video)
    official.add_new_mask(state, 0, 1, views[0].mask_of(0))
    list(official.propagate_in_video(state, 0, max_frame_num_to_track=8))

    track = tracker.start_track(features[0], views[0].mask_of(0))
    for frame in range(1, 9):
        [output] = tracker.step([track], features[frame])
        assert torch.equal(output.logits_hw, low_resolution_logits(state, 0, frame)), frame
        assert not output.mask_hw.any()
        assert output.presence < 1e-6
    stored = state["output_dict_per_obj"][0]["non_cond_frame_outputs"][8]
    assert torch.equal(track.newest.pointer.vector_c, stored["obj_ptr"][0])
    assert torch.equal(track.newest.spatial_nc, stored["maskmem_features"][0].flatten(1).T)


def test_propagation_equals_forwards_then_reverse(tracker, official, video, views, features):
    key, length = 8, 20
    state = official.init_state(video)
    for body in range(2):
        official.add_new_mask(state, key, body, views[key].mask_of(body))
    expected = np.zeros((2, length, *views[0].instances_hw.shape), dtype=bool)
    for reverse in (False, True):
        for frame, _, masks in official.propagate_in_video(state, key, length - 1 - key, reverse=reverse):
            expected[:, frame] = masks[:, 0].numpy() > 0

    given = np.stack([views[key].mask_of(body) for body in range(2)])
    alone = np.concatenate([tracker.propagate(features[:length], key, given[[body]]) for body in range(2)])
    np.testing.assert_array_equal(alone[:, key], given)
    others = [frame for frame in range(length) if frame != key]
    np.testing.assert_array_equal(alone[:, others], expected[:, others])
    assert expected[:, others].any(axis=(2, 3)).mean() > 0.5, "empty masks would agree too"

    together = tracker.propagate(features[:length], key, given)
    assert np.count_nonzero(together != alone) == 0


def test_objects_of_different_ages_share_a_batch_without_changing_a_pixel(tracker, model, views, features):
    births = (0, 3, 11, 20)
    faster = Sam2Tracker(Sam2Network(model))  # rounds in another way, also the first object, which is alone for a while
    together, alone = [], []
    for frame in range(1, FRAMES):
        for birth in births:
            if birth == frame - 1:
                mask = views[birth].mask_of(birth % 2)
                together.append(faster.start_track(features[birth], mask))
                alone.append(tracker.start_track(features[birth], mask))
        batched = faster.step(together, features[frame])
        for output, track in zip(batched, alone, strict=True):
            [expected] = tracker.step([track], features[frame])
            np.testing.assert_array_equal(output.mask_hw, expected.mask_hw)
            torch.testing.assert_close(output.logits_hw, expected.logits_hw, rtol=0, atol=2e-3)


def test_proposals_equal_the_official_image_predictor_point_by_point(tracker, model, features):
    points = [(30.0, 40.0), (128.0, 96.0), (250.5, 10.25), (0.0, 191.0), (77.0, 150.0)]
    predictor = SAM2ImagePredictor(model)
    # The official still-image path resizes in another way; from the features on it is the reference.
    *finer, coarsest = features[0].levels
    image_embed = coarsest + model.no_mem_embed.view(1, -1, 1, 1)
    predictor._features = {"image_embed": image_embed, "high_res_feats": finer}
    predictor._orig_hw, predictor._is_image_set = [features[0].size_hw], True

    proposals = tracker.propose(features[0], points)
    for index, point in enumerate(points):
        logits, predicted_iou, _ = predictor.predict(np.array([point]), np.array([1]), return_logits=True)
        best = predicted_iou.argmax()
        assert proposals.predicted_iou_p[index].item() == pytest.approx(predicted_iou[best].item(), abs=1e-5)
        certain = np.abs(logits[best]) > 1e-4
        np.testing.assert_array_equal(proposals.masks_phw[index][certain], logits[best][certain] > 0)
