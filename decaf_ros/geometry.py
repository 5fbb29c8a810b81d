"""From masks and a depth image to points, place and extent of objects in space.

Everything is in metres in the camera's optical frame: x right, y down, z forward. Pixel ``(0, 0)`` has its centre at 0.

Depth at the rim of a mask is not to be trusted: the mask is off by a pixel or two, and stereo and time-of-flight cameras mix
foreground and background there ("flying pixels"). Three rules keep them out, see :func:`surface_points` and :func:`measure`:
the rim of the mask is left out; inverse depths beyond Tukey's fences are left out; the box holds the middle 99 % of each
coordinate. So a box is a little smaller than the object: of a disc, 4 % and the rim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from decaf_ros.datatypes import BoolArray, Float32Array, ObjectMask, Segmentation, UInt8Array, UInt16Array

Float64Array = npt.NDArray[np.float64]

# Fewer points make no covariance worth the name.
LEAST_POINTS = 10
# Images of the same view may differ in shape by the rounding of their sizes: 848x480 and 1280x720.
_ASPECT_TOLERANCE = 0.02
# The rim of a mask in pixels is the image's width over this, at least 1: 2 at 640, 4 at 1280.
_RIM_DIVISOR = 320
_FENCE_IQRS = 1.5
# Of focal lengths and principal points, far beyond those of fisheyes and telescopes.
_LEAST_PIXELS, _MOST_PIXELS = 1e-3, 1e7
# Of depths, far beyond what any camera measures: their inverses and squares are numbers that float32 holds.
_LEAST_METRES, _MOST_METRES = 1e-6, 1e6
# A surface that is flat to the camera has no spread of its own; noise and steps of 1 mm must not be cut away.
_LEAST_FENCE = 0.02
_BOX_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion.

    Attributes:
        fx, fy: focal lengths in pixels.
        cx, cy: principal point in pixels.
        size_hw: height and width of the image that they hold for.

    Raises:
        ValueError: focal lengths that are not positive, which is what an uncalibrated camera reports, or numbers that no camera
            has.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    size_hw: tuple[int, int]

    def __post_init__(self) -> None:
        if not (0 < self.fx < math.inf and 0 < self.fy < math.inf):
            raise ValueError(
                f"focal lengths must be positive, got fx {self.fx:g}, fy {self.fy:g}: the camera is not calibrated"
            )
        plausible = min(self.fx, self.fy) >= _LEAST_PIXELS and min(self.size_hw) > 0
        if not (plausible and all(abs(each) <= _MOST_PIXELS for each in (self.fx, self.fy, self.cx, self.cy))):  # nor NaN
            raise ValueError(
                f"no camera has fx {self.fx:g}, fy {self.fy:g}, cx {self.cx:g}, cy {self.cy:g} for {self.size_hw[1]}x"
                f"{self.size_hw[0]} pixels: its calibration is broken"
            )

    def scaled_to(self, size_hw: tuple[int, int]) -> Intrinsics:
        """The intrinsics of an image of the same view with another resolution.

        Raises:
            ValueError: height and width do not change by the same factor, so that it cannot be the same view.
        """
        scale_y, scale_x = (new / old for new, old in zip(size_hw, self.size_hw, strict=True))
        if abs(scale_x / scale_y - 1) > _ASPECT_TOLERANCE:
            (height, width), (new_height, new_width) = self.size_hw, size_hw
            raise ValueError(
                f"an image of {new_width}x{new_height} pixels cannot show the same view as one of {width}x{height}"
            )
        # Pixel centres are at integers, so the image's corner, which stays where it is, is at -0.5.
        cx, cy = (self.cx + 0.5) * scale_x - 0.5, (self.cy + 0.5) * scale_y - 0.5
        return Intrinsics(self.fx * scale_x, self.fy * scale_y, cx, cy, size_hw)


@dataclass(frozen=True, eq=False)
class DepthView:
    """A depth image that shows the same view as the camera image, pixel for pixel but for the resolution.

    Attributes:
        metres_hw: ``(h, w)`` float32, distance along the optical axis; NaN where nothing was measured.
        intrinsics: for an image of the same size.
    """

    metres_hw: Float32Array
    intrinsics: Intrinsics

    def __post_init__(self) -> None:
        if self.metres_hw.dtype != np.float32 or self.metres_hw.shape != self.intrinsics.size_hw:
            raise ValueError(
                f"metres_hw must be float32 of shape {self.intrinsics.size_hw}, "
                f"got {self.metres_hw.dtype} of shape {self.metres_hw.shape}"
            )


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """What a depth camera sees of one object.

    Attributes:
        rows, columns: ``(N,)`` pixels of the depth image.
        xyz: ``(N, 3)`` float32 metres in the optical frame.
    """

    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    xyz: Float32Array


@dataclass(frozen=True, eq=False)
class Placement:
    """Place and extent of an object in space.

    Attributes:
        centroid_xyz: ``(3,)`` mean of the points, in metres.
        covariance: ``(3, 3)`` of the points about it, in square metres: spread, not uncertainty.
        box_center_xyz, box_size_xyz: ``(3,)`` box along the axes of the optical frame, in metres.
        point_count: number of points.
    """

    centroid_xyz: Float64Array
    covariance: Float64Array
    box_center_xyz: Float64Array
    box_size_xyz: Float64Array
    point_count: int


@dataclass(frozen=True, eq=False)
class LocatedObject:
    """An object, its points and what was measured of them."""

    tracked: ObjectMask
    points: SurfacePoints
    placement: Placement


def metres_from_depth(depth_hw: Float32Array | UInt16Array) -> Float32Array:
    """``(h, w)`` float32 metres with NaN for what is invalid.

    Args:
        depth_hw: float32 metres, where NaN, infinities, what is not positive and what no camera measures (below a micrometre or
            above 1000 km) are invalid; or uint16 millimetres, 0 invalid.
    """
    metres = depth_hw * np.float32(1e-3) if depth_hw.dtype == np.uint16 else depth_hw
    measured = (metres >= _LEAST_METRES) & (metres <= _MOST_METRES)
    return np.where(measured, metres, np.float32(np.nan)).astype(np.float32, copy=False)


def surface_points(mask_hw: BoolArray, view: DepthView) -> SurfacePoints:
    """The points of an object, without the rim of its mask and without depths that cannot belong to it.

    The rim is not taken off where it would leave fewer than :data:`LEAST_POINTS` pixels, as with a wire. Depths are compared as
    inverse depths: there a plane of any slant is linear in the pixels, and so is evenly spread. Those further than 1.5
    interquartile ranges (at least 2 % of the median) from the quartiles are left out: holes in the mask through which the
    background shows, or what stands before the object, as long as it covers less than a quarter of the mask.

    Args:
        mask_hw: ``(H, W)`` of the camera image, in any resolution.
        view: the depth image to it.
    """
    mask = _resized(mask_hw, view.metres_hw.shape)
    column, row, width, height = cv2.boundingRect(mask)
    rim = max(1, round(mask.shape[1] / _RIM_DIVISOR))
    top, left = max(0, row - rim), max(0, column - rim)
    crop = (slice(top, row + height + rim), slice(left, column + width + rim))
    # OpenCV does not erode at the border of the image: an object that is cut off there has no rim there.
    inner = cv2.erode(mask[crop], np.ones((2 * rim + 1, 2 * rim + 1), np.uint8))
    if np.count_nonzero(inner) < LEAST_POINTS:
        inner = mask[crop]
    metres = view.metres_hw[crop]
    rows, columns = np.nonzero((inner > 0) & np.isfinite(metres))
    kept = _within_fences(np.reciprocal(metres[rows, columns]))
    rows, columns = rows[kept] + top, columns[kept] + left
    return SurfacePoints(rows, columns, _unproject(rows, columns, view))


def measure(points: SurfacePoints) -> Placement | None:
    """Place and extent of an object, or ``None`` for fewer than :data:`LEAST_POINTS` points."""
    if len(points.xyz) < LEAST_POINTS:
        return None
    xyz_3n = np.ascontiguousarray(points.xyz.T)
    low, high = _percentiles(xyz_3n, _BOX_PERCENTILES).astype(np.float64).T
    return Placement(
        centroid_xyz=xyz_3n.mean(axis=1, dtype=np.float64),
        covariance=np.cov(xyz_3n, bias=True),
        box_center_xyz=(low + high) / 2,
        box_size_xyz=high - low,
        point_count=len(points.xyz),
    )


def locate_objects(segmentation: Segmentation, view: DepthView) -> list[LocatedObject]:
    """The visible objects that have at least :data:`LEAST_POINTS` points, ascending by id.

    Args:
        segmentation: a frame and its objects.
        view: the frame's depth image.
    """
    located = []
    for tracked in sorted(segmentation.objects, key=lambda tracked: tracked.object_id):
        points = surface_points(tracked.mask_hw, view)
        if (placement := measure(points)) is not None:
            located.append(LocatedObject(tracked, points, placement))
    return located


def colours_of(points: SurfacePoints, image_rgb: UInt8Array, view: DepthView) -> UInt8Array:
    """``(N, 3)`` uint8: the colour of each point in a camera image ``(H, W, 3)`` of any resolution."""
    rows, columns = (
        # The pixel in which the centre of the depth image's pixel lies.
        (index * 2 + 1) * image_size // (2 * depth_size)
        for index, image_size, depth_size in zip(
            (points.rows, points.columns), image_rgb.shape[:2], view.metres_hw.shape, strict=True
        )
    )
    return image_rgb[rows, columns]


def _resized(mask_hw: BoolArray, size_hw: tuple[int, ...]) -> UInt8Array:
    mask = mask_hw.view(np.uint8)
    if mask_hw.shape == size_hw:
        return mask
    return np.asarray(cv2.resize(mask, size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)


def _within_fences(inverse_depths: Float32Array) -> BoolArray:
    if inverse_depths.size == 0:
        return np.zeros(0, dtype=np.bool_)
    first, median, third = _percentiles(inverse_depths, (25.0, 50.0, 75.0))
    reach = max(_FENCE_IQRS * (third - first), _LEAST_FENCE * median)
    return (inverse_depths >= first - reach) & (inverse_depths <= third + reach)


def _percentiles(values: Float32Array, percents: tuple[float, ...]) -> Float32Array:
    """Along the last axis, by the nearest rank. NumPy sorts with SIMD, six times as fast as ``np.percentile`` partitions."""
    ranks = [round(percent / 100 * (values.shape[-1] - 1)) for percent in percents]
    return np.sort(values, axis=-1)[..., ranks]


def _unproject(rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], view: DepthView) -> Float32Array:
    camera = view.intrinsics
    z = view.metres_hw[rows, columns]
    x, y = (columns - camera.cx) / camera.fx * z, (rows - camera.cy) / camera.fy * z
    return np.stack([x, y, z], axis=1).astype(np.float32)
