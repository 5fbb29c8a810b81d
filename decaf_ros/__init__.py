"""Language-driven object tracking for robots: DecAF attention fusion and SAM 2 as a ROS 2 perception node."""

from pkgutil import extend_path

# The generated interfaces (decaf_ros.action, .msg and .srv) may be installed in another prefix than these sources.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
