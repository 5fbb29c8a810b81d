"""decaf_node on a robot's camera: ros2 launch decaf_ros decaf.launch.py image:=/camera/camera/color/image_raw"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

SHARE = FindPackageShare("decaf_ros")
SWITCHES = {"true": True, "1": True, "false": False, "0": False}  # as launch's own conditions read them


def as_switch(text: str) -> bool:
    """True or false; anything else ends the launch, which would go on with a guess otherwise."""
    try:
        return SWITCHES[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither true nor false") from None


# By parameter: how its text becomes a value. A path or an id that looks like a number must stay a text.
PARAMETERS = {
    "mllm_model": str,
    "tracker_model": str,
    "device": str,
    "autostart": as_switch,
    "use_sim_time": as_switch,
    "depth": as_switch,
}
# By argument: the topic of the node that it renames.
TOPICS = {"image": "image", "depth_image": "depth", "camera_info": "camera_info"}
# What config/decaf.rviz shows of the node.
SHOWN = ("overlay", "heatmap", "markers", "points")
ARGUMENTS = {
    "image": ("/camera/image_raw", "Topic of the camera (sensor_msgs/Image)."),
    "depth": ("", "true to say where objects are in space, by the topics depth_image and camera_info."),
    "depth_image": ("/camera/depth/image_raw", "Topic of the depth camera (sensor_msgs/Image), registered to the image."),
    "camera_info": ("/camera/camera_info", "Topic of the camera's intrinsics (sensor_msgs/CameraInfo)."),
    "namespace": ("", "Namespace of the node."),
    "name": ("decaf_node", "Name of the node."),
    "params_file": (PathJoinSubstitution([SHARE, "config", "decaf.yaml"]), "Parameters; what is given below goes before it."),
    "mllm_model": ("", "Language model: embedded, a local path, or a hub id."),
    "tracker_model": ("", "SAM 2 model: embedded, a local path, or a hub id."),
    "device": ("", "auto, cpu, cuda, cuda:1, ..."),
    "autostart": ("", "false leaves configuring and activating to a lifecycle manager or ros2 lifecycle set."),
    "use_sim_time": ("", "true for the time on /clock, as ros2 bag play --clock publishes it."),
    "log_level": ("info", "debug, info, warn or error."),
    "rviz": ("false", "Show the overlay in RViz."),
    "fixed_frame": (
        "camera",
        "Frame of RViz's 3D view: the frame_id of the camera's images, or one that tf knows.",
    ),
}


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """RViz on demand, and the node with the parameters that were given; the parameter file has a say on the others."""
    texts = {name: LaunchConfiguration(name).perform(context) for name in PARAMETERS}
    given = {name: PARAMETERS[name](text) for name, text in texts.items() if text}
    node = LifecycleNode(
        package="decaf_ros",
        executable="decaf_node",
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), given],
        remappings=[(topic, LaunchConfiguration(argument)) for argument, topic in TOPICS.items()],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        output="screen",
        # A stage of a query that runs when the node is interrupted comes to its end, which launch's 5 s may not be enough for.
        sigterm_timeout=LaunchConfiguration("sigterm_timeout", default="30"),
    )
    node_name = [LaunchConfiguration("namespace"), "/", LaunchConfiguration("name")]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        # Its 3D view looks up transforms of the time of the images.
        parameters=[{"use_sim_time": given.get("use_sim_time", False)}],
        remappings=[
            ("/image", LaunchConfiguration("image")),
            *((f"/decaf_node/{topic}", [*node_name, "/", topic]) for topic in SHOWN),
        ],
        arguments=["-d", PathJoinSubstitution([SHARE, "config", "decaf.rviz"]), "-f", LaunchConfiguration("fixed_frame")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    # RViz first: when it is not installed, launch fails before it has a node to leave behind.
    return [rviz, node]


def generate_launch_description() -> LaunchDescription:
    """What ``start`` makes of the arguments: one that means nothing ends the launch before anything runs."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
