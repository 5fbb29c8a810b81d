"""Model ids, folders and checkpoint files; what is said when nothing usable is behind them."""

import os
import shutil
import zipfile

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.torch_version import TorchVersion

from decaf_ros.models import sam2_loading
from decaf_ros.models.errors import ModelNotFound
from decaf_ros.models.mllm import load_mllm
from decaf_ros.models.sam2_config import build, read_config
from decaf_ros.models.sam2_loading import load_sam2, locate
from decaf_ros.models.sam2_stream import Sam2Tracker


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


def test_nothing_in_a_config_depends_on_a_setting(folder):
    """hydra would call ``open`` once the image size is 192, though it names a part of SAM 2 before."""
    ran = folder / "ran"
    _replace(
        folder / "config.yaml",
        "_target_: sam2.modeling.memory_encoder.Fuser",
        f"""_target_: '${{oc.select:"choice.s${{model.image_size}}"}}'\n      file: {ran}\n      mode: w""",
    )
    with (folder / "config.yaml").open("a") as config:
        config.write("choice: {s256: sam2.modeling.memory_encoder.Fuser, s192: builtins.open}\n")
    for image_size in (None, 256, 192):
        with pytest.raises(ModelNotFound, match="_target_ is the expression"):
            load_sam2(str(folder), image_size=image_size)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["sam2.1/sam2.1_hiera_t", "sam2/sam2_hiera_b+"])
def test_an_official_config_gives_the_network_that_hydra_builds(name):
    path = sam2_loading._official_config(f"configs/{name}.yaml")
    built, expected = build(read_config(path), path), instantiate(OmegaConf.load(path).model)
    state = expected.state_dict()
    built.load_state_dict(state, assign=True)
    assert all(torch.equal(built.state_dict()[name], tensor) for name, tensor in state.items())
    assert not any(tensor.is_meta for tensor in (*built.parameters(), *built.buffers()))
    assert _settings(built) == _settings(expected)


def _settings(model):
    """Every plain value of every module; buffers that are not weights, too."""
    tables = {name: module.freqs_cis.sum() for name, module in model.named_modules() if hasattr(module, "freqs_cis")}
    plain = {
        (name, key): value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (int, float, str, bool, tuple, type(None)))
    }
    return plain, {name: type(module) for name, module in model.named_modules()}, tables


ALIASES = "x: &a [1, 1, 1, 1]\n" + "".join(f"x{n}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9))


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("scalp: 1", "scalp: ???", "model.image_encoder.scalp is missing"),
        ("scalp: 1", "scalp: ${oc.env:HOME}", r"scalp is the expression '\$\{oc.env:HOME\}'"),
        ("scalp: 1", "scalp: !!python/name:os.system", "could not determine a constructor"),
        ("scalp: 1", "scalp: 2026-01-01", "scalp is a date"),
        ("scalp: 1", "scalp: .nan", "scalp is nan"),
        ("scalp: 1", f"scalp: {10**400}", "scalp is 1000"),
        ("scalp: 1", "1: 1", "has the key 1, which is no name"),
        ("scalp: 1", f"scalp: {'[' * 5000}{']' * 5000}", "recursion"),
        ("scalp: 1", f"scalp: {'[' * 50}{']' * 50}", "nested too deeply"),
        ("scalp: 1", f"scalp: {[1] * 65}", "has 65 entries"),
        ("model:\n", ALIASES + "model:\n", "aliases"),
        ("_target_: sam2.modeling.sam2_base.SAM2Base", "_target_: sam2.modeling.memory_encoder.Fuser", "must ask for"),
        ("_target_: sam2.modeling.memory_encoder.Fuser", "_target_: [1]", r"asks for \[1\], which is not a part"),
        ("scalp: 1", "_partial_: true", "'_partial_', which is no argument of ImageEncoder"),
        ("scalp: 1", "_args_: [1]", "'_args_', which is no argument"),
        ("embed_dim: 32", "embed_dim: 32\n      weights_path: model.safetensors", "weights_path is set"),
        ("compile_image_encoder: false", "compile_image_encoder: true", "compile_image_encoder is set"),
        ("stages: [1, 2, 3, 1]", "stages: [1, 2, 3, 100000]", r"stages\[3\] is 100000, and no more than 64"),
        ("window_spec: [8, 4, 4, 2]", "window_spec: [8, 4, 4, 100000]", r"window_spec\[3\] is 100000"),
        ("num_layers: 2", "num_layers: 100000000", "num_layers is 100000000"),
        ("padding: 1", "padding: 60000", "padding is 60000"),
        ("image_size: 256", "image_size: 1000000", "image_size is 1000000"),
        ("feat_sizes: [16, 16]", "feat_sizes: [60000, 60000]", "feat_sizes"),
        ("dim_feedforward: 256", "dim_feedforward: 60000", "does not hold the weights"),
        ("d_model: 128\n      backbone", "d_model: 1024\n      backbone", "does not hold the weights|does not describe"),
        ("embedding_dim: 128", "embedding_dim: 65536", "embedding_dim is 65536"),
        ("num_pos_feats: 128", "num_pos_feats: 65536", "num_pos_feats is 65536"),
    ],
)
def test_a_config_is_plain_data_of_sensible_size(folder, old, new, cause):
    _replace(folder / "config.yaml", old, new)
    with pytest.raises(ModelNotFound, match=cause) as refused:
        load_sam2(str(folder))
    assert "\n" not in str(refused.value)


