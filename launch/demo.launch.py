"""A simulated camera and decaf_node with the embedded models: ros2 launch decaf_ros demo.launch.py seeds:="[3]" """

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Node and camera, both on the topic /image; RViz on demand."""
    declared = [
        DeclareLaunchArgument("seeds", default_value="[1]", description="Scenes to film, by seed, as a YAML list."),
        DeclareLaunchArgument("rate", default_value="10.0", description="Images per second."),
        DeclareLaunchArgument("rviz", default_value="false", description="Show the overlay in RViz."),
    ]
    camera = Node(
        package="decaf_ros",
        executable="decaf_sim_camera",
        name="sim_camera",
        parameters=[
            {
                "seeds": LaunchConfiguration("seeds"),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
            }
        ],
        output="screen",
    )
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([FindPackageShare("decaf_ros"), "launch", "decaf.launch.py"])),
        launch_arguments={"image": "/image", "rviz": LaunchConfiguration("rviz")}.items(),
    )
    # The camera last: what is wrong with the arguments of the node ends the launch before there is anything to leave behind.
    return LaunchDescription([*declared, node, camera])
