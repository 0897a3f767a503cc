"""The training data of reasoning-gym's tasks: its entries, and the lines of its answers."""

from collections.abc import Mapping
from random import Random
from typing import Any

from stepback_core.errors import InvalidInput
from stepback_core.tasks.gym import GymChecker, GymProblem
from stepback_training.generators.base import Generator, Split


class GymGenerator(Generator[GymProblem]):
    """One task. Test problems are a tenth by their question, and the checker's example."""

    def __init__(self, member: str = "", options: Mapping[str, Any] | None = None) -> None:
        """Load the task of this name. Raises InvalidInput, and ValidationError for its options."""
        self._member = member
        self._gym = GymChecker(member, options)
        self.checker = self._gym

    def with_options(self, options: Mapping[str, Any]) -> "GymGenerator":
        """Draw with the fields of the library's own configuration, but `seed` and `size`."""
        return GymGenerator(self._member, options) if options else self

    def draw(self, rng: Random) -> GymProblem:
        return self._gym.draw(rng)

    def split(self, problem: GymProblem) -> Split | None:
        if problem.question == self.checker.example.question:
            return Split.TEST_SEEN
        return super().split(problem)

    def reference_paths(self, problem: GymProblem) -> list[list[str]]:
        """Return the answer's lines. Raises InvalidInput where the library gives no answer."""
        if problem.answer is None:
            raise InvalidInput(f"{self.name}: reasoning-gym gives no answers to train on")
        return [problem.answer.split("\n")]
