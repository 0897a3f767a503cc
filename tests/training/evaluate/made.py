"""Results and evaluations made by hand, whose scores are known."""

from pathlib import Path

from stepback_core.schemas import Answer, Select, SolveResult, Status, StopReason, Strategy, Usage
from stepback_core.tasks import CountdownProblem, Reason
from stepback_training.evaluate.evaluation import Evaluation
from stepback_training.evaluate.measurement import Measured
from stepback_training.evaluate.plan import Plan, Setting
from stepback_training.evaluate.scoring import Choice, ProblemOutcome, Rule
from stepback_training.generators import GENERATORS, Split

TASK = GENERATORS["countdown"]
PROBLEM = CountdownProblem(numbers=[4, 16, 25, 82], target=95)
RIGHT = ["16-4=12", "25-12=13", "82+13=95"]
LEGAL = ["16-4=12", "25-12=13", "82-13=69"]
ILLEGAL = ["16-4=12", "25-12=13", "82+15=95"]
"""Claims success with a number that is not there."""
WRONG_SUM = ["16-4=12", "25-12=12", "82+12=95"]


def answer(steps: list[str], score: float, votes: int = 1) -> Answer:
    # The controller's verdict is left wrong on purpose: nobody is to rely on it.
    return Answer(text="\n".join(steps), steps=steps, score=score, verified=False, votes=votes)


def result(
    *candidates: Answer,
    stop: StopReason = StopReason.EXHAUSTED,
    strategy: Strategy = Strategy.BEST_OF_N,
    tokens: int = 100,
) -> SolveResult:
    return SolveResult(
        id="s-1",
        status=Status.UNSOLVED,
        stop_reason=stop,
        strategy=strategy,
        select=Select.PERPLEXITY,
        model="made",
        answer=candidates[0] if candidates else None,
        candidates=list(candidates),
        usage=Usage(
            prompt_tokens=10,
            generated_tokens=tokens,
            discarded_tokens=0,
            cached_tokens=3,
            engine_requests=len(candidates),
            backtracks=2,
            seconds_queued=0.5,
            seconds_searching=0.25,
        ),
    )


def plan(*settings: Setting, problems: int = 10) -> Plan:
    splits = (Split.TEST_SEEN, Split.TEST_NEW)
    return Plan(
        task="countdown", splits=splits, problems=problems, seed=1, temperature=0.7,
        settings=settings,
    )  # fmt: skip


def outcome(
    setting: Setting, *, right: bool, tokens: int, only: Rule | None = None
) -> ProblemOutcome:
    """Every rule's choice is right, or `only` that of one; or none is."""

    def chosen(rule: Rule) -> Choice:
        fits = right and only in {None, rule}
        failure = None if fits else Reason.NOT_REACHED
        return Choice(strict=fits, lax=fits, failure=failure, claims=fits)

    return ProblemOutcome(
        choices={rule: chosen(rule) for rule in setting.rules},
        any_strict=True,
        any_lax=True,
        answers=3,
        distinct=2,
        stop_reason=StopReason.EXHAUSTED,
        tokens=tokens,
        requests=4,
        backtracks=1,
        cached=0,
        seconds=0.2,
        queued=0.0,
    )


def evaluation(*settings: Setting, model: str = "made", only: Rule | None = None) -> Evaluation:
    """Of ten problems of each split; the i-th setting solves i of them, for 100 (i + 1) tokens."""
    made = plan(*settings)
    outcomes = {
        (setting.name, split, number): outcome(
            setting, right=number < order, tokens=100 * (order + 1), only=only
        )
        for order, setting in enumerate(settings)
        for split in made.splits
        for number in range(made.problems)
    }
    return Evaluation.of(
        Measured(
            plan=made,
            controller={"stepback": "0"},
            model={"id": model},
            runs=[],
            settings=[*settings],
            matches={},
            asked=made.drawn(),
            outcomes=outcomes,
        )
    )


def written(folder: Path, name: str, *settings: Setting, model: str = "made") -> Path:
    path = folder / f"{name}.json"
    evaluation(*settings, model=model).write(path)
    return path
