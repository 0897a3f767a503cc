"""`stepback data` and `stepback train`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stepback_training.atomic_files import can_lock
from stepback_training.config import DataRecipe, Recipe
from stepback_training.data.samples import held_out, write_samples
from stepback_training.generators import ErrorKind
from stepback_training.plugins import with_plugins


@with_plugins
def data(arguments: Sequence[str]) -> int:
    """Write training samples as JSONL. Returns 0, or 2 for a recipe that is refused."""
    parser = argparse.ArgumentParser(
        "stepback data", description="Write the training samples of a recipe as JSONL."
    )
    parser.add_argument("--recipe", type=Path, required=True, help="a recipe, in TOML")
    parser.add_argument("--out", type=Path, required=True, help="the JSONL file to write")
    parser.add_argument("--samples", type=int, help="instead of the recipe's number of samples")
    parser.add_argument("--seed", type=int, help="instead of the recipe's seed")
    parser.add_argument(
        "--errors",
        type=_weights,
        metavar="KIND=WEIGHT,...",
        help=f"kinds of wrong step and their weights, of {', '.join(ErrorKind)}",
    )
    parser.add_argument("--backtrack-share", type=float, help="share of samples that backtrack")
    parser.add_argument(
        "--errors-from",
        type=Path,
        metavar="FILE",
        help="a model's own wrong steps, as stepback errors writes them",
    )
    parser.add_argument(
        "--errors-share",
        type=float,
        metavar="SHARE",
        help="with --errors-from: of the samples that backtrack, 0.5 if left out",
    )
    parser.add_argument("--processes", type=int, default=None, help="default: one a core")
    given = parser.parse_args(arguments)
    changes = {
        name: value
        for name in ("samples", "seed", "errors", "backtrack_share")
        if (value := getattr(given, name)) is not None
    }
    if given.backtrack_share is not None:
        # Which would say it otherwise.
        changes["wrong_paths"] = None
    if given.errors_from is not None:
        own = {"file": str(given.errors_from), "share": given.errors_share}
        changes["own_errors"] = {name: value for name, value in own.items() if value is not None}
    elif given.errors_share is not None:
        parser.error("--errors-share needs --errors-from")
    try:
        of_file = Recipe.read(given.recipe).data
        recipe = DataRecipe.model_validate(of_file.model_dump() | changes)
        changed = [name for name in changes if getattr(recipe, name) != getattr(of_file, name)]
        write_samples(recipe, given.out, changed=changed, processes=given.processes)
        if number := held_out(recipe):
            print(f"{number} traces were left out: their prompts belong to the test split")
    except (OSError, ValueError) as error:
        return _refuse("data", error)
    return 0


@with_plugins
def train(arguments: Sequence[str]) -> int:
    """Train a checkpoint, or go on with a run that was cut short. Returns 0, 1 where the loss is
    no number, and 2 for what is refused."""
    parser = argparse.ArgumentParser(
        "stepback train",
        description="Train a checkpoint from samples. The same command resumes a killed run. In "
        "several processes: accelerate launch --config_file FILE -m stepback_client.cli train ...",
    )
    parser.add_argument("--recipe", type=Path, required=True, help="a recipe, in TOML")
    parser.add_argument("--data", type=Path, required=True, help="samples, as stepback data writes")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    given = parser.parse_args(arguments)
    if not can_lock():
        return _refuse("train", ValueError(f"training needs Linux (or macOS), not {sys.platform}"))
    # Imported here: torch takes seconds, and a bad command line should not wait for it.
    from safetensors import SafetensorError

    from stepback_training.train.distributed import is_main
    from stepback_training.train.sft import train as run_training

    try:
        folder = run_training(Recipe.read(given.recipe), given.data, given.out)
    except FloatingPointError as error:
        # Status 1: the run began, and another start with the same files would end the same way.
        _refuse("train", error)
        return 1
    except (OSError, ValueError, SafetensorError) as error:
        return _refuse("train", error) if is_main() else 2
    if is_main():
        print(folder)
    return 0


def _weights(text: str) -> dict[str, float]:
    try:
        return {
            ErrorKind(kind).value: float(weight)
            for kind, _, weight in (part.partition("=") for part in text.split(","))
        }
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _refuse(command: str, error: Exception) -> int:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        error = OSError(f"{error.filename}: {error.strerror}")
    print(f"stepback {command}: {error}", file=sys.stderr)
    return 2
