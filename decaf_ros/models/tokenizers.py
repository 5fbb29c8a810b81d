"""Whether a model's tokenizer can be trusted with text: its files describe steps that each may make any text longer."""

from __future__ import annotations

import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from decaf_ros.strict_json import from_json
from decaf_ros.text import quoted

# Steps by part that change the length of a text by a small factor at most, and not more when they are repeated.
_STEPS = {
    "normalizer": {
        *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Prepend", "Replace", "ByteLevel"),
    },
    "pre_tokenizer": {
        *("BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Split", "Whitespace", "WhitespaceSplit"),
    },
    "decoder": {*("BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece")},
}
# ByteLevel turns a character beyond ASCII into two such, so that several in a row would not end.
_AT_MOST_ONCE = "ByteLevel"
_NESTED = ("normalizers", "pretokenizers", "decoders")
_MOST_STEPS = 16
# A repeated group, or a call of one, can take a regular expression exponential time. No published tokenizer repeats a group, or
# has white space between what it looks for. What takes long all the same gives up after ten million steps, with a panic.
_SLOW_PATTERN = re.compile(r"(?<!\\)(\\\\)*\)[*+{]|\\g|\(\?[a-z-]*x")
_MOST_PATTERN_CHARACTERS = 1024
_MOST_POST_BYTES = 16_384
_MOST_ADDED_TOKENS = 16


def require_bounded(tokenizer: PreTrainedTokenizerBase, known_ids: int) -> None:
    """Refuse a tokenizer that could make much of a little text, or tokens that the network does not know.

    Args:
        tokenizer: as transformers read it.
        known_ids: rows of the network's table of tokens.

    Raises:
        ValueError: so it is; the message says why.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError("its tokenizer is none of the library tokenizers; a tokenizer.json is needed")
    byte_levels = 0
    for part, allowed in _STEPS.items():
        steps = _steps(_state(getattr(backend, part)))
        if len(steps) > _MOST_STEPS:
            raise ValueError(f"the {part} of its tokenizer has {len(steps)} steps, and {_MOST_STEPS} are enough for any")
        for step in steps:
            kind = str(step.get("type"))
            if kind not in allowed:
                raise ValueError(f"the {part} of its tokenizer has a step {quoted(kind)}, which may make any text longer")
            written = step.get("content") or step.get("prepend") or ""
            if kind in ("Replace", "Prepend") and len(str(written)) > 1:
                raise ValueError(f"the {part} of its tokenizer writes {quoted(str(written))} into texts")
            pattern = str(step["pattern"].get("Regex", "")) if "pattern" in step else ""
            if len(pattern) > _MOST_PATTERN_CHARACTERS or _SLOW_PATTERN.search(pattern):
                raise ValueError(f"the {part} of its tokenizer looks for {quoted(pattern)}, which may take for ever")
            byte_levels += part != "decoder" and kind == _AT_MOST_ONCE
    if byte_levels > 1:
        raise ValueError(f"its tokenizer has {byte_levels} steps {_AT_MOST_ONCE!r}, each of which makes texts longer")
    post_processor = backend.post_processor
    if post_processor is not None and len(post_processor.__getstate__()) > _MOST_POST_BYTES:
        raise ValueError("its tokenizer adds more tokens to each text than any model needs")
    if len(tokenizer("")["input_ids"]) > _MOST_ADDED_TOKENS:
        raise ValueError(f"its tokenizer adds more than {_MOST_ADDED_TOKENS} tokens to each text")
    highest = max(backend.get_vocab(with_added_tokens=True).values(), default=0)
    if highest >= known_ids:
        raise ValueError(f"its tokenizer has tokens up to number {highest}, and the network knows {known_ids} of them")


def _state(part: Any) -> Any:
    return from_json(part.__getstate__()) if part is not None else None


def _steps(state: Any) -> list[dict[str, Any]]:
    """The steps of a part, one after the other, however they are nested."""
    if state is None:
        return []
    if state.get("type") != "Sequence":
        return [state]
    return [step for name in _NESTED for each in state.get(name, []) for step in _steps(each)]
