"""Searches of every kind, drawn at random, and what their own results must look like."""

from dataclasses import dataclass
from random import Random
from typing import Any

from stepback_core.schemas import VOTES, Answer, Select, SolveResult, Strategy
from stepback_core.tasks import TASKS, CountdownProblem
from tests.trials.base import problem

_CHECKER = TASKS["countdown"]
SECONDS = 20.0
"""The longest that a search of these may take, its time in the queue not counted."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The body of a request, and the problem in it; None is a bare prompt."""

    body: dict[str, Any]
    problem: CountdownProblem | None

    def faults(self, result: SolveResult, attempts: int = 1) -> list[str]:
        """List what in a result cannot be the answer to this very request. A sample may have been
        asked for so often, where engines are lost."""
        body, usage = self.body, result.usage
        strategy = body["strategy"]
        most = body.get("budget", {}).get("tokens", 100_000)
        holds = {
            "strategy": result.strategy == strategy,
            "select": result.select == body["select"],
            "prompt": self.problem is None or usage.prompt_tokens == _prompt_tokens(self.problem),
            "budget": 0 < usage.generated_tokens <= most,
            "samples": strategy not in ("greedy", "best_of_n", "majority")
            or usage.engine_requests <= attempts * (1 if strategy == "greedy" else body["breadth"]),
            "tree": (result.tree is not None) == body["tree"],
            "candidates": len(result.candidates) <= body["candidates"],
            "verdict": all(is_judged(each, self.problem) for each in result.candidates),
            "solved": (result.status == "solved") == bool(result.answer and result.answer.verified),
        }
        return [claim for claim, truth in holds.items() if not truth]


def random_search(random: Random, number: int) -> Asked:
    """A small search; `number` picks its problem, unlike that of any number near it."""
    strategy = random.choice(list(Strategy))
    is_prompt = random.random() < 0.1
    asked = problem(number)
    selects: list[Select] = list(VOTES) if strategy is Strategy.MAJORITY else list(Select)
    if is_prompt and Select.VERIFIED in selects:
        selects.remove(Select.VERIFIED)
    if strategy is Strategy.BEST_FIRST:
        selects = [select for select in selects if select not in VOTES]
    body: dict[str, Any] = {
        **({"prompt": _CHECKER.prompt(asked)} if is_prompt else as_task(asked)),
        "strategy": strategy.value,
        "select": random.choice(selects).value,
        "breadth": random.choice([1, 2, 4, 8, 16, 32]),
        "backtracks": random.randrange(3),
        "temperature": random.choice([0.3, 0.7, 1.0]),
        "candidates": random.choice([1, 4, 64]),
        "tree": random.random() < 0.3,
    }
    if random.random() < 0.5:
        body["seed"] = random.randrange(2**31)
    # Best-first search goes on for as long as it may where the model does not know the answer.
    body["budget"] = {"seconds": SECONDS}
    if random.random() < 0.3:
        body["budget"]["tokens"] = random.choice([1, 20, 300])
    return Asked(body, None if is_prompt else asked)


def as_task(asked: CountdownProblem) -> dict[str, Any]:
    return {"task": "countdown", "problem": asked.model_dump()}


def is_judged(candidate: Answer, asked: CountdownProblem | None) -> bool:
    """True if the server's verdict is that of this very problem's checker."""
    if asked is None:
        return candidate.verified is None
    verdict = _CHECKER.check(asked, candidate.steps)
    return (verdict.strict, verdict.lax) == (candidate.verified, candidate.lax)


def _prompt_tokens(asked: CountdownProblem) -> int:
    """The name of the task is one token, and so is each other character of a prompt's line."""
    return 1 + len(f":{','.join(map(str, asked.numbers))}={asked.target}\n")
