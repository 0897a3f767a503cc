"""Several engines as one, with hand-made engines: where trees go, what is asked again, and what a
loss costs."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepback_server.engine.base import (
    Engine,
    EngineError,
    EngineUnavailable,
    Finish,
    OnSample,
    OwnedEngine,
    PromptRefused,
    ReloadFailed,
    ReloadNotOffered,
    Sample,
    SampleRequest,
)
from stepback_server.engine.pool import EnginePool, choose
from stepback_server.engine.session_affinity import runs
from stepback_server.engine.supervisor import HealthCheckConfig, Supervisor
from stepback_server.search.loop import Limits, Search, Searched
from stepback_server.search.sampling import Independent
from tests.server.keeping import charged as charged_engine
from tests.server.keeping import use
from tests.server.search.scripted import END, GRAMMAR, ScriptedEngine

CANARY = SampleRequest(ids=(1,), n=1, max_tokens=1, temperature=0.0, seeds=None, stop_ids=())
QUICK = HealthCheckConfig(
    between_checks=0.01, between_canaries=10, first_backoff=0.01, longest_backoff=0.02
)
SLOW = HealthCheckConfig(between_checks=60.0)


class Server(ScriptedEngine):
    """Dies after having delivered so many more samples, and is dead until it is told otherwise."""

    def __init__(self) -> None:
        super().__init__(lambda request, index: ((request.seeds or (0,) * 99)[index], END))
        self.lives = 1_000_000
        self.mismatched = False
        self.starts = 0
        self.takes_weights = True
        self.weights = Path("old")
        self.is_busy = False
        """True if it takes no samples, although it is well."""
        self.refused = 0
        """Requests that came while it was dead or busy."""
        self.generated = 0
        """Upper limit: of what it had begun when it died, everything that was requested."""

    async def reload(self, checkpoint: Path) -> bool:
        await self.check()
        if not self.takes_weights:
            raise ReloadNotOffered("no such route")
        was, self.weights = self.weights, checkpoint
        return was != checkpoint

    def start(self) -> OwnedEngine:
        self.starts += 1
        if self.mismatched:
            raise EngineError("it serves another model")
        if not self.lives:
            raise EngineUnavailable("it cannot be reached")
        return self

    async def check(self) -> None:
        if not self.lives:
            raise EngineUnavailable("it cannot be reached")

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        undelivered = request.n

        def mortal(sample: Sample) -> None:
            nonlocal undelivered
            if not self.lives:
                self.generated += undelivered * request.max_tokens
                raise EngineUnavailable("it was lost")
            self.lives -= 1
            undelivered -= 1
            self.generated += sample.generated_tokens
            deliver(sample)

        if request is CANARY:
            return await self.check()
        if request.ids == (666,):
            raise PromptRefused("too long")
        if not self.lives or self.is_busy:
            self.refused += 1
            raise EngineUnavailable("it cannot be reached", begun=False)
        return await super().sample(request, stop, mortal)


def request(n: int = 8, tree: str = "a tree", ids: tuple[int, ...] = (7,)) -> SampleRequest:
    return SampleRequest(
        ids=ids,
        n=n,
        max_tokens=9,
        temperature=0.7,
        # Only the first one counts: what vLLM makes of one seed for n continuations.
        seeds=tuple(range(100, 100 + n)),
        stop_ids=(END,),
        tree=tree,
    )


Scenario = Callable[[EnginePool], Coroutine[Any, Any, None]]


def with_replicas(
    servers: dict[str, Server], scenario: Scenario, patience: HealthCheckConfig = QUICK
) -> None:
    async def run() -> None:
        replicas = EnginePool(
            {
                name: Supervisor(server.start, CANARY, patience, name=name)
                for name, server in servers.items()
            }
        )
        running = asyncio.create_task(replicas.run())
        alive = [server for server in servers.values() if server.lives]
        async with asyncio.timeout(120):
            await until(lambda: replicas.up == len(alive))
            await scenario(replicas)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - any condition, not only an event
        await asyncio.sleep(0.005)


async def ask(engine: Engine, asked: SampleRequest) -> list[Sample]:
    got: list[Sample] = []
    await engine.sample(asked, asyncio.Event(), got.append)
    return got


async def sample(replicas: EnginePool, asked: SampleRequest) -> list[Sample]:
    """Draw a sample in a search of its own."""
    return await use(replicas, lambda engine: ask(engine, asked))


async def search(
    engine: Engine, *, n: int = 8, tokens: int = 10_000, seed: int | None = 1
) -> Searched:
    """Best-of-n, of samples of two tokens that may have nine."""
    return await Search(
        engine=engine,
        strategy=Independent(n, 0.7),
        grammar=GRAMMAR,
        prompt_ids=(7,),
        limits=Limits(tokens=tokens, seconds=5.0, tokens_per_branch=9),
        seed=seed,
        is_win=lambda branch: False,
    ).run()


# --- where trees go ---


def test_a_tree_stays_where_it_is_and_trees_are_spread() -> None:
    servers = {"a": Server(), "b": Server(), "c": Server()}

    async def thrice(engine: Engine, asked: SampleRequest) -> None:
        for _ in range(3):
            await ask(engine, asked)

    async def scenario(replicas: EnginePool) -> None:
        for number in range(90):
            asked = request(1, tree=f"tree {number}")
            await use(replicas, lambda engine, asked=asked: thrice(engine, asked))

    with_replicas(servers, scenario)
    homes = {name: {each.tree for each in s.requests} for name, s in servers.items()}
    assert sum(len(trees) for trees in homes.values()) == 90
    assert all(15 < len(trees) < 45 for trees in homes.values())


def test_searches_side_by_side_are_spread_evenly_and_stay_where_they_are() -> None:
    servers = {"a": Server(), "b": Server()}
    may_end = [asyncio.Event() for _ in range(8)]

    async def linger(engine: Engine, number: int) -> None:
        asked = request(1, tree=f"tree {number}")
        await ask(engine, asked)
        await may_end[number].wait()
        await ask(engine, asked)

    async def scenario(replicas: EnginePool) -> None:
        searches = [
            asyncio.create_task(use(replicas, lambda engine, n=number: linger(engine, n)))
            for number in range(8)
        ]
        await until(lambda: sum(len(server.requests) for server in servers.values()) == 8)
        assert [len(server.requests) for server in servers.values()] == [4, 4]
        # Two of a's end, and the next two have their place.
        there = [int(each.tree.split()[1]) for each in servers["a"].requests][:2]
        for number in there:
            may_end[number].set()
            await searches[number]
        begun = len(servers["b"].requests)
        lasting = [asyncio.create_task(use(replicas, lambda e, n=n: linger(e, n))) for n in there]
        await asyncio.gather(*lasting)
        for each in may_end:
            each.set()
        await asyncio.gather(*searches)
        assert {each.tree for each in servers["b"].requests[begun:]} == {
            each.tree for each in servers["b"].requests[:begun]
        }

    with_replicas(servers, scenario)
    homes = {name: {each.tree for each in s.requests} for name, s in servers.items()}
    assert not homes["a"] & homes["b"]


def test_among_the_least_loaded_a_tree_has_the_same_home_whichever_others_come_and_go() -> None:
    trees = [str(number) for number in range(100)]
    before = {tree: choose(tree, {"a": 0, "b": 0, "c": 0}) for tree in trees}
    after = {tree: choose(tree, {"a": 0, "b": 1, "c": 0}) for tree in trees}
    assert all(after[tree] == before[tree] for tree in trees if before[tree] != "b")
    assert {after[tree] for tree in trees if before[tree] == "b"} == {"a", "c"}
    assert choose("x", {}) is None


# --- what is lost ---


def test_what_a_lost_replica_did_not_deliver_comes_from_another_with_the_same_seeds() -> None:
    servers = {"a": Server(), "b": Server()}
    for server in servers.values():
        server.lives = 3

    async def scenario(replicas: EnginePool) -> None:
        whole = await use(replicas, lambda engine: search(engine, n=3))
        servers["a"].lives = servers["b"].lives = 3
        for server in servers.values():
            server.requests.clear()
        got = await use(replicas, lambda engine: search(engine, n=6))
        assert got.tree.branches[:3] == whole.tree.branches
        seeds = [branch.sample.ids[0] for branch in got.tree.branches]
        assert seeds == list(range(seeds[0], seeds[0] + 6))

    with_replicas(servers, scenario)
    first, retried = sorted(
        (each for server in servers.values() for each in server.requests),
        key=lambda each: -each.n,
    )
    assert first.seeds and (first.n, retried.n) == (6, 3)
    assert retried.seeds == first.seeds[3:]


@pytest.mark.parametrize("tokens", [18, 40, 51, 60, 72, 100, 10_000])
def test_what_was_lost_is_paid_for_and_the_budget_holds_for_the_whole_fleet(tokens: int) -> None:
    """Eight samples of two tokens that may have nine; the first server dies after three."""
    servers = {"a": Server(), "b": Server()}
    charged: list[Sample] = []

    async def scenario(replicas: EnginePool) -> None:
        def work(engine: Engine) -> Coroutine[Any, Any, Searched]:
            for server in servers.values():
                server.lives = 3 if server is servers["a"] else 1_000_000
            return search(charged_engine(engine, charged.append), tokens=tokens, seed=None)

        searched = await use(replicas, work)
        # The home is chosen by a name of chance.
        while not servers["a"].generated:
            servers["b"].generated = 0
            charged.clear()
            searched = await use(replicas, work)
        assert searched.spent.generated == sum(each.generated_tokens for each in charged)
        assert sum(server.generated for server in servers.values()) == searched.spent.generated
        assert searched.spent.generated <= tokens
        if tokens == 10_000:
            assert searched.spent.generated == 3 * 2 + 5 * 9 + 5 * 2
            assert len(searched.tree.answers) == 8

    with_replicas(servers, scenario)


def test_a_dead_replica_is_tried_once_and_by_no_other_search_until_it_was_found_well() -> None:
    servers = {"a": Server(), "b": Server()}

    async def scenario(replicas: EnginePool) -> None:
        servers["a"].lives = 0
        for _ in range(20):
            assert (await use(replicas, search)).spent.generated == 16
        assert servers["a"].refused == 1

    with_replicas(servers, scenario, SLOW)


def test_a_replica_that_failed_once_is_used_again_when_a_check_has_found_it_well() -> None:
    servers = {"a": Server(), "b": Server()}

    async def scenario(replicas: EnginePool) -> None:
        servers["a"].is_busy = True
        while not servers["a"].refused:
            await use(replicas, search)
        servers["a"].is_busy = False
        before = len(servers["a"].requests)
        while len(servers["a"].requests) == before:
            await use(replicas, search)
            await asyncio.sleep(0.01)

    with_replicas(servers, scenario)


def test_a_fleet_whose_only_replica_has_just_failed_does_not_call_itself_ready() -> None:
    servers = {"a": Server()}

    async def scenario(replicas: EnginePool) -> None:
        await replicas.check()
        servers["a"].lives = 0
        await sample(replicas, request(1))
        with pytest.raises(EngineUnavailable, match="a has failed a request"):
            await replicas.check()

    with_replicas(servers, scenario, SLOW)


def test_what_never_began_costs_nothing() -> None:
    servers = {"a": Server()}

    async def scenario(replicas: EnginePool) -> None:
        servers["a"].lives = 0
        lost = await sample(replicas, request(2))
        assert [(each.finish, each.generated_tokens) for each in lost] == [(Finish.LOST, 0)] * 2

    with_replicas(servers, scenario, SLOW)


def test_a_prefix_that_is_lost_with_every_engine_is_given_up() -> None:
    servers = {"a": Server(), "b": Server()}

    async def scenario(replicas: EnginePool) -> None:
        for server in servers.values():
            server.is_busy = True
        with pytest.raises(EngineUnavailable, match="8 samples were lost 3 times") as raised:
            await use(replicas, search)
        assert not raised.value.begun
        assert sum(server.refused for server in servers.values()) == 3

    with_replicas(servers, scenario, SLOW)


@pytest.mark.parametrize("begun", [True, False])
def test_who_finds_no_engine_up_is_told_whether_one_had_begun_what_is_missing(begun: bool) -> None:
    servers = {"a": Server()}

    async def scenario(replicas: EnginePool) -> None:
        async def work(engine: Engine) -> None:
            # Of the first two samples it delivers one, or takes neither.
            servers["a"].lives = int(begun)
            await ask(engine, request(2))
            await until(lambda: replicas.up == 0)
            await ask(engine, request(1))

        with pytest.raises(EngineUnavailable) as raised:
            await use(replicas, work)
        assert raised.value.begun is begun

    with_replicas(servers, scenario)


def test_losses_that_samples_lie_between_are_no_reason_to_give_up() -> None:
    servers = {"a": Server()}

    async def scenario(replicas: EnginePool) -> None:
        async def work(engine: Engine) -> None:
            for _ in range(4):
                for is_busy in (True, True, False):
                    servers["a"].is_busy = is_busy
                    await ask(engine, request(2))

        await use(replicas, work)
        assert servers["a"].refused == 8

    with_replicas(servers, scenario, SLOW)


def test_when_none_is_left_the_caller_is_told_and_a_replica_that_returns_is_used() -> None:
    servers = {"a": Server(), "b": Server()}

    async def scenario(replicas: EnginePool) -> None:
        for server in servers.values():
            server.lives = 0
        with pytest.raises(EngineUnavailable):
            await use(replicas, search)
        await until(lambda: replicas.up == 0)
        with pytest.raises(EngineUnavailable, match=r"cannot be reached.*; .*cannot be reached"):
            replicas.ensure_up()
        servers["b"].lives = 1000
        await until(lambda: replicas.up == 1)
        assert len(await sample(replicas, request())) == 8
        assert replicas.restarts == 1

    with_replicas(servers, scenario)


def test_a_replica_that_is_not_up_at_the_start_is_awaited() -> None:
    servers = {"a": Server(), "b": Server()}
    servers["b"].lives = 0

    async def scenario(replicas: EnginePool) -> None:
        assert len(await sample(replicas, request())) == 8
        servers["b"].lives = 1000
        await until(lambda: replicas.up == 2)
        assert replicas.restarts == 0

    with_replicas(servers, scenario)


def test_a_server_of_something_else_ends_the_start_and_is_left_out_later() -> None:
    wrong = Server()
    wrong.mismatched = True
    replicas = EnginePool({"a": Supervisor(wrong.start, CANARY, QUICK)})
    with pytest.raises(EngineError, match="another model"):
        asyncio.run(replicas.run())
    servers = {"a": Server(), "b": Server()}
    servers["b"].lives = 0

    async def scenario(replicas: EnginePool) -> None:
        await until(lambda: servers["b"].starts > 1)
        servers["b"].mismatched = True
        tried = servers["b"].starts
        await until(lambda: servers["b"].starts > tried + 1)
        assert replicas.up == 1

    with_replicas(servers, scenario)


def test_a_refused_prompt_is_not_tried_elsewhere() -> None:
    servers = {"a": Server(), "b": Server()}

    async def scenario(replicas: EnginePool) -> None:
        with pytest.raises(PromptRefused):
            await sample(replicas, request(ids=(666,)))

    with_replicas(servers, scenario)
    assert all(not server.requests for server in servers.values())


def test_neighbours_are_asked_for_together() -> None:
    asked = request(4)
    assert runs(asked) == [range(4)]
    assert runs(replace(asked, seeds=None)) == [range(4)]
    assert runs(replace(asked, seeds=(0, 2, 3, 7))) == [range(1), range(1, 3), range(3, 4)]
    assert runs(replace(asked, n=2, temperature=0.0)) == [range(1), range(1, 2)]


def test_new_weights_go_to_every_replica() -> None:
    servers = {"a": Server(), "b": Server()}

    async def scenario(replicas: EnginePool) -> None:
        assert await replicas.reload(Path("new"))
        assert not await replicas.reload(Path("new"))

    with_replicas(servers, scenario)
    assert {server.weights for server in servers.values()} == {Path("new")}


def test_replicas_that_differ_after_a_reload_are_connected_anew() -> None:
    """Where the first takes no weights nothing has changed; later on some of them have."""
    servers = {"a": Server(), "b": Server()}

    async def scenario(replicas: EnginePool) -> None:
        servers["a"].takes_weights = False
        with pytest.raises(ReloadNotOffered):
            await replicas.reload(Path("new"))
        assert servers["b"].weights == Path("old")
        servers["a"].takes_weights, servers["b"].takes_weights = True, False
        with pytest.raises(ReloadFailed):
            await replicas.reload(Path("new"))
        await replicas.discard("they differ")
        assert replicas.up == 0
        await until(lambda: replicas.up == 2)
        assert replicas.restarts == 2

    with_replicas(servers, scenario)
