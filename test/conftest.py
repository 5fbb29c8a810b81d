"""Keeps ROS tests on this machine, and apart from whatever else runs on it."""

import os

# Read by rclpy when a context is created, and handed on to child processes. Domains above 101 collide with ephemeral ports.
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
