"""The trace grammar, in text and in token ids."""

import pytest
from pydantic import ValidationError

from stepback_core.trace import Grammar, TokenGrammar

END, MARKER, NEWLINE, TWO_STEPS = 1, 2, 3, 4
TOKENS = TokenGrammar(marker_id=MARKER, end_id=END, separator_ids=frozenset({NEWLINE}))


def test_the_frame_holds_the_prompt_once() -> None:
    assert Grammar(prompt_frame="Q: {prompt}\nA:").frame("1+1") == "Q: 1+1\nA:"
    for frame in ("no place", "{prompt}{prompt}"):
        with pytest.raises(ValidationError, match="prompt_frame"):
            Grammar(prompt_frame=frame)


def test_braces_in_a_prompt_are_only_text() -> None:
    assert Grammar().frame("{0} {prompt}") == "{0} {prompt}\n"


def test_reserved_text_is_found() -> None:
    grammar = Grammar()
    assert grammar.reserved_in(f"a{grammar.marker}") == grammar.marker
    assert grammar.reserved_in(f"{grammar.end}b") == grammar.end
    assert grammar.reserved_in("plain") is None


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
