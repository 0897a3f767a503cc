"""The body of a search: which rule of choice goes with which strategy, said in one place."""

from itertools import product
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from stepback_core.preference import PREFERENCE
from stepback_core.schemas import Select, SolveRequest, Strategy, selects_of
from stepback_core.tasks import TASKS

SCHEMA = SolveRequest.model_json_schema()


def body(**options: Any) -> dict[str, Any]:
    problem = TASKS["countdown"].example.model_dump(mode="json")
    return {"task": "countdown", "problem": problem, "scorer": "one"} | options


@pytest.mark.parametrize(("strategy", "select"), [*product(Strategy, Select)])
def test_a_rule_of_choice_is_refused_alike_by_the_model_and_its_schema(
    strategy: Strategy, select: Select
) -> None:
    asked = body(strategy=strategy.value, select=select.value)
    if select in selects_of(strategy):
        SolveRequest.model_validate(asked)
        jsonschema.validate(asked, SCHEMA)
        return
    with pytest.raises(ValidationError, match="select: "):
        SolveRequest.model_validate(asked)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(asked, SCHEMA)


def test_a_vote_needs_samples_that_may_agree() -> None:
    with pytest.raises(ValidationError, match="sampling: "):
        SolveRequest.model_validate(body(strategy="majority", sampling="beam"))


def test_every_rule_of_choice_orders_candidates() -> None:
    assert PREFERENCE.keys() == set(Select)
