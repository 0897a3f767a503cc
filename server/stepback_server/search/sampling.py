"""Independent samples: greedy, best-of-N, majority. Pure."""

from collections.abc import Callable, Hashable

from stepback_core.schemas import Outcome
from stepback_server.search.strategy import Expansion
from stepback_server.search.tree import Branch, State


class Independent:
    """Draw `n` independent samples of a state, the prompt if none is given.

    With `widening` one sample is in flight at first, and one more for every two that did not end
    the search; else all are at once. With `greedy_first` the first one is greedy. At temperature 0
    all would be the same, so one is drawn.
    """

    def __init__(
        self,
        n: int,
        temperature: float,
        *,
        state: State | None = None,
        widening: bool = False,
        greedy_first: bool = False,
    ) -> None:
        # vLLM refuses n above 1 at temperature 0.
        self._left = n if temperature else 1
        self._temperature = temperature
        self._state = state or State()
        self._widening = widening
        # At temperature 0 the one sample is greedy already.
        self._greedy_first = greedy_first and temperature > 0
        self._in_flight = self._ended = 0

    def pick(self) -> list[Expansion]:
        count = min(self._left, self._width() - self._in_flight)
        if count <= 0:
            return []
        self._left -= count
        self._in_flight += count
        picked: list[Expansion] = []
        if self._greedy_first:
            self._greedy_first = False
            picked.append(Expansion(self._state, 1, 0.0))
            count -= 1
        return [*picked, Expansion(self._state, count, self._temperature)] if count else picked

    def record(self, branch: Branch) -> Branch:
        self._in_flight -= 1
        self._ended += 1
        return branch

    def _width(self) -> int:
        """Tell how many may be in flight."""
        return 1 + self._ended // 2 if self._widening else self._left


class Majority(Independent):
    """Draw up to `n` samples and vote. With `widening`, in flight are always the fewest that could
    still decide the vote, and it ends as soon as the rest cannot change its winner."""

    def __init__(
        self,
        n: int,
        temperature: float,
        *,
        answer_of: Callable[[Branch], Hashable],
        weight_of: Callable[[Branch], float],
        state: State | None = None,
        widening: bool = False,
        greedy_first: bool = False,
    ) -> None:
        """`weight_of` is at most 1."""
        super().__init__(n, temperature, state=state, widening=widening, greedy_first=greedy_first)
        self._answer_of = answer_of
        self._weight_of = weight_of
        self._votes: dict[Hashable, float] = {}

    def record(self, branch: Branch) -> Branch:
        if branch.outcome is Outcome.ANSWER:
            answer = self._answer_of(branch)
            self._votes[answer] = self._votes.get(answer, 0.0) + self._weight_of(branch)
        return super().record(branch)

    def _width(self) -> int:
        if not self._widening:
            return super()._width()
        # The zeros stand for answers that no sample gave yet: one of them could still come second.
        first, second = sorted([0.0, 0.0, *self._votes.values()])[:-3:-1]
        lead, outstanding = first - second, self._left + self._in_flight
        # With k more for the leader and the rest for the second: lead + k > outstanding - k.
        return max(0, int((outstanding - lead) // 2) + 1)
