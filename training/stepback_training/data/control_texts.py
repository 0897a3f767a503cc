"""Control tokens in a text, found without a tokenizer.

Which of them a model has, its tokenizer says in training, and refuses the rest.
"""

import re

# As chat templates write them: a text that was rendered for one is plain text of none.
_OF_TEMPLATES = re.compile(
    r"<\|\w+\|>|<\N{FULLWIDTH VERTICAL LINE}[^<>]+\N{FULLWIDTH VERTICAL LINE}>"
    r"|<(start|end)_of_turn>|<[be]os>|\[/?INST\]"
)
# Of vocabularies. People write some of these too (`<s>` is HTML), models only as tokens.
_OF_VOCABULARIES = re.compile(r"<(pad|unk|unknown|/?s)>")


def control_in(text: str) -> str | None:
    """The first control token in a text that somebody wrote."""
    found = _OF_TEMPLATES.search(text)
    return found[0] if found else None


def is_plain(text: str) -> bool:
    """Tell whether a text that a model wrote has no control token. One that has is no data: the
    training would refuse it."""
    return control_in(text) is None and _OF_VOCABULARIES.search(text) is None
