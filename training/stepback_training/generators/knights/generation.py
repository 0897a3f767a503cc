"""Puzzles of knights and knaves with exactly one solution, and an order to solve them in."""

from collections.abc import Mapping, Sequence
from itertools import islice
from random import Random
from string import ascii_uppercase
from typing import Annotated, Self

from pydantic import Field, model_validator

from stepback_core.tasks.knights.statements import (
    Form,
    Roles,
    Statement,
    is_contradicted,
    people_left,
    people_of,
    solutions,
)
from stepback_training.generators.base import Options

_People = Annotated[int, Field(ge=3, le=12)]


class KnightsOptions(Options):
    """Distribution of the puzzles of training and tests. Each has exactly one solution."""

    people: tuple[_People, _People] = (4, 6)
    """The fewest and the most people. Everybody says one thing."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        fewest, most = self.people
        if fewest > most:
            raise ValueError(f"people: the fewest come first, and {fewest} is more than {most}")
        return self


def draw(options: KnightsOptions, rng: Random) -> list[Statement]:
    """A puzzle in which everybody says one thing of others."""
    while True:
        people = ascii_uppercase[: rng.randint(*options.people)]
        roles = {person: rng.random() < 0.5 for person in people}
        statements = [_draw_statement(person, roles, rng) for person in people]
        if people_of(statements) == [*people] and len(first_solutions(statements, 2)) == 1:
            return statements


def _draw_statement(speaker: str, roles: Mapping[str, bool], rng: Random) -> Statement:
    """A statement that its speaker, of a known role, could make."""
    others = [person for person in roles if person != speaker]
    while True:
        form = rng.choice([*Form])
        about = tuple(rng.sample(others, 1 if form is Form.ROLE else 2))
        is_compared = form in (Form.ALIKE, Form.DIFFER)
        said = () if is_compared else tuple(rng.random() < 0.5 for _ in about)
        statement = Statement(speaker, form, about, said)
        if statement.fits(roles):
            return statement


def first_solutions(statements: Sequence[Statement], most: int) -> list[dict[str, bool]]:
    return list(islice(solutions(statements, {}), most))


def next_person(statements: Sequence[Statement], roles: Roles) -> str | None:
    """Return who gets a role next: the first person who can have but one without a contradiction,
    else the first who has none. None if all have one."""
    left = people_left(statements, roles)
    forced = (person for person in left if len(possible(statements, roles, person)) == 1)
    return next(forced, left[0] if left else None)


def possible(statements: Sequence[Statement], roles: Roles, person: str) -> list[bool]:
    """The roles that contradict nothing at once."""
    return [
        role
        for role in (True, False)
        if not is_contradicted(statements, {**roles, person: role}, person)
    ]
