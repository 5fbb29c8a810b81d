"""A scene as a MuJoCo model: the room, the arm, and things with a mesh to see and solids to feel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from decaf_ros.datatypes import UInt8Array
from decaf_ros.synthetic.table.arm import THING_CONTACT, add_arm
from decaf_ros.synthetic.table.extras import load
from decaf_ros.synthetic.table.scene import TABLE_X, TABLE_Y, Look, Scene
from decaf_ros.synthetic.table.shapes import Shape
from decaf_ros.synthetic.table.surfaces import floor, surroundings, table_top

mujoco = load("mujoco")

TIMESTEP_S = 0.004
# Of the visual geoms; solids are felt, not seen.
SEEN_GROUPS = [0, 1]
_FELT_GROUP = 3
_ROOM_METRES, _FLOOR_METRES, _LAMP_METRES = 2.4, -0.75, 1.9
_SHELLS = ((0.86, 0.86, 0.84), (0.70, 0.72, 0.74), (0.40, 0.42, 0.45), (0.90, 0.87, 0.80))
_ACCENTS = ((0.22, 0.24, 0.27), (0.10, 0.32, 0.48), (0.62, 0.30, 0.10), (0.30, 0.32, 0.34))
# The renderer is compiled for these values; were they drawn with the scene, each scene would compile its own.
_EXTENT, _NEAR, _FAR = 1.0, 0.01, 12.0


def thing_name(index: int) -> str:
    """Of the body of a thing, of its visual geom, and of its weld to the hand."""
    return f"thing{index}"


def build_model(scene: Scene, shapes: Sequence[Shape]) -> Any:
    """The compiled ``mujoco.MjModel``: free bodies :func:`thing_name`, each with an inactive weld to the hand."""
    rng = np.random.default_rng(scene.look.seed)
    spec = mujoco.MjSpec()
    spec.option.timestep = TIMESTEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 4.0
    spec.stat.extent, spec.stat.center = _EXTENT, [0.0, 0.0, 0.0]
    spec.visual.map.znear, spec.visual.map.zfar = _NEAR, _FAR
    spec.visual.headlight.active = 0
    spec.worldbody.add_camera(name="camera", fovy=math.degrees(scene.camera.fov_y))
    _add_lights(spec, scene.look)
    _add_room(spec, scene.look, rng)
    pick = int(rng.integers(len(_SHELLS)))
    add_arm(spec, _SHELLS[pick], _ACCENTS[int(rng.integers(len(_ACCENTS)))])
    for index, (thing, shape) in enumerate(zip(scene.things, shapes, strict=True)):
        _add_thing(spec, thing_name(index), shape, thing.xy, thing.yaw)
    return spec.compile()


def _add_lights(spec: Any, look: Look) -> None:
    """A lamp that casts shadows, and a weak light from the other side."""
    out, up = math.cos(look.light_elevation), math.sin(look.light_elevation)
    x, y = out * math.cos(look.light_azimuth), out * math.sin(look.light_azimuth)
    point, colour = mujoco.mjtLightType.mjLIGHT_POINT, np.asarray(look.light_rgb)
    lamp = spec.worldbody.add_light(name="lamp", type=point, pos=_LAMP_METRES * np.array([x, y, up]), castshadow=True)
    lamp.diffuse, lamp.specular, lamp.ambient = colour, 0.5 * colour, look.ambient * np.ones(3)
    fill = spec.worldbody.add_light(name="fill", type=point, pos=[-1.5 * x, -1.5 * y, 1.5], castshadow=False)
    fill.diffuse, fill.specular, fill.ambient = 0.25 * colour, np.zeros(3), np.zeros(3)


def _add_room(spec: Any, look: Look, rng: np.random.Generator) -> None:
    _add_material(spec, "table", table_top(look.table, rng), 0.25, repeat=(1.0, 1.0))
    _add_material(spec, "floor", floor(look.floor, rng), 0.0, repeat=(3.0, 3.0))
    box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
    size = [0.5 * (TABLE_X[1] - TABLE_X[0]), 0.5 * (TABLE_Y[1] - TABLE_Y[0]), 0.02]
    middle = [0.5 * sum(TABLE_X), 0.5 * sum(TABLE_Y), -0.02]
    spec.worldbody.add_geom(
        name="table", type=box, size=size, pos=middle, material="table", condim=4, friction=[0.5, 0.006, 0.001],
        contype=THING_CONTACT, conaffinity=THING_CONTACT | 2, solref=[0.008, 1.0],
    )  # fmt: skip
    unfelt = {"contype": 0, "conaffinity": 0}
    spec.worldbody.add_geom(
        type=plane, size=[_ROOM_METRES, _ROOM_METRES, 0.1], pos=[0, 0, _FLOOR_METRES], material="floor", **unfelt
    )
    # Walls are far away as far as rays are concerned: as geometry they would cost a third of the time that a picture takes.
    walls = surroundings(look.wall_rgb, rng)
    sky = spec.add_texture(
        name="walls", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=walls.shape[1], height=walls.shape[0], nchannel=3
    )
    sky.data = np.ascontiguousarray(walls).tobytes()


def _add_thing(spec: Any, name: str, shape: Shape, xy: tuple[float, float], yaw: float) -> None:
    mesh = shape.mesh
    spec.add_mesh(
        name=name,
        uservert=mesh.vertices_n3.ravel(),
        userface=mesh.faces_f3.ravel(),
        usernormal=mesh.normals_n3().ravel(),
        usertexcoord=mesh.uv_n2.ravel(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )
    _add_material(spec, name, shape.texture, shape.gloss, repeat=(1.0, 1.0))
    body = spec.worldbody.add_body(name=name, pos=[*xy, 0.001], quat=[math.cos(0.5 * yaw), 0, 0, math.sin(0.5 * yaw)])
    body.add_freejoint(name=name)
    mesh_type = mujoco.mjtGeom.mjGEOM_MESH
    body.add_geom(name=name, type=mesh_type, meshname=name, material=name, contype=0, conaffinity=0, group=1, density=0)
    for solid in shape.solids:
        quat = np.zeros(4)
        mujoco.mju_euler2Quat(quat, np.asarray(solid.euler, dtype=np.float64), "XYZ")
        body.add_geom(
            type=getattr(mujoco.mjtGeom, f"mjGEOM_{solid.form.upper()}"),
            size=[*solid.size, 0.0, 0.0][:3],
            pos=solid.position,
            quat=quat,
            group=_FELT_GROUP,
            density=shape.density,
            contype=THING_CONTACT,
            conaffinity=THING_CONTACT | 2,
            condim=6,
            friction=[0.5, 0.006, 0.002],
            solref=[0.008, 1.0],
        )
    weld = spec.add_equality(name=name, type=mujoco.mjtEq.mjEQ_WELD, objtype=mujoco.mjtObj.mjOBJ_BODY, name1="roll", name2=name)
    weld.active, weld.solref = False, [0.01, 1.0]


def _add_material(spec: Any, name: str, texture: UInt8Array, gloss: float, repeat: tuple[float, float]) -> None:
    height, width = texture.shape[:2]
    image = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=width, height=height, nchannel=3)
    image.data = np.ascontiguousarray(texture).tobytes()
    material = spec.add_material(name=name, texrepeat=repeat, specular=gloss, shininess=0.35)
    layers = list(material.textures)
    layers[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    material.textures = layers
