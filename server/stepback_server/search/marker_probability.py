"""P(marker): how likely the model finds it, at each place, that the step before was wrong. Pure.

It is read off the alternatives that the engine names at every token, so it costs no token and no
forward pass, also where the model did not write the marker.
"""

from collections.abc import Sequence
from math import exp, inf, prod

from stepback_core.trace import TokenGrammar
from stepback_server.engine.base import Sample


def marker_logprobs(marker_id: int, sample: Sample) -> tuple[float, ...]:
    """Read the marker's log-probability off what the engine says of each place; -inf where it is
    less likely than every token that the engine names."""
    return tuple(marker_logprob(marker_id, sample, place) for place in range(len(sample.ids)))


def marker_logprob(marker_id: int, sample: Sample, place: int) -> float:
    """Read it off one place alone."""
    if sample.ids[place] == marker_id:
        return sample.logprobs[place]
    others = sample.alternatives[place] if sample.alternatives else ()
    return dict(others).get(marker_id, -inf)


def p_marker_after_steps(
    grammar: TokenGrammar, ids: Sequence[int], logprobs: Sequence[float]
) -> list[float | None]:
    """Return P(marker) after each step, in order; None for one that nothing was written after.

    A step without a separator of its own ends where the end or the marker was written."""
    # The place after a separator is where the model would write the marker, so P(marker) of a step
    # stands one place behind its last id.
    after = [exp(logprobs[end]) if end < len(ids) else None for end in grammar.step_ends(ids)]
    if len(ids) > 1 and ids[-1] in grammar.stop_ids:
        before_last = ids[-2]
        if before_last not in grammar.separator_ids:
            after.append(exp(logprobs[-1]))
    return after


def confidence(after: Sequence[float | None]) -> float:
    """Return the product of 1 - P(marker) over the step ends and the end."""
    # A product and no mean: one wrong step spoils an answer, however sure the others are. And two
    # doubtful steps are worse than one.
    return prod(1 - p for p in after if p is not None)
