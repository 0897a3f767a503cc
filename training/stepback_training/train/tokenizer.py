"""A small tokenizer for models trained from scratch.

One token for each printable ASCII character, the newline, and each further character of the
samples; one for each task's name; and, where asked for, one for each run of two or three digits. A
number is cut from the left ("1205" is "120", "5" with three digits a token). What is left becomes
the unknown token.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import product
from string import ascii_letters, digits, punctuation

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from stepback_core.trace import Grammar

_PAD, _UNKNOWN = "<pad>", "<unknown>"


def make_tokenizer(
    grammar: Grammar, *, tasks: Sequence[str], digits_per_token: int, characters: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """The tokenizer, with the grammar's end as its end of sequence and its marker as an added
    special token. `characters` are those of the samples; all that are not ASCII get a token."""
    plain = [
        *(c for c in "\n " + punctuation + ascii_letters),
        *tasks,
        *(
            "".join(run)
            for size in range(1, digits_per_token + 1)
            for run in product(digits, repeat=size)
        ),
    ]
    plain += sorted(set(characters).difference(plain))
    # A separator of several characters is one token too: a step ends at a token.
    pieces = [*tasks, grammar.separator] if len(grammar.separator) > 1 else list(tasks)
    plain += [piece for piece in pieces if piece not in plain]
    special = [_PAD, _UNKNOWN, grammar.end]
    vocabulary = {token: index for index, token in enumerate(special + plain)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    # The longest first: a regular expression takes the first alternative that fits.
    names = [re.escape(name) for name in sorted(pieces, key=len, reverse=True)]
    pattern = Regex("|".join([*names, rf"[0-9]{{1,{digits_per_token}}}", r"[\s\S]"]))
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    # Nothing is put between tokens, so that a text comes back as it was.
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
