"""The procedural world: coloured bodies that move over textured ground, with exact ground truth.

A :class:`Scene` is pure data drawn from a seed; ``scene.render(time_s)`` gives the image at any time and the visible pixels of
every body, ``scene.render_depth(time_s)`` what a depth camera would measure. Nothing depends on what was rendered before, so a
camera, a test and a training loop see the same world.

Seeds below :data:`FIRST_TRAINING_SEED` are held out: evaluation, tests and demo take theirs there, training above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from decaf_ros.datatypes import BoolArray, Float32Array, UInt8Array

FIRST_TRAINING_SEED = 1_000_000
DEFAULT_SIZE_HW = (192, 256)

SHAPES = ("ball", "box", "cone", "star", "cross", "mug")
COLOURS_RGB: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (40, 170, 60),
    "blue": (45, 80, 220),
    "yellow": (240, 215, 50),
    "purple": (140, 50, 175),
    "orange": (245, 130, 25),
    "cyan": (50, 205, 215),
    "white": (240, 240, 240),
}
BACKGROUNDS = ("wood", "grass", "tiles", "carpet", "sand", "concrete")

_SUBPIXEL_BITS = 4

# Distance of the ground in metres, and how much nearer than what is behind it each body and screen stands.
_GROUND_METRES = 3.0
_LAYER_FACTOR = 0.9
# Bodies lean, the larger the more: metres of depth for each metre to the right, over the radius as a fraction of the height.
_SLOPE_PER_RADIUS = 2.0


@dataclass(frozen=True)
class Motion:
    """Uniform motion between walls: a position that is reflected at the margins of the image.

    Attributes:
        start_xy: position at time 0, as a fraction of image width and height.
        velocity_xy: fractions of width and height per second.
        margin_xy: closest that the centre comes to the border, as fractions; negative lets a body leave the image.
    """

    start_xy: tuple[float, float]
    velocity_xy: tuple[float, float] = (0.0, 0.0)
    margin_xy: tuple[float, float] = (0.1, 0.1)

    def position_at(self, time_s: float) -> tuple[float, float]:
        """Position at ``time_s`` as fractions of width and height."""
        x, y = (
            _reflect(start + speed * time_s, margin, 1.0 - margin)
            for start, speed, margin in zip(self.start_xy, self.velocity_xy, self.margin_xy, strict=True)
        )
        return x, y


@dataclass(frozen=True)
class Path:
    """Scripted motion: straight lines between way points, held before the first and after the last.

    Attributes:
        waypoints: ``(time_s, x, y)`` in order of time; x and y as fractions of width and height, outside [0, 1] off screen.
    """

    waypoints: tuple[tuple[float, float, float], ...]

    def position_at(self, time_s: float) -> tuple[float, float]:
        """Position at ``time_s`` as fractions of width and height."""
        times, xs, ys = zip(*self.waypoints, strict=True)
        return float(np.interp(time_s, times, xs)), float(np.interp(time_s, times, ys))


@dataclass(frozen=True)
class Body:
    """One object of the world.

    Attributes:
        shape, colour: words of :data:`SHAPES` and :data:`COLOURS_RGB`.
        radius: of the circle around it, as a fraction of image height.
        motion: where it is at which time.
        angle, spin: orientation at time 0 in radians, and radians per second.
        tint_rgb: what lighting and paint add to its nominal colour.
    """

    shape: str
    colour: str
    radius: float
    motion: Motion | Path
    angle: float = 0.0
    spin: float = 0.0
    tint_rgb: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        if self.shape not in SHAPES or self.colour not in COLOURS_RGB:
            raise ValueError(f"unknown body: {self.colour} {self.shape}; shapes {SHAPES}, colours {tuple(COLOURS_RGB)}")


@dataclass(frozen=True)
class Screen:
    """A grey panel in front of everything, behind which bodies hide. It belongs to no expression.

    Attributes:
        size_wh: width and height as fractions of the image.
        motion: where its centre is at which time.
        grey: its brightness, 0..255.
    """

    size_wh: tuple[float, float]
    motion: Motion | Path
    grey: int = 110


@dataclass(frozen=True, eq=False)
class View:
    """The world at one time.

    Attributes:
        image_rgb: ``(H, W, 3)`` uint8.
        instances_hw: ``(H, W)`` uint8: 0 for the ground and screens, ``i + 1`` for visible pixels of body ``i``.
    """

    image_rgb: UInt8Array
    instances_hw: UInt8Array

    def mask_of(self, body_index: int) -> BoolArray:
        """``(H, W)`` bool: the visible pixels of one body."""
        return self.instances_hw == body_index + 1


@dataclass(frozen=True)
class Scene:
    """A world: what is in it, drawn once from a seed.

    Attributes:
        seed: of ground texture and sensor noise.
        size_hw: height and width in pixels.
        background: a word of :data:`BACKGROUNDS`.
        bodies: back to front: later ones hide earlier ones.
        screens: in front of all bodies.
        noise: standard deviation of the sensor noise, in grey levels.
    """

    seed: int
    size_hw: tuple[int, int]
    background: str
    bodies: tuple[Body, ...]
    screens: tuple[Screen, ...] = ()
    noise: float = 4.0
    _ground: list[UInt8Array] = field(default_factory=list, repr=False, compare=False)

    def render(self, time_s: float) -> View:
        """Draw the world at ``time_s`` (seconds from the scene's start)."""
        image = self._ground_rgb().copy()
        instances = np.zeros(self.size_hw, dtype=np.uint8)
        for index, body in enumerate(self.bodies):
            _draw_body(image, instances, index + 1, body, time_s)
        for screen in self.screens:
            _draw_screen(image, instances, screen, time_s)
        return View(self._with_noise(image, time_s), instances)

    @property
    def focal_px(self) -> float:
        """Focal length of the camera in pixels, the same both ways. The principal point is the middle of the image."""
        return float(self.size_hw[1])

    def render_depth(self, time_s: float) -> Float32Array:
        """``(H, W)`` float32: distance along the optical axis in metres at ``time_s``, known everywhere.

        The ground and screens stand upright before the camera. Bodies are flat and lean to one side, every second one to the
        other; each is nearer than those behind it.
        """
        layers = np.zeros(self.size_hw, dtype=np.uint8)
        for index, body in enumerate(self.bodies):
            _draw_body(None, layers, index + 1, body, time_s)
        for index, screen in enumerate(self.screens):
            _draw_screen(None, layers, screen, time_s, len(self.bodies) + 1 + index)
        distances = _GROUND_METRES * _LAYER_FACTOR ** np.arange(len(self.bodies) + len(self.screens) + 1)
        depth = distances[layers]
        x_over_z = (np.arange(self.size_hw[1]) - 0.5 * (self.size_hw[1] - 1)) / self.focal_px
        for index, body in enumerate(self.bodies):
            x, _, z = self.body_position(index, time_s)
            slope = _SLOPE_PER_RADIUS * body.radius * (-1) ** index
            surface = (z - slope * x) / (1 - slope * x_over_z)
            depth = np.where(layers == index + 1, surface, depth)
        return depth.astype(np.float32)

    def body_position(self, body_index: int, time_s: float) -> tuple[float, float, float]:
        """Where the centre of a body is in space: metres in the camera's optical frame, x right, y down, z forward."""
        height, width = self.size_hw
        x, y = self.bodies[body_index].motion.position_at(time_s)
        z = _GROUND_METRES * _LAYER_FACTOR ** (body_index + 1)
        return (x * width - 0.5 * (width - 1)) / self.focal_px * z, (y * height - 0.5 * (height - 1)) / self.focal_px * z, z

    def visible_fractions(self, times_s: Sequence[float]) -> Float32Array:
        """``(T, bodies)`` float32: visible pixels of each body over those it would have alone on the image."""
        fractions = np.zeros((len(times_s), len(self.bodies)), dtype=np.float32)
        for row, time_s in enumerate(times_s):
            instances = np.zeros(self.size_hw, dtype=np.uint8)
            alone = []
            for index, body in enumerate(self.bodies):
                alone.append(_draw_body(None, instances, index + 1, body, time_s))
            for screen in self.screens:
                _draw_screen(None, instances, screen, time_s)
            seen = np.bincount(instances.reshape(-1), minlength=len(self.bodies) + 1)[1:]
            fractions[row] = seen / np.maximum(alone, 1)
        return fractions

    def _ground_rgb(self) -> UInt8Array:
        if not self._ground:
            self._ground.append(_paint_ground(self.background, self.size_hw, np.random.default_rng(self.seed)))
        return self._ground[0]

    def _with_noise(self, image: UInt8Array, time_s: float) -> UInt8Array:
        if self.noise <= 0:
            return image
        noise = np.empty(image.shape, dtype=np.int16)
        cv2.setRNGSeed((self.seed * 1_000_003 + round(time_s * 1e3)) % 2**31)
        cv2.randn(noise, np.zeros(3), np.full(3, float(self.noise)))
        return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), dtype=np.uint8)


