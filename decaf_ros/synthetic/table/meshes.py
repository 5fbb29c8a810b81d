"""Meshes and textures of things, made from outlines: turned on a lathe, drawn along a path, boxes; and noise to paint with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from decaf_ros.datatypes import Float32Array, UInt8Array

Float64Array = npt.NDArray[np.float64]
TEXTURE_WIDTH = 128


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh with texture coordinates.

    Attributes:
        vertices_n3: ``(N, 3)`` float64 metres.
        faces_f3: ``(F, 3)`` int, counter-clockwise seen from outside.
        uv_n2: ``(N, 2)`` float64 in [0, 1]; v runs down the rows of the texture.
    """

    vertices_n3: Float64Array
    faces_f3: npt.NDArray[np.int64]
    uv_n2: Float64Array

    def moved(self, offset: Sequence[float]) -> Mesh:
        """The same at another place."""
        return replace(self, vertices_n3=self.vertices_n3 + np.asarray(offset, dtype=np.float64))

    def normals_n3(self) -> Float64Array:
        """``(N, 3)`` unit normals, smooth over vertices at the same place, whatever their texture."""
        corners = self.vertices_n3[self.faces_f3]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        _, place = np.unique(np.round(self.vertices_n3 * 1e6).astype(np.int64), axis=0, return_inverse=True)
        place = place.reshape(-1)
        summed = np.zeros((int(place.max()) + 1, 3))
        np.add.at(summed, place[self.faces_f3].reshape(-1), np.repeat(normals, 3, axis=0))
        lengths = np.linalg.norm(summed, axis=1, keepdims=True)
        flat = np.where(lengths > 0, summed / np.maximum(lengths, 1e-300), [0.0, 0.0, 1.0])
        smooth: Float64Array = flat[place]
        return smooth


def lathe(profile_rz: Sequence[tuple[float, float]], sides: int = 32) -> Mesh:
    """The surface that a profile of radius and height sweeps around the z axis; u around, v along the profile.

    The outside lies to the right of the profile's direction: bottom to top on the outer wall, top to bottom on an inner one.
    """
    profile = np.asarray(profile_rz, dtype=np.float64)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
    turn = np.linspace(0, 2 * np.pi, sides + 1)
    x, y = np.outer(profile[:, 0], np.cos(turn)), np.outer(profile[:, 0], np.sin(turn))
    z = np.repeat(profile[:, 1:], sides + 1, axis=1)
    v = np.repeat((along / along[-1])[:, None], sides + 1, axis=1)
    u = np.repeat((turn / (2 * np.pi))[None], len(profile), axis=0)
    return Mesh(np.stack([x, y, z], -1).reshape(-1, 3), _grid_faces(len(profile), sides), np.stack([u, v], -1).reshape(-1, 2))


def tube(path_n3: Float64Array, radii: npt.ArrayLike, sides: int = 12, flatten: float = 1.0) -> Mesh:
    """A round bar along a path in a plane; u around, v along it.

    Args:
        path_n3: ``(N, 3)`` centres.
        radii: at each of them; end with a small one to close it.
        flatten: width across the path's plane over the width in it.
    """
    path = np.asarray(path_n3, dtype=np.float64)
    radius = np.broadcast_to(np.asarray(radii, dtype=np.float64), len(path))
    forward = np.gradient(path, axis=0)
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    bends = np.cross(forward[0], forward[-1])
    if np.linalg.norm(bends) < 1e-6:  # it is straight: any direction across will do
        bends = np.cross(forward[0], np.eye(3)[int(np.argmin(np.abs(forward[0])))])
    across = bends / np.linalg.norm(bends)
    inward = np.cross(forward, across)
    turn = np.linspace(0, 2 * np.pi, sides + 1)
    ring = flatten * np.cos(turn)[None, :, None] * across + np.sin(turn)[None, :, None] * inward[:, None]
    vertices = path[:, None] + radius[:, None, None] * ring
    v, u = np.meshgrid(np.linspace(0, 1, len(path)), turn / (2 * np.pi), indexing="ij")
    return Mesh(vertices.reshape(-1, 3), _grid_faces(len(path), sides), np.stack([u, v], -1).reshape(-1, 2))


