"""The tasks of reasoning-gym as `gym:NAME`: questions, answers and scores are the library's."""

import dataclasses
import importlib
import json
import random
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache
from random import Random
from typing import Annotated, Any, cast, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    create_model,
    model_validator,
)

from stepback_core.errors import InvalidInput
from stepback_core.inlining import inlined
from stepback_core.tasks.base import Checker, Reason, Verdict

_FAMILY = "gym"
_NO_TASKS = ("composite",)
"""Datasets that mix others, and have no questions of their own."""
_ANSWER_IN_METADATA = {
    "graph_color": "possible_answer",
    "propositional_logic": "example_answer",
    "rubiks_cube": "example_correct_answer",
}
"""The field with an answer in it, where many answers are right and the library's own is none."""
_COMPARED = ("game_of_life_halting",)
"""Tasks whose score accepts any text (0.1.25 compares by `bool`): their answers are compared."""
_LARGEST_SEED = 31
_OWN_FIELDS = ("seed", "size")
"""Fields of a configuration that say which entries there are, not how they look."""


class GymProblem(BaseModel):
    """An entry of a dataset, with all that its score needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str = Field(min_length=1)
    answer: str | None = None
    """An answer that the library gives; null where it gives none."""
    metadata: dict[str, Any] = {}
    """The library's own fields; a tuple is written as `{"$tuple": [...]}`."""
    options: dict[str, Any] = {}
    """The options of the dataset that the entry is of; some scores depend on them."""


class GymChecker(Checker[GymProblem]):
    """One task of reasoning-gym. A step is a line of the answer; a full score accepts it."""

    def __init__(self, member: str = "", options: Mapping[str, Any] | None = None) -> None:
        """Load the library, and the data of one task. `options` are of the problems to draw.

        Raises InvalidInput, and pydantic's ValidationError for options that the task does not have.
        """
        self.name = f"{_FAMILY}:{member}"
        self._member = member
        _check_member(member)
        self.problem_type = problem_type_of(member)
        self._options = dict(options or {})
        # One dataset for all problems: some read files for a second when they are made.
        self._dataset = _dataset(member, json.dumps(self._options))
        self.example = self.draw(Random(0))

    def draw(self, rng: Random) -> GymProblem:
        """Return a problem of the task's options."""
        seed = rng.getrandbits(_LARGEST_SEED)
        entry = self._entry(seed, rng.randrange(self._dataset.size))
        answer = entry["answer"]
        if (field := _ANSWER_IN_METADATA.get(self._member)) is not None:
            known = entry["metadata"][field]
            answer = known if isinstance(known, str) else json.dumps(known)
        metadata = to_json(entry["metadata"])
        return self.problem_type(
            question=entry["question"], answer=answer, metadata=metadata, options=self._options
        )

    def _entry(self, seed: int, index: int) -> Mapping[str, Any]:
        self._dataset.seed = self._dataset.config.seed = seed
        # A few draw from Python's shared generator as well.
        state = random.getstate()
        random.seed(seed)
        try:
            return self._dataset[index]
        finally:
            random.setstate(state)

    def prompt(self, problem: GymProblem) -> str:
        return problem.question

    def check(self, problem: GymProblem, steps: Sequence[str]) -> Verdict:
        answer = "\n".join(steps)
        if not answer.strip():
            return Verdict.of(Reason.NOT_REACHED)
        score = self._score(problem, answer)
        return Verdict.of(None if score >= 1 else f"score {score:.3g}")

    def _score(self, problem: GymProblem, answer: str) -> float:
        if self._member in _COMPARED:
            return float(answer.strip() == problem.answer)
        entry = problem.model_dump() | {"metadata": from_json(problem.metadata)}
        dataset = self._dataset_of(problem)
        try:
            return float(dataset.score_answer(answer, entry))
        except MemoryError:
            raise
        # Some scores raise at an answer that they cannot read, and may raise anything.
        except Exception:
            # Raises for a problem that is none.
            dataset.score_answer(problem.answer, entry)
            return 0.0

    def _dataset_of(self, problem: GymProblem) -> Any:
        """The dataset that scores a problem, which may be of other options than those drawn."""
        if problem.options == self._options:
            return self._dataset
        return _dataset(self._member, json.dumps(problem.options))


