"""Write docs/parameters.md and docs/topics.md from the code and from a running node: ``make docs``.

Types and quality of service are what the node itself announces; what they are for is in :data:`INTERFACES` below. A topic,
service or action that is in only one of the two is an error, here and in the tests.
"""

from __future__ import annotations

import html
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import rclpy
from rclpy.action import get_action_server_names_and_types_by_node
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy

from decaf_ros.limits import LIMITS
from decaf_ros.outputs import OutputFolder
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.models import MODEL_PARAMETERS
from decaf_ros.ros.parameters import SETTINGS, Setting

DOCS = Path(__file__).resolve().parent.parent / "docs"
NODE = "decaf_node"
# With everything that is off by default.
NODE_PARAMETERS = {"depth": True}
_DISCOVERY_SECONDS = 60.0


class Kind(Enum):
    """What a name stands for; the value heads its table."""

    SUBSCRIBED = "Subscribed topics"
    PUBLISHED = "Published topics"
    SERVICE = "Services"
    ACTION = "Actions"


@dataclass(frozen=True)
class Interface:
    """One topic, service or action of the node.

    Attributes:
        kind: what it is.
        name: as in the code: ``~/`` for the node's own names, without a slash for those that are remapped.
        text: what it is for.
        header: whose stamp and frame_id a published message carries; "" for a message without header.
        computed: when a message is made.
        type: where the node does not announce it in every installation; the text says when it does.
    """

    kind: Kind
    name: str
    text: str
    header: str = ""
    computed: str = ""
    type: str = ""


_FRAME = "of each followed image"
_PICTURE = "of followed images, the newest first"
_HEAT = "with each answer, then at `refresh_hz`"
_IMAGE = "camera image"


def _published(name: str, text: str, computed: str = _FRAME, header: str = _IMAGE, type: str = "") -> Interface:
    return Interface(Kind.PUBLISHED, name, text, header, computed, type)


INTERFACES = (
    Interface(Kind.SUBSCRIBED, "image", "the camera; the latest image wins"),
    Interface(
        Kind.SUBSCRIBED,
        "image/compressed",
        "in place of `image` with `image_transport:=compressed`: JPEG or PNG",
        type="sensor_msgs/msg/CompressedImage",
    ),
    Interface(Kind.SUBSCRIBED, "depth", "with `depth:=true`: 32FC1 in metres or 16UC1 in millimetres, registered to the image"),
    Interface(Kind.SUBSCRIBED, "camera_info", "with `depth:=true`: intrinsics"),
    _published("~/objects", "id, label, query, score, presence, box, visible or lost"),
    _published("~/mask", "mono8: 255 where any object is"),
    _published("~/mask/compressed", "the same as PNG", _PICTURE),
    _published("~/labels", "mono16: the object's id, 0 for none; where objects overlap, the smaller one"),
    _published("~/labels/compressed", "the same as PNG", _PICTURE),
    _published("~/overlay", "rgb8: masks, contours, labels and sentences over the image", _PICTURE),
    _published("~/overlay/compressed", "the same as JPEG", _PICTURE),
    _published("~/heatmap", "rgb8: where the language model looks for the newest query, over the image", _HEAT),
    _published("~/heatmap/compressed", "the same as JPEG", _HEAT),
    _published("~/attention", "32FC1 in [0, 1]: the same heat map itself, at the size of the image", _HEAT),
    _published("~/query_*/heatmap", "as `~/heatmap`, of an active query: `*` is its id", _HEAT, type="sensor_msgs/msg/Image"),
    _published("~/query_*/heatmap/compressed", "the same as JPEG", _HEAT, type="sensor_msgs/msg/CompressedImage"),
    _published("~/query_*/attention", "as `~/attention`, of an active query", _HEAT, type="sensor_msgs/msg/Image"),
    _published("~/objects_3d", "with `depth:=true`: centroid, covariance, box, number of points"),
    _published("~/markers", "with `depth:=true`: boxes and labels for RViz"),
    _published("~/points", "with `depth:=true`: the points of all objects, `label` is the object's id"),
    _published(
        "~/detections",
        "where vision_msgs is installed: visible objects with box, name and score",
        type="vision_msgs/msg/Detection2DArray",
    ),
    _published(
        "~/label_info",
        "where vision_msgs is installed: the name to each value of `~/labels`",
        type="vision_msgs/msg/LabelInfo",
    ),
    _published("~/events", "an object was found, lost, seen again, re-acquired or removed", "when it happens"),
    _published("/diagnostics", "rates, drops, mask age, states, memory", "once a second, in every state", "now"),
    _published("~/transition_event", "the lifecycle changed its state", "at each transition", ""),
    Interface(Kind.SERVICE, "~/query", "find what a sentence refers to, and track it"),
    Interface(Kind.SERVICE, "~/add_object", "track what points, a box or a mask show on an image"),
    Interface(Kind.SERVICE, "~/rerun_query", "ask a query again: objects that are found again keep their ids"),
    Interface(Kind.SERVICE, "~/remove_object", "stop tracking one object"),
    Interface(Kind.SERVICE, "~/remove_query", "forget a query with its objects, or cancel it"),
    Interface(Kind.SERVICE, "~/list_queries", "what is queued, running, waiting, active or failed, and why"),
    Interface(Kind.SERVICE, "~/reset", "forget all queries, objects and frames"),
    Interface(Kind.SERVICE, "~/change_state", "lifecycle: configure, activate, deactivate, clean up, shut down"),
    Interface(Kind.SERVICE, "~/get_state", "lifecycle: the state"),
    Interface(Kind.SERVICE, "~/get_available_states", "lifecycle: all states"),
    Interface(Kind.SERVICE, "~/get_available_transitions", "lifecycle: what can be done in this state"),
    Interface(Kind.SERVICE, "~/get_transition_graph", "lifecycle: all transitions"),
    Interface(Kind.ACTION, "~/track_by_language", "as `~/query`, with feedback by stage, and with a way to cancel"),
)

