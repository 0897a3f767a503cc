"""Countdown's training data: two to six inputs; some targets are held out."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Annotated, Any

from pydantic import Field

from stepback_core.tasks.countdown.arithmetic import State, believe, reachable, replay
from stepback_core.tasks.countdown.checker import Countdown, canonical
from stepback_core.tasks.countdown.problem import CountdownProblem
from stepback_training.generators.base import ErrorKind, Generator, Options, Split, is_test_input
from stepback_training.generators.countdown.errors import (
    computational_error,
    ends_in,
    exploration_error,
    false_claim,
    follow_up,
    rule_violation,
)
from stepback_training.generators.countdown.paths import paths, plainness
from stepback_training.generators.countdown.small_results import (
    can_reach,
    plainest,
    reachable_within,
)

INPUT_RANGE = range(1, 100)
TARGET_RANGE = range(10, 101)
NEW_TARGETS = frozenset(range(17, 98, 10))
SEEN_TARGETS = tuple(target for target in TARGET_RANGE if target not in NEW_TARGETS)
# Every held-out target ends in 7. A model that reads digits and never met a target that ends in 7
# learns that a last result ending in 7 is wrong, and rejects its own right answers. So training
# draws targets around the range too, where 7 ends some: 7, 107, 117, ... The held-out stay out.
EXTRA_TARGETS = (*range(1, TARGET_RANGE.start), *range(TARGET_RANGE.stop, 200))
_SEEN_TRIED_IN_TRAINING = 41
_EXTRA_TRIED_IN_TRAINING = 20
# Inputs up to which every path of a problem is made; of more, the plainest path alone.
_MOST_WITH_EVERY_PATH = 4
_TARGETS_OF_MANY = 6

_Number = Annotated[int, Field(ge=2, le=6)]
_Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CountdownOptions(Options):
    """Number of inputs of a problem."""

    numbers: _Number | Annotated[dict[_Number, _Weight], Field(min_length=1)] = 4
    """2 to 6; or several of these, each with its weight."""

    @property
    def weights(self) -> dict[int, float]:
        return {self.numbers: 1.0} if isinstance(self.numbers, int) else self.numbers


class CountdownGenerator(Generator[CountdownProblem]):
    """Problems and wrong steps of Countdown."""

    checker = Countdown()
    split_rule = (
        "test inputs: first byte of SHA-256 over the canonical inputs below 26 (about 10 %); "
        "targets 17, 27, ... 97 held out of training altogether (new targets)"
    )
    splits = tuple(Split)
    error_kinds = tuple(ErrorKind)

    def __init__(self, options: CountdownOptions | None = None) -> None:
        self._options = options or CountdownOptions()

    def with_options(self, options: Mapping[str, Any]) -> "CountdownGenerator":
        return CountdownGenerator(CountdownOptions.model_validate(options))

    def split(self, problem: CountdownProblem) -> Split | None:
        target = problem.target
        if is_test_input(canonical(problem.numbers)):
            kinds = ((Split.TEST_NEW, NEW_TARGETS), (Split.TEST_SEEN, SEEN_TARGETS))
            return next((kind for kind, targets in kinds if target in targets), None)
        return None if target in NEW_TARGETS else Split.TRAIN

    def stream(self, split: Split, rng: Random) -> Iterator[CountdownProblem]:
        """Test problems are uniform over the solvable (inputs, target) pairs of their kind;
        training problems have targets around the range next to it, and of more than four inputs
        only what small results reach."""
        weights = self._options.weights
        streams = [_problems(number, split, rng) for number in weights]
        if len(streams) == 1:  # Nothing is drawn for a choice that is none.
            yield from streams[0]
        while True:
            [stream] = rng.choices(streams, list(weights.values()))
            yield next(stream)

    def reference_paths(self, problem: CountdownProblem) -> list[list[str]]:
        numbers = tuple(sorted(problem.numbers))
        if len(numbers) > _MOST_WITH_EVERY_PATH and (path := plainest(numbers, problem.target)):
            return [path]
        return sorted(paths(numbers, problem.target), key=plainness)

    def wrong_step(
        self, problem: CountdownProblem, prefix: Sequence[str], kind: ErrorKind, rng: Random
    ) -> str | None:
        state, met = replay(problem.numbers, prefix)
        if kind is ErrorKind.EXPLORATION:
            return exploration_error(state, problem.target, NEW_TARGETS, rng)
        if kind is ErrorKind.COMPUTATIONAL:
            return computational_error(state, NEW_TARGETS, rng)
        return rule_violation(state, met, NEW_TARGETS, rng)

    def follow_up(self, problem: CountdownProblem, steps: Sequence[str], rng: Random) -> str | None:
        state = believe(problem.numbers, steps)
        return follow_up(state, problem.target, NEW_TARGETS, rng)

    def false_claim(
        self, problem: CountdownProblem, steps: Sequence[str], rng: Random
    ) -> str | None:
        state = believe(problem.numbers, steps)
        return false_claim(state, problem.target, NEW_TARGETS, rng)

    def ends_held_out(self, problem: CountdownProblem, steps: Sequence[str]) -> bool:
        return ends_in(NEW_TARGETS, believe(problem.numbers, steps[:-1]), steps[-1])


def _problems(number: int, split: Split, rng: Random) -> Iterator[CountdownProblem]:
    """Endless problems of `count` inputs."""
    while True:
        numbers = _draw_inputs(number, rng, test=split is not Split.TRAIN)
        for target in _draw_targets(number, split, rng):
            if _is_drawn(numbers, target, split):
                yield CountdownProblem(numbers=list(numbers), target=target)


def _draw_inputs(number: int, rng: Random, *, test: bool) -> State:
    """Inputs from the test or the training side of the split."""
    while True:
        numbers = tuple(sorted(rng.choice(INPUT_RANGE) for _ in range(number)))
        if is_test_input(canonical(numbers)) == test:
            return numbers


def _draw_targets(number: int, split: Split, rng: Random) -> list[int]:
    if split is Split.TRAIN:
        seen = rng.sample(SEEN_TARGETS, _SEEN_TRIED_IN_TRAINING)
        targets = seen + rng.sample(EXTRA_TARGETS, _EXTRA_TRIED_IN_TRAINING)
        # Nearly every target is in reach of many inputs, and few of each show more inputs.
        return targets if number <= _MOST_WITH_EVERY_PATH else rng.sample(targets, _TARGETS_OF_MANY)
    return [rng.choice(sorted(NEW_TARGETS) if split is Split.TEST_NEW else SEEN_TARGETS)]


def _is_drawn(numbers: State, target: int, split: Split) -> bool:
    if len(numbers) <= _MOST_WITH_EVERY_PATH:
        return target in reachable(numbers)
    if split is Split.TRAIN:
        return target in reachable_within(numbers)
    return can_reach(numbers, target)
