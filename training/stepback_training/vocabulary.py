"""A small tokenizer for models trained from scratch.

One token for each printable ASCII character and the newline, one for the task's name, and, where
asked for, one for each run of two or three digits. A number is cut from the left ("1205" is "120",
"5" with three digits a token). Other characters become the unknown token.
"""

import re
from itertools import product
from string import ascii_letters, digits, punctuation

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from stepback_core.trace import Grammar

_PAD, _UNKNOWN = "<pad>", "<unknown>"


def make_tokenizer(
    grammar: Grammar, *, task: str, digits_per_token: int
) -> PreTrainedTokenizerFast:
    """The tokenizer, with the grammar's end as its end of sequence and its marker as an added
    special token."""
    plain = [
        *(c for c in "\n " + punctuation + ascii_letters),
        task,
        *(
            "".join(run)
            for size in range(1, digits_per_token + 1)
            for run in product(digits, repeat=size)
        ),
    ]
    special = [_PAD, _UNKNOWN, grammar.end]
    vocabulary = {token: index for index, token in enumerate(special + plain)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    pattern = Regex(rf"{re.escape(task)}|[0-9]{{1,{digits_per_token}}}|[\s\S]")
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=_PAD,
        unk_token=_UNKNOWN,
        eos_token=grammar.end,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [grammar.marker]})
    return tokenizer
