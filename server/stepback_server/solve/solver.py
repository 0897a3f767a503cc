"""Solver of requests: the checks that need the checkpoint, the search, the result."""

import asyncio
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

from stepback_core.events import SearchLimits, StartedEvent
from stepback_core.manifest import unlike_training
from stepback_core.schemas import (
    Answer,
    Outcome,
    Select,
    SolveRequest,
    SolveResult,
    Strategy,
)
from stepback_core.tasks import TASKS
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Engine
from stepback_server.errors import ApiError
from stepback_server.scorers.messages import Question
from stepback_server.scorers.named import Scorers
from stepback_server.scorers.scorer import Scorer
from stepback_server.search.appraisal import Appraise
from stepback_server.search.loop import Limits, Search
from stepback_server.search.ranking import Check
from stepback_server.search.registry import STRATEGIES, Setup
from stepback_server.search.strategy import SearchStrategy
from stepback_server.search.tree import Branch, State
from stepback_server.settings import Settings
from stepback_server.solve.events import EventWriter
from stepback_server.solve.order import AcceptedRequest
from stepback_server.solve.problem import ReadProblem, read_problem
from stepback_server.solve.results import Results
from stepback_server.solve.stream import Feed
from stepback_server.solve.texts import encode_prompt, encode_steps, invalid_field
from stepback_server.solve.verdicts import Verdicts

# Default token budget of best-first search, in full answers; `breadth` where that is more.
_ANSWERS_BY_DEFAULT = 32


