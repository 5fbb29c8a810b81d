"""decaf_node on a robot's camera: ros2 launch decaf_ros decaf.launch.py image:=/camera/color/image_raw rviz:=true"""

from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

SHARE = FindPackageShare("decaf_ros")
ARGUMENTS = {
    "image": ("/camera/image_raw", "Topic of the camera (sensor_msgs/Image)."),
    "namespace": ("", "Namespace of the node."),
    "name": ("decaf_node", "Name of the node."),
    "mllm_model": ("embedded", "Language model: embedded, a local path, or a hub id."),
    "tracker_model": ("embedded", "SAM 2 model: embedded, a local path, or a hub id."),
    "device": ("auto", "auto, cpu, cuda, cuda:1, ..."),
    "params_file": (PathJoinSubstitution([SHARE, "config", "decaf.yaml"]), "Parameters; the arguments above go before it."),
    "log_level": ("info", "debug, info, warn or error."),
    "rviz": ("false", "Show the overlay in RViz."),
}


def generate_launch_description() -> LaunchDescription:
    """The node, and RViz on demand."""
    given = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    # Without the type, a path or id that looks like a number would become one.
    models = {name: ParameterValue(given[name], value_type=str) for name in ("mllm_model", "tracker_model", "device")}
    node = Node(
        package="decaf_ros",
        executable="decaf_node",
        name=given["name"],
        namespace=given["namespace"],
        parameters=[given["params_file"], models],
        remappings=[("image", given["image"])],
        ros_arguments=["--log-level", given["log_level"]],
        output="screen",
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        remappings=[
            (f"/decaf_node/{topic}", [given["namespace"], "/", given["name"], "/", topic]) for topic in ("overlay", "heatmap")
        ],
        arguments=["-d", PathJoinSubstitution([SHARE, "config", "decaf.rviz"])],
        condition=IfCondition(given["rviz"]),
    )
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, node, rviz])
