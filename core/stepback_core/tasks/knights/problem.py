"""Knights and knaves: the schema that callers write."""

from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

from stepback_core.tasks.knights.statements import Statement, people_of, read_words

EXAMPLE = [
    "A says C is a knave.",
    "B says D is a knight.",
    "C says A and D are alike.",
    "D says A is a knave or B is a knight.",
]
_MOST_PEOPLE = 12
_LONGEST = 60


def _statement(text: str) -> str:
    # Each by itself, so that an error's path names it.
    statement = read_words(text)
    if statement is None:
        raise ValueError(
            f"{text!r} is not of the form 'A says B is a knave.', 'A says B is a knave or C is a "
            "knight.' (or 'and'), 'A says B and C are alike.' or 'A says B and C differ.'; people "
            "are single capital letters"
        )
    if len({*statement.about}) < len(statement.about):
        raise ValueError(f"{text!r} speaks of {statement.about[0]} twice")
    return text


class KnightsProblem(BaseModel):
    """A puzzle as what its people say: knights tell the truth, and knaves lie."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    statements: list[
        Annotated[str, StringConstraints(max_length=_LONGEST), AfterValidator(_statement)]
    ] = Field(min_length=1, max_length=36, examples=[EXAMPLE])
    """Sentences such as `A says B is a knave.` and `A says B and C differ.`

    Instead of `differ` there may be `are alike`. A person may also say two roles: `A says B is a
    knave or C is a knight.` There `and` may stand for `or`; an `or` is true where both are. People
    are single capital letters, at most 12 of them."""

    @field_validator("statements")
    @classmethod
    def _are_not_too_many(cls, statements: list[str]) -> list[str]:
        people = people_of([_valid(text) for text in statements])
        if len(people) > _MOST_PEOPLE:
            raise ValueError(f"there are {len(people)} people, and at most {_MOST_PEOPLE} may be")
        return statements

    @property
    def parsed(self) -> list[Statement]:
        """The statements, read."""
        return [_valid(text) for text in self.statements]


def _valid(text: str) -> Statement:
    statement = read_words(text)
    assert statement is not None, text
    return statement
