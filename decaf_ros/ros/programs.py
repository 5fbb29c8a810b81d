"""What ``decaf_node`` and ``decaf_sim_camera`` run. Signals are heeded from the first moment on, while torch is imported."""

from __future__ import annotations

from decaf_ros.ros.ending import Ending


def node() -> None:
    """``decaf_node``."""
    ending = Ending("decaf_node", expendable=True)
    from decaf_ros.ros.node import main

    main(ending=ending)


def sim_camera() -> None:
    """``decaf_sim_camera``."""
    ending = Ending("decaf_sim_camera", expendable=True)
    from decaf_ros.ros.sim_camera import main

    main(ending=ending)
