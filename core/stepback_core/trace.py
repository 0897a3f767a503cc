"""The trace grammar: how a problem, its steps and the backtrack marker become text and tokens.

This is the only definition. A trace is

    <framed prompt> (<step> <separator>)* (<end> | <marker>)

`end` says that the model believes it is done, the marker that its last step was wrong. The module
knows text and token ids; it knows no task, no model library and no engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepback_core.prompt_frame import DEFAULT_FRAME, check_frame, framed, prefix_of, with_prefix

PROTOCOL_VERSION = 1


class Grammar(BaseModel):
    """The literal texts of the protocol, as a checkpoint records them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    marker: str = Field(default="<backtrack>", min_length=1)
    """Emitted after a wrong step. One added special token."""
    separator: str = Field(default="\n", min_length=1)
    """Closes every step."""
    end: str = Field(default="<end>", min_length=1)
    """Closes an answer. The tokenizer's end-of-sequence token."""
    prompt_frame: str = DEFAULT_FRAME
    """Wraps the prompt; holds `{prompt}` exactly once. Of a chat model it is one user's turn in the
    model's own chat template, and the only place where a prompt has control tokens."""

    @model_validator(mode="after")
    def _texts_are_apart(self) -> "Grammar":
        texts = {"marker": self.marker, "separator": self.separator, "end": self.end}
        for name, text in texts.items():
            for other, container in texts.items():
                if name != other and text in container:
                    # Otherwise one of them would be read in the middle of the other.
                    raise ValueError(f"{name} {text!r} is part of {other} {container!r}")
        return self

    @model_validator(mode="after")
    def _frame_holds_the_prompt_once(self) -> "Grammar":
        check_frame(self.prompt_frame)
        return self

    def reserved_in_prompt(self, prompt: str) -> str | None:
        """Control text that a prompt contains and must not."""
        return next((text for text in (self.marker, self.end) if text in prompt), None)

    def reserved_in_step(self, step: str) -> str | None:
        """Text that a step contains and must not: it would end the step, or the trace."""
        # Searched with the closing separator, which a step that ends in half of one would move.
        ends_early = (step + self.separator).find(self.separator) < len(step)
        return self.separator if ends_early else self.reserved_in_prompt(step)

    def frame(self, prompt: str) -> str:
        return framed(self.prompt_frame, prompt)


class Tokenizer(Protocol):
    """Tokenizer interface of the protocol; Hugging Face tokenizers satisfy it."""

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = ...) -> str: ...
    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TokenGrammar:
    """The grammar in token ids. Rollbacks are slices at step boundaries, never new tokenisation."""

    marker_id: int
    end_id: int
    separator_ids: frozenset[int]
    """Every token whose text contains the separator: a step ends at such a token, even where the
    token straddles the boundary, as byte-level BPE tokens may."""

    @classmethod
    def of(cls, grammar: Grammar, tokenizer: Tokenizer) -> "TokenGrammar":
        """Read the ids off a tokenizer. Raises ValueError where it lacks the marker or the end."""
        ids = {
            text: tokenizer.convert_tokens_to_ids(text) for text in (grammar.marker, grammar.end)
        }
        for text, token_id in ids.items():
            # Encoded too: some tokenizers know a token by name and still split its text.
            if token_id is None or tokenizer.encode(text, add_special_tokens=False) != [token_id]:
                raise ValueError(f"the tokenizer has no single token {text!r}")
        separators = frozenset(
            token_id
            # The whole vocabulary, once at the start: byte-level BPE has many tokens with a line
            # end in them.
            for token_id in range(len(tokenizer))
            if grammar.separator in tokenizer.decode([token_id], skip_special_tokens=False)
        )
        if not separators:
            raise ValueError(
                f"no token of the tokenizer contains the separator {grammar.separator!r}"
            )
        marker_id, end_id = ids[grammar.marker], ids[grammar.end]
        assert marker_id is not None and end_id is not None
        return cls(marker_id, end_id, separators)

    @property
    def stop_ids(self) -> tuple[int, int]:
        return (self.marker_id, self.end_id)

    def step_ends(self, ids: Sequence[int]) -> list[int]:
        """Index just past each complete step of a generated id sequence, in order."""
        return [index + 1 for index, token in enumerate(ids) if token in self.separator_ids]

    def last_good_length(self, ids: Sequence[int]) -> int:
        """Tell how many of the generated ids to keep once the marker has rejected the last step.

        `ids` are the generated tokens, the marker included. The erroneous step (complete or still
        being written) and the marker go; the steps before it stay.
        """
        body = ids[: ids.index(self.marker_id)] if self.marker_id in ids else ids
        ends = self.step_ends(body)
        # The marker came right after a separator, so the step that it rejects is the complete one
        # before.
        if ends and ends[-1] == len(body):
            ends.pop()
        return ends[-1] if ends else 0


