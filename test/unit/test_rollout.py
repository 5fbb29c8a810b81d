"""The rollout against figures worked out by hand, and the properties that the definition implies."""

from __future__ import annotations

import math

import pytest
import torch

from decaf_ros.method.rollout import QueryKeys, attention_rollout


def attending(weights: list[list[list[float]]]) -> QueryKeys:
    """Queries and keys whose causal softmax attention is ``weights[head][row][key]``, each row over the keys it may see.

    Keys are unit vectors, one channel per token, and a query holds the logarithms of its row.
    """
    tokens = len(weights[0])
    queries = torch.zeros(1, len(weights), tokens, tokens)
    for head, rows in enumerate(weights):
        for row, values in enumerate(rows):
            queries[0, head, row, : len(values)] = torch.tensor([math.log(value) for value in values])
    return QueryKeys(queries, torch.eye(tokens).expand(1, len(weights), tokens, tokens))


def split(layer: QueryKeys, tokens: int) -> tuple[QueryKeys, QueryKeys]:
    return (
        QueryKeys(layer.queries_bhqd[:, :, :tokens], layer.keys_bgkd[:, :, :tokens]),
        QueryKeys(layer.queries_bhqd[:, :, tokens:], layer.keys_bgkd[:, :, tokens:]),
    )


# Tokens: visual, visual, text (the prompt). Two heads, two layers.
FIRST = [[[1.0], [0.5, 0.5], [0.2, 0.6, 0.2]], [[1.0], [0.25, 0.75], [0.1, 0.1, 0.8]]]
SECOND = [[[1.0], [0.4, 0.6], [0.3, 0.3, 0.4]], [[1.0], [0.8, 0.2], [0.2, 0.5, 0.3]]]
VISUAL = torch.tensor([True, True])

# Worked out by hand.
# v_max: first layer w = (1 + .5 + .6, 1 + .75 + .1) / 2.1 = (1, 37/42);
#   second layer w = (1 + .6 + .3, 1 + .8 + .5) / 2.3 = (19/23, 1).
# original: second layer's last row of A_hat = 1/2 [(.25, .4, .35) + (0, 0, 1)] = (.125, .2, .675);
#   first layer's A_hat = [[1, 0, 0], [.1875, .8125, 0], [.075, .175, .75]];
#   product at 0: .125 + .2 x .1875 + .675 x .075 = .213125, at 1: .2 x .8125 + .675 x .175 = .280625.
# max: second last row 1/2 [(.3, .5, .4) + (0, 0, 1)] = (.15, .25, .7); first A_hat = [[1, 0, 0], [.25, .875, 0], [.1, .3, .9]];
#   at 0: .15 + .25 x .25 + .7 x .1 = .2825, at 1: .25 x .875 + .7 x .3 = .42875.
V_MAX_ROW = (0.25 * (0.3 * 19 / 23 + 0.2), 0.25 * (0.3 * 19 / 23 + 0.5), 0.25 * (0.4 * 19 / 23 + 0.3) + 0.5)
V_MAX_FIRST = (
    (0.25 * (1 + 37 / 42) + 0.5, 0.0),
    (0.25 * (0.5 + 0.25 * 37 / 42), 0.25 * (0.5 + 0.75 * 37 / 42) + 0.5),
    (0.25 * (0.2 + 0.1 * 37 / 42), 0.25 * (0.6 + 0.1 * 37 / 42)),
)
EXPECTED = {
    "original": (0.213125, 0.280625),
    "max": (0.2825, 0.42875),
    "v_max": tuple(sum(V_MAX_ROW[row] * V_MAX_FIRST[row][key] for row in range(3)) for key in range(2)),
}


@pytest.mark.parametrize("variant", ["v_max", "original", "max"])
def test_two_heads_three_tokens_two_layers_by_hand(variant):
    (prefix_0, prompt_0), (prefix_1, prompt_1) = split(attending(FIRST), 2), split(attending(SECOND), 2)
    row = attention_rollout([prefix_0, prefix_1], [[prompt_0, prompt_1]], VISUAL, 1.0, variant)
    torch.testing.assert_close(row, torch.tensor([[EXPECTED[variant]]]), rtol=1e-6, atol=1e-7)


def random_layers(generator: torch.Generator, tokens: int, layers: int = 3, batch: int = 2) -> list[QueryKeys]:
    """Four query heads over two key heads of 8 channels."""
    return [
        QueryKeys(torch.randn(batch, 4, tokens, 8, generator=generator), torch.randn(batch, 2, tokens, 8, generator=generator))
        for _ in range(layers)
    ]


@pytest.mark.parametrize("variant", ["v_max", "original", "max"])
def test_block_size_other_prompts_and_other_conversations_change_nothing(variant):
    generator = torch.Generator().manual_seed(0)
    prefix, *prompts = (random_layers(generator, tokens) for tokens in (37, 5, 9))
    visual = torch.zeros(37, dtype=torch.bool)
    visual[3:11] = visual[12:30] = True  # two runs: a separator between two tiles
    together = attention_rollout(prefix, prompts, visual, 0.35, variant)
    for index, prompt in enumerate(prompts):
        alone = attention_rollout(prefix, [prompt], visual, 0.35, variant, block_elements=64)
        torch.testing.assert_close(together[index], alone[0], rtol=1e-5, atol=1e-7)
    second = [[QueryKeys(*(tensor[1:] for tensor in layer)) for layer in layers] for layers in (prefix, *prompts)]
    torch.testing.assert_close(
        together[:, 1:], attention_rollout(second[0], second[1:], visual, 0.35, variant), rtol=1e-5, atol=1e-7
    )


def test_half_precision_queries_are_computed_in_float32():
    generator = torch.Generator().manual_seed(1)
    prefix, prompt = random_layers(generator, 20), random_layers(generator, 4)
    visual = torch.arange(20) > 3
    half = [[QueryKeys(*(tensor.bfloat16() for tensor in layer)) for layer in layers] for layers in (prefix, prompt)]
    rounded = [[QueryKeys(*(tensor.float() for tensor in layer)) for layer in layers] for layers in half]
    torch.testing.assert_close(
        attention_rollout(half[0], [half[1]], visual, 0.35), attention_rollout(rounded[0], [rounded[1]], visual, 0.35)
    )


@pytest.mark.parametrize(
    ("visual", "variant", "message"),
    [
        (torch.tensor([False, False]), "v_max", "visual must mark"),
        (torch.tensor([True, True, True]), "v_max", "visual must mark"),
        (torch.tensor([1, 1]), "v_max", "visual must mark"),
        (VISUAL, "mean", "v_max, original, max"),
    ],
)
def test_bad_arguments_are_named(visual, variant, message):
    prefix, prompt = split(attending(FIRST), 2)
    with pytest.raises(ValueError, match=message):
        attention_rollout([prefix], [[prompt]], visual, 1.0, variant)
