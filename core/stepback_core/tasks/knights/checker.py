"""Knights and knaves: who tells the truth, and who lies? Everybody is given one role or the other.

A says C is a knave.                     prompt   knights:A:C-,B:D+,C:A=D,D:A-|B+
B says D is a knight.                    steps    A+    (A is a knight)
C says A and D are alike.                         C-    (C is a knave)
D says A is a knave or B is a knight.             D-
                                                  B-
                                         A dead end: A- is legal, and cannot be finished.

A step may name anybody who has no role yet. It is refused where a statement, all of whose people
have roles then, does not fit: a knight's would be false, or a knave's true.
"""

import re
from collections.abc import Sequence

from stepback_core.tasks.base import Checker, Reason, Verdict
from stepback_core.tasks.knights.problem import EXAMPLE, KnightsProblem
from stepback_core.tasks.knights.statements import (
    Roles,
    Statement,
    has_solution,
    is_contradicted,
    people_left,
    people_of,
    write_role,
    write_signs,
)

_STEP = re.compile(r"([A-Z])([+-])", re.ASCII)
_IN_WORDS = {True: "knight", False: "knave", None: "?"}


class Knights(Checker[KnightsProblem]):
    """The task of knights and knaves; see the module for its rules."""

    name = "knights"
    problem_type = KnightsProblem
    example = KnightsProblem(statements=EXAMPLE)

    def prompt(self, problem: KnightsProblem) -> str:
        return f"{self.name}:{','.join(map(write_signs, problem.parsed))}"

    def check(self, problem: KnightsProblem, steps: Sequence[str]) -> Verdict:
        """Any way to give roles to all that fits every statement is right."""
        statements = problem.parsed
        roles, reason = _follow(statements, steps)
        # Where every step was legal, no statement is broken.
        if reason is None and people_left(statements, roles):
            reason = Reason.NOT_REACHED
        return Verdict.of(reason)

    def claims_goal(self, problem: KnightsProblem, steps: Sequence[str]) -> bool:
        """Everybody has a role, right or wrong."""
        return not people_left(problem.parsed, believe(steps))

    def check_step(
        self, problem: KnightsProblem, prefix: Sequence[str], step: str
    ) -> Reason | None:
        statements = problem.parsed
        after = _enter(statements, replay(statements, prefix), step)
        return after if isinstance(after, Reason) else None

    def can_finish(self, problem: KnightsProblem, steps: Sequence[str]) -> bool:
        statements = problem.parsed
        roles, reason = _follow(statements, steps)
        return reason is None and has_solution(statements, roles)

    def shortest_answer(self, problem: KnightsProblem) -> list[str]:
        """Everybody takes a step, whatever the role."""
        return [write_role(person, True) for person in people_of(problem.parsed)]

    def state_key(
        self, problem: KnightsProblem, steps: Sequence[str]
    ) -> frozenset[tuple[str, bool]] | None:
        """The roles, in whatever order they were given."""
        roles, reason = _follow(problem.parsed, steps)
        return frozenset(roles.items()) if reason is None else None

    def picture(self, problem: KnightsProblem, steps: Sequence[str]) -> str:
        """A line for each person, with the role or `?`."""
        statements = problem.parsed
        roles, _ = _follow(statements, steps)
        people = people_of(statements)
        return "\n".join(f"{person} {_IN_WORDS[roles.get(person)]}" for person in people)


def read_step(text: str) -> tuple[str, bool] | None:
    """The person and the role of a step; None for any other text."""
    found = _STEP.fullmatch(text)
    return None if found is None else (found[1], found[2] == "+")


def believe(steps: Sequence[str]) -> dict[str, bool]:
    """The roles that the steps claim, the last one of each person."""
    return dict(read for step in steps if (read := read_step(step)) is not None)


def replay(statements: Sequence[Statement], steps: Sequence[str]) -> dict[str, bool]:
    """The roles after a legal prefix. Raises ValueError where it is not legal."""
    roles, reason = _follow(statements, steps)
    if reason is not None:
        raise ValueError(f"the prefix {list(steps)} is not legal: {reason}")
    return roles


def _follow(
    statements: Sequence[Statement], steps: Sequence[str]
) -> tuple[dict[str, bool], Reason | None]:
    """The roles as far as the steps are legal, and why they end before the last."""
    roles: dict[str, bool] = {}
    for step in steps:
        after = _enter(statements, roles, step)
        if isinstance(after, Reason):
            return roles, after
        roles = after
    return roles, None


def _enter(statements: Sequence[Statement], roles: Roles, step: str) -> dict[str, bool] | Reason:
    """The roles after a step, or why it is illegal."""
    read = read_step(step)
    if read is None or read[0] not in people_of(statements):
        return Reason.MALFORMED_STEP
    person, role = read
    if person in roles:
        return Reason.REPEATED
    after = {**roles, person: role}
    return Reason.CONTRADICTION if is_contradicted(statements, after, person) else after
