"""Several engines as one, with hand-made engines: where trees go, what is asked again."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stepback_server.engine.base import (
    EngineMismatch,
    EngineUnavailable,
    OnSample,
    OwnedEngine,
    PromptRefused,
    ReloadFailed,
    ReloadNotOffered,
    Sample,
    SampleRequest,
)
from stepback_server.engine.replicas import Replicas, choose, runs
from stepback_server.engine.supervisor import Patience, Supervisor
from tests.server.search.scripted import END, ScriptedEngine

CANARY = SampleRequest(ids=(1,), n=1, max_tokens=1, temperature=0.0, seeds=None, stop_ids=())
QUICK = Patience(between_checks=0.01, between_canaries=10, first_backoff=0.01, longest_backoff=0.02)


class Server(ScriptedEngine):
    """Dies after having delivered so many more samples, and is dead until it is told otherwise."""

    def __init__(self) -> None:
        super().__init__(lambda request, index: ((request.seeds or (0,) * 99)[index], END))
        self.lives = 1_000_000
        self.mismatched = False
        self.takes_weights = True
        self.weights = Path("old")

    async def reload(self, checkpoint: Path) -> bool:
        await self.check()
        if not self.takes_weights:
            raise ReloadNotOffered("no such route")
        was, self.weights = self.weights, checkpoint
        return was != checkpoint

    def start(self) -> OwnedEngine:
        if self.mismatched:
            raise EngineMismatch("it serves another model")
        if not self.lives:
            raise EngineUnavailable("it cannot be reached")
        return self

    async def check(self) -> None:
        if not self.lives:
            raise EngineUnavailable("it cannot be reached")

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        def mortal(sample: Sample) -> None:
            if not self.lives:
                raise EngineUnavailable("it was lost")
            self.lives -= 1
            deliver(sample)

        if request is CANARY:
            return await self.check()
        if request.ids == (666,):
            raise PromptRefused("too long")
        await self.check()
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


Scenario = Callable[[Replicas], Coroutine[Any, Any, None]]


def with_replicas(servers: dict[str, Server], scenario: Scenario) -> None:
    async def run() -> None:
        replicas = Replicas(
            {
                name: Supervisor(server.start, CANARY, QUICK, name=name)
                for name, server in servers.items()
            }
        )
        running = asyncio.create_task(replicas.run())
        alive = [server for server in servers.values() if server.lives]
        async with asyncio.timeout(5):
            await until(lambda: replicas.up == len(alive))
            await scenario(replicas)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - any condition, not only an event
        await asyncio.sleep(0.005)


async def sample(replicas: Replicas, asked: SampleRequest) -> list[Sample]:
    got: list[Sample] = []
    await replicas.sample(asked, asyncio.Event(), got.append)
    return got


def test_a_tree_stays_where_it_is_and_trees_are_spread() -> None:
    servers = {"a": Server(), "b": Server(), "c": Server()}

    async def scenario(replicas: Replicas) -> None:
        for number in range(90):
            for _ in range(3):
                await sample(replicas, request(1, tree=f"tree {number}"))

    with_replicas(servers, scenario)
    homes = {name: {each.tree for each in s.requests} for name, s in servers.items()}
    assert sum(len(trees) for trees in homes.values()) == 90
    assert all(15 < len(trees) < 45 for trees in homes.values())


def test_only_the_trees_of_a_replica_that_goes_move() -> None:
    trees = [str(number) for number in range(100)]
    before = {tree: choose(tree, {"a", "b", "c"}) for tree in trees}
    after = {tree: choose(tree, {"a", "c"}) for tree in trees}
    assert all(after[tree] == before[tree] for tree in trees if before[tree] != "b")
    assert Counter(after[tree] for tree in trees if before[tree] == "b").keys() == {"a", "c"}
    assert choose("x", set()) is None


def test_what_a_lost_replica_did_not_deliver_comes_from_another_with_the_same_seeds() -> None:
    asked = request()
    home = choose(asked.tree, {"a", "b"})
    servers = {"a": Server(), "b": Server()}
    servers[str(home)].lives = 3

    async def scenario(replicas: Replicas) -> None:
        got = await sample(replicas, asked)
        assert [s.index for s in got] == list(range(8))
        assert [s.ids[0] for s in got] == list(range(100, 108))

    with_replicas(servers, scenario)
    [retried] = next(s for name, s in servers.items() if name != home).requests
    assert retried.n == 5 and retried.seeds == (103, 104, 105, 106, 107)


def test_when_none_is_left_the_caller_is_told_and_a_replica_that_returns_is_used() -> None:
    servers = {"a": Server(), "b": Server()}

    async def scenario(replicas: Replicas) -> None:
        for server in servers.values():
            server.lives = 0
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            await sample(replicas, request())
        await until(lambda: replicas.up == 0)
        with pytest.raises(EngineUnavailable, match=r"cannot be reached.*; .*cannot be reached"):
            replicas.engine  # noqa: B018
        servers["b"].lives = 1000
        await until(lambda: replicas.up == 1)
        assert len(await sample(replicas, request())) == 8
        assert replicas.restarts == 1

    with_replicas(servers, scenario)


def test_a_replica_that_is_not_up_at_the_start_is_awaited() -> None:
    servers = {"a": Server(), "b": Server()}
    servers["b"].lives = 0

    async def scenario(replicas: Replicas) -> None:
        assert len(await sample(replicas, request())) == 8
        servers["b"].lives = 1000
        await until(lambda: replicas.up == 2)
        assert replicas.restarts == 0

    with_replicas(servers, scenario)


def test_a_server_of_something_else_ends_the_start_and_is_left_out_later() -> None:
    wrong = Server()
    wrong.mismatched = True
    replicas = Replicas({"a": Supervisor(wrong.start, CANARY, QUICK)})
    with pytest.raises(EngineMismatch, match="another model"):
        asyncio.run(replicas.run())
    servers = {"a": Server(), "b": Server()}
    servers["b"].lives = 0

    async def scenario(replicas: Replicas) -> None:
        servers["b"].mismatched = True
        await asyncio.sleep(0.1)
        assert replicas.up == 1

    with_replicas(servers, scenario)


def test_a_refused_prompt_is_not_tried_elsewhere() -> None:
    servers = {"a": Server(), "b": Server()}

    async def scenario(replicas: Replicas) -> None:
        with pytest.raises(PromptRefused):
            await sample(replicas, request(ids=(666,)))

    with_replicas(servers, scenario)
    assert all(not server.requests for server in servers.values())


def test_neighbours_are_asked_for_together() -> None:
    assert runs([0, 1, 2], together=True) == [range(3)]
    assert runs([0, 2, 3, 7], together=True) == [range(1), range(2, 4), range(7, 8)]
    assert runs([0, 1], together=False) == [range(1), range(1, 2)]
    assert runs([], together=True) == []


def test_new_weights_go_to_every_replica() -> None:
    servers = {"a": Server(), "b": Server()}

    async def scenario(replicas: Replicas) -> None:
        assert await replicas.reload(Path("new"))
        assert not await replicas.reload(Path("new"))

    with_replicas(servers, scenario)
    assert {server.weights for server in servers.values()} == {Path("new")}


def test_replicas_that_differ_after_a_reload_are_connected_anew() -> None:
    """Where the first takes no weights nothing has changed; later on some of them have."""
    servers = {"a": Server(), "b": Server()}

    async def scenario(replicas: Replicas) -> None:
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
