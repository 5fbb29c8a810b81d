"""Pictures of a recording by MuJoCo Warp's ray tracer, which runs on a bare CPU: colour, depth and masks that agree exactly."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from decaf_ros.datatypes import BoolArray, Float32Array, UInt8Array
from decaf_ros.synthetic.table.events import in_frame
from decaf_ros.synthetic.table.extras import SimulationMissingError, load
from decaf_ros.synthetic.table.model import SEEN_GROUPS, build_model, thing_name
from decaf_ros.synthetic.table.recording import poses_of
from decaf_ros.synthetic.table.scene import ARM_LABEL, Scene
from decaf_ros.synthetic.table.shapes import Shape

mujoco, warp = load("mujoco"), load("warp")
warp.config.log_level = warp.LOG_ERROR  # else it speaks of the devices that it found
try:
    warp.init()
except OSError as error:
    raise SimulationMissingError(
        f"what the simulated table compiles cannot be kept: {error}; set WARP_CACHE_PATH to a folder that can be written to"
    ) from error
mjwarp = load("mujoco_warp")

Float64Array = npt.NDArray[np.float64]
DEFAULT_SIZE_HW = (192, 256)
_MOST_PIXELS = 4096
_COARSE_HW = (96, 128)  # for the shares of things that are visible
_OUT_OF_SIGHT = (0.0, 0.0, -1000.0)
_SHADE = 0.25  # share of the lamp's light that reaches the shadows
# Which device Warp takes is a setting of the process, which one thread must not change under the hands of another.
_WARP = threading.RLock()
_OPTICAL_FROM_GL = np.diag([1.0, -1.0, -1.0])  # MuJoCo's cameras look along -z, with y up


@dataclass(frozen=True, eq=False)
class View:
    """The table at one time.

    Attributes:
        image_rgb: ``(H, W, 3)`` uint8.
        depth_hw: ``(H, W)`` float32: metres along the optical axis; 0 where there is only the far wall.
        instances_hw: ``(H, W)`` uint8: ``i + 1`` on thing ``i``, :data:`ARM_LABEL` on the arm, 0 elsewhere.
        poses_n44: ``(things, 4, 4)``: each thing's own frame in the world.
        world_from_camera: ``(4, 4)``: the optical frame, x right, y down, z forward.
        intrinsics: ``(3, 3)`` matrix K.
    """

    image_rgb: UInt8Array
    depth_hw: Float32Array
    instances_hw: UInt8Array
    poses_n44: Float64Array
    world_from_camera: Float64Array
    intrinsics: Float64Array

    def mask_of(self, thing: int) -> BoolArray:
        """``(H, W)`` bool: the visible pixels of one thing."""
        return self.instances_hw == thing + 1

    def points_of(self, thing: int) -> Float64Array:
        """``(N, 3)`` what is visible of a thing's surface, a point a pixel, in metres in the camera's optical frame."""
        rows, columns = np.nonzero(self.mask_of(thing))
        rays = np.stack([columns, rows, np.ones(len(rows))], axis=1) @ np.linalg.inv(self.intrinsics).T
        return np.asarray(rays * self.depth_hw[rows, columns, None], dtype=np.float64)

    def project(self, points_n3: npt.ArrayLike) -> tuple[Float64Array, Float64Array]:
        """Pixels ``(N, 2)``, x first, and depths ``(N,)`` of points of the world."""
        points = (np.asarray(points_n3) - self.world_from_camera[:3, 3]) @ self.world_from_camera[:3, :3]
        pixels = points @ self.intrinsics.T
        return pixels[:, :2] / pixels[:, 2:], points[:, 2]


class Renderer:
    """Renders one scene. The first one on a machine compiles for some ten seconds; what it compiled is kept in files.

    Args:
        scene: what is rendered.
        shapes: of its things.
        samples: rays a pixel along each side: 2 smooths edges in colour, at four times the price. Depth and masks take one.
    """

    def __init__(self, scene: Scene, shapes: Sequence[Shape], samples: int = 1) -> None:
        self._scene, self._shapes = scene, shapes
        self._samples = samples
        self._model = build_model(scene, shapes)
        self._data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, self._data)
        with _WARP, warp.ScopedDevice("cpu"):
            self._device_model = mjwarp.put_model(self._model)
            self._device_data = mjwarp.put_data(self._model, self._data, nworld=1)
        self._contexts: dict[tuple[tuple[int, int], bool], Any] = {}
        self._labels = self._labels_of_geoms()
        self._alone: dict[tuple[int, bytes], int] = {}

    def render(self, qpos: Float64Array, time_s: float, size_hw: tuple[int, int] = DEFAULT_SIZE_HW) -> View:
        """A view of the scene.

        Args:
            qpos: ``(7 + 7 * things,)`` where all is, of a recording or of a simulation that goes on.
            time_s: seconds from the scene's start, for the camera that may move, and the noise.
            size_hw: height and width in pixels.

        Raises:
            ValueError: no such size.
        """
        if not all(1 <= side <= _MOST_PIXELS for side in size_hw):
            raise ValueError(f"a picture has 1 to {_MOST_PIXELS} pixels along each side, got {size_hw}")
        camera = self._scene.camera.world_from_camera(time_s)
        self._place(qpos, camera)
        image, depth, geoms = self._trace(size_hw)
        return View(
            image_rgb=_with_noise(image, self._scene, time_s),
            depth_hw=depth,
            instances_hw=self._labels[geoms],
            poses_n44=poses_of(qpos),
            world_from_camera=camera,
            intrinsics=self._scene.camera.intrinsics(size_hw),
        )

    def visible_fractions(self, qpos: Float64Array, time_s: float) -> Float64Array:
        """``(things,)``: the visible share of what each thing would show, were nothing in front of it and the image endless."""
        camera = self._scene.camera.world_from_camera(time_s)
        self._place(qpos, camera)
        labels = self._labels[self._trace(_COARSE_HW, masks_only=True)[2]]
        positions = self._device_data.geom_xpos.numpy()[0]
        placed = positions.copy()
        poses = poses_of(qpos)
        fractions = in_frame(self._scene, self._shapes, poses, time_s)
        for thing, pose in enumerate(np.linalg.inv(camera) @ poses):
            seen = _count(labels == thing + 1)
            key = (thing, np.round(pose, 4).tobytes())
            if seen and key not in self._alone:  # most things rest before a camera that stands still
                positions[:] = np.where((self._labels[:-1] == thing + 1)[:, None], placed, _OUT_OF_SIGHT)
                self._alone[key] = _count(self._labels[self._trace(_COARSE_HW, masks_only=True)[2]])
            fractions[thing] *= seen / self._alone[key] if seen else 0.0
        return fractions

    def _place(self, qpos: Float64Array, world_from_camera: Float64Array) -> None:
        """Put everything where it is."""
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        moved = self._device_data
        moved.geom_xpos.numpy()[0] = self._data.geom_xpos
        moved.geom_xmat.numpy()[0] = self._data.geom_xmat.reshape(-1, 3, 3)
        moved.cam_xpos.numpy()[0, 0] = world_from_camera[:3, 3]
        moved.cam_xmat.numpy()[0, 0] = world_from_camera[:3, :3] @ _OPTICAL_FROM_GL

    def _trace(
        self, size_hw: tuple[int, int], masks_only: bool = False
    ) -> tuple[UInt8Array, Float32Array, npt.NDArray[np.int32]]:
        """Colour, depth and geoms (-1 for none) of the scene as it is placed; colour is black for masks only."""
        with _WARP, warp.ScopedDevice("cpu"):
            context = self._context(size_hw, masks_only)
            mjwarp.refit_bvh(self._device_model, self._device_data, context)
            mjwarp.render(self._device_model, self._device_data, context)
        geoms = context.seg_data.numpy()[0].reshape(*size_hw, 2)[..., 0]
        depth = context.depth_data.numpy()[0].reshape(size_hw).copy()
        if masks_only:
            return np.zeros((*size_hw, 3), np.uint8), depth, geoms
        packed = context.rgb_data.numpy()[0]  # 0xAARRGGBB
        image = packed.view(np.uint8).reshape(*size_hw, 4)[..., 2::-1]
        return np.ascontiguousarray(image), depth, geoms

    def _context(self, size_hw: tuple[int, int], masks_only: bool) -> Any:
        key = (size_hw, masks_only)
        if key not in self._contexts:
            self._contexts[key] = mjwarp.create_render_context(
                self._model,
                cam_res=(size_hw[1], size_hw[0]),
                render_rgb=not masks_only,
                render_depth=True,
                render_seg=True,
                use_shadows=True,
                enabled_geom_groups=SEEN_GROUPS,
                render_skybox=True,
                shadow_light_fraction=_SHADE,
                samples_per_pixel=1 if masks_only else self._samples,
            )
        return self._contexts[key]

    def _labels_of_geoms(self) -> UInt8Array:
        """``(geoms + 1,)`` label of each geom; the last entry is for rays that met nothing."""
        things = {thing_name(index): index + 1 for index in range(len(self._scene.things))}
        names = [self._model.body(int(body)).name for body in self._model.geom_bodyid]
        labels = [0 if name == "world" else things.get(name, ARM_LABEL) for name in names]
        return np.array([*labels, 0], dtype=np.uint8)


def _with_noise(image: UInt8Array, scene: Scene, time_s: float) -> UInt8Array:
    """The image as a sensor sees it, the same for the same scene and time."""
    if scene.look.noise <= 0:
        return image
    noise = np.empty(image.shape, dtype=np.int16)
    cv2.setRNGSeed((scene.look.seed * 1_000_003 + round(time_s * 1e3)) % 2**31)
    cv2.randn(noise, np.zeros(3), np.full(3, float(scene.look.noise)))
    return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), dtype=np.uint8)


def _count(flags: npt.NDArray[Any]) -> int:
    return int(np.count_nonzero(flags))