def sample_scene(seed: int, size_hw: tuple[int, int] = DEFAULT_SIZE_HW, screens: bool = True) -> Scene:
    """Draw a scene with 2 to 4 bodies: still and moving ones, look-alikes, crossings and, at times, a screen to hide behind.

    Args:
        seed: the same seed gives the same scene; see :data:`FIRST_TRAINING_SEED`.
        size_hw: height and width in pixels.
        screens: whether a screen may stand in the scene (one in four then has one).
    """
    rng = np.random.default_rng(seed)
    bodies: list[Body] = []
    for _ in range(int(rng.integers(2, 5))):
        bodies.append(_sample_body(rng, bodies, size_hw))
    with_screen = screens and rng.random() < 0.25
    return Scene(
        seed=seed,
        size_hw=size_hw,
        background=str(rng.choice(BACKGROUNDS)),
        bodies=tuple(bodies),
        screens=(_sample_screen(rng),) if with_screen else (),
        noise=float(rng.uniform(1.0, 6.0)),
    )


def with_bodies(scene: Scene, bodies: Sequence[Body]) -> Scene:
    """The same ground and light with other bodies."""
    return replace(scene, bodies=tuple(bodies))


def _sample_body(rng: np.random.Generator, others: Sequence[Body], size_hw: tuple[int, int]) -> Body:
    """Draw a body that starts clear of the others; with one chance in three it shares a colour or a shape with one of them."""
    shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS_RGB)))
    if others and rng.random() < 0.33:
        twin = others[int(rng.integers(len(others)))]
        shape, colour = (twin.shape, colour) if rng.random() < 0.5 else (shape, twin.colour)
    radius = float(np.exp(rng.uniform(np.log(0.085), np.log(0.23))))
    aspect = size_hw[1] / size_hw[0]
    margin = (0.8 * radius / aspect, 0.8 * radius)
    start = (0.5, 0.5)
    for _ in range(20):
        start = (float(rng.uniform(margin[0], 1 - margin[0])), float(rng.uniform(margin[1], 1 - margin[1])))
        starts = [(other.motion.position_at(0.0), other.radius) for other in others]
        if all(math.hypot((start[0] - x) * aspect, start[1] - y) > 0.9 * (radius + r) for (x, y), r in starts):
            break
    velocity = (0.0, 0.0)
    if rng.random() < 0.6:
        speed, heading = float(rng.uniform(0.06, 0.3)), float(rng.uniform(0, 2 * math.pi))
        velocity = (speed * math.cos(heading) / aspect, speed * math.sin(heading))
    return Body(
        shape=shape,
        colour=colour,
        radius=radius,
        motion=Motion(start, velocity, margin),
        angle=float(rng.uniform(-0.5, 0.5)),
        spin=float(rng.uniform(-0.5, 0.5)) if rng.random() < 0.3 else 0.0,
        tint_rgb=(int(rng.integers(-18, 19)), int(rng.integers(-18, 19)), int(rng.integers(-18, 19))),
    )