class Solver:
    """Turns requests into results, with one checkpoint under one set of limits."""

    def __init__(
        self, checkpoint: Checkpoint, settings: Settings, scorers: Scorers | None = None
    ) -> None:
        self._checkpoint = checkpoint
        self._settings = settings
        self._scorers = scorers or Scorers()
        self._searches: set[Search] = set()
        self._is_ending = False

    async def accept(self, request: SolveRequest) -> AcceptedRequest:
        """Check what the schema cannot. Raises ApiError with the field at fault."""
        # The cheap checks first: what follows tokenises, and may ask a worker.
        self._refuse_what_is_not_served(request)
        request = self._with_defaults_in_range(request)
        scorer = self._scorers.find(request.scorer) if request.scorer else None
        read = await self._read_problem(request)
        checkpoint = self._checkpoint
        # Once: the search, every engine and every retry use these ids.
        ids = encode_prompt(checkpoint, read.prompt)
        # Longer than in training an answer is no use, and its reservation would hold back other
        # branches.
        answer = min(checkpoint.context_tokens - len(ids), checkpoint.longest_answer(request.task))
        # Before the caller's own limit: that may be short on purpose.
        _refuse_what_is_too_long(read.shortest, checkpoint, answer)
        answer = min(answer, request.budget.answer_tokens or answer)
        given = encode_steps(checkpoint, request.steps, read.view, answer)
        limits = Limits(
            tokens=request.budget.tokens or self._tokens_by_default(request, answer),
            seconds=request.budget.seconds or self._settings.budget_seconds,
            tokens_per_branch=answer,
        )
        return AcceptedRequest(
            id=f"s-{uuid.uuid4().hex}",
            request=request,
            prompt_ids=ids,
            root=State.of_given(given),
            check=read.check,
            scorer=scorer,
            question=Question(read.prompt, request.task, request.problem),
            view=read.view,
            review=read.review,
            select=self._choose_select(request, read.check, scorer),
            limits=limits,
            warning=self._warning(request, read),
        )

    def _warning(self, request: SolveRequest, read: ReadProblem) -> str | None:
        if read.problem is None:
            return None
        trained = self._checkpoint.manifest.trained_for.get(request.task or "", {})
        return unlike_training(trained, read.problem)

    async def solve(
        self,
        order: AcceptedRequest,
        engine: Engine,
        seconds_queued: float,
        feed: Feed | None = None,
    ) -> SolveResult:
        """Search and answer, and feed a watcher if there is one. Raises EngineError; cancelling it
        aborts the engine's work."""
        verdicts = Verdicts.of_order(order, self._checkpoint.codec)
        results = Results(self._checkpoint, order, verdicts.of, verdicts.cost)
        search = self._search(order, engine, verdicts, feed)
        if feed:
            writer = self._event_writer(results, lambda: search.in_flight)
            feed.begin(self._started(order), writer)
        with self._in_flight(search):
            searched = await search.run()
        result = results.of(searched, seconds_queued)
        if order.review is None or result.answer is None:
            return result
        drawn = await order.review.picture(result.answer.steps)
        return result.model_copy(update={"picture": drawn})

    def _search(
        self, order: AcceptedRequest, engine: Engine, verdicts: Verdicts, feed: Feed | None
    ) -> Search:
        codec = self._checkpoint.codec
        ends_at_a_win = order.select is Select.VERIFIED

        def is_win(branch: Branch) -> bool:
            return (
                ends_at_a_win
                and branch.outcome is Outcome.ANSWER
                and verdicts.of(codec.decode_steps(branch.ids)).verified is True
            )

        def is_lost() -> bool:
            # Of no use any more: only a verdict ends it, and there will be none.
            lost = verdicts.are_lost or bool(order.review and order.review.is_lost)
            return ends_at_a_win and lost

        return Search(
            engine=engine,
            strategy=self._strategy(order),
            grammar=codec.tokens,
            prompt_ids=order.prompt_ids,
            limits=order.limits,
            seed=order.request.seed,
            is_win=is_win,
            observe=feed.record if feed else lambda branch: None,
            appraise=_both(order.review and order.review.appraise, verdicts.appraise),
            is_lost=is_lost,
        )

    def _strategy(self, order: AcceptedRequest) -> SearchStrategy:
        codec = self._checkpoint.codec
        return STRATEGIES[order.request.strategy](
            Setup(
                request=order.request,
                grammar=codec.tokens,
                view=order.view,
                tokens_per_branch=order.limits.tokens_per_branch,
                ends_at_a_win=order.select is Select.VERIFIED,
                select=order.select,
                root=order.root,
                answer_of=lambda branch: tuple(codec.decode_steps(branch.ids)),
            )
        )

    @contextmanager
    def _in_flight(self, search: Search) -> Generator[None]:
        """Let `cut_short` end a search meanwhile."""
        self._searches.add(search)
        # It came in between: the server began to stop after this search had its place.
        if self._is_ending:
            search.cancel()
        try:
            yield
        finally:
            self._searches.discard(search)

    async def retell(
        self, request: SolveRequest, result: SolveResult
    ) -> tuple[StartedEvent, EventWriter]:
        """Return the beginning of a feed for a search that has its result already."""
        # Judged again: the answer's writer is needed, and the request was accepted before, so
        # nothing is refused.
        order = await self.accept(request)
        started = self._started(order).model_copy(update={"id": result.id})
        verdicts = Verdicts.of_order(order, self._checkpoint.codec)
        results = Results(self._checkpoint, order, verdicts.of, verdicts.cost)
        return started, self._event_writer(results)

    def cancel_all(self) -> None:
        """End every search, those in flight and any still to come, with the best that it has."""
        self._is_ending = True
        self.cut_short()

    def cut_short(self) -> int:
        """End the searches in flight with the best that they have; how many there were."""
        for search in self._searches:
            search.cancel()
        return len(self._searches)

    def follow(self, checkpoint: Checkpoint) -> None:
        """Answer with this one from now on: `reload.check_successor` has passed it."""
        self._checkpoint = checkpoint

    def shorten(self, tokens: int) -> None:
        """Take no sequence longer than `tokens` from now on."""
        self._checkpoint = replace(self._checkpoint, context_tokens=tokens)

    def _refuse_what_is_not_served(self, request: SolveRequest) -> None:
        settings, budget = self._settings, request.budget
        for field, value, most in (
            ("breadth", _if_given(request, "breadth"), settings.max_breadth),
            ("backtracks", _if_given(request, "backtracks"), settings.max_backtracks),
            ("budget.tokens", budget.tokens, settings.budget_tokens),
            ("budget.seconds", budget.seconds, settings.budget_seconds),
        ):
            # Refused and not capped: a caller who asks for more should know that it does not get
            # it.
            if value is not None and value > most:
                raise invalid_field(field, "out_of_range", f"this server allows at most {most}")
        if request.model is not None and request.model != self._checkpoint.manifest.name:
            raise ApiError(
                "unknown_model",
                f"model: this server has {self._checkpoint.manifest.name!r}; or leave it out.",
                param="model",
            )

    def _with_defaults_in_range(self, request: SolveRequest) -> SolveRequest:
        """Cap the defaults of fields that the caller left out at this server's limits."""
        return request.model_copy(
            update={
                "breadth": min(request.breadth, self._settings.max_breadth),
                "backtracks": min(request.backtracks, self._settings.max_backtracks),
            }
        )

    def _tokens_by_default(self, request: SolveRequest, answer: int) -> int:
        """Return the token budget where the request has none. Best-first search goes on for as long
        as it may; the others end by themselves."""
        most = self._settings.budget_tokens
        if request.strategy is Strategy.BEST_FIRST:
            return min(most, max(_ANSWERS_BY_DEFAULT, request.breadth) * answer)
        return most

    async def _read_problem(self, request: SolveRequest) -> ReadProblem:
        if request.prompt is not None:
            return ReadProblem(request.prompt)
        served = self._checkpoint.manifest.tasks
        if request.task not in served:
            raise ApiError(
                "unknown_task",
                f"task: the model does not know {request.task!r} but {', '.join(served)}; "
                "give one of these, or a prompt."
                if served
                else "task: the model knows no task by name; give a prompt.",
                param="task",
            )
        codec = self._checkpoint.codec
        return await read_problem(TASKS[request.task], request.problem, request.steps, codec)

    def _choose_select(
        self, request: SolveRequest, check: Check | None, scorer: Scorer | None
    ) -> Select:
        can_verify = check is not None or (scorer is not None and scorer.entry.decides)
        if request.select is Select.VERIFIED and not can_verify:
            raise invalid_field(
                "select",
                "invalid_value",
                f"the scorer {request.scorer} gives scores and says of none that it is right: "
                "select by score",
            )
        if request.select is not None:
            return request.select
        if request.strategy is Strategy.MAJORITY:
            return Select.VOTE
        if can_verify:
            return Select.VERIFIED
        return Select.PERPLEXITY if scorer is None else Select.SCORE

    def _started(self, order: AcceptedRequest) -> StartedEvent:
        return StartedEvent(
            id=order.id,
            model=self._checkpoint.manifest.name,
            strategy=order.request.strategy,
            select=order.select,
            limits=SearchLimits(**asdict(order.limits)),
        )

    def _event_writer(
        self, results: Results, in_flight: Callable[[], int] = lambda: 0
    ) -> EventWriter:
        def answer_of(branch: Branch) -> Answer:
            return results.rank([branch])[0].answer

        return EventWriter(self._checkpoint.codec, answer_of, in_flight)


def _refuse_what_is_too_long(shortest: Sequence[str], checkpoint: Checkpoint, most: int) -> None:
    """Refuse a problem whose shortest answer a branch cannot hold, if its task can tell."""
    codec = checkpoint.codec
    # A token is a byte or more, and most answers have few.
    if sum(len((step + codec.grammar.separator).encode()) for step in shortest) < most:
        return
    # As training has them: step by step, and the end.
    tokens = sum(len(codec.encode_step(step)) for step in shortest) + 1
    if tokens > most:
        raise invalid_field(
            "problem",
            "problem_too_long",
            f"an answer has at least {len(shortest)} steps, which are {tokens} tokens, and this "
            f"model may write {most}; give a smaller problem",
        )


def _both(first: Appraise | None, second: Appraise | None) -> Appraise | None:
    """Await one appraisal after the other, if there are two."""
    if first is None or second is None:
        return first or second

    async def appraise(branches: Sequence[Branch], hurry: asyncio.Event) -> Sequence[Branch]:
        return await second(await first(branches, hurry), hurry)

    return appraise


# The schema's defaults may lie above this server's limits; only what a caller sent is refused.
def _if_given(request: SolveRequest, field: str) -> int | None:
    return getattr(request, field) if field in request.model_fields_set else None
