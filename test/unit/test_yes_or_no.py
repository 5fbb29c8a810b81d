"""Yes against no: which tokens count, and what their logits come to."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from decaf_ros.models.yes_or_no import share_of_yes, yes_and_no_ids


def byte_level(*words: str) -> PreTrainedTokenizerFast:
    """As the published families have it: a space before a word is a part of its token, and other words are taken to pieces."""
    merges = [(word[:end], word[end]) for word in words for end in range(1, len(word))] + [("\u0120", word) for word in words]
    tokens = dict.fromkeys(["\u0120", *"".join(words), *(first + second for first, second in merges)])
    made = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def test_every_token_that_reads_yes_or_no_counts():
    tokenizer = byte_level("yes", "Yes", "no", "not", "yesterday")
    yes, no = yes_and_no_ids(tokenizer)
    assert [tokenizer.decode([token]) for token in sorted(yes, key=tokenizer.decode)] == [" Yes", " yes", "Yes", "yes"]
    assert [tokenizer.decode([token]) for token in sorted(no, key=tokenizer.decode)] == [" no", "no"]


def test_what_a_tokenizer_does_not_know_is_neither_yes_nor_no():
    words = Tokenizer(models.WordLevel({"<unk>": 0, "no": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="no token for 'yes'"):
        yes_and_no_ids(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>"))


def test_the_probability_is_that_of_yes_among_yes_and_no():
    # Weights 3 and 1 for yes, 4 for no, and much for a word that is neither: (3 + 1) / (3 + 1 + 4).
    weights = torch.tensor([[3.0, 1000.0, 1.0, 4.0], [1.0, 1.0, 1.0, 6.0]])
    assert share_of_yes(weights.log(), [0, 2], [3]).tolist() == pytest.approx([0.5, 0.25])
    assert share_of_yes(torch.tensor([[300.0, -300.0]], dtype=torch.bfloat16), [0], [1]).tolist() == [1.0]
