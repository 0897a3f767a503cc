"""its_hub's algorithms over a vLLM server, with the task's checker as its reward models."""

import asyncio
import warnings
from collections.abc import Awaitable, Callable

from its_hub import (  # pyright: ignore
    AbstractOutcomeRewardModel,
    AbstractProcessRewardModel,
    AdaptiveSelfConsistency,
    BestOfN,
    BetaSelfConsistency,
    LMOrchestrator,
    OpenAICompatibleLanguageModel,
    SelfConsistency,
    StepGeneration,
)
from its_hub.core.algorithms.beam_search import BeamSearch  # pyright: ignore
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering  # pyright: ignore
from loop import CHECKER, Answer, Job, is_right, reason, serve, steps_of  # pyright: ignore

_LATER_STEPS = 2
"""A Countdown answer of four numbers has three steps; its_hub counts those after the first."""


class WholeAnswers(AbstractOutcomeRewardModel):
    """One for an answer that the checker accepts, else nothing."""

    def __init__(self, problem):
        self._problem = problem

    def score(self, messages, **_):
        return [float(is_right(self._problem, each[-1].content)) for each in messages]

    async def ascore(self, messages, orchestrator=None, **_):
        return self.score(messages)


class Steps(AbstractProcessRewardModel):
    """The same of a whole answer; a half for legal steps so far, nothing after an illegal one."""

    def __init__(self, problem):
        self._problem = problem

    def score(self, prompt_or_messages, steps):
        return [self._one(text) for text in steps]

    async def ascore(self, prompt_or_messages, steps):
        return self.score(prompt_or_messages, steps)

    def _one(self, text):
        steps = steps_of(text)
        if len(steps) > _LATER_STEPS:
            return float(is_right(self._problem, text))
        legal = all(
            CHECKER.check_step(self._problem, steps[:at], step) is None
            for at, step in enumerate(steps)
        )
        return 0.5 * legal


def algorithm(job: Job, problem):
    """The algorithm of a job for one problem, since a reward model knows its problem."""
    # Its own limit of 32 calls at once would hold back 16 problems.
    calls = {"orchestrator": LMOrchestrator(max_concurrency=-1)}
    stepwise = StepGeneration(
        max_steps=_LATER_STEPS, step_token="\n", temperature=job.options["temperature"]
    )
    made = {
        "best_of_n": lambda: BestOfN(WholeAnswers(problem), **calls),
        "until": lambda: BestOfN(WholeAnswers(problem), **calls),
        "vote": lambda: SelfConsistency(**calls),
        "adaptive": lambda: AdaptiveSelfConsistency(**calls),
        "beta": lambda: BetaSelfConsistency(**calls),
        "particles": lambda: ParticleFiltering(stepwise, Steps(problem)),
        "beams": lambda: BeamSearch(stepwise, Steps(problem), job.options.get("width", 1)),
    }
    return made[job.method]()


async def ask(job: Job, lm, problem) -> str:
    search, prompt = algorithm(job, problem), CHECKER.prompt(problem)
    if job.method != "until":
        return (await search.ainfer(lm, prompt, job.options["n"]))["content"]
    for _ in range(job.options["n"]):
        found = (await search.ainfer(lm, prompt, 1))["content"]
        if is_right(problem, found):
            break
    return found


async def solve(job: Job) -> list[Answer]:
    lm = OpenAICompatibleLanguageModel(
        endpoint=f"{job.url}/v1",
        api_key="none",
        model_name=job.model,
        max_completion_tokens=job.options["longest"],
        temperature=job.options["temperature"],
    )
    limit = asyncio.Semaphore(job.in_flight)

    async def one(problem) -> Answer:
        async with limit:
            return await tried(lambda: ask(job, lm, problem))

    async with lm:
        return list(await asyncio.gather(*(one(problem) for problem in job.problems)))


async def tried(asked: Callable[[], Awaitable[str]]) -> Answer:
    try:
        return await asked(), None
    except Exception as error:  # a search that cannot be run here is a result of the comparison
        return None, reason(error)


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    serve(lambda job: asyncio.run(solve(job)))
