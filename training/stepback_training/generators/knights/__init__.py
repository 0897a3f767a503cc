"""Training data of knights and knaves: puzzles in which one wrong role shows only later."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from stepback_core.tasks.knights.checker import Knights, believe, replay
from stepback_core.tasks.knights.problem import KnightsProblem
from stepback_core.tasks.knights.statements import (
    Statement,
    people_of,
    write_role,
    write_words,
)
from stepback_training.generators.base import ErrorKind, Generator, Split, is_test_input
from stepback_training.generators.knights.errors import (
    computational_error,
    exploration_error,
    false_claim,
    follow_up,
    rule_violation,
)
from stepback_training.generators.knights.form import renamed_form
from stepback_training.generators.knights.generation import (
    KnightsOptions,
    draw,
    first_solutions,
    next_person,
)

_MOST_SOLUTIONS = 2


class KnightsGenerator(Generator[KnightsProblem]):
    """Problems and wrong steps of knights and knaves."""

    checker = Knights()
    split_rule = (
        "test puzzles: first byte of SHA-256 over the statements below 26 (about 10 %), in a form "
        "that does not depend on the names, on the order of the statements, or on which of two "
        "people is named first"
    )
    splits = (Split.TRAIN, Split.TEST_SEEN)
    error_kinds = tuple(ErrorKind)

    def __init__(self, options: KnightsOptions | None = None) -> None:
        self._options = options or KnightsOptions()

    def with_options(self, options: Mapping[str, Any]) -> "KnightsGenerator":
        return KnightsGenerator(KnightsOptions.model_validate(options))

    def split(self, problem: KnightsProblem) -> Split:
        form = renamed_form(problem.parsed)
        return Split.TEST_SEEN if is_test_input(f"{self.name}:{form}") else Split.TRAIN

    def draw(self, rng: Random) -> KnightsProblem:
        return KnightsProblem(statements=[*map(write_words, draw(self._options, rng))])

    def reference_paths(self, problem: KnightsProblem) -> list[list[str]]:
        """Every order is right. Given are that in which what follows at once is said first, and
        that of the names; for at most two solutions, where there is more than one."""
        statements = problem.parsed
        found = first_solutions(statements, _MOST_SOLUTIONS)
        orders = [(roles, _order(statements, roles)) for roles in found]
        names = people_of(statements)
        orders += [(roles, names) for roles, order in orders if order != names]
        return [[write_role(person, roles[person]) for person in order] for roles, order in orders]

    def wrong_step(
        self, problem: KnightsProblem, prefix: Sequence[str], kind: ErrorKind, rng: Random
    ) -> str | None:
        statements = problem.parsed
        roles = replay(statements, prefix)
        if kind is ErrorKind.EXPLORATION:
            return exploration_error(statements, roles, rng)
        if kind is ErrorKind.COMPUTATIONAL:
            return computational_error(statements, roles, rng)
        return rule_violation(roles, rng)

    def follow_up(self, problem: KnightsProblem, steps: Sequence[str], rng: Random) -> str | None:
        return follow_up(problem.parsed, believe(steps), rng)

    def false_claim(self, problem: KnightsProblem, steps: Sequence[str], rng: Random) -> str | None:
        return false_claim(problem.parsed, believe(steps), rng)


def _order(statements: Sequence[Statement], solution: Mapping[str, bool]) -> list[str]:
    """The people in the order in which each one's role follows from those before, if one does."""
    known: dict[str, bool] = {}
    while (person := next_person(statements, known)) is not None:
        known[person] = solution[person]
    return [*known]
