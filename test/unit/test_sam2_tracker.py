"""The streaming tracker on its own: bounded, shared by threads, clear about bad input."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from filmed_table import SCENE, TABLE, FilmedTable
from PIL import Image

from decaf_ros.datatypes import Frame, ObjectPrompt
from decaf_ros.method.points import mask_iou
from decaf_ros.models import sam2_network
from decaf_ros.models.pictures import resized_by_torch
from decaf_ros.models.sam2_loading import load_sam2
from decaf_ros.models.sam2_network import Sam2Network
from decaf_ros.models.sam2_stream import Sam2Tracker

SIZE_HW = (48, 64)


@pytest.fixture(scope="module")
def tracker() -> Sam2Tracker:
    return Sam2Tracker.load("embedded", image_size=64, max_conditioning=2, batch_size=2)


@pytest.fixture(scope="module")
def views() -> list:
    return FilmedTable(SCENE, SIZE_HW).views(100)


@pytest.fixture(scope="module")
def features(tracker, views) -> list:
    return [tracker.encode(Frame(index, "camera", view.image_rgb)) for index, view in enumerate(views)]


def test_a_track_holds_the_same_bytes_after_20_and_after_100_frames(tracker, views, features):
    tracks = [tracker.start_track(features[0], views[0].mask_of(body)) for body in range(3)]
    held = []
    for index in range(1, 100):
        tracker.step(tracks, features[index])
        held.append([track.nbytes for track in tracks])
    assert held[20] == held[-1]
    # 7 memories of 4 x 4 places x 64 channels x 2 bytes and 16 pointers of 128 x 4 bytes: copies, not views of a batch.
    assert held[-1] == [7 * 16 * 64 * 2 + 16 * 128 * 4] * 3


def test_two_threads_share_a_tracker(tracker, views, features):
    def run(body: int) -> list[torch.Tensor]:
        track = tracker.start_track(features[0], views[0].mask_of(body))
        return [tracker.step([track], features[index])[0].logits_hw for index in range(1, 40)]

    expected = [run(0), run(1)]
    with ThreadPoolExecutor(2) as threads:
        for alone, shared in zip(expected, threads.map(run, range(2)), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_tracks_of_mixed_age_and_more_than_a_batch_come_back_in_order(tracker, views, features):
    def tracks() -> list:
        started = [tracker.start_track(features[0], views[0].mask_of(body % 2)) for body in range(5)]
        for track in started[::2]:
            tracker.step([track], features[1])
        return started

    together = tracker.step(tracks(), features[2])
    alone = [tracker.step([track], features[2])[0] for track in tracks()]
    for output, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(output.logits_hw, expected.logits_hw, rtol=0, atol=1e-3)
        assert output.presence == pytest.approx(expected.presence, abs=1e-5)
        assert output.predicted_iou == pytest.approx(expected.predicted_iou, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sees_the_same(dtype):
    views = TABLE.views(8)
    masks = []
    for precision in (torch.float32, dtype):
        tracker = Sam2Tracker.load("embedded", dtype=precision)
        features = [tracker.encode(Frame(index, "camera", view.image_rgb)) for index, view in enumerate(views)]
        tracks = [tracker.start_track(features[0], views[0].mask_of(body)) for body in range(2)]
        stepped = [output.mask_hw for each in features[1:] for output in tracker.step(tracks, each)]
        clicked = tracker.propose(features[0], [(128.0, 96.0)]).masks_phw
        masks.append([*stepped, *clicked, *tracker.propagate(features, 3, views[3].mask_of(0)[None])[0]])
    assert all(mask_iou(*pair) > 0.9 for pair in zip(*masks, strict=True))


def test_nothing_asked_nothing_done(tracker, features):
    assert tracker.step([], features[0]) == []
    assert tracker.propose(features[0], []).masks_phw.shape == (0, *SIZE_HW)
    assert tracker.propagate(features[:2], 0, np.zeros((0, *SIZE_HW), dtype=bool)).shape == (0, 2, *SIZE_HW)


def test_gating_keeps_the_memory_from_before_an_object_was_hidden(views):
    model = load_sam2("embedded", image_size=64)
    seeing = Sam2Tracker(Sam2Network(model), memory_gating=True)
    model = load_sam2("embedded", image_size=64)
    model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data -= 100
    blind = Sam2Tracker(Sam2Network(model), memory_gating=True)
    features = [seeing.encode(Frame(index, "camera", view.image_rgb)) for index, view in enumerate(views[:9])]
    track = seeing.start_track(features[0], views[0].mask_of(0))
    for index in range(1, 4):
        [output] = seeing.step([track], features[index])
        assert output.mask_hw.any()
    before = track.recall()
    for index in range(4, 9):
        [output] = blind.step([track], features[index])
        assert not output.mask_hw.any()
    after = track.recall()
    assert before.spatial_ages == after.spatial_ages
    assert all(torch.equal(a, b) for a, b in zip(before.spatial, after.spatial, strict=True))
    blind_but_ungated = Sam2Tracker(Sam2Network(model))
    blind_but_ungated.step([track], features[4])
    assert len(track.recall().spatial) == len(before.spatial) + 1


def test_a_clip_of_one_frame_gives_back_the_mask(tracker, views, features):
    mask = views[0].mask_of(0)[None]
    np.testing.assert_array_equal(tracker.propagate(features[:1], 0, mask), mask[:, None])


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (lambda t, f: t.start_track(f, np.zeros((2, 3), dtype=bool)), r"\(48, 64\), got bool of shape \(1, 2, 3\)"),
        (lambda t, f: t.start_track(f, np.zeros(SIZE_HW, dtype=np.uint8)), "got uint8"),
        (lambda t, f: t.propagate([f], 1, np.zeros((1, *SIZE_HW), dtype=bool)), "clip's 1 frames, got 1"),
        (lambda t, f: t.propose(f, [(3.0, 4.0), (65.0, 4.0)]), r"64 x 48 pixels: \[\(65.0, 4.0\)\]"),
        (lambda t, f: t.prompt(f, ObjectPrompt(box_xyxy_px=(3.0, 4.0, 65.0, 8.0))), r"64 x 48 pixels: \[\(65.0, 8.0\)\]"),
        (lambda t, f: t.prompt(f, ObjectPrompt(box_xyxy_px=(3.0, 4.0, 3.0, 8.0))), "box of the prompt is empty"),
        (lambda t, f: t.prompt(f, ObjectPrompt(off_xy_px=((3.0, 4.0),))), "needs a point on the object"),
    ],
)
def test_bad_input_names_its_cause(tracker, features, call, cause):
    with pytest.raises(ValueError, match=cause):
        call(tracker, features[0])


def test_settings_that_no_published_model_has_are_refused():
    model = load_sam2("embedded", image_size=64)
    model.memory_temporal_stride_for_eval = 5
    with pytest.raises(ValueError, match="'memory_temporal_stride_for_eval': 5"):
        Sam2Network(model)


def test_weights_kept_in_half_precision_give_what_autocast_makes_of_whole_ones(monkeypatch):
    image_rgb = FilmedTable(SCENE, SIZE_HW).view(0).image_rgb
    seen = []
    for _ in range(2):
        network = Sam2Network(load_sam2("embedded", 64), dtype=torch.bfloat16)
        kept = {module.weight.dtype for module in network._model.modules() if isinstance(module, torch.nn.Linear)}
        tracker = Sam2Tracker(network)
        features = tracker.encode(Frame(1, "camera", image_rgb))
        proposed = network.propose(features, [(20.0, 20.0)])
        track, prompted = tracker.prompt(features, ObjectPrompt(on_xy_px=((20.0, 20.0),)))
        [stepped] = tracker.step([track], features)
        memory = track.newest.spatial_nc, track.newest.pointer.vector_c
        seen.append((kept, [*features.levels, proposed.logits_bhw, prompted.logits_hw, stepped.logits_hw, *memory]))
        monkeypatch.setattr(sam2_network, "_store_in", lambda model, dtype: None)
    (kept, stored), (whole, converted) = seen
    assert (kept, whole) == ({torch.bfloat16}, {torch.float32})
    assert all(torch.equal(a, b) for a, b in zip(stored, converted, strict=True))


@pytest.mark.parametrize(("size_hw", "side"), [((90, 160), 64), ((30, 40), 64)])
def test_a_gpu_resizes_images_as_pil_does_within_one_level(size_hw, side):
    noise = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)  # edges go beyond what a pixel can be
    edges = np.where(noise[..., :1] > 127, np.uint8(255), np.uint8(0)).repeat(3, axis=2)
    for image_rgb in (noise, edges):
        expected = np.array(Image.fromarray(image_rgb).resize((side, side), Image.Resampling.BICUBIC)).astype(int)
        found = resized_by_torch(torch.from_numpy(image_rgb), (side, side)).permute(1, 2, 0).numpy()
        assert np.abs(found - expected).max() <= 1
        assert (found == expected).mean() > 0.99
