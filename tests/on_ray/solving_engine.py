"""An engine that solves each problem of Countdown at once, and no other: rounds of improvement need
right answers, and no vLLM. Run it as `python -m tests.on_ray.solving_engine PORT SECONDS`."""

import re

from tests.server.jobs.answering_engine import AnsweringEngine, serve

from stepback_core.tasks import CountdownProblem
from stepback_training.generators import GENERATORS

TASK = GENERATORS["countdown"]
PROMPT = re.compile(r"countdown:(\d+(?:,\d+)*)=(\d+)")


class SolvingEngine(AnsweringEngine):
    def answer(self, prompt: list[int]) -> list[int]:
        found = PROMPT.search(self._codec.tokenizer.decode(prompt))
        if found is None:
            return super().answer(prompt)
        numbers, target = [int(each) for each in found[1].split(",")], int(found[2])
        [path, *_] = TASK.reference_paths(CountdownProblem(numbers=numbers, target=target))
        return self._written(path)


if __name__ == "__main__":
    serve(SolvingEngine)
