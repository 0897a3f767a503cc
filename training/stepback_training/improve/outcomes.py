"""Outcome of one problem of a round: whether and how it was solved, and the errors on the way."""

from pydantic import BaseModel, ConfigDict, JsonValue

from stepback_core.schemas import SolveResult
from stepback_training.plugins import judge_of
from stepback_training.sampling.problems import Question


class WrongStep(BaseModel):
    """A wrong step that the search met, after a prefix from which the goal could be reached."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: list[str]
    step: str


class SearchOutcome(BaseModel):
    """Outcome of the search for one problem."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    problem: dict[str, JsonValue]
    solved: bool
    """True if the strict checker accepts `steps`."""
    steps: list[str]
    """Steps of the answer; none without one."""
    wrong: list[WrongStep] = []
    tokens: int
    """Generated, those of discarded branches included."""
    failure: str | None = None
    """Reason why the search has no result."""

    @classmethod
    def failed(cls, question: Question, why: str) -> "SearchOutcome":
        """A search without a result."""
        problem = question.problem.model_dump(mode="json")
        return cls(
            task=question.task.name, problem=problem, solved=False, steps=[], tokens=0, failure=why
        )

    @classmethod
    def of(cls, question: Question, result: SolveResult) -> "SearchOutcome":
        """Return the outcome of a result, with the verdict of this process's own checker."""
        # Not the server's verdict: training data must not depend on the server's version.
        steps = result.answer.steps if result.answer else []
        return cls(
            task=question.task.name,
            problem=question.problem.model_dump(mode="json"),
            solved=bool(steps)
            and judge_of(question.task).check(question.problem, steps).strict is True,
            steps=steps,
            tokens=result.usage.generated_tokens,
        )
