"""Loc-Head and TAM step by step, with values worked out by hand."""

import math

import pytest
import torch

from decaf_ros.method.loc_head import head_map, knee, last_token_attention, select_heads, spatial_entropy
from decaf_ros.method.tam import answer_map, beyond, interference, rank_gaussian, token_map

LN2 = math.log(2)


def drawn(*rows: str) -> torch.Tensor:
    """A map with a 1 for each mark."""
    return torch.tensor([[float(cell == "#") for cell in row] for row in rows])


class TestLastTokenAttention:
    def test_heads_share_keys_in_groups_and_weights_are_a_softmax_of_scaled_scores(self):
        queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 0.0]]])  # four heads over two key heads
        keys = torch.tensor([[[[0.0, 0.0], [2 * LN2, 0.0]], [[0.0, 5.0], [LN2, 5.0]]]])
        weights = last_token_attention(queries, keys, 0.5)
        # Scores: (0, ln 2), (0, 0) from the first key head; (0, ln 2) and (0, 0) from the second.
        expected = torch.tensor([[[1 / 3, 2 / 3], [0.5, 0.5], [1 / 3, 2 / 3], [0.5, 0.5]]])
        assert torch.allclose(weights, expected)


class TestSpatialEntropy:
    @pytest.mark.parametrize(
        ("marks", "expected"),
        [
            (("##..", "##..", "...."), 0.0),
            (("#...", ".#..", "...."), 0.0),  # cells that touch at a corner
            (("#..#", "....", "...."), LN2),
            (("##.#", "##..", "...#"), 4 / 6 * math.log(6 / 4) + 2 * 1 / 6 * math.log(6)),
        ],
    )
    def test_of_regions_by_their_cells(self, marks, expected):
        assert spatial_entropy(drawn(*marks)) == pytest.approx(expected)

    def test_only_what_is_above_the_mean_counts_and_how_far_above_does_not(self):
        ground = torch.full((3, 4), 0.1)
        ground[0, 0], ground[2, 3] = 0.9, 0.4  # the mean is .1917
        assert spatial_entropy(ground) == pytest.approx(LN2)
        ground[2, 3] = 0.15
        assert spatial_entropy(ground) == 0.0

    def test_an_even_map_has_no_region(self):
        assert spatial_entropy(torch.full((2, 3), 0.25)) == math.inf


class TestSelection:
    def test_the_knee_lies_farthest_from_the_line_between_the_ends(self):
        # Sorted: 0, .1, .2, .6, 1; the line is 0, .25, .5, .75, 1; off by .15, .3, .15.
        assert knee(torch.tensor([0.6, 0.1, 1.0, 0.2, 0.0])) == pytest.approx(0.2)

    def test_heads_that_win_most_often_of_those_that_look_at_images(self):
        """Three layers of four heads, of which the first two layers are left out, and two sentences."""
        shares = torch.zeros(2, 3, 4)
        shares[:, 2] = torch.tensor([0.0, 0.1, 0.8, 1.0])  # the knee is at .1: off the line by 0, .233, .133, 0
        shares[:, :2] = 5.0
        entropies = torch.ones(2, 3, 4)
        entropies[:, 2, 0] = 0.0  # the best of all, and blind
        entropies[0, 2], entropies[1, 2] = torch.tensor([[0.0, 0.8, 0.5, 0.6], [0.0, 0.2, 0.9, 0.1]])
        # Each of the three is among the ten best of both sentences, so that the sums decide: 1.0, 1.4 and 0.7.
        assert select_heads(shares, entropies, count=2) == ((2, 3), (2, 1))
        assert select_heads(shares, entropies) == ((2, 3), (2, 1), (2, 2))

    def test_the_ten_least_scattered_of_each_sentence_win(self):
        """Twelve heads that look alike at images: two of them are good at one sentence in three, and lose by count."""
        shares = torch.ones(3, 3, 12)
        entropies = torch.full((3, 3, 12), 0.5)
        entropies[0, 2, 10:] = 0.0  # on average .6: less scattered than the others' .67, but among the ten best only once
        entropies[0, 2, 8:10] = 1.0
        entropies[1:, 2, 10:] = 0.9
        ranked = select_heads(shares, entropies, count=12)
        assert ranked[:8] == tuple((2, head) for head in range(8))
        assert ranked[8:] == ((2, 8), (2, 9), (2, 10), (2, 11))

    def test_a_sample_is_needed(self):
        with pytest.raises(ValueError, match=r"shares \(0, 3, 4\) .* of one sentence at least"):
            select_heads(torch.zeros(0, 3, 4), torch.zeros(0, 3, 4))

    def test_maps_of_the_heads_are_added_and_smoothed(self):
        rows = torch.zeros(2, 2, 1, 9, 9)
        rows[0, 1, 0, 4, 4], rows[1, 0, 0, 4, 4], rows[1, 1, 0, 0, 0] = 1.0, 2.0, 100.0
        found = head_map(rows, ((0, 1), (1, 0)))
        peak = 1 / (1 + 2 * sum(math.exp(-0.5 * offset**2) for offset in (1, 2, 3)))  # of a Gaussian 7 cells wide
        assert found.shape == (1, 9, 9)
        assert float(found[0, 4, 4]) == pytest.approx(3 * peak**2)
        assert float(found[0, 4, 5]) == pytest.approx(3 * peak**2 * math.exp(-0.5))
        assert float(found[0, 0, 4]) == 0.0


