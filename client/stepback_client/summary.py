"""A result in a few lines of text."""

from stepback_core.schemas import SolveResult


def describe(result: SolveResult, picture: str | None = None) -> str:
    """A result as lines of text: the steps, a picture of them, its cost, and its warning."""
    usage = result.usage
    steps = [f"  {step}" for step in result.answer.steps] if result.answer else []
    why = f" ({result.answer.reason})" if result.answer and result.answer.reason else ""
    sure = f", confidence {result.answer.confidence:.2f}" if result.answer else ""
    cost = (
        f"{result.status}{why}: {usage.generated_tokens} tokens, {usage.engine_requests} samples, "
        f"{usage.backtracks} backtracks, {usage.seconds_searching:.2f} s{sure}"
    )
    warning = [f"warning: {result.warning}"] if result.warning else []
    return "\n".join([*steps, *([picture] if picture else []), cost, *warning])
