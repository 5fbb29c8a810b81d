"""``decaf demo --pick``: the arm picks up what sentences mean, by an example that knows the node's topics only.

Held-out tables on which something has happened. ``examples/pick_by_sentence.py`` runs as a program of its own for each, and the
simulation tells what ends up in the gripper.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from sensor_msgs.msg import TimeReference
from std_msgs.msg import UInt16

from decaf_ros.cli.demo_run import DemoError, camera_and_node, say
from decaf_ros.evaluation.tables import markdown_table
from decaf_ros.imaging import stamp_to_ns
from decaf_ros.outputs import OutputFolder
from decaf_ros.ros.client import DecafClient
from decaf_ros.ros.qos import LATCHED_QOS
from decaf_ros.synthetic.table.episodes import Episode, sample_episode
from decaf_ros.synthetic.table.live import LiveTable
from decaf_ros.synthetic.table.sampling import require_held_out
from decaf_ros.synthetic.table.sentences import sentences_of
from decaf_ros.synthetic.table.wordings import Sentence
from decaf_ros.text import brief

KINDS = ("moved", "put_down", "colour_category")  # that the embedded models know; docs/benchmarks tells which
FIRST_SEED = 10_000
_EXAMPLE = "examples/pick_by_sentence.py"
_LEAST_S, _TOLERANCE_S = 4.5, 1.5  # when to ask at the earliest, and for how long the sentence stays true
_START_S = 1.5  # that the example takes to start, about
_REST_S = 5.0  # that the arm needs to come to rest after the scene, at most
_SEEN = 0.4
_LONGEST_S, _POLL_S = 150.0, 0.3
_HEADER = ("seed", "sentence", "meant", "in the gripper", "right", "what the example says")


@dataclass(frozen=True)
class Task:
    """Something to pick up.

    Attributes:
        seed: of the table.
        asked_s: when to ask, in seconds of the scene.
        sentence: what for; its target is what is to end up in the gripper.
        names: of the table's things, such as "red mug".
    """

    seed: int
    asked_s: float
    sentence: Sentence
    names: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How it went.

    Attributes:
        task: what was to be picked up.
        held: index of what is in the gripper in the end, None for nothing.
        said: the last line that the example printed.
    """

    task: Task
    held: int | None
    said: str

    @property
    def right(self) -> bool:
        """Whether what was meant is in the gripper."""
        return self.held == self.task.sentence.target

    def cells(self) -> list[str]:
        """The row of the table."""
        names, target = self.task.names, self.task.sentence.target
        held = "nothing" if self.held is None else f"{names[self.held]} ({self.held})"
        assert target is not None
        meant = f"{names[target]} ({target})"
        return [str(self.task.seed), self.task.sentence.text, meant, held, "yes" if self.right else "no", self.said]


def main(count: int, folder: Path) -> int:
    """Have the example pick things up on some tables; the exit status is 1 if something fails to run, or no pick is right."""
    try:
        outcomes = run(count, OutputFolder(folder))
    except (DemoError, OSError) as error:
        print(f"decaf demo --pick failed: {error}", file=sys.stderr)
        return 1
    return 0 if any(outcome.right for outcome in outcomes) else 1


def run(count: int, out: OutputFolder, first_seed: int = FIRST_SEED) -> list[Outcome]:
    """Have the example pick things up on a number of tables, and print how it went.

    Args:
        count: how many tables.
        out: takes the programs' logs, and ``pick.md``.
        first_seed: the first suitable tables from this one on are taken.

    Raises:
        DemoError: a program ended or did not get ready in time, the camera did not show a table, or the example is missing.
    """
    example = _find_example()
    outcomes = []
    with camera_and_node(out, depth=True) as (client, arguments):
        table = _TableTopics(client)
        for _, task in zip(range(count), tasks(first_seed), strict=False):
            outcomes.append(_pick(task, client, table, example, arguments))
            say(outcomes[-1].said)
    right = sum(outcome.right for outcome in outcomes)
    text = markdown_table(_HEADER, [outcome.cells() for outcome in outcomes])
    text += f"\n{right} of {len(outcomes)} times the right object is in the gripper.\n"
    out.write_text("pick.md", text)
    print(f"\n{text}")
    return outcomes


