"""Fusion, point prompts and scoring, against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from decaf_ros.method import fusion, points, scoring
from decaf_ros.method.boxes import heat_of_boxes, select_boxes

EDGE = math.exp(-0.5)  # of a Gaussian with sigma 1, one cell from its centre


def grid(*rows: list[float]) -> torch.Tensor:
    """One frame of a map."""
    return torch.tensor([list(rows)])


def rectangle(top: int, left: int, bottom: int, right: int, size: int = 10) -> torch.Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


class TestSmoothing:
    def test_an_impulse_becomes_a_gaussian_that_sums_to_one(self):
        impulse = torch.zeros(1, 5, 5)
        impulse[0, 2, 2] = 1.0
        smoothed = fusion.smooth(impulse, kernel_size=3)
        centre = 1 / (1 + 2 * EDGE) ** 2
        assert smoothed[0, 2, 2] == pytest.approx(centre)
        assert smoothed[0, 2, 3] == pytest.approx(centre * EDGE)
        assert smoothed[0, 3, 3] == pytest.approx(centre * EDGE**2)
        assert smoothed[0, 2, 4] == 0
        assert smoothed.sum() == pytest.approx(1.0)

    def test_there_are_zeros_around_the_map(self):
        smoothed = fusion.smooth(torch.ones(1, 1, 1), kernel_size=3)
        assert smoothed.item() == pytest.approx(1 / (1 + 2 * EDGE) ** 2)

    @pytest.mark.parametrize(("kernel_size", "reach"), [(fusion.VIDEO_KERNEL, 1), (fusion.FRAME_KERNEL, 3)])
    def test_the_papers_kernels_reach_one_and_three_cells_and_not_into_other_frames(self, kernel_size, reach):
        impulse = torch.zeros(3, 1, 9)
        impulse[1, 0, 4] = 1.0
        touched = fusion.smooth(impulse, kernel_size) > 0
        assert touched[1, 0].nonzero().flatten().tolist() == list(range(4 - reach, 4 + reach + 1))
        assert not touched[0].any()
        assert not touched[2].any()


class TestFusion:
    def test_contrast_keeps_what_the_object_prompt_attends_to_beyond_the_background(self):
        contrasted = fusion.contrast(torch.tensor([0.5, 0.2, 1.5]), torch.tensor([0.1, 0.6, 0.2]))
        assert contrasted.tolist() == pytest.approx([0.4, 0.0, 1.0])

    def test_normalisation_over_the_clip_and_per_frame(self):
        clip = torch.tensor([[[1.0, 3.0]], [[2.0, 5.0]]])
        assert fusion.normalise(clip).flatten().tolist() == [0.0, 0.5, 0.25, 1.0]
        assert fusion.normalise(clip, per_frame=True).flatten().tolist() == [0.0, 1.0, 0.0, 1.0]

    def test_a_constant_map_becomes_zero(self):
        assert not fusion.normalise(torch.full((2, 3, 3), 0.7)).any()

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_model_that_overflows_is_named_rather_than_finding_nothing(self, value):
        good, bad = torch.ones(1, 3, 3), torch.ones(1, 3, 3)
        bad[0, 1, 1] = value
        for given in ((bad, good), (good, bad), (bad, None)):
            with pytest.raises(ValueError, match="not finite"):
                fusion.video_map(*given, temporal_stride=1, frame_count=1)
            with pytest.raises(ValueError, match="not finite"):
                fusion.frame_map(*given)

    def test_the_video_map_repeats_its_steps_and_drops_padding(self):
        steps = torch.arange(3.0)[:, None, None].expand(3, 4, 4)
        video = fusion.video_map(steps, None, temporal_stride=2, frame_count=5)
        assert video.shape == (5, 4, 4)
        assert torch.equal(video[0], video[1])
        assert torch.equal(video[2], video[3])
        assert video[4].max() == 1.0

    def test_sinks_cancel_before_normalisation(self):
        """A sink ten times as hot as the object, the same under both prompts, leaves nothing behind."""
        sink, found = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9)
        sink[0, 0, 0], found[0, 6, 6] = 1.0, 0.1
        fused = fusion.frame_map(sink + found, sink)
        assert np.unravel_index(int(fused.argmax()), (9, 9)) == (6, 6)
        assert fused[0, 0, 0] == 0.0

    def test_bilinear_interpolation_takes_cells_as_areas(self):
        assert fusion.resize(grid([0.0, 1.0]), (1, 4)).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]

    def test_complement_is_the_mean_of_both_paths_over_the_clip(self):
        video = torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]])
        frame = torch.tensor([[[0.0, 0.75, 0.25, 1.0]], [[0.0, 0.0, 1.0, 0.0]]])
        # Means: 0, .5, .5, 1 and 0, 0, .5, 0.
        expected = [[0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 0.5, 0.0]]
        assert torch.allclose(fusion.complement(video, frame)[:, 0], torch.tensor(expected))

    def test_paths_with_different_frames_are_refused(self):
        with pytest.raises(ValueError, match="2 and 3"):
            fusion.complement(torch.zeros(2, 1, 1), torch.zeros(3, 1, 1))

    def test_coarse_masks_have_a_threshold_for_each_frame(self):
        heat = torch.tensor([[[0.1, 0.9]], [[0.0, 0.2]]])
        masks = fusion.coarse_masks(heat, (2, 8))
        assert masks.dtype == np.bool_
        assert not masks[:, :, :2].any()
        assert masks[:, :, 6:].all()


class TestPoints:
    def test_points_lie_at_cell_centres_and_the_threshold_is_included(self):
        heat = torch.zeros(2, 2, 4)
        heat[0, 1, 0], heat[1, 0, 3], heat[1, 1, 1] = 0.75, 1.0, 0.74
        found = points.select_points(heat, 0.75, size_hw=(20, 80))
        assert [(point.key_index, point.xy_px, point.attention) for point in found] == [
            (0, (10.0, 15.0), 0.75),
            (1, (70.0, 5.0), 1.0),
        ]

    def test_mask_iou(self):
        square, shifted, empty = (rectangle(*sides).numpy() for sides in ((0, 0, 2, 2), (0, 1, 2, 3), (0, 0, 0, 0)))
        assert points.mask_iou(square, shifted) == pytest.approx(1 / 3)
        assert [points.mask_iou(square, square), points.mask_iou(square, empty), points.mask_iou(empty, empty)] == [1, 0, 0]

    def test_suppression_is_greedy_what_is_gone_suppresses_nothing(self):
        """IoU of neighbours is 8/10 to 9/9; the middle one falls to the best, so the last one stays."""
        chain = torch.stack([rectangle(0, 0, 1, 9), rectangle(0, 1, 1, 10), rectangle(0, 3, 1, 10)]).numpy()
        iou = [points.mask_iou(chain[a], chain[b]) for a, b in ((0, 1), (1, 2), (0, 2))]
        assert [each > 0.7 for each in iou] == [True, True, False]
        assert points.suppress(chain, [0.9, 0.8, 0.7], 0.7) == [0, 2]
        assert points.suppress(chain, [0.7, 0.9, 0.8], 0.7) == [1]

    def test_equal_scores_go_to_the_earlier_and_empty_masks_go(self):
        same = torch.stack([rectangle(0, 0, 0, 0), rectangle(2, 2, 5, 5), rectangle(2, 2, 5, 5)]).numpy()
        assert points.suppress(same, [5.0, 1.0, 1.0], 0.7) == [1]

    def test_an_overlap_of_just_the_threshold_suppresses_nothing(self):
        pair = torch.stack([rectangle(0, 0, 1, 4), rectangle(0, 0, 1, 2)]).numpy()
        assert points.suppress(pair, [1.0, 0.5], 0.5) == [0, 1]


class TestScoring:
    HEAT = grid([1.0, 0.5], [0.0, 0.1])  # mean 0.4: the upper row is attended

    def test_filtered_map(self):
        attended, filtered = scoring.filtered_map(self.HEAT)
        assert attended.flatten().tolist() == [True, True, False, False]
        assert filtered.flatten().tolist() == [1.0, 0.5, -1.0, -1.0]

    @pytest.mark.parametrize(
        ("mask", "expected"),
        [
            (rectangle(0, 0, 5, 10), 1.0),  # just the attended cells
            (rectangle(0, 0, 5, 5), 1.0 / 1.5),
            (rectangle(0, 0, 5, 7), (1.0 + 0.4 * 0.5) / 1.5),  # two columns of five of the second cell
            (rectangle(0, 0, 10, 10), (1.5 - 2.0) / 1.5),  # pays for unattended cells
            (rectangle(0, 0, 0, 0), 0.0),
        ],
    )
    def test_attention_consistency(self, mask, expected):
        assert scoring.attention_consistency(mask[None, None], self.HEAT).tolist() == pytest.approx([expected])

    def test_the_penalty_is_each_frames_own_and_the_sum_the_clips(self):
        heat = torch.cat([self.HEAT, self.HEAT / 2])
        everywhere = torch.ones(1, 2, 10, 10, dtype=torch.bool)
        assert scoring.attention_consistency(everywhere, heat).tolist() == pytest.approx([(1.5 - 2 + 0.75 - 1) / 2.25])

    def test_nothing_is_consistent_with_a_constant_map(self):
        masks = torch.ones(2, 1, 10, 10, dtype=torch.bool)
        assert scoring.attention_consistency(masks, torch.full((1, 2, 2), 0.5)).tolist() == [0.0, 0.0]

    def test_positive_scores_are_divided_by_the_largest(self):
        assert scoring.normalise_positive(torch.tensor([0.4, -0.5, 0.1])).tolist() == pytest.approx([1.0, -0.5, 0.25])
        assert scoring.normalise_positive(torch.tensor([-0.4, 0.0])).tolist() == pytest.approx([-0.4, 0.0])

    def test_tracklet_score_is_the_mean_of_three(self):
        score = scoring.tracklet_scores(torch.tensor([0.9]), torch.tensor([0.6]), torch.tensor([-0.3]))
        assert score.tolist() == pytest.approx([0.4])


def test_a_map_of_boxes_is_as_hot_as_they_cover_the_cells():
    # Cells of 10 x 10 pixels. The first box covers one cell and a half of the next, and a fifth of those below.
    boxes = [(1, (10.0, 0.0, 25.0, 12.0)), (1, (22.0, 14.0, 24.0, 16.0))]
    heat = heat_of_boxes(boxes, (3, 2, 4), (20, 40))
    assert heat[0].max() == heat[2].max() == 0
    torch.testing.assert_close(heat[1], torch.tensor([[0, 1, 0.5, 0], [0, 0.2, 1, 0]]))


def test_a_box_is_worth_the_hottest_cell_that_it_touches():
    heat = torch.tensor([[[0.1, 0.2, 0.9, 0.3], [0.4, 0.5, 0.6, 0.7]]]).repeat(2, 1, 1)
    heat[1] = 0
    boxes = [(0, (0.0, 0.0, 20.0, 20.0)), (0, (12.0, 3.0, 22.0, 6.0)), (1, (0.0, 0.0, 40.0, 20.0))]
    prompts = select_boxes(boxes, heat, (20, 40))
    assert [prompt.attention for prompt in prompts] == pytest.approx([0.5, 0.9, 0.0])
    assert [(prompt.key_index, prompt.xyxy_px) for prompt in prompts] == boxes
