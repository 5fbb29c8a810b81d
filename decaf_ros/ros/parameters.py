"""The node's ROS parameters: names, defaults, ranges and help in one table, and the settings that are made from them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from decaf_ros import limits
from decaf_ros.config import GROUNDERS, GroundingConfig, SessionConfig
from decaf_ros.models.chat_model import MllmOptions
from decaf_ros.ros.images import DEFAULT_MAX_PIXELS, IMAGE_TRANSPORTS
from decaf_ros.text import brief, quoted

Value = str | int | float | bool
SettingsT = TypeVar("SettingsT")

# Longer than any name, so that there is nothing near it.
_NAME_CHARACTERS = 80
# Parameters that exist on every node.
_OF_ROS = ("use_sim_time", "start_type_description_service")


@dataclass(frozen=True)
class Setting:
    """One ROS parameter.

    Attributes:
        name: as in the class it goes to.
        default: tells the type, too.
        text: one sentence for ``ros2 param describe``.
        limits: least and greatest value of a number.
        step: a whole number must be a multiple of it.
        choices: all values of a word.
        fixed: read when the node starts, and not changed later.
    """

    name: str
    default: Value
    text: str
    limits: tuple[float, float] | None = None
    step: int = 1
    choices: tuple[str, ...] = ()
    fixed: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """What ROS is told about the parameter."""
        described = ParameterDescriptor(description=self.text, read_only=self.fixed)
        if self.choices:
            described.additional_constraints = "one of: " + ", ".join(self.choices)
        if self.limits and isinstance(self.default, int):
            least, greatest = map(int, self.limits)
            described.integer_range = [IntegerRange(from_value=least, to_value=greatest, step=self.step)]
        elif self.limits:
            described.floating_point_range = [FloatingPointRange(from_value=self.limits[0], to_value=self.limits[1])]
        return described

    def check(self, value: Value) -> None:
        """Raise ``ValueError`` unless the value is one of the choices, if there are any, and a text is a short line."""
        if isinstance(value, str):
            limits.TEXT.require(len(value), self.name)
            if not value.isprintable():
                raise ValueError(f"{self.name} must be one line that can be printed, got {quoted(value)}")
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name} must be one of {', '.join(self.choices)}; got {quoted(str(value))}")


_MODELS = "embedded, a local path, or a hub id such as"

SETTINGS = (
    Setting("autostart", True, "Configure and activate at the start; false leaves that to a lifecycle manager.", fixed=True),
    Setting("mllm_model", "embedded", f"Video language model: {_MODELS} Qwen/Qwen2.5-VL-7B-Instruct."),
    Setting("tracker_model", "embedded", f"SAM 2 model: {_MODELS} facebook/sam2.1-hiera-large."),
    Setting(
        "tracker_image_size",
        0,
        "Input size of the mask model, the side of a square in pixels: 1024 or 512 for published models; 0 is the model's own.",
        (0, 4096),
        step=32,
    ),
    Setting(
        "compile_tracker", False, "Compile the mask model's image encoder: minutes when it is loaded, less on every frame."
    ),
    Setting(
        "memory_gating",
        True,
        "Let objects that are not seen keep the memory of when they were, in place of frames without them.",
    ),
    Setting(
        "motion_gating",
        True,
        "Give up parts of a mask that lie apart from where the object was heading, such as its double that passed it.",
    ),
    Setting("device", "auto", "Where the models run: auto (cuda if there is one), cpu, cuda, cuda:1, ..."),
    Setting(
        "dtype",
        "auto",
        "Number format of the models: auto is float32 on the CPU, bfloat16 on a GPU; float16 for SAM 2 where a GPU lacks that.",
        choices=("auto", "float32", "bfloat16", "float16"),
    ),
    Setting(
        "cpu_threads",
        0,
        "CPU threads for each of the two model threads, live and worker; 0: half of the cores.",
        (0, 1024),
        fixed=True,
    ),
    # The camera, and what is shown of its images
    Setting(
        "image_transport",
        "raw",
        "How images arrive: raw, or compressed on <image>/compressed.",
        choices=IMAGE_TRANSPORTS,
        fixed=True,
    ),
    Setting(
        "max_image_pixels",
        DEFAULT_MAX_PIXELS,
        "Images of more pixels are refused before they are decoded.",
        (1, 1 << 28),
        fixed=True,
    ),
    Setting("jpeg_quality", 90, "Of ~/overlay/compressed and ~/heatmap/compressed.", (1, 100)),
    Setting("camera_timeout_seconds", 2.0, "Silence of the camera after which diagnostics warn.", (0.1, 3600.0)),
    Setting(
        "max_frame_age_seconds",
        0.0,
        "Images with a stamp further back than this by the node's clock are dropped; 0 takes all of them.",
        (0.0, 3600.0),
    ),
    Setting("depth", False, "Listen to depth and camera_info, and say where objects are in space.", fixed=True),
    Setting(
        "depth_slop_seconds",
        0.05,
        "Images and depth images belong together when their stamps differ by less.",
        (0.0, 10.0),
        fixed=True,
    ),
    # SessionConfig
    Setting(
        "frame_wait_seconds",
        SessionConfig.frame_wait_seconds,
        "How long a query waits for an image when there is none yet: at the start, or after a reset.",
        (0.0, 60.0),
    ),
    Setting("key_frames", SessionConfig.key_frames, "Most key frames that a query looks at.", (1, 64)),
    Setting("window_seconds", SessionConfig.window_seconds, "How far back the frame window reaches.", (0.1, 600.0), fixed=True),
    Setting("window_hz", SessionConfig.window_hz, "Key frames kept per second.", (0.1, 60.0), fixed=True),
    Setting(
        "catch_up_frames",
        SessionConfig.catch_up_frames,
        "Most frames kept while a query runs, to carry its objects to the live image.",
        (2, 1024),
    ),
    Setting(
        "catch_up_seconds",
        SessionConfig.catch_up_seconds,
        "How long that may take, but for eight steps: fewer of the frames are used where one takes long.",
        (0.05, 60.0),
    ),
    Setting(
        "time_jump_seconds",
        SessionConfig.time_jump_seconds,
        "A stamp further back than this is a new start (a looping bag), not a late frame; so is the fifth in a row.",
        (0.0, 3600.0),
    ),
    Setting(
        "refresh_hz",
        SessionConfig.refresh_hz,
        "How often heat maps are computed anew between queries, in at most half of the worker's time; 0 switches it off.",
        (0.0, 60.0),
    ),
    Setting(
        "read_ahead",
        SessionConfig.read_ahead,
        "Read key frames before anybody asks: off, auto (half of the time that tracking leaves), or on (all idle time).",
        choices=("off", "auto", "on"),
    ),
    Setting(
        "reacquire",
        SessionConfig.reacquire,
        "Look for an object that is lost, or that the heat map disagrees with, by asking its query again.",
    ),
    Setting(
        "reacquire_seconds",
        SessionConfig.reacquire_seconds,
        "How long an object must be lost before its query is asked again, and the pause after the first attempt.",
        (0.0, 600.0),
    ),
    Setting(
        "reacquire_longest_pause_seconds",
        SessionConfig.reacquire_longest_pause_seconds,
        "Longest pause between attempts, to which it grows while they fail.",
        (0.0, 3600.0),
    ),
    Setting(
        "reacquire_window_seconds",
        SessionConfig.reacquire_window_seconds,
        "How far back an attempt to find a lost object again looks.",
        (0.1, 600.0),
    ),
    Setting(
        "reacquire_consistency",
        SessionConfig.reacquire_consistency,
        "Attention consistency below which a heat map disagrees with a mask.",
        (-1.0, 1.0),
    ),
    Setting(
        "reacquire_after_refreshes",
        SessionConfig.reacquire_after_refreshes,
        "Heat maps in a row that must disagree with a mask before its object is in doubt.",
        (1, 1000),
    ),
    Setting(
        "same_object_likeness",
        SessionConfig.same_object_likeness,
        "Likeness of appearances from which a find is the object that was lost; -1 takes any.",
        (-1.0, 1.0),
    ),
    Setting(
        "max_standing_queries",
        SessionConfig.max_standing_queries,
        "Queries that may wait for what is not there yet (wait_seconds); more are refused.",
        (0, 1000),
    ),
    Setting(
        "standing_longest_pause_seconds",
        SessionConfig.standing_longest_pause_seconds,
        "Longest pause between two looks for it, to which pauses grow while nothing changes before the camera.",
        (0.0, 3600.0),
    ),
    Setting("max_queries", SessionConfig.max_queries, "Queries that may be active or wait; more are refused.", (1, 1000)),
    Setting(
        "max_expression_length",
        SessionConfig.max_expression_length,
        "Longest expression, in characters.",
        (1, 100_000),
    ),
    Setting(
        "max_pending_queries",
        SessionConfig.max_pending_queries,
        "Queries that may wait; more are refused.",
        (1, 1000),
    ),
    Setting("max_objects", SessionConfig.max_objects, "Objects followed at a time.", (1, 65535)),
    # GroundingConfig
    Setting(
        "grounder",
        GroundingConfig.grounder,
        "Where candidates come from: decaf (points where the model looks), box (boxes that it answers with), or both.",
        choices=GROUNDERS,
    ),
    Setting(
        "paths",
        GroundingConfig.paths,
        "Attention paths that are fused; video and frame alone are ablations.",
        choices=("both", "video", "frame"),
    ),
    Setting("contrast", GroundingConfig.contrast, "Subtract the attention of the background prompt."),
    Setting(
        "point_threshold",
        GroundingConfig.point_threshold,
        "Heat from which a grid cell becomes a point prompt.",
        (0.0, 1.0),
    ),
    Setting(
        "tracklet_threshold",
        GroundingConfig.tracklet_threshold,
        "Score above which a tracklet becomes an object; if none passes, the best one does.",
        (0.0, 1.0),
    ),
    Setting(
        "min_presence",
        GroundingConfig.min_presence,
        "Probability, by the language model, that anything fits, below which a query finds nothing; 0 does not ask.",
        (0.0, 1.0),
    ),
    Setting("nms_iou", GroundingConfig.nms_iou, "IoU above which two masks are the same object.", (0.0, 1.0)),
    Setting(
        "prefix_cache_mb",
        GroundingConfig.prefix_cache_mb,
        "Most MiB of what was read of key frames, which is kept for the next question about them; 0 reads them anew.",
        (0, 1 << 20),
    ),
    # MllmOptions
    Setting("video_tokens", MllmOptions.video_tokens, "Most visual tokens of a frame on the video path.", (1, 16384)),
    Setting("frame_tokens", MllmOptions.frame_tokens, "Most visual tokens of a frame on the frame path.", (1, 16384)),
    Setting("multi_scale", MllmOptions.multi_scale, "Read single frames at twice the resolution of the video."),
    Setting(
        "batch_tokens", MllmOptions.batch_tokens, "Most tokens of one batch on the frame path: bounds memory.", (1, 1 << 20)
    ),
)

_BY_NAME = {setting.name: setting for setting in SETTINGS}


class ParameterError(Exception):
    """A parameter has a value that it cannot have; the message names both."""


def declare_parameters(node: Node) -> dict[str, Value]:
    """Declare all parameters.

    Returns:
        Values by name: the defaults, or what the command line and parameter files say.

    Raises:
        ParameterError: one of these is of the wrong type or out of its range.
    """
    for setting in SETTINGS:
        try:
            declared: Parameter[Any] = node.declare_parameter(setting.name, setting.default, setting.descriptor())
            setting.check(declared.value)
        except (ParameterException, ValueError) as error:
            raise ParameterError(f"parameter {setting.name}: {brief(error)}") from error
    values = current_values(node)
    try:
        check_values(values)
    except ValueError as error:
        raise ParameterError(f"parameter {brief(error)}") from error
    return values


def current_values(node: Node) -> dict[str, Value]:
    """All parameters by name."""
    return {name: node.get_parameter(name).value for name in _BY_NAME}


def unknown_parameters(given: Iterable[str]) -> list[str]:
    """What is wrong with each name that is no parameter of the node, and which one was probably meant."""
    unknown = [name for name in given if name not in _BY_NAME and name not in _OF_ROS and not name.startswith("qos_overrides.")]
    return [f"there is no parameter {brief(name, _NAME_CHARACTERS)}{_meant(name)}" for name in unknown]


def _meant(name: str) -> str:
    nearest = difflib.get_close_matches(name, _BY_NAME, n=1) if len(name) <= _NAME_CHARACTERS else []
    return "".join(f": did you mean {each}?" for each in nearest)


def check_values(values: Mapping[str, Any]) -> None:
    """Check what ROS does not, or not as strictly: it takes numbers a millionth beyond a limit.

    Args:
        values: of all parameters, as they are to be; others than the node's own are ignored.

    Raises:
        ValueError: a word that is none of its parameter's choices, a text too long or not to be printed, or a number that the
            session or a query refuses.
    """
    for name, value in values.items():
        if name in _BY_NAME:
            _BY_NAME[name].check(value)
    for kind in (SessionConfig, GroundingConfig):
        settings_for(kind, values)


def names_for(kind: type) -> tuple[str, ...]:
    """Parameters that bear the names of fields of a settings class."""
    return tuple(each.name for each in fields(kind) if each.name in _BY_NAME)


def settings_for(kind: type[SettingsT], values: Mapping[str, Value]) -> SettingsT:
    """Build a settings class from the parameters that bear the names of its fields.

    Raises:
        ValueError: a value that the class refuses.
    """
    return kind(**{name: values[name] for name in names_for(kind)})