def as_map(*values: float) -> torch.Tensor:
    return torch.tensor([[values]])


class TestCausalSubtraction:
    def test_context_is_weighted_by_its_relevance(self):
        maps = torch.stack([as_map(4.0, 0.0), as_map(0.0, 8.0)])
        assert interference(maps, torch.tensor([3.0, 1.0])).flatten().tolist() == [3.0, 2.0]
        assert interference(maps, torch.zeros(2)).flatten().tolist() == [0.0, 0.0]

    def test_as_much_of_it_goes_as_explains_most(self):
        # <(3, 1, 2), (1, 1, 0)> / <(1, 1, 0), (1, 1, 0)> = 2
        assert beyond(as_map(3.0, 1.0, 2.0), as_map(1.0, 1.0, 0.0)).flatten().tolist() == [1.0, 0.0, 2.0]
        assert beyond(as_map(3.0, 1.0), as_map(0.0, 0.0)).flatten().tolist() == [3.0, 1.0]

    def test_the_same_word_before_takes_nothing_away(self):
        visual = torch.stack([as_map(3.0, 1.0, 2.0), as_map(1.0, 1.0, 0.0), as_map(3.0, 1.0, 2.0)])
        textual = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [5.0, 5.0, 0.0]])
        assert token_map(2, [7, 8, 7], visual, textual).flatten().tolist() == [1.0, 0.0, 2.0]
        assert token_map(2, [7, 7, 7], visual, textual).flatten().tolist() == [3.0, 1.0, 2.0]
        # Both count: their mean is (2, 1, 1), and <(3, 1, 2), (2, 1, 1)> / 6 = 1.5.
        assert token_map(2, [7, 8, 9], visual, textual).flatten().tolist() == [0.0, 0.0, 0.5]


class TestRankGaussian:
    def test_even_ground_stays_and_a_cell_alone_goes(self):
        assert torch.allclose(rank_gaussian(torch.full((2, 3, 4), 0.7)), torch.tensor(0.7))
        alone = torch.full((1, 5, 5), 1.0)
        alone[0, 2, 2] = 1.3
        filtered = rank_gaussian(alone)
        # Around the middle: eight of 1 and one of 1.3: the mean is 1.0333, the deviation .09428, the width .09124 ranks.
        assert float(filtered[0, 2, 2]) == pytest.approx(1.0, abs=1e-6)
        assert rank_gaussian(torch.zeros(1, 3, 3)).tolist() == [[[0.0] * 3] * 3]

    def test_by_hand(self):
        """The middle of 3 x 3 cells: their order does not matter, and from 1 to 9 they lie evenly around 5."""
        cells = torch.tensor([[[9.0, 2.0, 5.0], [1.0, 7.0, 4.0], [8.0, 3.0, 6.0]]])
        assert float(rank_gaussian(cells)[0, 1, 1]) == pytest.approx(5.0)
        cells[0, 0, 0] = 18.0
        width = math.sqrt(sum((value - 6) ** 2 for value in (1, 2, 3, 4, 5, 6, 7, 8, 18)) / 9) / 6
        weights = [math.exp(-(rank**2) / (2 * width**2)) for rank in range(-4, 5)]
        expected = sum(w * v for w, v in zip(weights, (1, 2, 3, 4, 5, 6, 7, 8, 18), strict=True)) / sum(weights)
        assert float(rank_gaussian(cells)[0, 1, 1]) == pytest.approx(expected)

    def test_the_border_is_mirrored_and_one_row_is_enough(self):
        """Around the first cell of the row (2, 4, 4) lie three times 4, 2, 4: the median is 4 where the width is small."""
        row = torch.tensor([[[2.0, 4.0, 4.0]]])
        width = math.sqrt((3 * (2 - 10 / 3) ** 2 + 6 * (4 - 10 / 3) ** 2) / 9) / (10 / 3)
        weights = [math.exp(-(rank**2) / (2 * width**2)) for rank in range(-4, 5)]
        expected = (2 * sum(weights[:3]) + 4 * sum(weights[3:])) / sum(weights)
        assert float(rank_gaussian(row)[0, 0, 0]) == pytest.approx(expected)


def test_an_answers_map_is_the_mean_of_its_tokens():
    visual = torch.stack([torch.full((1, 3, 3), value) for value in (2.0, 6.0, 1.0)])
    nothing_shared = torch.zeros(3, 3)
    assert torch.allclose(answer_map([1, 2, 3], 1, visual, nothing_shared), torch.tensor(3.5))
    assert answer_map([1, 2, 3], 3, visual, nothing_shared).tolist() == torch.zeros(1, 3, 3).tolist()
