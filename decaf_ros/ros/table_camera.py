"""The node that films the robot's table, in colour and depth, with the ground truth, and moves its arm when it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import TimeReference

from decaf_ros import limits
from decaf_ros.ros.conversions import make_header, stamp_from_ns
from decaf_ros.ros.logs import forward_logs
from decaf_ros.ros.painter import Painter
from decaf_ros.ros.parameter_services import LimitedParameterService
from decaf_ros.ros.qos import LATCHED_QOS
from decaf_ros.ros.table_arm import ArmTopics
from decaf_ros.ros.table_topics import DEPTH_ENCODINGS, IMAGE_ENCODINGS, RELIABILITIES, ViewTopics
from decaf_ros.synthetic.table.reel import Reel, Showing, Source
from decaf_ros.synthetic.table.sampling import FIRST_TRAINING_SEED
from decaf_ros.synthetic.table.scene import scene_from_json
from decaf_ros.synthetic.table.simulation import Simulation
from decaf_ros.text import brief, quoted, quoted_path

_LARGEST_FILE = 1 << 20  # bytes


class SimCamera(Node):
    """Films tables, of seeds or of a scene file, in step with the node's clock: see :class:`ViewTopics` for what it publishes.

    Each image shows the table at its stamp; where drawing takes longer than there is time, images are left out. None is drawn
    while nobody listens. ``scene`` (TimeReference, latched) tells what is shown, its ``source``, and which time of the scene,
    ``time_ref``, it was at a time of the clock, its stamp. Until a scene's end one sees what ``sample_episode(seed).render``
    gives at that time. Then the arm takes orders: see :class:`ArmTopics`.

    Setting ``seeds`` while it runs starts the new tables, each at its time 0, some seconds later, when the first one is ready.
    Parameters: see :func:`_declare`.

    Raises:
        ParameterException: a parameter was given a value of another type, or out of its range.
        ValueError: a parameter was given a value that it cannot have for another reason.
    """

    def __init__(self) -> None:
        super().__init__("sim_camera", start_parameter_services=False)
        LimitedParameterService(self)
        forward_logs(self.get_logger())
        _declare(self)
        _require_choice(self, "reliability", tuple(RELIABILITIES))
        _require_choice(self, "encoding", IMAGE_ENCODINGS)
        _require_choice(self, "depth_encoding", DEPTH_ENCODINGS)
        frames = (self._text("world_frame"), self._text("frame_id"))
        if frames[0] == frames[1]:
            raise ValueError(f"world_frame and frame_id are two frames, both are {quoted(frames[0])}")
        sources = self._sources()
        self._size_hw = (self.get_parameter("height").value, self.get_parameter("width").value)
        depth = self._text("depth_encoding") if self.get_parameter("depth").value else None
        self._views = ViewTopics(self, *frames, self._text("encoding"), depth, self._text("reliability"))
        self._arm = ArmTopics(self, *frames)
        self._scenes = self.create_publisher(TimeReference, "scene", LATCHED_QOS)
        self._shown: Showing | None = None
        period_s = 1.0 / self.get_parameter("rate").value
        self._reel = Reel(self._size_hw, self.get_parameter("scene_seconds").value, period_s)
        self._reel.show(sources)
        self._painter = Painter()  # so that orders and parameters do not wait for a picture
        self._painter.start()
        self.add_on_set_parameters_callback(self._check_seeds)
        self.add_post_set_parameters_callback(self._change_seeds)
        self.create_timer(period_s, self._tick)

    def _tick(self) -> None:
        stamp_ns = self.get_clock().now().nanoseconds
        self._painter.submit(lambda: self._film(stamp_ns))

    def _film(self, stamp_ns: int) -> None:
        showing = self._reel.look(stamp_ns)
        if showing is None:
            return
        if showing is not self._shown:
            self._announce(showing)
        time_s = showing.time_at(stamp_ns)
        showing.table.advance(time_s)
        self._arm.serve(showing)
        if self._views.heard:
            self._views.publish(showing.table.render(time_s, self._size_hw), stamp_ns)

    def _announce(self, showing: Showing) -> None:
        self._shown = showing
        seconds = stamp_from_ns(round(showing.time_s * 1e9))
        header = make_header(showing.stamp_ns, "")
        self._scenes.publish(TimeReference(header=header, time_ref=seconds, source=showing.name))
        self.get_logger().info(f"filming {showing.name} from its time {showing.time_s:.2f} s on")

    def _sources(self) -> list[Source]:
        path = self._text("scene_file")
        seeds = self.get_parameter("seeds").value
        _require_seeds(seeds)
        return [source_of_file(Path(path))] if path else _sources_of_seeds(seeds)

    def _text(self, name: str) -> str:
        return str(self.get_parameter(name).value)

    def _check_seeds(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            for parameter in parameters:
                if parameter.name == "seeds":
                    _require_seeds(parameter.value)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _change_seeds(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == "seeds":
                self._reel.show(_sources_of_seeds(parameter.value))


def _declare(node: Node) -> None:
    def fixed(text: str, **limits: object) -> ParameterDescriptor:
        return ParameterDescriptor(description=text, read_only=True, **limits)

    pixels = [IntegerRange(from_value=32, to_value=4096)]
    seeds = f"Tables to film, by seed. The embedded models were trained on seeds from {FIRST_TRAINING_SEED} on."
    node.declare_parameter("seeds", [1], ParameterDescriptor(description=seeds))
    node.declare_parameter("scene_file", "", fixed("A scene as JSON, to be filmed in place of seeds; docs/table.md."))
    node.declare_parameter("scene_seconds", 0.0, fixed("How long each table is shown before the next; 0 stays with the first."))
    rate_range = [FloatingPointRange(from_value=0.1, to_value=1000.0)]
    node.declare_parameter("rate", 10.0, fixed("Images per second.", floating_point_range=rate_range))
    node.declare_parameter("height", 192, fixed("Of the image, in pixels.", integer_range=pixels))
    node.declare_parameter("width", 256, fixed("Of the image, in pixels.", integer_range=pixels))
    node.declare_parameter("encoding", "rgb8", fixed("rgb8 or mono8."))
    node.declare_parameter("depth", False, fixed("Whether to publish depth, too."))
    node.declare_parameter("depth_encoding", "32FC1", fixed("32FC1 (metres) or 16UC1 (millimetres)."))
    node.declare_parameter("reliability", "best_effort", fixed("best_effort or reliable."))
    node.declare_parameter("frame_id", "camera", fixed("The camera's optical frame; goes into the header of every image."))
    node.declare_parameter("world_frame", "table", fixed("The table's frame: x away from the robot, y to its left, z up."))


def _require_choice(node: Node, name: str, choices: Sequence[str]) -> None:
    value = node.get_parameter(name).value
    if value not in choices:
        raise ValueError(f"parameter {name} must be one of {', '.join(choices)}; got {quoted(str(value))}")


def _require_seeds(seeds: Sequence[int]) -> None:
    limits.SEEDS.require(len(seeds), "the parameter seeds")
    if not seeds or min(seeds) < 0:
        raise ValueError("seeds must be one or more numbers from 0 on")


def _sources_of_seeds(seeds: Sequence[int]) -> list[Source]:
    return [Source(f"seed {seed}", int(seed)) for seed in seeds]


def source_of_file(path: Path) -> Source:
    """The scene of a file.

    Raises:
        ValueError: it cannot be read, holds no scene, or one that cannot be: the message says why.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
        if len(text) > _LARGEST_FILE:
            raise ValueError(f"a scene file has at most {_LARGEST_FILE} bytes")
        scene = scene_from_json(text)
        Simulation(scene)
    except OSError as error:
        raise ValueError(f"scene_file {quoted_path(path)} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"scene_file {quoted_path(path)}: {brief(error)}") from error
    return Source(str(path), scene)