def _sample_screen(rng: np.random.Generator) -> Screen:
    size = (float(rng.uniform(0.12, 0.28)), float(rng.uniform(0.4, 0.9)))
    velocity = (float(rng.uniform(-0.2, 0.2)), 0.0) if rng.random() < 0.5 else (0.0, 0.0)
    start = (float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.4, 0.6)))
    return Screen(size, Motion(start, velocity, (0.05, 0.05)), grey=int(rng.integers(60, 170)))


def _reflect(value: float, low: float, high: float) -> float:
    """Fold a number into [low, high] as a ball between walls; the middle when they cross."""
    span = high - low
    if span <= 0:
        return 0.5 * (low + high)
    phase = (value - low) % (2 * span)
    return low + (phase if phase <= span else 2 * span - phase)


def _outline(shape: str) -> Float32Array:
    """``(P, 2)`` float32 outline of a shape in its circle of radius 1, x right and y down."""
    if shape == "ball":
        turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        points = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    elif shape == "box":
        points = np.array([[-0.8, -0.72], [0.8, -0.72], [0.8, 0.72], [-0.8, 0.72]])
    elif shape == "cone":
        points = np.array([[0.0, -1.0], [0.87, 0.75], [-0.87, 0.75]])
    elif shape == "star":
        turn = -np.pi / 2 + np.arange(10) * np.pi / 5
        reach = np.where(np.arange(10) % 2 == 0, 1.0, 0.48)
        points = np.stack([reach * np.cos(turn), reach * np.sin(turn)], axis=1)
    elif shape == "cross":
        a, b = 0.36, 0.95
        points = np.array(
            [[-a, -b], [a, -b], [a, -a], [b, -a], [b, a], [a, a], [a, b], [-a, b], [-a, a], [-b, a], [-b, -a], [-a, -a]]
        )
    else:  # mug: a cup with its handle to the right
        turn = np.linspace(-np.pi / 2, np.pi / 2, 12)
        handle = np.stack([0.45 + 0.5 * np.cos(turn), 0.0 + 0.45 * np.sin(turn)], axis=1)
        points = np.concatenate([[[-0.75, -0.8], [0.5, -0.8], [0.5, -0.45]], handle, [[0.42, 0.8], [-0.67, 0.8]]])
    return np.asarray(points, dtype=np.float32)