_TOPICS_TEXT = """\
`~` is the node's name, `/decaf_node` unless it is renamed; the other relative names follow the namespace and can be remapped.
Publishers, services and actions are there from *inactive* on, subscriptions while the node is *active*; `/diagnostics` and the
lifecycle's own always are. But for `/diagnostics`, no message is made for a topic without subscribers. *Header* says whose
stamp and frame_id a message carries. All topics are volatile and keep the last few messages unless noted.

Fields are explained in [msg](../msg), [srv](../srv) and [action](../action), and by `ros2 interface show`. What every node of
ROS has (`/rosout`, `/parameter_events`, services for parameters) is left out."""

_PARAMETERS_TEXT = """\
*Change* says what `ros2 param set /decaf_node NAME VALUE` does while the node runs: *any time* takes effect with the next frame
or query; *reloads* loads a model anew, and when that fails, the change is refused with the reason and the old model stays; *at
the start* is read-only afterwards. A value of another type or out of its range is refused with the reason.
[config/decaf.yaml](../config/decaf.yaml) holds the same parameters as a file to start from."""

_LIMITS_TEXT = """\
Of everything that is asked for there is a most. A request that exceeds one is refused at once, and the answer names it, as in
`the request has 100000 points, at most 64 are allowed (limit max_points)`. Numbers that are not finite, and stamps before 0,
are refused as well. ROS itself reads a message before the node sees it: what a huge one costs there is for DDS and the
[enclave](security.md#an-sros-2-enclave) to limit."""

# What every node of ROS has.
OF_ROS = {
    Kind.SUBSCRIBED: ("/clock", "/parameter_events"),
    Kind.PUBLISHED: ("/rosout", "/parameter_events"),
    Kind.SERVICE: (
        "~/describe_parameters",
        "~/get_parameter_types",
        "~/get_parameters",
        "~/get_type_description",
        "~/list_parameters",
        "~/set_parameters",
        "~/set_parameters_atomically",
    ),
}


@dataclass(frozen=True)
class Announced:
    """What a running node says of one name: its type, and the quality of service of a topic."""

    type: str
    qos: str = ""


Found = dict[tuple[Kind, str], Announced]


def full_name(name: str) -> str:
    """A name of :data:`INTERFACES` as it is when nothing is remapped and there is no namespace."""
    return f"/{NODE}/{name[2:]}" if name.startswith("~/") else f"/{name.lstrip('/')}"


def find_interfaces(observer: Node) -> Found:
    """What the node announces now, without what every node has, by kind and full name."""
    kinds: dict[Kind, Callable[[], Iterable[tuple[str, Sequence[str]]]]] = {
        Kind.SUBSCRIBED: lambda: observer.get_subscriber_names_and_types_by_node(NODE, "/"),
        Kind.PUBLISHED: lambda: observer.get_publisher_names_and_types_by_node(NODE, "/"),
        Kind.SERVICE: lambda: observer.get_service_names_and_types_by_node(NODE, "/"),
        Kind.ACTION: lambda: get_action_server_names_and_types_by_node(observer, NODE, "/"),
    }
    of_ros = {(kind, full_name(name)) for kind, names in OF_ROS.items() for name in names}
    return {
        (kind, name): Announced(types[0], _qos(observer, kind, name))
        for kind, ask in kinds.items()
        for name, types in ask()
        if (kind, name) not in of_ros and "/_action/" not in name
    }


