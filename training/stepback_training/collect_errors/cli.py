"""`stepback errors`."""

import argparse
import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from stepback_client import AsyncClient, StepbackError
from stepback_client.batch import (
    INTERRUPTED,
    add_cluster_flags,
    drain_on_signals,
    positive,
    say,
    say_missing,
)
from stepback_core.manifest import Manifest, weights_digest
from stepback_core.validation import first_error
from stepback_training.collect_errors.collect import collect
from stepback_training.collect_errors.collection import Collection, CollectionPlan, open_collection
from stepback_training.collect_errors.first_error import summary
from stepback_training.generators import GENERATORS
from stepback_training.plugins import with_plugins
from stepback_training.sampling.bounded_gather import PATIENCE, Stopped, of_these_weights
from stepback_training.sampling.cli import (
    add_controller_flags,
    cluster_of,
    say_failures,
    say_stopped,
    status_of,
)
from stepback_training.sampling.journal import Journal
from stepback_training.sampling.searchers import Search, at_controller

_GOES_ON = "the same command goes on from here"


@with_plugins
def errors(arguments: Sequence[str]) -> int:
    """Collect wrong steps as JSONL. Returns 0; 1 for what failed on the way; 2 for what was
    refused; 130 where its user stopped it. What was collected is kept."""
    given = _parser().parse_args(arguments)
    try:
        options = json.loads(given.options)
        GENERATORS[given.task].with_options(options)
        collection = asyncio.run(_collect(given, options))
    except Stopped as stopped:
        return say_stopped("errors", stopped, _GOES_ON)
    except ValidationError as error:
        return say("errors", first_error(error, whole="--options"), 2)
    except ModuleNotFoundError as error:
        return say_missing("errors", error)
    except ValueError as error:
        return say("errors", error, 2)
    except (StepbackError, OSError) as error:
        return say("errors", f"{error}; {_GOES_ON}", status_of(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    print(summary(collection.tally))
    print(f"{len(collection.errors)} different wrong steps in {given.out}")
    return say_failures("errors", collection.failures, given.problems)


async def _collect(given: argparse.Namespace, options: dict[str, Any]) -> Collection:
    cluster = cluster_of(given)
    name, digest = _in_folder(given) if cluster else await _served(given)
    plan = CollectionPlan(
        task=given.task,
        options=options,
        samples=given.samples,
        temperature=given.temperature,
        seed=given.seed,
        model=name,
    )
    stop = asyncio.Event()
    drain_on_signals("errors", stop)
    with (
        open_collection(given.out, plan, digest) as collection,
        tqdm(total=given.problems, unit="problem") as bar,
    ):
        if cluster:
            assert digest is not None
            searching = cluster.search(given.model, digest)
        else:
            searching = _at(given.url, digest, collection.journal)
        await collect(
            searching,
            plan,
            collection,
            given.problems,
            in_flight=cluster.at_once if cluster else given.in_flight,
            stop=stop,
            advance=bar.update,
        )
        return collection


@asynccontextmanager
async def _at(url: str, digest: str | None, journal: Journal[Any]) -> AsyncGenerator[Search]:
    async with (
        AsyncClient.from_environment(url, retry=PATIENCE) as client,
        of_these_weights(client, digest, journal),
    ):
        yield at_controller(client)


def _in_folder(given: argparse.Namespace) -> tuple[str, str]:
    """Return a checkpoint's name and digest. Raises ValueError where it cannot be asked."""
    if given.model is None:
        raise ValueError("--on ray needs --model, a folder that every node has")
    manifest = Manifest.read(given.model)
    if given.task not in manifest.tasks:
        raise ValueError(f"--task: {given.model} does not know {given.task}")
    return manifest.name, weights_digest(given.model)


async def _served(given: argparse.Namespace) -> tuple[str, str | None]:
    """Return the name and the digest of the served model. Raises ValueError where it does not know
    the task."""
    # Without the collection's patience: a wrong address should show at once.
    async with AsyncClient.from_environment(given.url) as client:
        models = (await client.models()).data
    if not any(given.task in model.tasks for model in models):
        raise ValueError(f"--task: {given.url} serves no model that knows {given.task}")
    return models[0].id, models[0].digest


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "stepback errors",
        description="Collect the wrong steps that a model takes on training problems, served by a "
        "controller or on a Ray cluster. The same command goes on with a collection that was cut "
        "short, or makes it longer. Where the controller needs a key, set STEPBACK_API_KEY.",
    )
    add_controller_flags(parser, in_flight=16)
    add_cluster_flags(parser)
    parser.add_argument("--model", type=Path, help="the checkpoint that is asked with --on ray")
    parser.add_argument("--problems", type=positive, required=True, help="how many are asked")
    parser.add_argument("--out", type=Path, required=True, help="the JSONL file to write")
    parser.add_argument("--task", choices=[*GENERATORS], default="countdown")
    parser.add_argument("--options", default="{}", help="of the task's generator, as JSON")
    parser.add_argument("--samples", type=positive, default=8, help="paths of each problem")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the sampling")
    parser.add_argument("--seed", type=int, default=0, help="of the problems and the sampling")
    return parser
