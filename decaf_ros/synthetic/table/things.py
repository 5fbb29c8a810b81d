"""From words to shapes: what makes each kind of the catalogue."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from decaf_ros.datatypes import Float32Array
from decaf_ros.synthetic.table import fruit, goods, vessels
from decaf_ros.synthetic.table.catalogue import COLOURS_RGB
from decaf_ros.synthetic.table.shapes import Shape

_MAKERS: dict[str, Callable[[Float32Array, float, np.random.Generator], Shape]] = {
    "mug": vessels.make_mug,
    "bowl": vessels.make_bowl,
    "plate": vessels.make_plate,
    "bottle": vessels.make_bottle,
    "can": vessels.make_can,
    "box": goods.make_box,
    "book": goods.make_book,
    "sponge": goods.make_sponge,
    "cube": goods.make_cube,
    "ball": goods.make_ball,
    "car": goods.make_car,
    "teapot": vessels.make_teapot,
    "pan": vessels.make_pan,
    "hammer": goods.make_hammer,
    "banana": fruit.make_banana,
    "apple": fruit.make_apple,
    "lemon": fruit.make_lemon,
    "pear": fruit.make_pear,
}


def make_shape(kind: str, colour: str, scale: float, seed: int) -> Shape:
    """The shape of a thing.

    Args:
        kind, colour: words of the catalogue.
        scale: factor on its usual size.
        seed: of proportions and patterns.
    """
    return _MAKERS[kind](np.asarray(COLOURS_RGB[colour], np.float32), scale, np.random.default_rng(seed))
