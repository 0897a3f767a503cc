"""A caller's texts as token ids: the prompt, and steps to start from."""

from collections.abc import Sequence
from unicodedata import name

from stepback_server.checkpoint import Checkpoint
from stepback_server.errors import ApiError
from stepback_server.search.strategy import StateView


def encode_prompt(checkpoint: Checkpoint, prompt: str) -> tuple[int, ...]:
    """Return the ids of the framed prompt. Raises ApiError."""
    _check(checkpoint, "prompt", prompt, checkpoint.codec.reserved_in_prompt(prompt))
    ids = tuple(checkpoint.codec.encode_prompt(prompt))
    most = checkpoint.context_tokens
    if len(ids) >= most:
        raise invalid_field(
            "prompt", "prompt_too_long", f"it has {len(ids)} tokens, of a context of {most}"
        )
    return ids


def encode_steps(
    checkpoint: Checkpoint, steps: Sequence[str], view: StateView | None, most: int
) -> tuple[int, ...]:
    """Return the ids of given steps, at most `most` less one. Raises ApiError that names the step
    at fault: one that cannot be written, or that the task does not allow."""
    ids: tuple[int, ...] = ()
    for index, step in enumerate(steps):
        field = f"steps.{index}"
        # Given steps are a caller's text like the prompt: control tokens are as forbidden there.
        _check(checkpoint, field, step, checkpoint.codec.reserved_in_step(step))
        ids += tuple(checkpoint.codec.encode_step(step))
        # Step by step, so that the refusal names the first one at fault.
        if view is not None and view.state(ids) is None:
            raise invalid_field(
                field, "illegal_step", f"the task does not allow {step!r} here; mend or drop it"
            )
        if len(ids) >= most:
            raise invalid_field(
                field,
                "steps_too_long",
                f"with it the steps have {len(ids)} tokens, of at most {most} of an answer",
            )
    return ids


def _check(checkpoint: Checkpoint, field: str, text: str, reserved: str | None) -> None:
    if reserved is not None:
        raise invalid_field(field, "reserved_text", f"it must not contain {reserved!r}")
    place = _first_unknown(checkpoint, text)
    if place is not None:
        raise invalid_field(
            field,
            "unknown_character",
            f"the model does not know {_in_words(text[place])}, character {place + 1} of the text; "
            "leave it out or write it otherwise",
        )


def _first_unknown(checkpoint: Checkpoint, text: str) -> int | None:
    """The place of the first character that the vocabulary lacks; None if it lacks none."""
    unknown = checkpoint.unknown_id

    def lacks(part: str) -> bool:
        ids = checkpoint.codec.tokenizer.encode(part, add_special_tokens=False)
        return unknown is not None and unknown in ids

    if not lacks(text):
        return None
    # By bisection: a prompt may be long, and the tokenizer is the slow part.
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if lacks(text[:middle]) else (middle, high)
    return low


def _in_words(character: str) -> str:
    named = name(character, "")
    return f"{character!r} (U+{ord(character):04X}{', ' + named if named else ''})"


def invalid_field(field: str, code: str, message: str) -> ApiError:
    """Return the error for a field of the request."""
    return ApiError(code, f"{field}: {message}", param=field)
