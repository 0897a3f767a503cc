"""`stepback improve`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from stepback_client import StepbackError
from stepback_client.base import DEFAULT_URL, BadKey
from stepback_core.manifest import ManifestError
from stepback_core.validation import first_error
from stepback_training.improve.controller import Controller, WeightsChanged
from stepback_training.improve.record import Round, Score
from stepback_training.improve.rounds import improve as run_rounds
from stepback_training.recipe import ImproveRecipe, Recipe, RecipeError


def improve(arguments: Sequence[str]) -> int:
    """Run rounds of self-improvement, or go on with them. Returns 0, 1 where the controller does
    not do its part, or 2 for what is refused."""
    given = _parser().parse_args(arguments)
    try:
        controller = Controller(
            url=given.url,
            api_key=os.environ.get("STEPBACK_API_KEY") or None,
            in_flight=given.in_flight,
        )
        record = run_rounds(
            _with_changes(Recipe.read(given.recipe), given),
            controller,
            given.run,
            best=given.best,
            report=_tell,
        )
    except (StepbackError, WeightsChanged) as error:
        print(f"stepback improve: {error}\nThe same command goes on from there.", file=sys.stderr)
        return 1
    except (RecipeError, ManifestError, BadKey, OSError, ValueError) as error:
        print(f"stepback improve: {error}", file=sys.stderr)
        return 2
    print(f"best by validation: round {record.best.number}, {record.best.checkpoint}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "stepback improve",
        description="Rounds of self-improvement: a running controller searches for answers to "
        "training problems, the right ones are trained on, and the new weights are loaded into "
        "its engine. The same command resumes a killed run. Where the controller needs a key, set "
        "STEPBACK_API_KEY.",
    )
    parser.add_argument("--recipe", type=Path, required=True, help="a recipe with [improve]")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument(
        "--url",
        default=os.environ.get("STEPBACK_URL", DEFAULT_URL),
        help=f"the controller; STEPBACK_URL or {DEFAULT_URL} if left out",
    )
    parser.add_argument("--rounds", type=_positive, help="instead of the recipe's")
    parser.add_argument("--problems", type=_positive, help="of a round; instead of the recipe's")
    parser.add_argument(
        "--in-flight", type=_positive, default=16, help="problems asked at once (default 16)"
    )
    parser.add_argument(
        "--best",
        action="store_true",
        help="keep the best round's model in DIR/model, and serve it in the end",
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


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
    told = ", ".join(f"{name} {_percent(score)}" for name, score in scores.items())
    asked = f"solved {each.search.solved} of {each.search.asked}; " if each.search else ""
    print(f"round {each.number}: {asked}greedy: {told}", flush=True)


def _percent(score: Score) -> str:
    low, high = score.interval
    return f"{score.percent:.1f} % ({low:.1f} to {high:.1f})"