@dataclass(frozen=True, slots=True)
class TraceCodec:
    """Text to ids and back under one grammar and one tokenizer."""

    grammar: Grammar
    tokenizer: Tokenizer
    tokens: TokenGrammar
    prefix_ids: tuple[int, ...] = ()
    """Ids that the tokenizer puts before a text by itself (BOS)."""
    control_texts: tuple[str, ...] = ()
    """The texts of the tokenizer's special tokens, named or not, and of those that it was given for
    the frame: no prompt or step may hold one."""

    @classmethod
    def of(cls, grammar: Grammar, tokenizer: Tokenizer) -> "TraceCodec":
        """The codec of a grammar and a tokenizer. Raises ValueError where they do not agree."""
        tokens = TokenGrammar.of(grammar, tokenizer)
        return cls(
            grammar,
            tokenizer,
            tokens,
            prefix_of(tokenizer, _PROBES[0][0]),
            _control_texts(grammar, tokenizer),
        )

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids of the framed prompt after one BOS, where the tokenizer has one."""
        ids = self.tokenizer.encode(self.grammar.frame(prompt), add_special_tokens=False)
        return with_prefix(self.prefix_ids, ids)

    def reserved_in_prompt(self, prompt: str) -> str | None:
        """The first control token in a prompt, as text; a prompt must have none of its own."""
        named = next((text for text in self.control_texts if text in prompt), None)
        return named or self.grammar.reserved_in_prompt(prompt)

    def reserved_in_step(self, step: str) -> str | None:
        """The first text in a step that ends a step or a trace, or that is a control token."""
        # One rule for training data and for the steps of a request.
        return self.reserved_in_prompt(step) or self.grammar.reserved_in_step(step)

    def check_tokenizer(self) -> None:
        """Raise ValueError for a tokenizer that changes a text when it is encoded step by step."""
        for probe in _PROBES:
            if not any(map(self.grammar.reserved_in_step, probe)) and self._knows(probe):
                self.check_round_trip(probe)

    def _knows(self, steps: Sequence[str]) -> bool:
        """Tell whether the vocabulary has all characters of these steps."""
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        return all(unknown not in self.encode_step(step) for step in steps)

    def check_round_trip(self, steps: Sequence[str]) -> None:
        """Raise ValueError unless steps come back from their ids as they were."""
        ids = [token for step in steps for token in self.encode_step(step)]
        if self.decode_steps(ids) != list(steps):
            raise ValueError(
                f"the tokenizer does not give back what it encodes step by step: {list(steps)} "
                f"became {self.decode_steps(ids)}; take a model with another tokenizer (byte-level "
                "BPE works, the kind that puts a space before each text does not)"
            )

    def encode_step(self, step: str) -> list[int]:
        """Ids of one step and its separator, encoded alone: its ends are token boundaries."""
        return self.tokenizer.encode(step + self.grammar.separator, add_special_tokens=False)

    def decode_steps(self, ids: Sequence[int]) -> list[str]:
        """The steps in generated ids; stop tokens are dropped, an unfinished last step is kept."""
        complete, rest = self.split_steps(ids)
        return [*complete, rest] if rest else complete

    def ended_steps(self, ids: Sequence[int]) -> list[str]:
        """The steps in generated ids that have ended: by their separator, or by the end. A token
        that straddles a boundary may have begun another one, which is left out."""
        complete, rest = self.split_steps(ids)
        return [*complete, rest] if rest and ids[-1] == self.tokens.end_id else complete

    def split_steps(self, ids: Sequence[int]) -> tuple[list[str], str]:
        """The complete steps in generated ids, and the beginning of an unfinished one."""
        # Decoded as one text and then cut: a token may hold the end of one step and the beginning
        # of the next.
        body = [token for token in ids if token not in self.tokens.stop_ids]
        text = self.tokenizer.decode(body, skip_special_tokens=False)
        *complete, rest = text.split(self.grammar.separator)
        return complete, rest


# By what a tokenizer may change. Two steps each: a space before each text shows at the second one.
_PROBES = (
    ("1+2=3", "3+4=7"),
    ("ab", "cd"),
    ("Ab", "cD"),
    ("a  b", " c "),
    ("is it ?", "no , he 's ."),
    ("\N{VULGAR FRACTION ONE HALF}", "x\N{SUPERSCRIPT TWO}"),
)


def _control_texts(grammar: Grammar, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Special tokens with a role (BOS, EOS, ...), those that are special but have none, and those
    of the frame: some tokenizers do not call the tokens of a turn special."""
    named: Sequence[str] = getattr(tokenizer, "all_special_tokens", ())
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    frame = grammar.frame("").replace(grammar.separator, "")
    others = [t.content for t in added.values() if t.special or _is_framing(t.content, frame)]
    return tuple(dict.fromkeys([*named, *others]))


def _is_framing(text: str, frame: str) -> bool:
    # Line ends and spaces may be tokens of their own, and any prompt may have them.
    return bool(text.strip()) and text in frame
