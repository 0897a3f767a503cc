"""`stepback evaluate` and `stepback plot`."""

import argparse
import asyncio
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from stepback_client import AsyncClient, BadSetting, StepbackError
from stepback_client.batch import INTERRUPTED, drain_on_signals, say
from stepback_core.errors import InvalidInput
from stepback_core.validation import first_error
from stepback_training.evaluate.evaluation import Evaluation
from stepback_training.evaluate.flags import parser, read_plan
from stepback_training.evaluate.measurement import Measured, measure
from stepback_training.evaluate.plan import Plan
from stepback_training.plugins import with_plugins
from stepback_training.sampling.bounded_gather import PATIENCE, Stopped
from stepback_training.sampling.cli import (
    say_stopped,
    status_of,
)
from stepback_training.sampling.problems import Question
from stepback_training.sampling.provenance import this_process

_NO_MATPLOTLIB = "matplotlib is not installed: pip install 'stepback-llm[plot]'"


@with_plugins
def evaluate(arguments: Sequence[str]) -> int:
    """Evaluate what a running controller serves. Returns 0; 1 for what failed on the way; 2 for
    what was refused; 130 where its user stopped it. The last three keep what was done."""
    given = parser().parse_args(arguments)
    if given.picture and not _can_draw():
        return say("evaluate", f"{_NO_MATPLOTLIB}, or give --no-picture", 2)
    try:
        plan, asked = read_plan(given)
    except ValidationError as error:
        return say("evaluate", first_error(error, whole="the plan"), 2)
    except ValueError as error:
        return say("evaluate", error, 2)
    try:
        evaluation = Evaluation.of(asyncio.run(_measure(plan, asked, given)))
        evaluation.write(given.out)
    except Stopped as stopped:
        journal = given.out.with_suffix(".jsonl")
        kept = f"what was done is in {journal}, and the same command goes on from it"
        return say_stopped("evaluate", stopped, kept)
    except (InvalidInput, BadSetting) as error:
        return say("evaluate", error, 2)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (StepbackError, OSError) as error:
        return say("evaluate", error, status_of(error))
    print(evaluation.table())
    if given.picture:
        _draw_one(evaluation, given.out)
    return 0


@with_plugins
def plot(arguments: Sequence[str]) -> int:
    """Draw evaluations. Returns 0, or 2 for what cannot be drawn."""
    plot_flags = argparse.ArgumentParser(
        "stepback plot",
        description="Draw evaluations: accuracy against generated tokens, and against N for each "
        "b, beside the paper's published curve. One pair of figures a task, as PNG and SVG.",
    )
    plot_flags.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="of stepback evaluate"
    )
    plot_flags.add_argument(
        "--out", type=Path, default=Path("figures"), help="the folder to draw into"
    )
    given = plot_flags.parse_args(arguments)
    if not _can_draw():
        return say("plot", _NO_MATPLOTLIB, 2)
    # Imported here: matplotlib takes its time, and may be absent.
    from stepback_training.evaluate.figures import draw_all

    try:
        read = {_name(path, given.files): Evaluation.read(path) for path in given.files}
        files = draw_all(read, given.out)
    except (InvalidInput, OSError) as error:
        return say("plot", error, 2)
    print("\n".join(map(str, files)))
    return 0


async def _measure(plan: Plan, asked: list[Question], given: argparse.Namespace) -> Measured:
    stop = asyncio.Event()
    drain_on_signals("evaluate", stop)
    async with AsyncClient.from_environment(given.url, retry=PATIENCE) as client:
        return await measure(
            client,
            plan,
            asked,
            given.out.with_suffix(".jsonl"),
            run=this_process(),
            in_flight=given.in_flight,
            at_equal_tokens=given.at_equal_tokens,
            stop=stop,
        )


def _draw_one(evaluation: Evaluation, out: Path) -> None:
    from stepback_training.evaluate.figures import draw_one

    draw_one(evaluation, out.with_suffix(""))


def _can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def _name(path: Path, among: Sequence[Path]) -> str:
    """A file's stem, or its whole path where another one has the same."""
    return path.stem if sum(other.stem == path.stem for other in among) == 1 else str(path)
