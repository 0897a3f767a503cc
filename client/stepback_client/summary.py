"""A result in a few lines of text."""

from stepback_client.tree.text import one_line
from stepback_core.schemas import SolveResult


def describe(result: SolveResult, picture: str | None = None) -> str:
    """A result as lines of text: the steps, a picture of them, its cost, and its warning."""
    usage = result.usage
    # A step may have several lines, and a model may write what a terminal would obey.
    given = result.answer.steps if result.answer else []
    steps = [f"  {one_line(line)}" for step in given for line in step.split("\n")]
    why = f" ({result.answer.reason})" if result.answer and result.answer.reason else ""
    sure = f", confidence {result.answer.confidence:.2f}" if result.answer else ""
    cost = (
        f"{result.status}{why}: {usage.generated_tokens} tokens, {usage.engine_requests} samples, "
        f"{usage.backtracks} backtracks, {usage.seconds_searching:.2f} s{sure}"
    )
    warning = [f"warning: {result.warning}"] if result.warning else []
    return "\n".join([*steps, *([picture] if picture else []), cost, *warning])
