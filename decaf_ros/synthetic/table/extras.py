"""What the simulation needs beyond the package's own requirements, loaded with an error that says how to get it."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class SimulationMissingError(ImportError):
    """MuJoCo, or what renders its worlds, is not installed."""


def load(name: str) -> Any:
    """The module of this name, of the extra ``sim``.

    Raises:
        SimulationMissingError: it is not installed, or cannot be loaded here.
    """
    try:
        module: ModuleType = importlib.import_module(name)
    except ImportError as error:
        raise SimulationMissingError(
            f"the simulated table needs {name}, which is not installed: pip install 'decaf_ros[sim]'"
        ) from error
    return module
