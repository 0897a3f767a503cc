"""The loss mask of one sample: which of its tokens are learned.

    prompt  right step  right step  wrong step  marker
    -       loss        loss        -           loss

No loss on the prompt or on wrong steps: a model should notice a wrong step, not learn to write it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from stepback_core.trace import TraceCodec
from stepback_training.data.samples import Sample
from stepback_training.data.traces import PLAIN_PROMPTS

IGNORED = -100
"""The label that `transformers` leaves out of the loss."""
# Samples whose steps are decoded again, to see whether they come back.
_LOOKED_AT = 1_000


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sample: its ids and, of equal length, a flag for each token that carries loss."""

    ids: list[int]
    has_loss: list[bool]
    prompt_tokens: int


def encode(
    sample: Sample, codec: TraceCodec, encode_step: Callable[[str], list[int]] | None = None
) -> Encoded:
    """Encode step by step, so that step boundaries are token boundaries with any tokenizer;
    `encode_step` may stand in for the codec's own where it remembers steps."""
    encode_step = encode_step or codec.encode_step
    # Ids and mask come from the same pieces, so that neither can get out of step with the other.
    pieces = [(codec.encode_prompt(sample.prompt), False)]
    pieces += [(encode_step(step), True) for step in sample.steps]
    pieces += [(encode_step(step), False) for step in sample.wrong_steps]
    # One ending or the other: after a wrong step the marker is the only right thing to write. A
    # sample that is the beginning of a path has neither, since its path goes on.
    if sample.wrong_steps:
        pieces.append(([codec.tokens.marker_id], True))
    elif not sample.beginning:
        pieces.append(([codec.tokens.end_id], True))
    ids = [token for piece, _ in pieces for token in piece]
    return Encoded(ids, [loss for piece, loss in pieces for _ in piece], len(pieces[0][0]))


def check_round_trip(samples: Iterable[Sample], codec: TraceCodec) -> None:
    """Raise ValueError unless steps come back from their ids as they were: those of a probe, and
    those of the first samples."""
    codec.check_tokenizer()
    for sample in islice(samples, _LOOKED_AT):
        codec.check_round_trip(sample.steps + sample.wrong_steps)


def refuse_reserved(sample: Sample, number: int, codec: TraceCodec) -> None:
    """Raise ValueError for a sample whose text holds what ends a step or a trace, or a control
    token."""
    steps = sample.steps + sample.wrong_steps
    found = [(step, codec.reserved_in_step(step)) for step in steps]
    for text, reserved in found:
        if reserved is not None:
            raise ValueError(f"sample {number}: {text!r} must not contain {reserved!r}")
    reserved = codec.reserved_in_prompt(sample.prompt)
    if reserved is not None:
        raise ValueError(
            f"sample {number}: {sample.prompt!r} must not contain {reserved!r}: {PLAIN_PROMPTS}"
        )
