"""``decaf_sim_camera``: a camera before the robot's table, and the arm on it. The node is :mod:`decaf_ros.ros.table_camera`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import cv2
import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from decaf_ros.ros.arguments import check_arguments
from decaf_ros.ros.ending import Ending
from decaf_ros.ros.startup import REFUSALS, refusal, start_ros
from decaf_ros.synthetic.table.extras import SimulationMissingError
from decaf_ros.text import brief

_LOOK_SECONDS = 0.1  # how often it is looked whether the process is to end
_DOCUMENTATION = "ros2 param list /sim_camera, and ros2 param describe, once it runs"


def main(args: Sequence[str] | None = None, ending: Ending | None = None) -> None:
    """Run the node until it is interrupted, and end the process."""
    ending = ending or Ending("decaf_sim_camera", expendable=True)
    words = check_arguments("decaf_sim_camera", "A simulated camera before a table with a robot arm.", _DOCUMENTATION, args)
    start_ros("decaf_sim_camera", words, signal_handler_options=SignalHandlerOptions.NO)
    try:
        from decaf_ros.ros.table_camera import SimCamera
    except SimulationMissingError as error:
        raise SystemExit(f"decaf_sim_camera: {error}") from error
    ending.expendable = False
    cv2.setNumThreads(1)
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
    # A picture that is being drawn, and a table that is being prepared, cannot be stopped.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
