"""The trace grammar, in text and in token ids."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from pydantic import ValidationError

from stepback_core.trace import Grammar, TokenGrammar, TraceCodec

END, MARKER, NEWLINE, TWO_STEPS = 1, 2, 3, 4
TOKENS = TokenGrammar(marker_id=MARKER, end_id=END, separator_ids=frozenset({NEWLINE}))


def test_the_frame_holds_the_prompt_once() -> None:
    assert Grammar(prompt_frame="Q: {prompt}\nA:").frame("1+1") == "Q: 1+1\nA:"
    for frame in ("no place", "{prompt}{prompt}"):
        with pytest.raises(ValidationError, match="prompt_frame"):
            Grammar(prompt_frame=frame)


def test_braces_in_a_prompt_are_only_text() -> None:
    assert Grammar().frame("{0} {prompt}") == "{0} {prompt}\n"


@pytest.mark.parametrize(
    "texts", [{"marker": "<end>"}, {"separator": "<"}, {"end": "\n"}, {"marker": "a\nb"}]
)
def test_texts_that_could_be_taken_for_each_other_are_refused(texts: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="is part of"):
        Grammar(**texts)


class Characters:
    """A tokenizer of one token a character, with the two special tokens."""

    specials = ("<end>", "<backtrack>")

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        found = [900] if add_special_tokens else []
        while text:
            special = next((s for s in self.specials if text.startswith(s)), None)
            found.append(self.specials.index(special) + 1 if special else ord(text[0]))
            text = text[len(special) if special else 1 :]
        return found

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        return "".join(self.specials[t - 1] if 1 <= t <= 2 else chr(t) for t in token_ids)

    def convert_tokens_to_ids(self, tokens: str) -> int | None:
        return self.specials.index(tokens) + 1 if tokens in self.specials else None

    def __len__(self) -> int:
        return 128


def test_a_codec_goes_to_ids_and_back() -> None:
    codec = TraceCodec.of(Grammar(), Characters())
    assert codec.tokens == TokenGrammar(2, 1, frozenset({ord("\n")}))
    assert codec.encode_prompt("1+1") == [900, *map(ord, "1+1\n")]
    ids = [*codec.encode_step("1+1=2"), *codec.encode_step("2+1=3"), codec.tokens.end_id]
    assert codec.decode_steps(ids) == ["1+1=2", "2+1=3"]
    assert codec.decode_steps(ids[:-3]) == ["1+1=2", "2+1="]
    assert codec.decode_steps([]) == []


def test_a_tokenizer_without_the_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="<undo>"):
        TokenGrammar.of(Grammar(marker="<undo>"), Characters())


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([9, NEWLINE, 9, 9, NEWLINE, MARKER], 2),
        ([9, NEWLINE, MARKER], 0),
        ([MARKER], 0),
        # The marker in the middle of a step rejects that step, not the one before it.
        ([9, NEWLINE, 9, MARKER], 2),
        ([9, MARKER], 0),
        ([9, NEWLINE, 8, NEWLINE, 7, NEWLINE, MARKER], 4),
    ],
)
def test_a_rollback_drops_the_last_step_and_nothing_else(ids: list[int], kept: int) -> None:
    assert TOKENS.last_good_length(ids) == kept


def test_a_token_that_straddles_a_boundary_ends_the_step() -> None:
    tokens = TokenGrammar(MARKER, END, frozenset({NEWLINE, TWO_STEPS}))
    assert tokens.step_ends([9, TWO_STEPS, 9, NEWLINE]) == [2, 4]
    assert tokens.last_good_length([9, TWO_STEPS, 9, NEWLINE, MARKER]) == 2


@dataclass
class Special:
    content: str
    special: bool = True


class Framing(Characters):
    """A tokenizer that adds a BOS and an EOS, and has a special token that is in no list."""

    all_special_tokens: ClassVar = ["<end>", "<backtrack>"]
    added_tokens_decoder: ClassVar = {7: Special("<|eot|>"), 8: Special("<think>", special=False)}

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        if text.startswith("<bos>"):
            return [900, *self.encode(text[5:], add_special_tokens=False)]
        plain = super().encode(text, add_special_tokens=False)
        return [900, *plain, 901] if add_special_tokens else plain


class Marked(Characters):
    """A tokenizer with some added tokens."""

    def __init__(self, tokens: dict[int, Special]) -> None:
        self.added_tokens_decoder = tokens

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        if token_ids == [6]:
            return "\n\n"
        return super().decode(token_ids, skip_special_tokens=skip_special_tokens)


def test_a_prompt_has_one_bos_and_no_end_that_the_tokenizer_adds() -> None:
    for frame in ("{prompt}\n", "<bos>{prompt}\n"):
        codec = TraceCodec.of(Grammar(prompt_frame=frame), Framing())
        assert codec.encode_prompt("1+1") == [900, *map(ord, "1+1\n")]


def test_every_special_token_is_reserved_in_a_prompt_named_or_not() -> None:
    codec = TraceCodec.of(Grammar(), Framing())
    for text in ("<end>", "<backtrack>", "<|eot|>"):
        assert codec.reserved_in_prompt(f"1+1{text}") == text
    assert codec.reserved_in_prompt("1+1<think>") is None


def test_the_tokens_of_the_frame_are_reserved_though_they_are_not_called_special() -> None:
    frame = "<user>{prompt}\n\n<model>"
    tokens = {5: Special("<user>", special=False), 6: Special("\n\n", special=False)}
    for separator in ("\n", "\n\n"):
        grammar = Grammar(prompt_frame=frame, separator=separator)
        codec = TraceCodec.of(grammar, Marked(tokens))
        assert codec.reserved_in_prompt("1+1<user>2+2") == "<user>"
        # A line end is a token of some tokenizers, and <model> is none here.
        assert codec.reserved_in_prompt("1+1\n\n<model> prompt") is None


def test_a_step_may_have_lines_under_another_separator_but_not_half_of_it_at_its_end() -> None:
    grammar = Grammar(separator="\n\n")
    assert grammar.reserved_in_step("def f():\n    pass") is None
    assert grammar.reserved_in_step("\nreturn") is None
    for step in ("a\n\nb", "a\n"):
        assert grammar.reserved_in_step(step) == "\n\n"
