"""Model ids, folders and checkpoint files; what is said when nothing usable is behind them."""

import shutil

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from decaf_ros.models import sam2_loading
from decaf_ros.models.errors import ModelNotFound
from decaf_ros.models.sam2_loading import load_sam2, locate


@pytest.fixture
def folder(tmp_path):
    embedded = locate("embedded")
    for file in (embedded.config, embedded.weights):
        shutil.copy(file, tmp_path)
    return tmp_path


def test_a_copied_folder_is_the_same_model(folder):
    expected, loaded = load_sam2("embedded").state_dict(), load_sam2(str(folder)).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_name_of_an_official_checkpoint_tells_its_architecture(tmp_path, suffix):
    path = tmp_path / f"sam2.1_hiera_base_plus{suffix}"
    path.touch()
    assert locate(str(path)).config.name == "sam2.1_hiera_b+.yaml"
    assert locate(str(path)).config.is_file()


def test_reads_the_official_release_format(folder, monkeypatch):
    expected = load_sam2("embedded").state_dict()
    path = folder / "sam2.1_hiera_tiny.pt"
    torch.save({"model": expected}, path)
    monkeypatch.setattr(sam2_loading, "_official_config", lambda name: folder / "config.yaml")
    loaded = load_sam2(str(path)).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_a_checkpoint_that_would_run_code_is_refused(folder):
    path = folder / "sam2.1_hiera_tiny.pt"
    torch.save({"model": Harmful()}, path)
    with pytest.raises(ModelNotFound, match="cannot be read as weights"):
        load_sam2(str(path))


class Harmful:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_config_that_would_run_code_is_refused(folder):
    config = folder / "config.yaml"
    config.write_text(config.read_text() + "  extra:\n    - _target_: os.system\n      command: 'true'\n")
    with pytest.raises(ModelNotFound, match=r"os\.system"):
        load_sam2(str(folder))


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), r"lacks model\.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"cut off"), "cannot be read as weights"),
        (lambda folder: (folder / "config.yaml").write_text("trunk: 1"), "under 'model'"),
        (lambda folder: _replace(folder / "config.yaml", "num_layers: 2", "num_layers: 3"), "does not hold the weights"),
    ],
)
def test_a_damaged_folder_is_named_with_its_damage(folder, damage, cause):
    damage(folder)
    with pytest.raises(ModelNotFound, match=cause):
        load_sam2(str(folder))


def _replace(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_an_unknown_id_lists_what_there_is():
    with pytest.raises(ModelNotFound, match=r"embedded.*facebook/sam2\.1-hiera-large"):
        load_sam2("facebook/sam3")


def test_a_checkpoint_of_unknown_architecture_says_how_to_name_it(tmp_path):
    path = tmp_path / "best.pt"
    path.touch()
    with pytest.raises(ModelNotFound, match=r"sam2\.1_hiera_tiny"):
        load_sam2(str(path))


def test_without_network_the_way_out_is_named(monkeypatch):
    def offline(**_):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(sam2_loading, "hf_hub_download", offline)
    with pytest.raises(ModelNotFound, match=r"no connection.*sam2\.1_hiera_small\.pt here"):
        load_sam2("facebook/sam2.1-hiera-small")


def test_image_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of 32 up to 4096, got 100"):
        load_sam2("embedded", image_size=100)
