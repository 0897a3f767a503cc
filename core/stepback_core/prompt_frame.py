"""The prompt frame: what stands around a problem's prompt, and before it, when a model reads it.

    {prompt}\\n                                     a model from scratch
    <|im_start|>user\\n{prompt}<|im_end|>\\n...    one user's turn of a chat template

Training and serving use the same frame, which the checkpoint's `stepback.json` records.
"""

from collections.abc import Sequence
from typing import Protocol

DEFAULT_FRAME = "{prompt}\n"


class Encoder(Protocol):
    """The part of a tokenizer that a frame needs."""

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...


def check_frame(frame: str) -> None:
    """Raise ValueError for a frame that does not hold a prompt once."""
    if frame.count("{prompt}") != 1:
        raise ValueError("prompt_frame must contain {prompt} exactly once")


def framed(frame: str, prompt: str) -> str:
    """Put a prompt into a frame."""
    # Not str.format, which would read braces of the prompt.
    return frame.replace("{prompt}", prompt)


def with_prefix(prefix: Sequence[int], ids: list[int]) -> list[int]:
    """Put what the tokenizer sets before a text (BOS) before the ids of a framed prompt, once."""
    # Of what a tokenizer adds only the front is taken: an EOS after the prompt (add_eos_token)
    # would end the trace before its first step.
    start = list(prefix)
    # A chat template may begin with BOS already; two of them a model has never seen.
    return ids if ids[: len(start)] == start else start + ids


def prefix_of(tokenizer: Encoder, probe: str) -> tuple[int, ...]:
    """Find the ids that a tokenizer sets before a text. Raises ValueError where it changes the
    text."""
    # Compared as ids: a tokenizer may have no name for what it adds.
    plain = tokenizer.encode(probe, add_special_tokens=False)
    whole = tokenizer.encode(probe, add_special_tokens=True)
    # The front is what stands before the text: an EOS at the back must not be taken for it.
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start])
    raise ValueError("the tokenizer encodes a text otherwise where it adds its special tokens")
