"""Wrong steps of knights and knaves, one function for each kind that training data is made of."""

from collections.abc import Sequence
from random import Random

from stepback_core.tasks.knights.checker import write_step
from stepback_core.tasks.knights.statements import Roles, Statement, people_of, solutions
from stepback_training.generators.knights.generation import next_person, possible

# Share of the errors about the person who would come next, where a model makes most of them.
_SHARE_NEXT = 0.5


def exploration_error(statements: Sequence[Statement], roles: Roles, rng: Random) -> str | None:
    """A role without contradiction after which there is no solution; None if there is none."""
    for person in _in_some_order(statements, roles, rng):
        found = possible(statements, roles, person)
        for role in rng.sample(found, len(found)):
            if not any(True for _ in solutions(statements, {**roles, person: role})):
                return write_step(person, role)
    return None


def computational_error(statements: Sequence[Statement], roles: Roles, rng: Random) -> str | None:
    """A role that contradicts a statement at once; None if there is none."""
    for person in _in_some_order(statements, roles, rng):
        refused = {True, False}.difference(possible(statements, roles, person))
        if refused:
            return write_step(person, rng.choice(sorted(refused)))
    return None


def rule_violation(roles: Roles, rng: Random) -> str | None:
    """A role for somebody who has one; None if nobody has."""
    return write_step(rng.choice(sorted(roles)), rng.random() < 0.5) if roles else None


def follow_up(statements: Sequence[Statement], roles: Roles, rng: Random) -> str | None:
    """A role that contradicts nothing more, half of the time of the person who would come next;
    None if nobody can have one."""
    for person in _in_some_order(statements, roles, rng):
        found = possible(statements, roles, person)
        if found:
            return write_step(person, rng.choice(found))
    return None


def false_claim(statements: Sequence[Statement], roles: Roles, rng: Random) -> str | None:
    """A wrong role for the last person who has none; None if more have none, or nobody."""
    left = _left(statements, roles)
    if len(left) != 1:
        return None
    wrong = [
        role
        for role in (True, False)
        if not all(each.fits({**roles, left[0]: role}) for each in statements)
    ]
    return write_step(left[0], rng.choice(wrong)) if wrong else None


def _left(statements: Sequence[Statement], roles: Roles) -> list[str]:
    return [person for person in people_of(statements) if person not in roles]


def _in_some_order(statements: Sequence[Statement], roles: Roles, rng: Random) -> list[str]:
    """Those who have no role: in any order, half of the time with the next one first."""
    left = _left(statements, roles)
    rng.shuffle(left)
    if left and rng.random() < _SHARE_NEXT:
        left.sort(key=lambda person: person != next_person(statements, roles))
    return left