def tasks(first_seed: int) -> Iterator[Task]:
    """Sentences about something that happened and means a thing that the gripper can grip, one a table, kind after kind.

    A sentence is true from when it is asked until a while after. Whatever the arm does then, its target ends up in view.
    """
    seed, given = first_seed, 0
    while True:
        episode = sample_episode(require_held_out(seed))
        task = _task_of(episode, seed, [*KINDS[given % len(KINDS) :], *KINDS[: given % len(KINDS)]])
        if task is not None:
            given += 1
            yield task
        seed += 1


def _task_of(episode: Episode, seed: int, kinds: Sequence[str]) -> Task | None:
    """A sentence of the first kind that there is."""
    scene, last_s = episode.scene, episode.scene.duration_s - _TOLERANCE_S
    events = episode.history.events
    times = sorted({min(last_s, event.end_s + 0.5) for event in events if event.end_s + 0.5 >= _LEAST_S})
    candidates = []
    for asked_s in times:
        later = {
            (each.kind, each.target) for each in sentences_of(episode, asked_s + _TOLERANCE_S, np.random.default_rng(seed))
        }
        for sentence in sentences_of(episode, asked_s, np.random.default_rng(seed)):
            if sentence.kind in kinds and (sentence.kind, sentence.target) in later and sentence.target is not None:
                done = all(event.end_s <= asked_s + 0.1 for event in events if event.thing == sentence.target)
                if done and episode.visible_fractions(scene.duration_s)[sentence.target] >= _SEEN:
                    candidates.append(Task(seed, asked_s, sentence, tuple(f"{e.colour} {e.kind}" for e in scene.things)))
    if not candidates:
        return None
    table = LiveTable(scene)
    table.advance(scene.duration_s + _REST_S)
    fit = [task for task in candidates if _can_be_picked(table, task.sentence.target)]
    return min(fit, key=lambda task: (kinds.index(task.sentence.kind), task.asked_s), default=None)


def _can_be_picked(table: LiveTable, thing: int | None) -> bool:
    return thing is not None and not table.arm.busy and not table.arm.holds and not table.why_not_pick(thing)


class _TableTopics:
    """What the camera tells of the table."""

    def __init__(self, client: DecafClient) -> None:
        self.scene: TimeReference | None = None
        self.held = 0
        client.node.create_subscription(TimeReference, "scene", self._on_scene, LATCHED_QOS)
        client.node.create_subscription(UInt16, "ground_truth/held", self._on_held, LATCHED_QOS)

    def _on_scene(self, message: TimeReference) -> None:
        self.scene = message

    def _on_held(self, message: UInt16) -> None:
        self.held = message.data

    def time_s(self) -> float:
        """What time of the scene it is."""
        assert self.scene is not None
        return (time.time_ns() - stamp_to_ns(self.scene.header.stamp) + stamp_to_ns(self.scene.time_ref)) * 1e-9


def _pick(task: Task, client: DecafClient, table: _TableTopics, example: Path, arguments: Sequence[str]) -> Outcome:
    """Show a table, and run the example so that it asks when it is time."""
    _wait_for(lambda: table.scene is not None, "the camera to show a table")
    before = table.scene
    accepted, reason = client.set_parameter("seeds", [task.seed], node=client.node.resolve_topic_name("sim_camera"))
    if not accepted:
        raise DemoError(f"the camera refused table {task.seed}: {brief(reason)}")
    _wait_for(lambda: table.scene is not before, f"the camera to show table {task.seed}")
    client.reset()
    say(f'table {task.seed}: "{task.sentence.text}", to be asked at {task.asked_s:.1f} s')
    time.sleep(max(0.0, task.asked_s - _START_S - table.time_s()))
    command = [sys.executable, str(example), task.sentence.text, *arguments]
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_LONGEST_S)
        said = ended.stdout.splitlines() or ["nothing"]
    except subprocess.TimeoutExpired:
        said = [f"it was stopped after {_LONGEST_S:g} s"]
    time.sleep(_POLL_S)  # until the news of the gripper is here
    return Outcome(task, table.held - 1 if table.held else None, brief(said[-1], 200))


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _LONGEST_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_LONGEST_S:g} s in vain for {what}")
        time.sleep(_POLL_S)


def _find_example() -> Path:
    """Beside the sources, or where colcon installs it.

    Raises:
        DemoError: it is in neither.
    """
    beside = Path(__file__).resolve().parent.parent.parent / _EXAMPLE
    if beside.is_file():
        return beside
    with suppress(PackageNotFoundError):
        if (installed := Path(get_package_share_directory("decaf_ros"), _EXAMPLE)).is_file():
            return installed
    raise DemoError(f"{_EXAMPLE} is missing: it comes with the sources")
