"""Wrong steps of knights and knaves, one function for each kind that training data is made of."""

from collections.abc import Sequence
from random import Random

from stepback_core.tasks.knights.statements import (
    Roles,
    Statement,
    has_solution,
    people_left,
    write_role,
)
from stepback_training.generators.knights.generation import next_person, possible


def exploration_error(statements: Sequence[Statement], roles: Roles, rng: Random) -> str | None:
    """The next person's role that contradicts nothing and leaves no solution; None if there is
    none."""
    # About nobody else: a marker is to learn which role is wrong, not who is named out of turn.
    person = next_person(statements, roles)
    if person is None:
        return None
    dead = [
        role
        for role in possible(statements, roles, person)
        if not has_solution(statements, {**roles, person: role})
    ]
    return write_role(person, rng.choice(dead)) if dead else None


def computational_error(statements: Sequence[Statement], roles: Roles, rng: Random) -> str | None:
    """The next person's role that contradicts a statement at once; None if there is none."""
    person = next_person(statements, roles)
    if person is None:
        return None
    refused = {True, False}.difference(possible(statements, roles, person))
    return write_role(person, rng.choice(sorted(refused))) if refused else None


def rule_violation(roles: Roles, rng: Random) -> str | None:
    """A role for somebody who has one; None if nobody has."""
    return write_role(rng.choice(sorted(roles)), rng.random() < 0.5) if roles else None


def follow_up(statements: Sequence[Statement], roles: Roles, rng: Random) -> str | None:
    """A role that contradicts nothing more, of the next person who can have one; None if nobody
    can."""
    left = people_left(statements, roles)
    found = {person: possible(statements, roles, person) for person in left}
    able = [person for person in left if found[person]]
    # What follows at once comes first, as on right paths.
    able.sort(key=lambda person: len(found[person]))
    return write_role(able[0], rng.choice(found[able[0]])) if able else None


def false_claim(statements: Sequence[Statement], roles: Roles, rng: Random) -> str | None:
    """A wrong role for the last person who has none; None if more have none, or nobody."""
    left = people_left(statements, roles)
    if len(left) != 1:
        return None
    wrong = [
        role
        for role in (True, False)
        if not all(each.fits({**roles, left[0]: role}) for each in statements)
    ]
    return write_role(left[0], rng.choice(wrong)) if wrong else None
