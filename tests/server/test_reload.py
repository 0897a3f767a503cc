"""New weights in a running engine: what may follow what, from where, and that it really does."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepback_client import ApiError, Client
from stepback_core.errors import InvalidInput
from stepback_core.manifest import Manifest
from stepback_core.schemas import SolveRequest
from stepback_core.trace import TraceCodec
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import (
    EngineUnavailable,
    OwnedEngine,
    ReloadFailed,
    ReloadNotOffered,
)
from stepback_server.engine.supervisor import Supervisor
from stepback_server.errors import ApiError as Refusal
from stepback_server.gateway.admission import Admission
from stepback_server.gateway.tenant import ANYONE
from stepback_server.reload import Served, check_successor, folder_under
from stepback_server.service import Service
from stepback_server.settings import Settings
from stepback_training.config import Recipe
from stepback_training.train.checkpoint import export
from stepback_training.train.model import embedding_rows, make_model
from tests.conftest import SERVED
from tests.server.search.scripted import ScriptedEngine
from tests.server.test_supervisor import CANARY, QUICK, until

PROMPT = "countdown:4,16,25,82=95"


def make_checkpoint(folder: Path, seed: int, **shape: int) -> Path:
    """A tiny model with random weights, whole enough to be served."""
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "seed": seed,
            "data": {"samples": 1},
            "scratch": {"hidden_size": 64, "layers": 2, "heads": 2, "intermediate_size": 96}
            | shape,
            "train": {"learning_rate": 1e-3},
        }
    )
    model, tokenizer, grammar = make_model(recipe)
    codec = TraceCodec.of(grammar, tokenizer)
    manifest = Manifest(
        name="tiny",
        marker_id=codec.tokens.marker_id,
        end_id=codec.tokens.end_id,
        separator_ids=codec.encode_step(""),
        vocabulary_size=embedding_rows(model),
        answer_tokens=24,
        tasks=["countdown"],
    )
    export(folder, model, tokenizer, manifest)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for name, seed in (("one", 1), ("two", 2)):
        make_checkpoint(folder / name, seed)
    return folder


# Where weights may come from


@pytest.mark.parametrize("path", ["one", "./one/", "two/../one", "{root}/one"])
def test_a_folder_under_the_root_may_be_named(root: Path, path: str) -> None:
    assert folder_under(root, path.format(root=root)) == (root / "one").resolve()


@pytest.mark.parametrize(
    "path",
    [
        *("..", "../{name}-beside", "{root}-beside", "/etc", "/", "/nowhere/at/all"),
        *("one/../../x", "a\0b", "x" * 5000, "loop", "link-out", "file-out"),
        *("no-such-folder", "one/config.json"),
    ],
)
def test_no_other_folder_may(tmp_path: Path, root: Path, path: str) -> None:
    inside, beside = tmp_path / "root", tmp_path / "root-beside"
    shutil.copytree(root / "one", inside / "one")
    shutil.copytree(root / "one", beside)
    (inside / "link-out").symlink_to(beside)
    (inside / "loop").symlink_to(inside / "loop")
    shutil.copytree(root / "one", inside / "file-out")
    (inside / "file-out/model.safetensors").unlink()
    (inside / "file-out/model.safetensors").symlink_to(beside / "model.safetensors")
    with pytest.raises((Refusal, InvalidInput)) as refused:
        Checkpoint.open(folder_under(inside, path.format(root=inside, name=inside.name)))
    inner = path in ("no-such-folder", "one/config.json")
    assert refused.type is (InvalidInput if inner else Refusal)


def test_what_was_served_first_may_come_back(tmp_path: Path, root: Path) -> None:
    first = root / "one"
    assert folder_under(tmp_path, str(first), first=first) == first.resolve()
    with pytest.raises(Refusal):
        folder_under(tmp_path, str(root / "two"), first=first)


def test_an_empty_root_is_none() -> None:
    assert Settings.read({"STEPBACK_RELOAD_ROOT": ""}).reload_root is None


def test_a_root_behind_a_link_is_where_it_leads(tmp_path: Path, root: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert folder_under(tmp_path / "link", "one") == (root / "one").resolve()


# What may follow what


def changed(root: Path, folder: Path, name: str, change: Callable[[Any], object]) -> Checkpoint:
    shutil.copytree(root / "two", folder)
    part = json.loads((folder / name).read_text())
    change(part)
    (folder / name).write_text(json.dumps(part))
    return Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("stepback.json", lambda part: part.update(name="other"), "name is 'other'"),
        ("stepback.json", lambda part: part.update(tasks=[]), "tasks is"),
        ("config.json", lambda part: part.update(rms_norm_eps=1e-5), "rms_norm_eps is"),
        ("config.json", lambda part: part.update(tie_word_embeddings=True), "tie_word_embeddings"),
        ("config.json", lambda part: part.update(max_position_embeddings=64), "max_position"),
        ("tokenizer.json", lambda part: part.update(normalizer={"type": "NFC"}), "tokenizer.json"),
    ],
)
def test_another_model_is_refused_by_the_part_that_differs(
    tmp_path: Path, root: Path, name: str, change: Callable[[Any], object], named: str
) -> None:
    new = changed(root, tmp_path / "new", name, change)
    with pytest.raises(InvalidInput, match=named):
        check_successor(Checkpoint.open(root / "one"), new)


def test_another_shape_is_refused(tmp_path: Path, root: Path) -> None:
    wide = Checkpoint.open(make_checkpoint(tmp_path / "wide", 1, intermediate_size=128))
    with pytest.raises(InvalidInput, match="intermediate_size"):
        check_successor(Checkpoint.open(root / "one"), wide)
    (wide.folder / "config.json").write_bytes((root / "one/config.json").read_bytes())
    with pytest.raises(InvalidInput, match="other names or shapes"):
        check_successor(Checkpoint.open(root / "one"), wide)


def test_tied_weights_are_refused_even_where_the_served_are_tied_too(
    tmp_path: Path, root: Path
) -> None:
    def tie(part: Any) -> None:
        part.update(tie_word_embeddings=True)

    tied = changed(root, tmp_path / "new", "config.json", tie)
    with pytest.raises(InvalidInput, match="export it untied"):
        check_successor(tied, tied)


def test_what_is_served_may_follow_itself_and_its_sister(root: Path) -> None:
    one, two = Checkpoint.open(root / "one"), Checkpoint.open(root / "two")
    assert one.digest != two.digest
    check_successor(one, one)
    check_successor(one, two)


# With a hand-made engine: who waits, who is cut short, what a failure leaves


class Loadable(ScriptedEngine):
    """Takes weights, or fails to as told; its samples take as long as they are told."""

    def __init__(self, folder: Path, fault: Exception | None, delay: float) -> None:
        end = Manifest.read(folder).end_id
        super().__init__(lambda request, index: (5, end), delay=delay)
        self.folder = folder
        self.fault = fault

    async def reload(self, checkpoint: Path) -> bool:
        if self.fault is not None:
            raise self.fault
        was, self.folder = self.folder, checkpoint
        return was != checkpoint


class Bench:
    """A service over engines of the kind above."""

    def __init__(self, root: Path, fault: Exception | None, delay: float, **settings: Any) -> None:
        self.served = Served(Checkpoint.open(root / "one"))
        self.engines: list[Loadable] = []
        self._fault = fault
        self._delay = delay
        known = Settings(reload_root=root, grace_seconds=0.3, **settings)
        self.service = Service(known, self.served, Supervisor(self._start, CANARY, QUICK))

    def _start(self) -> OwnedEngine:
        fault = None if self.engines else self._fault
        self.engines.append(Loadable(self.served.checkpoint.folder, fault, self._delay))
        return self.engines[-1]

    @property
    def is_up(self) -> bool:
        return self.service._keeper.up == 1  # pyright: ignore[reportPrivateUsage]

    @property
    def is_held(self) -> bool:
        return self.service._admission._is_held  # pyright: ignore[reportPrivateUsage]

    async def solve(self, **options: Any) -> Any:
        return await self.service.solve(SolveRequest(prompt=PROMPT, **options), ANYONE)


def on_bench(root: Path, scenario: Callable[[Bench], Any], **options: Any) -> None:
    async def run() -> None:
        bench = Bench(root, options.pop("fault", None), options.pop("delay", 0.0), **options)
        running = asyncio.create_task(bench.service.run())
        async with asyncio.timeout(120):
            await until(lambda: bench.is_up)
            await scenario(bench)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def test_new_weights_are_loaded_once_and_told(root: Path) -> None:
    async def scenario(bench: Bench) -> None:
        one = bench.service.model.digest
        first = await bench.service.reload("two")
        assert (first.previous, first.model) == (one, "tiny")
        assert bench.service.model.digest == first.digest != one
        again = await bench.service.reload(str(root / "two"))
        assert again.digest == again.previous == first.digest
        assert bench.engines[0].folder == root / "two" and len(bench.engines) == 1

    on_bench(root, scenario)


def test_searches_end_first_and_those_that_outlast_the_grace_are_cut_short(root: Path) -> None:
    async def scenario(bench: Bench) -> None:
        slow = asyncio.create_task(bench.solve(strategy="best_of_n", breadth=80))
        await asyncio.sleep(0.05)
        loading = asyncio.create_task(bench.service.reload("two"))
        await until(lambda: bench.is_held)
        waiting = asyncio.create_task(bench.solve(strategy="greedy"))
        await asyncio.sleep(0.02)
        assert bench.engines[0].folder == root / "one" and not waiting.done()
        assert (await loading).cut_short == 1
        assert (await slow).stop_reason == "cancelled"
        assert (await waiting).answer is not None
        # And the server goes on: what came after is not cut short.
        assert (await bench.solve(strategy="greedy")).stop_reason == "exhausted"

    on_bench(root, scenario, delay=0.01)


@pytest.mark.parametrize("fault", [ReloadFailed("half of it"), EngineUnavailable("it died")])
def test_a_failure_brings_an_engine_with_the_weights_of_before(
    root: Path, fault: Exception
) -> None:
    async def scenario(bench: Bench) -> None:
        digest = bench.service.model.digest
        with pytest.raises(ReloadFailed, match=str(fault)):
            await bench.service.reload("two")
        await until(lambda: len(bench.engines) == 2 and bench.is_up)
        assert bench.engines[1].folder == root / "one"
        assert bench.service.model.digest == digest
        assert (await bench.solve(strategy="greedy")).answer is not None

    on_bench(root, scenario, fault=fault)


def test_an_engine_that_takes_no_weights_goes_on_as_it_was(root: Path) -> None:
    async def scenario(bench: Bench) -> None:
        digest = bench.service.model.digest
        with pytest.raises(ReloadNotOffered):
            await bench.service.reload("two")
        assert bench.service.model.digest == digest
        assert (await bench.solve(strategy="greedy")).answer is not None
        assert len(bench.engines) == 1

    on_bench(root, scenario, fault=ReloadNotOffered("no such route"))


def test_weights_that_change_nothing_in_the_engine_are_a_failure(root: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bench.engines[0].folder = root / "two"
        with pytest.raises(ReloadFailed, match="that it had before"):
            await bench.service.reload("two")

    on_bench(root, scenario)


def test_held_places_go_to_those_who_waited() -> None:
    async def scenario() -> None:
        admission = Admission(max_searches=2, max_queued=2)
        done = asyncio.Event()

        async def search() -> None:
            async with admission.slot():
                await done.wait()

        with admission.held():
            waiting = [asyncio.ensure_future(search()) for _ in range(2)]
            await asyncio.sleep(0)
            assert (admission.searching, admission.queued) == (0, 2)
        assert (admission.searching, admission.queued) == (2, 0)
        done.set()
        await asyncio.gather(*waiting)

    asyncio.run(scenario())


# Over HTTP. That an engine really has what was loaded is tested where one is killed: test_faults.py


@pytest.mark.parametrize(
    ("model", "path", "status", "code"),
    [
        (SERVED, "/etc", 403, "reload_path_refused"),
        (SERVED, "nothing", 422, "reload_mismatch"),
        ("other", "one", 404, "unknown_model"),
    ],
)
def test_a_refusal_says_what_to_do(
    server: str, model: str, path: str, status: int, code: str
) -> None:
    with Client(server) as client, pytest.raises(ApiError) as refused:
        client.reload(model, path)
    assert (refused.value.status, refused.value.code) == (status, code)