def _library() -> Any:
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise InvalidInput(
            f'reasoning-gym is missing ({error}): pip install "stepback-llm[gym]"'
        ) from error


def _check_member(member: str) -> None:
    datasets: Mapping[str, Any] = _library().factory.DATASETS
    names = sorted(set(datasets) - set(_NO_TASKS))
    if member not in names:
        near = ", ".join(get_close_matches(member, names)) or f"{names[0]} to {names[-1]}"
        raise InvalidInput(f"gym:NAME needs a task of reasoning-gym, such as {near}")


@lru_cache(maxsize=8)
def _dataset(member: str, options: str) -> Any:
    """The dataset of a task with options, which are JSON. Raises pydantic's ValidationError."""
    checked = _options_type(member).model_validate_json(options)
    given = {name: getattr(checked, name) for name in checked.model_fields_set}
    return _library().create_dataset(member, seed=0, **given)


@lru_cache(maxsize=8)
def problem_type_of(member: str) -> type[GymProblem]:
    """A problem whose schema shows the options of its task, and which refuses others."""
    kind = _options_type(member)

    def hold(options: dict[str, Any]) -> dict[str, Any]:
        kind.model_validate_json(json.dumps(options))
        return options

    schema = inlined(kind.model_json_schema())
    field: Any = Annotated[dict[str, Any], AfterValidator(hold), WithJsonSchema(schema)]
    return create_model("GymProblem", __base__=GymProblem, options=(field, {}))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory)
    return field.default


@lru_cache(maxsize=8)
def _options_type(member: str) -> type[BaseModel]:
    """A model of the options that a task has: the fields of the library's own dataclass."""
    kind: Any = _library().factory.DATASETS[member][1]
    types = get_type_hints(kind)

    def hold(self: BaseModel) -> BaseModel:
        given = {name: getattr(self, name) for name in self.model_fields_set}
        configuration = kind(**given)
        if hasattr(configuration, "validate"):
            # Asserts; pydantic makes an error of it that names no field, but the rule.
            configuration.validate()
        return self

    fields: dict[str, Any] = {
        # A default may be of another type than the library says: 0.2 for an int.
        field.name: (types[field.name] | type(field.default), _default(field))
        for field in dataclasses.fields(kind)
        if field.name not in _OWN_FIELDS
    }
    return create_model(
        f"Options of {_FAMILY}:{member}",
        __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True),
        __validators__={"hold": cast("Any", model_validator(mode="after")(hold))},
        **fields,
    )


def to_json(value: object) -> Any:
    """Return plain JSON that `from_json` gives the value back from; a stranger's object as text."""
    match value:
        case Enum():
            return to_json(value.value)
        case None | bool() | int() | float() | str():
            return value
        case dict():
            return _dict_to_json(cast("dict[object, object]", value))
        case list():
            return [to_json(each) for each in cast("list[object]", value)]
        case tuple():
            return {"$tuple": [to_json(each) for each in cast("tuple[object, ...]", value)]}
        case set() | frozenset():
            return {"$set": [to_json(each) for each in sorted(cast("set[Any]", value), key=repr)]}
        case _:
            # A scalar or an array of NumPy.
            plain: Any = getattr(value, "tolist", None)
            return to_json(plain()) if plain is not None else str(value)


def _dict_to_json(value: dict[object, object]) -> Any:
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: to_json(each) for key, each in value.items()}
    return {"$dict": [[to_json(key), to_json(each)] for key, each in value.items()]}


def from_json(value: Any) -> Any:
    """Return the value that `to_json` wrote."""
    match value:
        case list():
            return [from_json(each) for each in cast("list[Any]", value)]
        case {"$tuple": [*entries]}:
            return tuple(from_json(each) for each in entries)
        case {"$set": [*entries]}:
            return {from_json(each) for each in entries}
        case {"$dict": [*pairs]}:
            return {from_json(key): from_json(each) for key, each in pairs}
        case dict():
            fields = cast("dict[str, Any]", value)
            return {key: from_json(each) for key, each in fields.items()}
        case _:
            return value
