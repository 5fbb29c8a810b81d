"""What the embedded Qwen2.5-VL is asked in training: the product's own prompts, about sentences worded as users word them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from decaf_ros.models import prompts
from decaf_ros.synthetic.table.catalogue import COLOURS_RGB, KINDS, USES
from decaf_ros.synthetic.table.wordings import ABSENT_KINDS, ANYTHING, PHRASES, Sentence, phrase
from tools.embedded_mllm.model import WRAPPERS

NOTHING = -1  # the target of a question about nothing that is there, or about the ground
_MIRRORED = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
_SIDES = re.compile(r"\b(" + "|".join(_MIRRORED) + r")\b")


def _reads(phrase: str) -> str:
    """The regular expression of a phrase: a colour, or any one word, in each of its gaps."""
    parts = re.split(r"(\{\w+\})", phrase)
    gaps = {"{colour}": f"(?:{'|'.join(COLOURS_RGB)})"}
    return "".join(gaps.get(part, r"\S+") if part.startswith("{") else re.escape(part) for part in parts)


# By what a sentence tells its thing apart; "the {n}" comes last, as all else reads like it.
_TOLD_BY = tuple(
    (name, re.compile("|".join(_reads(text) for text in texts)))
    for name, texts in (
        *((name, texts) for name, texts in PHRASES.items() if name != "category"),
        ("use", [wording for use in USES.values() for wording in use.wordings]),
        ("category", PHRASES["category"]),
    )
)

_MORE = tuple(name for name in PHRASES if name not in ("category", "colour", "held_what"))


def told_by(text: str) -> str:
    """The name of the phrase that a sentence is worded in, "use", or "" where none reads so."""
    return next((name for name, pattern in _TOLD_BY if pattern.fullmatch(text)), "")


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


def object_question(sentence: Sentence, rng: np.random.Generator | None = None, mirrored: bool = False) -> Question:
    """The object prompt for a sentence; with ``rng``, at times worded as users do."""
    assert sentence.target is not None
    prompt = prompts.object_prompt(_worded(sentence.text, rng, mirrored))
    return Question(prompt, sentence.answer, sentence.kind, sentence.target, sentence.evidence_s)


class PresenceTally:
    """How often each thing to say was true and was not, so that neither the words nor what is rare give the answer away.

    Nothing fell over in most windows: asked of every one of them, "the one that fell over" would mean no.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, bool]] = Counter()

    def draw(self, sentences: Sequence[Sentence], rng: np.random.Generator) -> Sentence | None:
        """A sentence to ask about whether there is such a thing.

        As often yes as no, and no as often for near misses; among these by how seldom the like was asked with this answer,
        against the other one.
        """
        if rng.random() < 0.5:
            fit = [s for s in sentences if s.target is not None]
        else:
            kind = ABSENT_KINDS[int(rng.random() < 0.6)]
            fit = [s for s in sentences if s.kind == kind]
        if not fit:
            return None
        fit += [
            _said_of(s, self._rarest(rng), sentences, rng) for s in fit if s.kind == "absent" and told_by(s.text) == "category"
        ]
        told = [(told_by(sentence.text), sentence.target is not None) for sentence in fit]
        odds = np.array([self._wanted(name, there) for name, there in told])
        drawn = int(rng.choice(len(fit), p=odds / odds.sum()))
        self._counts[told[drawn]] += 1
        return fit[drawn]

    def _rarest(self, rng: np.random.Generator) -> str:
        """One of the phrases that tell of a thing more than what it is; most likely one that was hardly ever untrue."""
        odds = np.array([self._wanted(name, there=False) for name in _MORE])
        return _MORE[int(rng.choice(len(_MORE), p=odds / odds.sum()))]

    def _wanted(self, name: str, there: bool) -> float:
        """High where the other answer is ahead, low where this one is, and never 0."""
        ahead = (self._counts[name, not there] + 3) / (self._counts[name, there] + 3)
        return min(max(ahead, 0.02), 10.0)


def _said_of(nothing: Sentence, name: str, sentences: Sequence[Sentence], rng: np.random.Generator) -> Sentence:
    """The phrase of this name about a kind of which there is none: "the leftmost pear" where there is no pear."""
    near = sorted({s.answer for s in sentences if s.target is not None})
    anchors = dict(zip("ab", rng.choice(near, 2), strict=True)) if near else {"a": "box", "b": "can"}
    return replace(nothing, text=phrase(name, rng, nothing.text.split()[-1], **anchors))


def presence_question(sentence: Sentence, rng: np.random.Generator | None = None, mirrored: bool = False) -> Question:
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


def background_question(table_top: str, asked: Sequence[Question], rng: np.random.Generator | None = None) -> Question:
    """The background prompt, excluding one of the objects asked about; with ``rng``, now and then without the exclusion."""
    named = [question.answer for question in asked if question.answer in KINDS]
    name = named[0] if named and (rng is None or rng.random() < 0.9) else ""
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


def _worded(text: str, rng: np.random.Generator | None, mirrored: bool) -> str:
    """The sentence for the image or its mirror image, at times in words around it, or with one that nobody knows."""
    if mirrored:
        text = _SIDES.sub(lambda side: _MIRRORED[side[0]], text)
    if rng is None:
        return text
    if rng.random() < 0.2:
        text = WRAPPERS[int(rng.integers(len(WRAPPERS)))].format(expression=text)
    if rng.random() < 0.05:
        words = text.split()
        words.insert(int(rng.integers(len(words) + 1)), "<unk>")
        text = " ".join(words)
    return text
