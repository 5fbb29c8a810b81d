"""The parameter table against the classes it fills and the file that documents it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from decaf_ros.config import GroundingConfig, SessionConfig
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.ros.parameters import SETTINGS, check_values, settings_for, unknown_parameters

CLASSES = (SessionConfig, GroundingConfig, MllmOptions)
ROOT = Path(__file__).parents[2]


def test_config_file_holds_every_parameter_at_its_default() -> None:
    documented = yaml.safe_load((ROOT / "config" / "decaf.yaml").read_text())["/**"]["ros__parameters"]
    assert documented == {setting.name: setting.default for setting in SETTINGS}
    for setting in SETTINGS:
        assert type(documented[setting.name]) is type(setting.default), f"{setting.name}: ROS tells 4 from 4.0"


def test_defaults_are_those_of_the_library() -> None:
    values = {setting.name: setting.default for setting in SETTINGS}
    for kind in CLASSES:
        assert settings_for(kind, values) == kind()


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.limits], ids=lambda setting: setting.name)
def test_ranges_told_to_ros_are_those_that_the_classes_accept(setting) -> None:  # type: ignore[no-untyped-def]
    for kind in CLASSES:
        if setting.name in kind.__dataclass_fields__:
            for limit in setting.limits:
                kind(**{setting.name: type(setting.default)(limit)})
            if kind is not MllmOptions:  # its upper limits are those of the model
                with pytest.raises(ValueError, match=setting.name):
                    kind(**{setting.name: setting.limits[1] + 1})
            with pytest.raises(ValueError, match=setting.name):
                kind(**{setting.name: setting.limits[0] - 1})


def test_every_setting_of_a_session_or_query_is_a_parameter() -> None:
    names = {setting.name for setting in SETTINGS}
    for kind in (SessionConfig, GroundingConfig):
        assert set(kind.__dataclass_fields__) <= names


def test_misspelt_names_get_a_suggestion() -> None:
    assert unknown_parameters(["key_frame", "key_frames", "use_sim_time", "zzz"]) == [
        "there is no parameter key_frame: did you mean key_frames?",
        "there is no parameter zzz",
    ]


def test_a_word_that_is_no_choice_is_refused() -> None:
    values = {setting.name: setting.default for setting in SETTINGS}
    check_values(values | {"paths": "frame", "not_ours": 1})
    with pytest.raises(ValueError, match="paths must be one of both, video, frame; got 'sideways'"):
        check_values(values | {"paths": "sideways"})
    with pytest.raises(ValueError, match="point_threshold must lie in"):
        check_values(values | {"point_threshold": 1.0000001})
