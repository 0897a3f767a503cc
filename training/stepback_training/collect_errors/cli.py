"""`stepback errors`."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from stepback_client import AsyncClient, Model, StepbackError
from stepback_core.validation import first_error
from stepback_training.collect_errors.collect import collect
from stepback_training.collect_errors.collection import Plan, open_collection
from stepback_training.collect_errors.first_error import Tally, summary
from stepback_training.generators import GENERATORS
from stepback_training.plugins import with_plugins
from stepback_training.sampling.bounded_gather import PATIENCE, Stopped
from stepback_training.sampling.cli import (
    INTERRUPTED,
    add_controller_flags,
    drain_on_signals,
    positive,
    say,
    say_stopped,
    status_of,
)

_GOES_ON = "the same command goes on from here"


@with_plugins
def errors(arguments: Sequence[str]) -> int:
    """Collect wrong steps from a running controller as JSONL. Returns 0; 1 for what failed on the
    way; 2 for what was refused; 130 where its user stopped it. What was collected is kept."""
    given = _parser().parse_args(arguments)
    try:
        options = json.loads(given.options)
        GENERATORS[given.task].with_options(options)
        tally, count = asyncio.run(_collect(given, options))
    except Stopped as stopped:
        return say_stopped("errors", stopped, _GOES_ON)
    except ValidationError as error:
        return say("errors", first_error(error, whole="--options"), 2)
    except ValueError as error:
        return say("errors", error, 2)
    except (StepbackError, OSError) as error:
        return say("errors", f"{error}; {_GOES_ON}", status_of(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    print(summary(tally))
    print(f"{count} different wrong steps in {given.out}")
    return 0


async def _collect(given: argparse.Namespace, options: dict[str, Any]) -> tuple[Tally, int]:
    """Return how the paths ended, and the number of different errors."""
    model = await _served(given.url, given.task)
    plan = Plan(
        task=given.task,
        options=options,
        samples=given.samples,
        temperature=given.temperature,
        seed=given.seed,
        model=model.id,
    )
    stop = asyncio.Event()
    drain_on_signals("errors", stop)
    with (
        open_collection(given.out, plan, model.digest) as collection,
        tqdm(total=given.problems, unit="problem") as bar,
    ):
        async with AsyncClient.from_environment(given.url, retry=PATIENCE) as client:
            await collect(
                client,
                plan,
                collection,
                given.problems,
                digest=model.digest,
                in_flight=given.in_flight,
                stop=stop,
                advance=bar.update,
            )
        return collection.tally, len(collection.errors)


async def _served(url: str, task: str) -> Model:
    """Return the served model. Raises ValueError where it does not know the task."""
    # Without the collection's patience: a wrong address should show at once.
    async with AsyncClient.from_environment(url) as client:
        models = (await client.models()).data
    if not any(task in model.tasks for model in models):
        raise ValueError(f"--task: {url} serves no model that knows {task}")
    return models[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "stepback errors",
        description="Collect the wrong steps that a served model takes on training problems. The "
        "same command goes on with a collection that was cut short, or makes it longer. Where the "
        "controller needs a key, set STEPBACK_API_KEY.",
    )
    add_controller_flags(parser, in_flight=16)
    parser.add_argument("--problems", type=positive, required=True, help="how many are asked")
    parser.add_argument("--out", type=Path, required=True, help="the JSONL file to write")
    parser.add_argument("--task", choices=[*GENERATORS], default="countdown")
    parser.add_argument("--options", default="{}", help="of the task's generator, as JSON")
    parser.add_argument("--samples", type=positive, default=8, help="paths of each problem")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the sampling")
    parser.add_argument("--seed", type=int, default=0, help="of the problems and the sampling")
    return parser
