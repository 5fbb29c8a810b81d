"""How likely a model answers yes against no, from the logits of what comes next: nothing is decoded."""

from __future__ import annotations

from typing import Any

import torch

from decaf_ros.models.devices import on_device

_WORDS = ("yes", "no")


def yes_and_no_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """All tokens that are "yes" and all that are "no": small, capitalised or in capitals, with a space before or none.

    Raises:
        ValueError: the tokenizer has no token for one of them.
    """
    found = tuple(sorted(_ids_of(tokenizer, word)) for word in _WORDS)
    for word, ids in zip(_WORDS, found, strict=True):
        if not ids:
            raise ValueError(
                f"the model's tokenizer has no token for {word!r}, so that it cannot be asked whether something is there: "
                "set min_presence to 0"
            )
    return found[0], found[1]


def _ids_of(tokenizer: Any, word: str) -> set[int]:
    spelt = [space + each for space in ("", " ") for each in (word, word.capitalize(), word.upper())]
    encoded = [tokenizer.encode(each, add_special_tokens=False) for each in spelt]
    # A tokenizer that does not know a spelling takes several tokens, or one that stands for all that it does not know.
    return {ids[0] for ids in encoded if len(ids) == 1 and tokenizer.decode(ids).strip().lower() == word}


def share_of_yes(logits_bv: torch.Tensor, yes: list[int], no: list[int]) -> torch.Tensor:
    """``(B,)`` float32: the probability of any token for yes among all for yes or no, from ``(B, vocabulary)`` logits."""
    logits = logits_bv.float()
    of_yes, of_no = (logits[:, on_device(torch.tensor(ids), logits.device)].logsumexp(dim=-1) for ids in (yes, no))
    return torch.sigmoid(of_yes - of_no)
