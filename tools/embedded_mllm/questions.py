"""What the embedded Qwen2.5-VL is asked in training: the product's own prompts, about sentences worded as users word them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decaf_ros.models import prompts
from decaf_ros.synthetic.table.catalogue import COLOURS_RGB, KINDS
from decaf_ros.synthetic.table.wordings import ABSENT_KINDS, ANYTHING, EVENT_KINDS, Sentence
from tools.embedded_mllm.model import WRAPPERS

NOTHING = -1  # the target of a question about nothing that is there, or about the ground
_MIRRORED = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
_SIDES = re.compile(r"\b(" + "|".join(_MIRRORED) + r")\b")


@dataclass(frozen=True)
class Question:
    """A prompt behind a clip.

    Attributes:
        prompt: what the user turn says behind the images.
        answer: what the model should say.
        kind: one of ``SENTENCE_KINDS``, "presence", "box" or "background".
        target: index of the thing meant, or :data:`NOTHING`.
        evidence_s: from when to when one can see that it is meant, in the clip's time.
    """

    prompt: str
    answer: str
    kind: str
    target: int
    evidence_s: tuple[float, float] = (-np.inf, np.inf)


def draw_sentences(
    sentences: Sequence[Sentence], rng: np.random.Generator, weights: Mapping[str, float], count: int
) -> list[Sentence]:
    """``count`` sentences, with repetition, the kinds by their weights; none if no kind of any weight occurs."""
    by_kind: dict[str, list[Sentence]] = {}
    for sentence in sentences:
        if weights.get(sentence.kind, 0.0) > 0:
            by_kind.setdefault(sentence.kind, []).append(sentence)
    if not by_kind:
        return []
    kinds = list(by_kind)
    odds = np.array([weights[kind] for kind in kinds])
    drawn = rng.choice(len(kinds), count, p=odds / odds.sum())
    return [by_kind[kinds[kind]][int(rng.integers(len(by_kind[kinds[kind]])))] for kind in drawn]


def object_question(sentence: Sentence, rng: np.random.Generator, mirrored: bool) -> Question:
    """The object prompt for a sentence, at times worded as users do."""
    assert sentence.target is not None
    prompt = prompts.object_prompt(_worded(sentence.text, rng, mirrored))
    return Question(prompt, sentence.answer, sentence.kind, sentence.target, sentence.evidence_s)


def draw_for_presence(sentences: Sequence[Sentence], rng: np.random.Generator) -> Sentence | None:
    """A sentence to ask about whether there is such a thing: as often yes as no, and no as often for near misses."""
    if rng.random() < 0.5:
        of_events = rng.random() < 0.4
        fit = [s for s in sentences if s.target is not None and (s.kind in EVENT_KINDS) == of_events]
    else:
        kind = ABSENT_KINDS[int(rng.random() < 0.6)]
        fit = [s for s in sentences if s.kind == kind]
    return fit[int(rng.integers(len(fit)))] if fit else None


def presence_question(sentence: Sentence, rng: np.random.Generator, mirrored: bool) -> Question:
    """The question whether there is what a sentence describes."""
    prompt = prompts.presence_prompt(_worded(sentence.text, rng, mirrored))
    if sentence.target is None:
        return Question(prompt, "no", "presence", NOTHING)
    return Question(prompt, "yes", "presence", sentence.target, sentence.evidence_s)


def box_question(sentence: Sentence, box_xyxy: npt.NDArray[np.int64], rng: np.random.Generator, mirrored: bool) -> Question:
    """The box prompt, answered in the format of Qwen2.5-VL: pixels of the image as the model gets it."""
    assert sentence.target is not None
    numbers = ",".join(str(int(value)) for value in box_xyxy)
    answer = f'[{{"bbox_2d":[{numbers}],"label":"{sentence.answer}"}}]'
    prompt = prompts.box_prompt(_worded(sentence.text, rng, mirrored))
    return Question(prompt, answer, "box", sentence.target, sentence.evidence_s)


def background_question(table_top: str, asked: Sequence[Question], rng: np.random.Generator) -> Question:
    """The background prompt, excluding one of the objects asked about; now and then without the exclusion."""
    named = [question.answer for question in asked if question.answer in KINDS]
    name = named[0] if named and rng.random() < 0.9 else ""
    return Question(prompts.background_prompt(name), table_top, "background", NOTHING)


def name_question(rng: np.random.Generator) -> Question:
    """The name prompt with a noisy list of answers: the kind that the expression names, otherwise the majority's."""
    kinds = list(KINDS)
    truth = str(rng.choice(kinds))
    colour, anything = str(rng.choice(list(COLOURS_RGB))), str(rng.choice(ANYTHING))
    named = rng.random() < 0.4
    of_kind = (
        "the {n}",
        "the {colour} {n}",
        "find the {n}",
        "the {n} that is {colour}",
        "the leftmost {n}",
        "the {n} that was moved",
    )
    of_any = (
        "the {colour} {n}",
        "the largest {n}",
        "the {n} on the left",
        "the {n} that was just put down",
        "what the robot is holding",
    )
    text = str(rng.choice(of_kind if named else of_any)).format(n=truth if named else anything, colour=colour)
    answers = [truth] * int(rng.integers(1, 17))
    limit = len(answers) if named else (len(answers) - 1) // 2
    answers += [str(word) for word in rng.choice(kinds, size=int(rng.integers(0, limit + 1)))]
    rng.shuffle(answers)
    return Question(prompts.name_prompt(text, answers), truth, "name", NOTHING)


def _worded(text: str, rng: np.random.Generator, mirrored: bool) -> str:
    """The sentence for the image or its mirror image, at times in words around it, or with one that nobody knows."""
    if mirrored:
        text = _SIDES.sub(lambda side: _MIRRORED[side[0]], text)
    if rng.random() < 0.2:
        text = WRAPPERS[int(rng.integers(len(WRAPPERS)))].format(expression=text)
    if rng.random() < 0.05:
        words = text.split()
        words.insert(int(rng.integers(len(words) + 1)), "<unk>")
        text = " ".join(words)
    return text