_OUTLINES = {shape: _outline(shape) for shape in SHAPES}
# A mark of its own inside each shape, as outline and what it adds to the brightness: without period, so that motion shows.
_MARKS: dict[str, tuple[Float32Array, int]] = {
    "ball": (_OUTLINES["ball"] * 0.3 + np.array([-0.32, -0.36], np.float32), 60),
    "box": (_OUTLINES["box"] * 0.62, -55),
    "cone": (np.array([[-0.87, 0.75], [0.87, 0.75], [0.62, 0.25], [-0.62, 0.25]], np.float32), -60),
    "star": (_OUTLINES["ball"] * 0.26, 65),
    "cross": (_OUTLINES["box"] * 0.34, -75),
    "mug": (np.array([[-0.75, -0.8], [0.5, -0.8], [0.48, -0.45], [-0.72, -0.45]], np.float32), -70),
}


def _draw_body(image: UInt8Array | None, instances: UInt8Array, label: int, body: Body, time_s: float) -> int:
    """Draw one body into the image (if any) and the instance map; return the pixels it covers when nothing hides it."""
    height, width = instances.shape
    x, y = body.motion.position_at(time_s)
    angle = body.angle + body.spin * time_s
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], np.float32)
    scale, centre = body.radius * height, np.array([x * width, y * height], np.float32)

    reach = math.ceil(scale) + 3
    x0, y0 = max(0, int(centre[0]) - reach), max(0, int(centre[1]) - reach)
    x1, y1 = min(width, int(centre[0]) + reach + 1), min(height, int(centre[1]) + reach + 1)
    if x0 >= x1 or y0 >= y1:
        return 0
    corner = np.array([x0, y0], np.float32)

    def coverage(outline: Float32Array) -> UInt8Array:
        points = (outline @ rotation) * scale + centre - corner
        patch = np.zeros((y1 - y0, x1 - x0), dtype=np.uint8)
        fixed = np.round(points * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(patch, [fixed], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
        return patch

    body_cover = coverage(_OUTLINES[body.shape])
    covered = body_cover > 127
    instances[y0:y1, x0:x1][covered] = label
    if image is not None:
        colour = np.clip(np.add(COLOURS_RGB[body.colour], body.tint_rgb), 0, 255).astype(np.float32)
        mark, brighter = _MARKS[body.shape]
        marked = np.clip(colour + brighter, 0, 255)
        mark_alpha = (coverage(mark).astype(np.float32) / 255)[..., None]
        shade = np.linspace(1.08, 0.86, y1 - y0, dtype=np.float32)[:, None, None]
        paint = (colour * (1 - mark_alpha) + marked * mark_alpha) * shade
        alpha = (body_cover.astype(np.float32) / 255)[..., None]
        patch = image[y0:y1, x0:x1]
        patch[:] = np.clip(patch * (1 - alpha) + paint * alpha, 0, 255).astype(np.uint8)
    return int(np.count_nonzero(covered))


def _draw_screen(image: UInt8Array | None, instances: UInt8Array, screen: Screen, time_s: float, label: int = 0) -> None:
    height, width = instances.shape
    x, y = screen.motion.position_at(time_s)
    half_w, half_h = 0.5 * screen.size_wh[0] * width, 0.5 * screen.size_wh[1] * height
    x0, x1 = (int(np.clip(round(x * width + side * half_w), 0, width)) for side in (-1, 1))
    y0, y1 = (int(np.clip(round(y * height + side * half_h), 0, height)) for side in (-1, 1))
    instances[y0:y1, x0:x1] = label
    if image is not None:
        ramp = np.linspace(-14, 14, x1 - x0, dtype=np.float32)[None, :, None]
        image[y0:y1, x0:x1] = np.clip(screen.grey + ramp, 0, 255).astype(np.uint8)


def _clouds(rng: np.random.Generator, size_hw: tuple[int, int], cells_hw: tuple[int, int]) -> Float32Array:
    """``(H, W)`` float32 smooth noise in about [-1, 1] with the given number of cells."""
    coarse = rng.uniform(-1, 1, size=cells_hw).astype(np.float32)
    return np.asarray(cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _paint_ground(name: str, size_hw: tuple[int, int], rng: np.random.Generator) -> UInt8Array:
    """``(H, W, 3)`` uint8 texture of one of the :data:`BACKGROUNDS`, under a light that falls off to one side."""
    height, width = size_hw
    fine = rng.normal(0, 1, size=size_hw).astype(np.float32)
    blotches = _clouds(rng, size_hw, (5, 7))
    if name == "wood":
        base, texture = (150, 105, 65), 22 * _clouds(rng, size_hw, (int(height / 5), 4)) + 8 * blotches
        texture[:: max(1, height // 5)] -= 40
    elif name == "grass":
        base, texture = (75, 115, 60), 26 * _clouds(rng, size_hw, (height // 8, width // 3)) + 6 * fine
    elif name == "tiles":
        base, texture = (150, 160, 170), 6 * blotches + 2 * fine
        step = max(8, height // 6)
        texture[(np.arange(height) + int(rng.integers(step))) % step < 2] -= 45
        texture[:, (np.arange(width) + int(rng.integers(step))) % step < 2] -= 45
    elif name == "carpet":
        weave = np.sin(np.arange(height) * 1.3)[:, None] * np.sin(np.arange(width) * 1.3)[None]
        base, texture = (95, 70, 90), 18 * weave.astype(np.float32) + 6 * fine + 8 * blotches
    elif name == "sand":
        base, texture = (200, 175, 130), 14 * fine + 8 * blotches
    else:  # concrete
        base, texture = (115, 115, 112), 20 * blotches + 12 * _clouds(rng, size_hw, (16, 22)) + 3 * fine
    left, right = rng.uniform(0.82, 1.12, size=2)
    light = np.linspace(left, right, width, dtype=np.float32)[None, :]
    tint = rng.uniform(-10, 10, size=3).astype(np.float32)
    ground = (np.array(base, np.float32) + tint + texture[..., None]) * light[..., None]
    return np.clip(ground, 0, 255).astype(np.uint8)