def _qos(observer: Node, kind: Kind, name: str) -> str:
    ask = {
        Kind.PUBLISHED: observer.get_publishers_info_by_topic,
        Kind.SUBSCRIBED: observer.get_subscriptions_info_by_topic,
    }.get(kind)
    profiles = [each.qos_profile for each in ask(name) if each.node_name == NODE] if ask else []
    if not profiles:
        return ""
    reliable = profiles[0].reliability == QoSReliabilityPolicy.RELIABLE
    latched = profiles[0].durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
    return ("reliable" if reliable else "best effort") + (", transient local" if latched else "")


def difference(found: Found) -> str:
    """What is announced but not described, and the other way round; "" when all is well."""
    described = {(each.kind, full_name(each.name)): each for each in INTERFACES}
    unknown = [f"{name} ({kind.name.lower()}) is not described" for kind, name in found if (kind, name) not in described]
    missing = [
        f"{each.name} ({each.kind.name.lower()}) is not there"
        for key, each in described.items()
        if key not in found and not each.type
    ]
    return "; ".join(unknown + missing)


def wait_for_interfaces(observer: Node) -> Found:
    """What the active node announces, once it fits the descriptions.

    Raises:
        ValueError: it does not.
    """
    deadline = time.monotonic() + _DISCOVERY_SECONDS
    while (problem := difference(found := find_interfaces(observer))) and time.monotonic() < deadline:
        time.sleep(0.1)
    if problem:
        raise ValueError(f"INTERFACES in tools/make_docs.py: {problem}")
    return found


def topics_page(found: Found) -> str:
    """docs/topics.md."""
    sections = []
    for kind in Kind:
        rows = [_row(each, found.get((kind, full_name(each.name)))) for each in INTERFACES if each.kind is kind]
        if rows:
            heads = {
                Kind.SUBSCRIBED: ("topic", "type", "QoS", "what"),
                Kind.PUBLISHED: ("topic", "type", "QoS", "header", "made", "what"),
            }.get(kind, ("name", "type", "what"))
            sections.append(f"## {kind.value}\n\n{_table(heads, rows)}")
    return _page("Topics, services and actions", _TOPICS_TEXT, sections)


def _row(interface: Interface, announced: Announced | None) -> list[str]:
    kind = announced.type if announced else interface.type
    known = [f"`{interface.name}`", kind.replace("/msg/", "/").replace("/srv/", "/").replace("/action/", "/")]
    qos = announced.qos if announced else {Kind.SUBSCRIBED: "best effort", Kind.PUBLISHED: "reliable"}.get(interface.kind, "")
    if interface.kind is Kind.PUBLISHED:
        return [*known, qos, interface.header or "none", interface.computed, interface.text]
    return [*known, *([qos] if interface.kind is Kind.SUBSCRIBED else []), interface.text]


def parameters_page() -> str:
    """docs/parameters.md."""
    rows = [
        [
            f"`{each.name}`",
            _type_name(each),
            f"`{_yaml(each.default)}`",
            _values(each),
            _change(each),
            html.escape(each.text, quote=False),
        ]
        for each in SETTINGS
    ]
    table = _table(("name", "type", "default", "values", "change", "what"), rows)
    bounds = [[f"`{each.name}`", "parameter" if each.most is None else str(each.most), each.unit, each.of] for each in LIMITS]
    limits = _table(("limit", "most", "unit", "of"), bounds)
    return _page("Parameters", _PARAMETERS_TEXT, [table, f"## Limits\n\n{_LIMITS_TEXT}\n\n{limits}"])


def _type_name(setting: Setting) -> str:
    return {bool: "bool", int: "integer", float: "double", str: "string"}[type(setting.default)]


def _values(setting: Setting) -> str:
    if setting.choices:
        return ", ".join(setting.choices)
    if setting.limits is None:
        return "true, false" if isinstance(setting.default, bool) else "any"
    return f"{setting.limits[0]:.10g} to {setting.limits[1]:.10g}" + (f", by {setting.step}" if setting.step > 1 else "")


def _change(setting: Setting) -> str:
    if setting.fixed:
        return "at the start"
    return "reloads" if any(setting.name in inputs for inputs in MODEL_PARAMETERS.values()) else "any time"


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _page(title: str, text: str, sections: Sequence[str]) -> str:
    return "\n\n".join([f"# {title}", "<!-- Made by tools/make_docs.py: make docs -->", text, *sections]) + "\n"


def main() -> None:
    """Write both files."""
    docs = OutputFolder(DOCS)
    docs.write_text("parameters.md", parameters_page())
    settings = [word for name, value in NODE_PARAMETERS.items() for word in ("-p", f"{name}:={_yaml(value)}")]
    node = subprocess.Popen([sys.executable, "-m", "decaf_ros.ros.node", "--ros-args", *settings])
    rclpy.init()
    try:
        with DecafClient(f"/{NODE}", name="make_docs") as client:
            client.wait_until_ready()
            docs.write_text("topics.md", topics_page(wait_for_interfaces(client.node)))
    finally:
        node.send_signal(signal.SIGINT)
        node.wait()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
