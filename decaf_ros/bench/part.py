"""What a part of the benchmarks is: a name, what it measures, how much of it, and a module that does it when asked to."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # parts are listed without what takes seconds to import
    from decaf_ros.bench.figures import Measured
    from decaf_ros.evaluation.setups import Setup


@dataclass(frozen=True)
class Option:
    """How much a part measures, or of what.

    Attributes:
        name: on the command line, behind two dashes; with underscores, the argument of the part's ``measure``.
        default: a fraction where all values may be fractions; ``None`` leaves it to the part.
        what: is meant, in a few words.
        quick: the value that shows that it works; ``None`` leaves the default.
        least: of whole numbers.
        many: whether it takes any number of names instead of a number.
    """

    name: str
    default: float | None
    what: str
    quick: float | tuple[str, ...] | None = None
    least: int = 1
    many: bool = False

    @property
    def key(self) -> str:
        """Its name in Python."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class Run:
    """What all parts are given.

    Attributes:
        setup: models, for the parts that measure any.
        first_seed: of the scenes.
        processes: queries or scenes at a time, each with one thread; 1 takes the threads that there are.
        command: that measures this, for the foot of the page.
    """

    setup: Setup
    first_seed: int
    processes: int
    command: str = "decaf bench"

    def seeds(self, count: int) -> range:
        """Of so many scenes."""
        return range(self.first_seed, self.first_seed + count)


@dataclass(frozen=True)
class Part:
    """Something that ``decaf bench`` measures.

    The module of its name in ``decaf_ros.bench.parts`` has a function ``measure(run, ...)`` which takes the options by name; it
    and what it needs (ROS, the simulation, models) are imported when the part runs.

    Attributes:
        name: on the command line, of the page, and of the figures.
        what: it measures, in a line.
        options: of its own.
        by_default: whether it runs when no parts are named.
        pictures: names of files that its page shows.
    """

    name: str
    what: str
    options: tuple[Option, ...] = ()
    by_default: bool = True
    pictures: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Where it is measured."""
        return f"decaf_ros.bench.parts.{self.name.replace('-', '_')}"

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the page and of its pictures."""
        return (f"{self.name}.md", *self.pictures)

    def measure(self, run: Run, values: Mapping[str, Any]) -> Measured:
        """Measure, which can take hours.

        Args:
            run: what all parts are given.
            values: of the options, by their keys; others are not looked at.

        Raises:
            ImportError: ROS, or an extra that the part needs, is not installed.
            ModelNotFound: a model cannot be had.
            OSError, RuntimeError, ValueError: what the part says.
        """
        mine = {option.key: values[option.key] for option in self.options}
        given = [f"--{option.name} {_words(mine[option.key])}" for option in self.options if mine[option.key] is not None]
        command = " ".join(["decaf bench --parts", self.name, *given])
        measured: Measured = importlib.import_module(self.module).measure(replace(run, command=command), **mine)
        return measured


def _words(value: Any) -> str:
    return " ".join(value) if isinstance(value, list | tuple) else f"{value:g}" if isinstance(value, float) else str(value)
