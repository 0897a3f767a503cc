"""`stepback improve`."""

import argparse
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from stepback_client import StepbackError
from stepback_client.batch import (
    INTERRUPTED,
    add_cluster_flags,
    drain_on_signals,
    positive,
    say,
    say_missing,
)
from stepback_core.validation import first_error
from stepback_training.config import ImproveRecipe, Recipe
from stepback_training.improve.record import Round
from stepback_training.improve.rounds import improve as run_rounds
from stepback_training.improve.served_checkpoint import Controller, Engines, OnRay
from stepback_training.plugins import with_plugins
from stepback_training.sampling.bounded_gather import Stopped
from stepback_training.sampling.cli import (
    add_controller_flags,
    cluster_of,
    say_stopped,
    status_of,
)
from stepback_training.sampling.statistics import Share

_GOES_ON = "The same command goes on from there."


@with_plugins
def improve(arguments: Sequence[str]) -> int:
    """Run rounds of self-improvement, or go on with them. Returns 0; 1 for what failed on the way;
    2 for what was refused; 130 where its user stopped it. The last three keep what was done."""
    given = _parser().parse_args(arguments)
    try:
        recipe = _with_changes(Recipe.read(given.recipe), given)
        with _engines(given) as engines:
            record = run_rounds(recipe, engines, given.run, best=given.best, report=_tell)
    except Stopped as stopped:
        return say_stopped("improve", stopped, _GOES_ON)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        return say_missing("improve", error)
    except FloatingPointError as error:
        return say("improve", error, 1)
    # First: BadSetting is also a StepbackError, and means a refusal.
    except ValueError as error:
        return say("improve", error, 2)
    except (StepbackError, OSError) as error:
        return say("improve", f"{error}\n{_GOES_ON}", status_of(error))
    print(f"best by validation: round {record.best.number}, {record.best.checkpoint}")
    return 0


@contextmanager
def _engines(given: argparse.Namespace) -> Generator[Engines]:
    stop_on = partial(drain_on_signals, "improve")
    if (cluster := cluster_of(given)) is None:
        yield Controller(given.url, given.in_flight, stop_on)
        return
    with closing(OnRay(cluster, stop_on)) as engines:
        yield engines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "stepback improve",
        description="Rounds of self-improvement: a running controller, or a Ray cluster, searches "
        "for answers to training problems, the right ones are trained on, and the next round "
        "searches with the new weights. The same command resumes a killed run. Where the "
        "controller needs a key, set STEPBACK_API_KEY.",
    )
    parser.add_argument("--recipe", type=Path, required=True, help="a recipe with [improve]")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    add_controller_flags(parser, in_flight=16)
    add_cluster_flags(parser)
    parser.add_argument("--rounds", type=positive, help="instead of the recipe's")
    parser.add_argument("--problems", type=positive, help="of a round; instead of the recipe's")
    parser.add_argument(
        "--best",
        action="store_true",
        help="keep the best round's model in DIR/model, and have a controller serve it in the end",
    )
    return parser


def _with_changes(recipe: Recipe, given: argparse.Namespace) -> Recipe:
    changes = {
        name: value
        for name in ("rounds", "problems")
        if (value := getattr(given, name)) is not None
    }
    plan = (recipe.improve or ImproveRecipe()).model_dump() | changes
    try:
        return recipe.model_copy(update={"improve": ImproveRecipe.model_validate(plan)})
    except ValidationError as error:
        raise ValueError(f"improve: {first_error(error, whole='all')}") from error


def _tell(each: Round) -> None:
    scores = {"validation": each.validation, **each.greedy}
    told = ", ".join(f"{name} {_percent(score.solved)}" for name, score in scores.items())
    failed = sum(score.failed for score in (each.search, *scores.values()) if score)
    found = each.search.solved if each.search else None
    asked = f"solved {found.hits} of {found.of}; " if found else ""
    said = f"; {failed} searches failed" if failed else ""
    print(f"round {each.number}: {asked}greedy: {told}{said}", flush=True)


def _percent(share: Share) -> str:
    return f"{share.percent:.1f} % ({share.low:.1f} to {share.high:.1f})"
