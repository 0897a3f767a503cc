"""The opinions of a scorer on one search's texts, requested as the texts come."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import log

from stepback_core.schemas import Outcome
from stepback_core.trace import TraceCodec
from stepback_server.concurrency import Interrupted, run_unless
from stepback_server.scorers.messages import Candidate, Opinion, Question
from stepback_server.scorers.scorer import Scorer
from stepback_server.search.tree import Branch

# As many as a search may lose calls of a plug-in's checker.
_MOST_EMPTY_ROUNDS = 4
_LEAST_SCORE = 1e-6
"""A score of 0 delays what it is given to, but does not forbid it."""

Text = tuple[tuple[str, ...], bool]
"""Steps, and whether they are a whole answer."""


@dataclass(slots=True)
class ScoringCost:
    """The cost of scoring in one search."""

    seconds: float = 0.0
    scored: int = 0
    unscored: int = 0


class Scoring:
    """One search's scorer. Equal texts are asked once, unless the scorer failed at them."""

    def __init__(
        self, scorer: Scorer, question: Question, codec: TraceCodec, cost: ScoringCost
    ) -> None:
        self.scorer = scorer
        self._question = question
        self._codec = codec
        self._cost = cost
        self._opinions: dict[Text, Opinion] = {}
        self._empty_rounds = 0
        """Calls in a row that brought no opinion at all."""

    @property
    def is_lost(self) -> bool:
        """True while the scorer is left alone and has said nothing for some calls in a row: no
        answer is judged any more."""
        return self.scorer.is_paused and self._empty_rounds >= _MOST_EMPTY_ROUNDS

    def of(self, steps: Sequence[str]) -> Opinion | None:
        """The opinion of an answer; None if there is none by now."""
        return self._opinions.get((tuple(steps), True))

    async def appraise(self, branches: Sequence[Branch], hurry: asyncio.Event) -> Sequence[Branch]:
        """Ask for what is new in the branches, in one call unless it is too much for one. Returns
        them with the scores of their unfinished texts."""
        texts = {text for branch in branches for _, text in self._texts(branch)}
        # Sorted: a set has another order in each process, and scorers may depend on it.
        await self._ask(sorted(texts - self._opinions.keys()), hurry)
        if not self.scorer.entry.partial:
            return branches
        return [self._with_scores(branch) for branch in branches]

    async def _ask(self, texts: Sequence[Text], hurry: asyncio.Event) -> None:
        if not texts or hurry.is_set():
            self._cost.unscored += len(texts)
            return
        separator = self._codec.grammar.separator
        candidates = [
            Candidate(str(number), separator.join(steps), steps, final)
            for number, (steps, final) in enumerate(texts)
        ]
        begun, opinions = time.monotonic(), dict[str, Opinion]()
        try:
            asked = self.scorer.score(self._question, candidates)
            opinions = await run_unless(asked, hurry.wait())
        except Interrupted:
            pass
        finally:
            self._cost.seconds += time.monotonic() - begun
        found = {
            text: opinions[each.id]
            for text, each in zip(texts, candidates, strict=True)
            if each.id in opinions
        }
        self._opinions |= found
        self._empty_rounds = 0 if found else self._empty_rounds + 1
        self._cost.scored += len(found)
        self._cost.unscored += len(texts) - len(found)

    def _texts(self, branch: Branch) -> Iterator[tuple[int, Text]]:
        """Texts of a branch that are to be scored, each with its length in ids."""
        if self.scorer.entry.partial:
            # Its parent's steps were scored with the parent.
            known = {length for length, _ in branch.state.bonuses}
            for end in self._codec.tokens.step_ends(branch.ids):
                if end > branch.state.given and end not in known:
                    yield end, (tuple(self._codec.decode_steps(branch.ids[:end])), False)
        if branch.outcome is Outcome.ANSWER:
            yield len(branch.ids), (tuple(self._codec.decode_steps(branch.ids)), True)

    def _with_scores(self, branch: Branch) -> Branch:
        weight = self.scorer.entry.weight
        new = tuple(
            # A logarithm, since it is added to a log-probability: together they order by p * score
            # ** lambda.
            (length, weight * log(max(opinion.score, _LEAST_SCORE)))
            for length, text in self._texts(branch)
            if not text[1] and (opinion := self._opinions.get(text)) is not None
        )
        return replace(branch, bonuses=tuple(sorted((*branch.state.bonuses, *new))))
