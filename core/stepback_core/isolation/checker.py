"""A checker that lives in a worker, with the interface of one that lives here."""

from collections.abc import Hashable, Sequence
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from stepback_core.isolation.failures import CheckerFailure, FailureKind
from stepback_core.isolation.worker import Fields, Worker
from stepback_core.tasks.base import Checker, Verdict


class AnyProblem(BaseModel):
    """A problem whose fields its checker alone knows; a worker checks them."""

    model_config = ConfigDict(extra="allow", frozen=True)


class IsolatedChecker(Checker[Any]):
    """A plug-in's checker. Each method waits for its worker.

    A failure to answer is a refusal by `check`, and "not known" by the optional methods; `prompt`
    and `claims_goal` raise CheckerFailure.
    """

    def __init__(self, worker: Worker) -> None:
        """Start the worker. Raises InvalidInput."""
        told = worker.start()
        self.name = worker.name
        self.worker = worker
        self.origin: str = told["origin"]
        """The distribution that the plug-in comes from, with its version."""
        self.means: list[str] = told["means"]
        """The means that confine its calls on this machine."""
        self.knows_states: bool = told["knows_states"]
        self.draws: bool = told["draws"]
        self.problem_type = _problem_type(worker.name, told["schema"])
        self.example = self.problem_type.model_validate(told["example"])

    def prompt(self, problem: BaseModel) -> str:
        return str(self._ask("prompt", problem))

    def check(self, problem: BaseModel, steps: Sequence[str]) -> Verdict:
        try:
            return read_verdict(self._ask("check", problem, list(steps)))
        except CheckerFailure as failure:
            return Verdict.of(failure.reason)

    def claims_goal(self, problem: BaseModel, steps: Sequence[str]) -> bool:
        return bool(self._ask("claims_goal", problem, list(steps)))

    def check_step(self, problem: BaseModel, prefix: Sequence[str], step: str) -> str | None:
        return self._known("check_step", None, problem, list(prefix), step)

    def can_finish(self, problem: BaseModel, steps: Sequence[str]) -> bool:
        return self._known("can_finish", True, problem, list(steps))

    def state_key(self, problem: BaseModel, steps: Sequence[str]) -> Hashable | None:
        return self._known("state_key", tuple(steps), problem, list(steps))

    def picture(self, problem: BaseModel, steps: Sequence[str]) -> str | None:
        return self._known("picture", None, problem, list(steps))

    def _known(self, method: str, unknown: Any, problem: BaseModel, *arguments: object) -> Any:
        try:
            return self._ask(method, problem, *arguments)
        except CheckerFailure:
            return unknown

    def _ask(self, method: str, problem: BaseModel, *arguments: object) -> Any:
        call: Fields = {
            "do": "method",
            "problem": problem.model_dump(mode="json"),
            "method": method,
            "arguments": arguments,
        }
        answered = self.worker.submit(call).result()
        if "value" not in answered:
            raise CheckerFailure(FailureKind.RAISED, f"no problem of {self.name}: {answered}")
        return answered["value"]


def read_verdict(told: object) -> Verdict:
    """Return the verdict of an answer's fields. Raises CheckerFailure."""
    match told:
        case [bool() as strict, bool() as lax, (str() | None) as reason]:
            return Verdict(strict, lax, reason and reason[:200])
        case _:
            raise CheckerFailure(FailureKind.BROKEN, "a verdict of another form")


def _problem_type(name: str, schema: Fields) -> type[AnyProblem]:
    def written(
        cls: type[BaseModel], core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return schema

    body = {"__get_pydantic_json_schema__": classmethod(written), "__module__": __name__}
    kind = type(f"Problem of {name}", (AnyProblem,), body)
    return cast("type[AnyProblem]", kind)
