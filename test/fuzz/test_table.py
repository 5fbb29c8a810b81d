"""Scene files that are nearly right: each gives a scene, or an error of one short line."""

import json
from typing import Any

import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

from decaf_ros.synthetic.table.sampling import sample_scene
from decaf_ros.synthetic.table.scene import scene_from_json

_WORDS = st.sampled_from(["mug", "red", "pick", "place", "wait", "oak", "tiles", "", "\x1b[31m", "\u202e", "x" * 5000])
_NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -(10**400), 1e308, 5e-324, -1, 0, 2**64]))
_LEAVES = st.one_of(st.none(), st.booleans(), _NUMBERS, _WORDS, st.text(max_size=20))
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with every key or index in it."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


@examples(200)
@given(st.integers(0, 30), st.data())
def test_a_scene_file_with_something_else_in_it_is_taken_or_refused_in_a_line(seed, data):
    given_scene = json.loads(sample_scene(seed).to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(_places(given_scene)))
        if data.draw(st.booleans()) or not isinstance(container, dict):
            container[key] = data.draw(_VALUES)
        else:
            container[data.draw(st.text(max_size=10))] = container.pop(key)
    text = json.dumps(given_scene)
    try:
        scene = scene_from_json(text)
    except ValueError as error:
        message = str(error)
        assert message
        assert message.isprintable()
        assert len(message) < 1500
    else:
        assert scene_from_json(scene.to_json()) == scene
        scene.camera.world_from_camera(1.0)
        scene.camera.intrinsics((192, 256))


@examples(200)
@given(st.one_of(st.text(), st.binary(), _VALUES.map(lambda value: json.dumps(value, allow_nan=True))))
def test_what_is_no_scene_at_all_is_refused(content):
    with pytest.raises(ValueError, match=r"."):
        scene_from_json(content)
