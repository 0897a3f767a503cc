"""The shape of the problems that a recipe trains on, for the manifest."""

from collections.abc import Mapping
from itertools import islice
from random import Random
from typing import Any

from stepback_training.config import Recipe
from stepback_training.generators import GENERATORS, Split

_DRAWN = 64
Range = tuple[int, int]


def trained_for(recipe: Recipe) -> dict[str, dict[str, Range]]:
    """Return by task the fewest and most entries of each list of its training problems.

    Read off problems that the recipe's own options draw; a user's traces have no problems."""
    found: dict[str, dict[str, Range]] = {}
    for task in recipe.data.tasks:
        if task.name in GENERATORS:
            known = found.setdefault(task.name, {})
            for field, (low, high) in _ranges(task.name, task.options).items():
                fewest, most = known.get(field, (low, high))
                known[field] = min(low, fewest), max(high, most)
    return found


def _ranges(name: str, options: Mapping[str, Any]) -> dict[str, Range]:
    task = GENERATORS[name].with_options(options)
    ranges: dict[str, Range] = {}
    for problem in islice(task.stream(Split.TRAIN, Random(0)), _DRAWN):
        for field, value in problem.model_dump().items():
            if isinstance(value, list):
                low, high = ranges.get(field, (len(value), len(value)))
                ranges[field] = min(low, len(value)), max(high, len(value))
    return ranges
