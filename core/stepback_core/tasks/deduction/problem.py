"""A question of deduction, as a caller writes it."""

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

_NAME = r"(?!Every )[A-Z][a-z]{0,29}"
_CONCEPT = r"[a-z]{1,30}"
RULE = re.compile(rf"Every ({_CONCEPT}) is an? ({_CONCEPT})\.", re.ASCII)
FACT = re.compile(rf"({_NAME}) is an? ({_CONCEPT})\.", re.ASCII)
QUESTION = re.compile(rf"Is ({_NAME}) an? ({_CONCEPT}) or (?:an? )?({_CONCEPT})\?", re.ASCII)
_LONGEST = 100
EXAMPLE_FACTS = [
    "Sally is a gerpus.",
    "Every lempus is a yumpus.",
    "Every gerpus is a rompus.",
    "Every wumpus is a hilpus.",
    "Every gerpus is a lempus.",
    "Max is a wumpus.",
    "Every rompus is a sterpus.",
    "Sally is a lempus.",
    "Every yumpus is a brimpus.",
]
EXAMPLE_QUESTION = "Is Sally a hilpus or a sterpus?"


def _sentence(text: str) -> str:
    # Each by itself, so that an error's path names it.
    if RULE.fullmatch(text) is None and FACT.fullmatch(text) is None:
        raise ValueError(
            f"{text!r} is not of the form 'Every gerpus is a rompus.' or 'Sally is a gerpus.'"
        )
    return text


class DeductionProblem(BaseModel):
    """Sentences, and a question that they answer."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    facts: list[
        Annotated[str, StringConstraints(max_length=_LONGEST), AfterValidator(_sentence)]
    ] = Field(min_length=1, max_length=200, examples=[EXAMPLE_FACTS])
    """Sentences such as `Every gerpus is a rompus.` and `Sally is a gerpus.`, in any order."""
    question: Annotated[str, StringConstraints(max_length=_LONGEST)] = Field(
        examples=[EXAMPLE_QUESTION]
    )
    """A question such as `Is Sally a hilpus or a sterpus?`; the sentences answer it."""

    @field_validator("question")
    @classmethod
    def _is_a_question(cls, question: str) -> str:
        found = QUESTION.fullmatch(question)
        if found is None:
            raise ValueError(f"{question!r} is not of the form 'Is Sally a hilpus or a sterpus?'")
        if found[2] == found[3]:
            raise ValueError(f"both answers are {found[2]!r}")
        return question
