"""What the embedded Qwen2.5-VL is asked in training: the product's own prompts, about sentences worded as users word them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decaf_ros.models import prompts
from decaf_ros.synthetic.expressions import Expression
from decaf_ros.synthetic.world import COLOURS_RGB, SHAPES, Scene
from tools.embedded_mllm.model import WRAPPERS

NO_BODY = -1
NO_ROLE = -1
# What a relative expression says, by its first telling word; the dense heads learn it for every visual token of the body.
ROLES = (
    ("size", ("largest", "biggest")),
    ("size", ("smallest",)),
    ("position", ("left", "leftmost")),
    ("position", ("right", "rightmost")),
    ("position", ("top", "topmost")),
    ("position", ("bottom", "lowest")),
    ("motion", ("left",)),
    ("motion", ("right",)),
    ("motion", ("up",)),
    ("motion", ("down",)),
    ("motion", ("still", "not")),
    ("motion", ("moving", "moves")),
)


@dataclass(frozen=True)
class Question:
    """A prompt behind a clip.

    Attributes:
        prompt: what the user turn says behind the images.
        answer: one word.
        kind: one of ``KINDS``, or "background".
        body_index: the body meant; :data:`NO_BODY` for the background.
    """

    prompt: str
    answer: str
    kind: str
    body_index: int


def choose_expressions(
    expressions: Sequence[Expression], rng: np.random.Generator, kinds: Sequence[str], count: int
) -> list[Expression]:
    """``count`` expressions, with repetition; a kind listed twice weighs twice. None if no kind occurs."""
    by_kind = {kind: [e for e in expressions if e.kind == kind] for kind in kinds}
    present = [kind for kind in kinds if by_kind[kind]]
    if not present:
        return []
    chosen = [by_kind[present[int(rng.integers(len(present)))]] for _ in range(count)]
    return [candidates[int(rng.integers(len(candidates)))] for candidates in chosen]


def object_question(expression: Expression, rng: np.random.Generator) -> Question:
    """The object prompt for an expression, at times worded as users do."""
    text = expression.text
    if rng.random() < 0.2:
        text = WRAPPERS[int(rng.integers(len(WRAPPERS)))].format(expression=text)
    if rng.random() < 0.05:
        words = text.split()
        words.insert(int(rng.integers(len(words) + 1)), "<unk>")
        text = " ".join(words)
    return Question(prompts.object_prompt(text), expression.answer, expression.kind, expression.body_index)


def background_question(scene: Scene, asked: Sequence[Expression], rng: np.random.Generator) -> Question:
    """The background prompt, excluding one of the objects asked about; now and then without the exclusion."""
    name = asked[0].answer if rng.random() < 0.9 else ""
    prompt = prompts.background_prompt(name)
    return Question(prompt, scene.background, "background", NO_BODY)


def name_question(rng: np.random.Generator) -> Question:
    """The name prompt with a noisy list of answers: the shape that the expression names, otherwise the majority's."""
    truth = str(rng.choice(SHAPES))
    colour = str(rng.choice(list(COLOURS_RGB)))
    named = rng.random() < 0.4
    texts = (
        (f"the {truth}", f"the {colour} {truth}", f"find the {truth}", f"the {truth} that is {colour}")
        if named
        else (f"the {colour} object", "the largest object", "the smallest one", "the object on the left", "the one that moves")
    )
    answers = [truth] * int(rng.integers(1, 17))
    limit = len(answers) if named else (len(answers) - 1) // 2
    answers += [str(word) for word in rng.choice(SHAPES, size=int(rng.integers(0, limit + 1)))]
    rng.shuffle(answers)
    return Question(prompts.name_prompt(str(rng.choice(texts)), answers), truth, "name", NO_BODY)


def role_of(expression: Expression) -> int:
    """Index into :data:`ROLES`; :data:`NO_ROLE` for an expression that compares nothing."""
    words = set(expression.text.split())
    matches = (index for index, (kind, telling) in enumerate(ROLES) if kind == expression.kind and words & set(telling))
    return next(matches, NO_ROLE)