def box(size_xyz: Sequence[float]) -> Mesh:
    """A box on the plane z = 0; its faces +x, -x, +y, -y, +z, -z lie side by side along u."""
    half = 0.5 * np.asarray(size_xyz, dtype=np.float64)
    vertices, uv, faces = [], [], []
    for index in range(6):
        axis, sign = index // 2, 1.0 - 2.0 * (index % 2)
        normal = np.eye(3)[axis] * sign
        up = np.array([0.0, 0.0, 1.0]) if axis < 2 else np.array([1.0, 0.0, 0.0])
        right = np.cross(up, normal)
        for r, u_up in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            vertices.append((normal + r * right + u_up * up) * half + [0, 0, half[2]])
            uv.append(((index + 0.04 + 0.92 * (r + 1) / 2) / 6, 0.5 - 0.48 * u_up))
        faces += [(4 * index, 4 * index + 1, 4 * index + 2), (4 * index, 4 * index + 2, 4 * index + 3)]
    return Mesh(np.array(vertices), np.array(faces), np.array(uv))


def join(parts: Sequence[tuple[Mesh, UInt8Array]]) -> tuple[Mesh, UInt8Array]:
    """One mesh with one texture, in which each part has rows of its own.

    Args:
        parts: meshes with their textures, ``(rows, TEXTURE_WIDTH, 3)`` uint8.
    """
    rows = sum(texture.shape[0] for _, texture in parts)
    vertices, faces, uv = [], [], []
    first_row = first_vertex = 0
    for mesh, texture in parts:
        inner = (0.5 + mesh.uv_n2[:, 1] * (texture.shape[0] - 1) + first_row) / rows  # half a texel off the neighbours
        uv.append(np.stack([mesh.uv_n2[:, 0], inner], axis=-1))
        vertices.append(mesh.vertices_n3)
        faces.append(mesh.faces_f3 + first_vertex)
        first_row += texture.shape[0]
        first_vertex += len(mesh.vertices_n3)
    joined = Mesh(np.concatenate(vertices), np.concatenate(faces), np.concatenate(uv))
    return joined, np.concatenate([texture for _, texture in parts])


def plain(colour_rgb: npt.ArrayLike, rows: int = 2) -> Float32Array:
    """``(rows, TEXTURE_WIDTH, 3)`` float32 of one colour, to paint on."""
    return np.broadcast_to(np.asarray(colour_rgb, np.float32), (rows, TEXTURE_WIDTH, 3)).copy()


def finished(texture: npt.ArrayLike) -> UInt8Array:
    """The texture as uint8."""
    return np.clip(np.asarray(texture), 0, 255).astype(np.uint8)


def clouds(rng: np.random.Generator, size_hw: tuple[int, int], cells_hw: tuple[int, int], octaves: int = 4) -> Float32Array:
    """``(H, W)`` float32 noise of several scales in about [-1, 1]."""
    noise = np.zeros(size_hw, dtype=np.float32)
    for octave in range(octaves):
        cells = tuple(min(max(2, count * 2**octave), size) for count, size in zip(cells_hw, size_hw, strict=True))
        coarse = rng.uniform(-1, 1, size=cells).astype(np.float32)
        noise += 0.55**octave * cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return noise / np.float32(1.6)


def _grid_faces(rows: int, columns: int) -> npt.NDArray[np.int64]:
    """``(F, 3)`` triangles of a grid of ``rows`` rings with ``columns + 1`` vertices each."""
    first = (np.arange(rows - 1)[:, None] * (columns + 1) + np.arange(columns)).reshape(-1)
    below = first + columns + 1
    quads = [np.stack([first, first + 1, below + 1], -1), np.stack([first, below + 1, below], -1)]
    return np.concatenate(quads)
