"""The vision tower of the Qwen family: all windows in a few calls, and the same to the last bit."""

import pytest
import torch

from decaf_ros.bench.reference.tiny_qwen2_5_vl import tiny_model, tiny_processor
from decaf_ros.models.vision_tower import read_together


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cells_hw", [(5, 7), (4, 8)])
@torch.inference_mode()
def test_windows_read_together_are_those_read_one_by_one(monkeypatch, dtype, cells_hw):
    # Windows of 4 x 4 cells: of the first grid four lengths (16, 12, 4 and 3 cells), of the second one.
    tower = tiny_model(tiny_processor(), window_cells=4).model.visual.to(dtype)
    tower.set_attn_implementation("sdpa")
    grid_thw = torch.tensor([[2, 2 * cells_hw[0], 2 * cells_hw[1]], [1, 2 * cells_hw[0], 2 * cells_hw[1]]])
    pixels = torch.randn(int(grid_thw.prod(dim=1).sum()), 3 * 2 * 4 * 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    calls = []
    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: (calls.append(1), attention(*a, **k))[1]
    )
    apart = tower(pixels, grid_thw=grid_thw).pooler_output
    lengths = 4 if cells_hw == (5, 7) else 1
    frames, windows = 3, 4 if cells_hw == (5, 7) else 2
    assert len(calls) == frames * (windows + 1)  # two layers: one of windows, one of whole frames
    calls.clear()
    read_together(tower)
    assert torch.equal(tower(pixels, grid_thw=grid_thw).pooler_output, apart)
    assert len(calls) == lengths + 1
