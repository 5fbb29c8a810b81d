"""What a model's chat template puts around a sentence, rendered once, before any sentence is asked.

A template is a program that comes with a model, and may run for ever or fill the memory. It is compiled and rendered in a
process of its own, which has limits of both, and never sees a sentence: it renders a placeholder, and what stands before and
behind that is all that is used of it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from decaf_ros.strict_json import from_json, to_json
from decaf_ros.text import brief

# Limits of the process, once its libraries are loaded; a usual template takes milliseconds and a megabyte.
_MOST_SECONDS = 3
_MOST_BYTES = 256 << 20
# For all of it, so that nobody waits for ever: on a busy machine, loading the libraries alone can take a minute.
_MOST_WALL_SECONDS = 300
_MOST_TEMPLATE_CHARACTERS = 1 << 18
_MOST_CHARACTERS = 16_384  # around a sentence

_MEDIA = (None, "video", "image")
_PLACEHOLDER = "placeholder0for0a0sentence"
# A sentence of another length and other words, around the same: what stands around it must not depend on it.
_PROBES = (
    _PLACEHOLDER,
    f"Find {_PLACEHOLDER} in this, the second of two sentences. Which object is it? " + "Look well. " * 20 + "End.",
)


class ChatFrame(NamedTuple):
    """What stands around a sentence in a conversation.

    Attributes:
        head: before it, images included.
        tail: behind it, up to where the model answers.
    """

    head: str
    tail: str


def chat_frames(template: str, special_tokens: Mapping[str, Any]) -> Mapping[str | None, ChatFrame]:
    """By medium ("video", "image" or none), what a template puts around a sentence that follows one of them.

    Args:
        template: in Jinja, as transformers renders it.
        special_tokens: variables of the template, names of tokens and texts.

    Raises:
        ValueError: it cannot be rendered within the limits, or does something else with a sentence than to repeat it.
    """
    if len(template) > _MOST_TEMPLATE_CHARACTERS:
        raise ValueError(
            f"its chat template has {len(template)} characters, and {_MOST_TEMPLATE_CHARACTERS} are enough for any"
        )
    texts = {name: text for name, text in special_tokens.items() if isinstance(text, str)}
    return _frames(template, tuple(sorted(texts.items())))


@lru_cache(maxsize=16)
def _frames(template: str, special_tokens: tuple[tuple[str, str], ...]) -> Mapping[str | None, ChatFrame]:
    rendered = iter(_rendered_apart(template, dict(special_tokens)))
    frames = {}
    for medium in _MEDIA:
        first, second = (next(rendered).split(probe) for probe in _PROBES)
        if len(first) != 2 or first != second:
            raise ValueError("its chat template does something else with a sentence than to repeat it once")
        frames[medium] = ChatFrame(*first)
    return frames


def _rendered_apart(template: str, special_tokens: dict[str, str]) -> list[str]:
    """For each medium, the conversations with each probe, rendered by another process.

    Raises:
        ValueError: it could not, or not within the limits.
    """
    # The same modules as here, whatever lies in the current folder.
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _render; _render()"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", code],
            input=to_json([template, special_tokens]).encode(),
            capture_output=True,
            timeout=_MOST_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"its chat template was not rendered within {_MOST_WALL_SECONDS} s") from None
    except (OSError, UnicodeError) as error:
        raise ValueError(f"its chat template cannot be rendered: {brief(error)}") from error
    if done.returncode < 0:
        raise ValueError(f"its chat template takes more than {_MOST_SECONDS} s of computing, or breaks what renders it")
    try:
        rendered, problem = from_json(done.stdout)
    except ValueError:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(f"its chat template cannot be rendered: {brief(said[-1] if said else 'no reason is known')}") from None
    if problem:
        raise ValueError(f"its chat template cannot be rendered: {brief(problem)}")
    return rendered


def _render() -> None:
    """In the other process: read a template and its variables, write the conversations, or what is wrong."""
    from transformers.utils.chat_template_utils import render_jinja_template

    template, special_tokens = json.load(sys.stdin)
    _limit(resource.RLIMIT_CPU, int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + 1 + _MOST_SECONDS)
    _limit(resource.RLIMIT_AS, _address_space() + _MOST_BYTES)
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        _limit(kind, 0)
    rendered, problem = [], ""
    try:
        for conversation in _conversations():
            batch = render_jinja_template([conversation], chat_template=template, add_generation_prompt=True, **special_tokens)
            text = "".join(batch[0])
            if len(text) > _MOST_CHARACTERS:
                raise ValueError(f"it makes {len(text)} characters of a sentence, and {_MOST_CHARACTERS} are enough for any")
            text.encode()  # or it says what is not Unicode
            rendered.append(text)
    except MemoryError:
        problem = f"it takes more than {_MOST_BYTES >> 20} MB of memory"
    except Exception as error:
        problem = brief(error) or type(error).__name__
    sys.stdout.write(to_json([rendered, problem]))


def _conversations() -> list[list[dict[str, Any]]]:
    return [
        [{"role": "user", "content": ([{"type": medium}] if medium else []) + [{"type": "text", "text": probe}]}]
        for medium in _MEDIA
        for probe in _PROBES
    ]


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
