"""The registry of tasks, and the schema of a request that follows it."""

from typing import Any

import pytest
from pydantic import BaseModel

from stepback_core.errors import InvalidInput
from stepback_core.inlining import inlined
from stepback_core.schemas import SolveRequest
from stepback_core.tasks import TASKS
from stepback_core.tasks.registry import Registry
from tests.training.test_generator_defaults import Sorting


class Node(BaseModel):
    label: str
    children: "list[Node]" = []


class Tree(BaseModel):
    root: Node
    others: dict[str, Node] = {}


def test_a_name_is_taken_once() -> None:
    registry = Registry({"maze": 1})
    registry.add("sorting", 2)
    assert dict(registry) == {"maze": 1, "sorting": 2}
    for name in registry:
        with pytest.raises(InvalidInput, match=name):
            registry.add(name, 3)
    registry.remove("sorting")
    assert dict(registry) == {"maze": 1}
    with pytest.raises(KeyError):
        registry.remove("maze")


def test_the_schema_of_a_request_has_the_tasks_of_the_moment() -> None:
    def tasks() -> list[str]:
        schema: dict[str, Any] = SolveRequest.model_json_schema()
        named = [form["properties"]["task"].get("const") for form in schema["oneOf"]]
        assert [each["task"] for each in schema["examples"]] == named[:-1]
        return named[:-1]

    before = tasks()
    TASKS.add("sorting", Sorting())
    try:
        assert tasks() == [*before, "sorting"]
    finally:
        TASKS.remove("sorting")
    assert tasks() == before


def test_definitions_are_unfolded_in_their_places() -> None:
    schema = inlined(Tree.model_json_schema())
    assert "$defs" not in schema and "$ref" not in str(schema)
    assert schema["properties"]["root"]["properties"]["label"]["type"] == "string"
    # A node inside of a node takes anything: it cannot be unfolded without end.
    assert schema["properties"]["root"]["properties"]["children"]["items"] == {}
