"""A camera that films the procedural world, in colour and depth, with the ground truth on a topic of its own."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import rclpy
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from decaf_ros import limits
from decaf_ros.datatypes import Float32Array, UInt8Array
from decaf_ros.ros.arguments import check_arguments
from decaf_ros.ros.conversions import image_from_array, make_header
from decaf_ros.ros.ending import Ending
from decaf_ros.ros.startup import REFUSALS, refusal, start_ros
from decaf_ros.synthetic.world import FIRST_TRAINING_SEED, Scene, sample_scene
from decaf_ros.text import brief, quoted

_DEPTH = 10
_LOOK_SECONDS = 0.1  # how often it is looked whether the process is to end
_DOCUMENTATION = "ros2 param list /sim_camera, and ros2 param describe, once it runs"
_RELIABILITY = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}


class SimCamera(Node):
    """Publishes ``image`` (rgb8 or mono8) and ``ground_truth`` (mono16: 0 for the ground, ``i + 1`` for body ``i``).

    With the parameter ``depth`` also ``depth`` (32FC1 metres or 16UC1 millimetres) and ``camera_info``, sent before the image.
    All carry the same stamp, the time of the node's clock at which the world is drawn. Parameters: see :func:`_declare`.
    Setting ``seeds`` while it runs starts the new worlds at their time 0.

    Raises:
        ParameterException: a parameter was given a value of another type, or out of its range.
        ValueError: a parameter was given a value that it cannot have for another reason.
    """

    def __init__(self) -> None:
        super().__init__("sim_camera")
        _declare(self)
        _require_choice(self, "reliability", tuple(_RELIABILITY))
        _require_choice(self, "encoding", ("rgb8", "mono8"))
        _require_choice(self, "depth_encoding", ("32FC1", "16UC1"))
        _require_seeds(self.get_parameter("seeds").value)
        self._scenes = self._make_scenes(self.get_parameter("seeds").value)
        self._scene_seconds = self.get_parameter("scene_seconds").value
        self._frame_id = self.get_parameter("frame_id").value
        self._encoding = self.get_parameter("encoding").value
        reliability = _RELIABILITY[self.get_parameter("reliability").value]
        qos = QoSProfile(depth=_DEPTH, reliability=reliability)
        self._images = self.create_publisher(Image, "image", qos)
        self._has_depth = self.get_parameter("depth").value
        self._depth_encoding = self.get_parameter("depth_encoding").value
        if self._has_depth:
            self._depths = self.create_publisher(Image, "depth", qos)
            self._camera_infos = self.create_publisher(CameraInfo, "camera_info", qos)
        self._truths = self.create_publisher(Image, "ground_truth", QoSProfile(depth=_DEPTH))
        self.add_on_set_parameters_callback(self._check_seeds)
        self.add_post_set_parameters_callback(self._change_seeds)
        self._start_ns = self.get_clock().now().nanoseconds
        self.create_timer(1.0 / self.get_parameter("rate").value, self._film)

    def _film(self) -> None:
        stamp_ns = self.get_clock().now().nanoseconds
        time_s = (stamp_ns - self._start_ns) * 1e-9
        scene = self._scenes[0]
        if self._scene_seconds > 0:
            shown, time_s = divmod(time_s, self._scene_seconds)
            scene = self._scenes[int(shown) % len(self._scenes)]
        view = scene.render(time_s)
        header = make_header(stamp_ns, self._frame_id)
        if self._has_depth:
            self._camera_infos.publish(_camera_info(scene, header))
            self._depths.publish(_depth_image(scene.render_depth(time_s), self._depth_encoding, header))
        self._images.publish(image_from_array(self._encoded(view.image_rgb), self._encoding, header))
        if self._truths.get_subscription_count() > 0:
            self._truths.publish(image_from_array(view.instances_hw.astype(np.uint16), "mono16", header))

    def _encoded(self, image_rgb: UInt8Array) -> UInt8Array:
        if self._encoding == "rgb8":
            return image_rgb
        return np.asarray(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)

    def _make_scenes(self, seeds: list[int]) -> list[Scene]:
        size_hw = (self.get_parameter("height").value, self.get_parameter("width").value)
        return [sample_scene(seed, size_hw) for seed in seeds]

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
                self._scenes = self._make_scenes(parameter.value)
                self._start_ns = self.get_clock().now().nanoseconds


def _camera_info(scene: Scene, header: Header) -> CameraInfo:
    height, width = scene.size_hw
    focal, cx, cy = scene.focal_px, 0.5 * (width - 1), 0.5 * (height - 1)
    return CameraInfo(
        header=header,
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def _depth_image(metres_hw: Float32Array, encoding: str, header: Header) -> Image:
    if encoding == "32FC1":
        return image_from_array(metres_hw, encoding, header)
    image = image_from_array(np.round(metres_hw * 1e3).astype(np.uint16), "mono16", header)
    image.encoding = encoding  # the same bytes, other units
    return image


def _declare(node: Node) -> None:
    def fixed(text: str, **limits: object) -> ParameterDescriptor:
        return ParameterDescriptor(description=text, read_only=True, **limits)

    pixels = [IntegerRange(from_value=32, to_value=4096)]
    seeds = f"Worlds to film, by seed. The embedded models were trained on seeds from {FIRST_TRAINING_SEED} on."
    node.declare_parameter("seeds", [1], ParameterDescriptor(description=seeds))
    node.declare_parameter("scene_seconds", 0.0, fixed("How long each world is shown before the next; 0 stays with the first."))
    rate_range = [FloatingPointRange(from_value=0.1, to_value=1000.0)]
    node.declare_parameter("rate", 10.0, fixed("Images per second.", floating_point_range=rate_range))
    node.declare_parameter("height", 192, fixed("Of the image, in pixels.", integer_range=pixels))
    node.declare_parameter("width", 256, fixed("Of the image, in pixels.", integer_range=pixels))
    node.declare_parameter("encoding", "rgb8", fixed("rgb8 or mono8."))
    node.declare_parameter("depth", False, fixed("Whether to publish depth and camera_info, too."))
    node.declare_parameter("depth_encoding", "32FC1", fixed("32FC1 (metres) or 16UC1 (millimetres)."))
    node.declare_parameter("reliability", "best_effort", fixed("best_effort or reliable."))
    node.declare_parameter("frame_id", "camera", fixed("Goes into the header of every image."))


def _require_choice(node: Node, name: str, choices: tuple[str, ...]) -> None:
    value = node.get_parameter(name).value
    if value not in choices:
        raise ValueError(f"parameter {name} must be one of {', '.join(choices)}; got {quoted(str(value))}")


def _require_seeds(seeds: Sequence[int]) -> None:
    limits.SEEDS.require(len(seeds), "the parameter seeds")
    if not seeds or min(seeds) < 0:
        raise ValueError("seeds must be one or more numbers from 0 on")


def main(args: Sequence[str] | None = None, ending: Ending | None = None) -> None:
    """Run the node until it is interrupted."""
    ending = ending or Ending("decaf_sim_camera")
    ending.expendable = False
    words = check_arguments("decaf_sim_camera", "A simulated camera.", _DOCUMENTATION, args)
    start_ros("decaf_sim_camera", words, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = SimCamera()
    except REFUSALS as error:
        raise SystemExit(f"decaf_sim_camera: {refusal(error)}") from error
    except (ParameterException, ValueError) as error:
        raise SystemExit(f"decaf_sim_camera: {brief(error)}") from error
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    ending.stage = "filming"
    try:
        while not ending.asked.is_set():
            executor.spin_once(timeout_sec=_LOOK_SECONDS)
    except ExternalShutdownException:
        pass
    finally:
        ending.stage = "leaving ROS"
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