def test_tables_that_no_weights_contradict_are_small_together(folder):
    _replace(folder / "config.yaml", "feat_sizes: [16, 16]", "feat_sizes: [256, 256]")
    _replace(folder / "config.yaml", "num_layers: 2", "num_layers: 64")
    with pytest.raises(ModelNotFound, match="tables of positions need more than 2 GB"):
        load_sam2(str(folder))


def test_a_network_that_cannot_track_is_refused_when_it_is_loaded(folder):
    _replace(folder / "config.yaml", "fpn_interp_model: nearest", "fpn_interp_model: furthest")
    with pytest.raises(ModelNotFound, match=r"cannot track.*furthest"):
        Sam2Tracker.load(str(folder))


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8-sig"])
def test_a_config_is_in_utf_8(folder, encoding):
    config = folder / "config.yaml"
    config.write_bytes((config.read_text() + "# Größe\n").encode(encoding))
    if encoding == "utf-8-sig":
        load_sam2(str(folder))
    else:
        with pytest.raises(ModelNotFound, match="no text in UTF-8"):
            load_sam2(str(folder))


def _squeezed(path):
    """The same archive, compressed: a little of it may stand for gigabytes."""
    with zipfile.ZipFile(path) as stored:
        entries = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as squeezed:
        for name, content in entries.items():
            squeezed.writestr(name, content)


@pytest.mark.parametrize(
    ("saved", "change", "cause"),
    [
        ([1, 2], None, "does not hold tensors by name"),
        ({"model": [1]}, None, "does not hold tensors by name"),
        ({"model": {"a": {"b": torch.zeros(1)}}}, None, "does not hold tensors by name"),
        ({"model": {1: torch.zeros(1)}}, None, "does not hold tensors by name"),
        ({"a": torch.zeros(1).expand(1 << 40)}, None, "is to hold 4398046511104 bytes"),
        ({"a": torch.zeros(1000)}, _squeezed, "compressed"),
        ({"a": torch.zeros(1000)}, lambda path: path.write_bytes(b"no archive"), "not a zip file"),
    ],
)
def test_a_checkpoint_holds_tensors_as_large_as_itself(folder, saved, change, cause):
    path = folder / "sam2.1_hiera_tiny.pt"
    torch.save(saved, path)
    if change:
        change(path)
    with pytest.raises(ModelNotFound, match=f"cannot be read as weights.*{cause}"):
        load_sam2(str(path))


def test_a_pipe_is_not_waited_for(folder):
    (folder / "config.yaml").unlink()
    os.mkfifo(folder / "config.yaml")
    with pytest.raises(ModelNotFound, match=r"lacks config\.yaml"):
        load_sam2(str(folder))


@pytest.mark.parametrize("load", [load_sam2, load_mllm])
def test_an_empty_name_is_not_this_folder(load, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for empty in ("", " "):
        with pytest.raises(ModelNotFound, match="name of the model is empty"):
            load(empty)


@pytest.mark.parametrize("load", [load_sam2, load_mllm])
@pytest.mark.parametrize("name", ["~nobody_at_all/x", "a\0b", "x" * 5000, "a\nb"])
def test_a_name_that_can_be_no_path_is_told_in_one_line(load, name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFound) as refused:
        load(name)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("load", [load_sam2, load_mllm])
def test_a_torch_that_runs_code_of_weights_is_refused(load, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.5.1+cu124"))
    with pytest.raises(ModelNotFound, match=r"torch 2\.5\.1.*torch>=2\.6"):
        load("embedded")


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
