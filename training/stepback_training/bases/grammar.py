"""The grammar of a base: its marker, its end, its separator, and its prompt frame."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from tokenizers import AddedToken

from stepback_core.errors import InvalidInput
from stepback_core.trace import Grammar, TraceCodec
from stepback_core.validation import first_error

# In both cases: a template that changes them would change every prompt.
_HERE, _ANSWER = "Prompt-stands-HERE", "Answer-stands-HERE"


@dataclass(frozen=True, slots=True)
class Wishes:
    """Wishes for the grammar; what is left out is the model's own, or the default."""

    marker: str | None = None
    separator: str | None = None
    end: str | None = None
    prompt_frame: str | None = None


@dataclass(frozen=True, slots=True)
class Adopted:
    """A grammar, and what the tokenizer was given for it."""

    grammar: Grammar
    new_ids: tuple[int, ...]
    """Tokens that have no row in the weights yet, or one that was never trained."""

    @property
    def marker_is_new(self) -> bool:
        return bool(self.new_ids)


def adopt(tokenizer: Any, wishes: Wishes, known: Grammar | None = None) -> Adopted:
    """Add what the grammar needs to a tokenizer, and name it. `known` is the grammar that an
    earlier import or training wrote down. Raises InvalidInput for what cannot be served."""
    grammar = _grammar(tokenizer, wishes, known)
    new: list[str] = []
    # A model that was trained here before has the marker, and its row is not to be touched.
    if not _has_token(tokenizer, grammar.marker):
        new.append(grammar.marker)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [grammar.marker]}, replace_extra_special_tokens=False
    )
    if not _has_separator(tokenizer, grammar.separator):
        # A step ends at a token, so what no token contains becomes one.
        new.append(grammar.separator)
        tokenizer.add_tokens([AddedToken(grammar.separator, normalized=False, special=False)])
    if tokenizer.eos_token != grammar.end:
        tokenizer.add_special_tokens({"eos_token": grammar.end})
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Adopted(grammar, tuple(tokenizer.convert_tokens_to_ids(text) for text in new))


def _has_token(tokenizer: Any, text: str) -> bool:
    return tokenizer.convert_tokens_to_ids(text) not in (None, tokenizer.unk_token_id)


def _has_separator(tokenizer: Any, separator: str) -> bool:
    ids = tokenizer.encode(f"1{separator}", add_special_tokens=False)
    return any(separator in tokenizer.decode([token]) for token in ids)


def checked_codec(grammar: Grammar, tokenizer: Any, name: str) -> TraceCodec:
    """The codec of both. Raises InvalidInput for a tokenizer that changes a text."""
    try:
        codec = TraceCodec.of(grammar, tokenizer)
        codec.check_tokenizer()
    except ValueError as error:
        raise InvalidInput(f"{name}: tokenizer: {error}") from error
    return codec


def _grammar(tokenizer: Any, wishes: Wishes, known: Grammar | None) -> Grammar:
    end = wishes.end or (known.end if known else chat_end(tokenizer) or tokenizer.eos_token)
    if end is None:
        raise InvalidInput(
            "the tokenizer has no end-of-sequence token: name one of its tokens by end"
        )
    if end != tokenizer.eos_token and not _has_token(tokenizer, end):
        raise InvalidInput(f"end: the tokenizer has no token {end!r}")
    frame = wishes.prompt_frame or (known.prompt_frame if known else chat_frame(tokenizer))
    plain = known or Grammar()
    try:
        return Grammar(
            marker=plain.marker if wishes.marker is None else wishes.marker,
            separator=plain.separator if wishes.separator is None else wishes.separator,
            end=end,
            prompt_frame=frame or plain.prompt_frame,
        )
    except ValidationError as error:
        raise InvalidInput(first_error(error, whole="the grammar")) from error


def chat_frame(tokenizer: Any) -> str | None:
    """One user's turn in the model's chat template, up to where the answer begins; None if it
    has no template, or one with no such turn."""
    text = _rendered(tokenizer, {"user": _HERE}, add_generation_prompt=True)
    if text is None or text.count(_HERE) != 1 or "{prompt}" in text:
        return None
    return text.replace(_HERE, "{prompt}")


def chat_end(tokenizer: Any) -> str | None:
    """The special token that the chat template puts after an answer; None if it puts none."""
    text = _rendered(tokenizer, {"user": _HERE, "assistant": _ANSWER}) or ""
    # Without the answer in it nothing is known of what follows one.
    after = text.rpartition(_ANSWER)[2].lstrip() if _ANSWER in text else ""
    ids = tokenizer.encode(after, add_special_tokens=False)
    text = tokenizer.decode(ids[:1]) if ids else ""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return text if text in special else None


def _rendered(tokenizer: Any, said: dict[str, str], **options: Any) -> str | None:
    """The turns of a chat in its template: texts, or lists of parts where it reads these alone."""
    if not tokenizer.chat_template:
        return None
    parts = {role: [{"type": "text", "text": text}] for role, text in said.items()}
    for contents in (said, parts):
        turns = [{"role": role, "content": content} for role, content in contents.items()]
        try:
            text: str = tokenizer.apply_chat_template(turns, tokenize=False, **options)
        except Exception:  # A template is a program, and may refuse what it is given by any error.
            continue
        if all(each in text for each in said.values()):
            return text
    return None
