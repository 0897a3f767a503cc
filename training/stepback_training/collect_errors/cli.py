"""`stepback errors`."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from stepback_client import (
    AsyncClient,
    AuthenticationError,
    BadSetting,
    InvalidRequest,
    NotFound,
    StepbackError,
)
from stepback_core.validation import first_error
from stepback_training.collect_errors.collect import collect
from stepback_training.collect_errors.collection import Collection, CollectionError, Plan
from stepback_training.collect_errors.first_error import summary
from stepback_training.data.model_errors import ModelErrorsError
from stepback_training.generators import GENERATORS
from stepback_training.sampling.cli import INTERRUPTED, add_controller_flags, positive, say


def errors(arguments: Sequence[str]) -> int:
    """Collect wrong steps from a running controller as JSONL. Returns 0; 1 where the server fails
    on the way, what was collected so far being kept; 2 for what is refused."""
    given = _parser().parse_args(arguments)
    try:
        options = json.loads(given.options)
        GENERATORS[given.task].with_options(options)
        collection = asyncio.run(_collect(given, options))
    except (AuthenticationError, InvalidRequest, NotFound) as error:
        return say("errors", str(error), 2)
    except BadSetting as error:
        return say("errors", error, 2)
    except StepbackError as error:
        return say("errors", f"{error}; the same command goes on from here", 1)
    except ValidationError as error:
        return say("errors", first_error(error, whole="--options"), 2)
    except (CollectionError, ModelErrorsError, OSError, ValueError) as error:
        return say("errors", str(error), 2)
    except KeyboardInterrupt:
        return INTERRUPTED
    print(summary(collection.progress.tally))
    print(f"{len(collection.keys)} different wrong steps in {collection.path}")
    return 0


async def _collect(given: argparse.Namespace, options: dict[str, Any]) -> Collection:
    async with AsyncClient.from_environment(given.url) as client:
        models = (await client.models()).data
        if not any(given.task in model.tasks for model in models):
            raise CollectionError(f"--task: {given.url} serves no model that knows {given.task}")
        plan = Plan(
            task=given.task,
            options=options,
            samples=given.samples,
            temperature=given.temperature,
            seed=given.seed,
            model=models[0].id,
        )
        with tqdm(total=given.problems, unit="problem") as bar:
            return await collect(
                client,
                plan,
                given.out,
                given.problems,
                in_flight=given.in_flight,
                advance=bar.update,
            )


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
