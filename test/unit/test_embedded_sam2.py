"""The shipped SAM 2.1: its size, its config under sam2's own predictor, and that its weights segment what is clicked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor

import decaf_ros.models.embedded as embedded
from decaf_ros.synthetic.table.rendering import Renderer, View
from decaf_ros.synthetic.table.sampling import sample_scene
from decaf_ros.synthetic.table.simulation import Simulation

FOLDER = Path(embedded.__file__).parent / "sam2_1"


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    config = OmegaConf.load(FOLDER / "config.yaml")
    config.model._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    model = instantiate(config.model)
    model.load_state_dict({name: value.float() for name, value in load_file(FOLDER / "model.safetensors").items()})
    return model.eval()


def test_artefact_keeps_its_size_limits(predictor: SAM2VideoPredictor) -> None:
    assert sum(parameter.numel() for parameter in predictor.parameters()) <= 5_000_000
    assert (FOLDER / "model.safetensors").stat().st_size <= 10_000_000


def test_config_switches_on_what_makes_a_sam_2_1(predictor: SAM2VideoPredictor) -> None:
    switches = ("use_obj_ptrs_in_encoder", "proj_tpos_enc_in_obj_ptrs", "fixed_no_obj_ptr", "pred_obj_scores")
    assert all(getattr(predictor, switch) for switch in switches)
    assert predictor.no_obj_embed_spatial is not None


def _table(seed: int) -> View:
    """A held-out table before anything has happened."""
    scene = sample_scene(seed)
    simulation = Simulation(scene)
    return Renderer(scene, simulation.shapes).render(simulation.data.qpos, 0.0)


def _click_ious(images: SAM2ImagePredictor, view: View, rng: np.random.Generator) -> list[float]:
    """IoU at camera resolution of the preferred mask, for one click anywhere in each thing that can be seen."""
    images.set_image(view.image_rgb)
    counts = np.bincount(view.instances_hw.reshape(-1), minlength=256)[1:-1]
    ious = []
    for thing in np.flatnonzero(counts >= 80):
        truth = view.mask_of(int(thing))
        row, column = rng.choice(np.argwhere(truth))
        masks, predicted_ious, _ = images.predict(np.array([[column, row]]), np.array([1]), multimask_output=True)
        mask = masks[int(np.argmax(predicted_ious))] > 0
        ious.append(np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth))
    return ious


def test_clicks_on_held_out_images_give_the_thing(predictor: SAM2VideoPredictor) -> None:
    rng = np.random.default_rng(0)
    images = SAM2ImagePredictor(predictor)
    images._bb_feat_sizes = [(predictor.image_size // stride,) * 2 for stride in (4, 8, 16)]  # sam2 fixes them for 1024 pixels
    ious = [iou for seed in range(250_000, 250_012) for iou in _click_ious(images, _table(seed), rng)]
    assert np.mean(ious) >= 0.7, f"mean click IoU {np.mean(ious):.3f} over {len(ious)} things"
