"""The comparison with other projects: what is sent, how answers are judged, what is printed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Template

from stepback_core.tasks import CountdownProblem
from stepback_server.checkpoint import Checkpoint
from stepback_server.settings import Settings
from tests.benchmarks.measuring import FINAL_SEED
from tests.benchmarks.peers.__main__ import blocks_of
from tests.benchmarks.peers.asking import Peer
from tests.benchmarks.peers.report import Block, Measured, pairs, refusals, table
from tests.benchmarks.peers.rows import BASE_WITH, BASE_WITHOUT, ROWS, PeerRow
from tests.benchmarks.peers.serving import TEMPLATE, TextServer
from tests.conftest import CHECKPOINT, ROOT

PROBLEM = CountdownProblem(numbers=[4, 16, 25, 82], target=95)
RIGHT = "16-4=12\n25-12=13\n82+13=95"
WORKER = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests/benchmarks/peers/workers")!r}]
from loop import is_right, serve

def solve(job):
    print("a library's own words")
    assert is_right(job.problems[0], {RIGHT!r}) and not is_right(job.problems[0], "1+1=2")
    return [({RIGHT!r}, None), (None, "no such thing: " + job.method), ("", None)]

serve(solve)
"""


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.open(CHECKPOINT)


@pytest.mark.parametrize("steps", ["", "16-4=12\n", "16-4=12\n25-12=13"])
def test_a_chat_reads_as_the_checkpoints_own_prompt(checkpoint: Checkpoint, steps: str) -> None:
    """And an assistant's words continue it; a system's words are left out."""
    template, prompt = Template(TEMPLATE.read_text()), "countdown:4,16,25,82=95"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
    messages += [{"role": "assistant", "content": steps}] if steps else []
    tokenizer = checkpoint.codec.tokenizer
    found = tokenizer.encode(template.render(messages=messages), add_special_tokens=False)
    continued = tokenizer.encode(steps, add_special_tokens=False)
    assert found == checkpoint.codec.encode_prompt(prompt) + continued


def test_the_server_differs_from_ours_in_its_text_alone(checkpoint: Checkpoint) -> None:
    settings = Settings.read({}, ["--port", "1"])
    ours = TextServer.__base__.flags(settings, checkpoint)  # pyright: ignore
    theirs = TextServer.flags(settings, checkpoint)
    assert set(ours) - set(theirs) == {"--skip-tokenizer-init", "--generation-config", "vllm"}
    more = {"--chat-template", str(TEMPLATE), "--max-logprobs", "64"}
    assert set(theirs) - set(ours) == more


def test_more_problems_leave_the_blocks_before_them_as_they_are() -> None:
    assert blocks_of(6, 2, FINAL_SEED)[:2] == blocks_of(4, 2, FINAL_SEED)
    assert [len(block) for block in blocks_of(3, 2, FINAL_SEED)] == [4, 2]


@pytest.fixture
def peer(tmp_path: Path, checkpoint: Checkpoint) -> Iterator[Peer]:
    """A worker in another process, in this environment."""
    (tmp_path / "worker.py").write_text(WORKER)
    made = Peer(Path(sys.prefix), str(tmp_path / "worker.py"), "http://none", checkpoint, 2)
    yield made
    made.close()


def test_a_worker_answers_jobs_and_its_errors_are_kept(peer: Peer) -> None:
    row = PeerRow("x", "y", "z", checker=True)
    for _ in range(2):
        asked = peer.ask(row, [PROBLEM] * 3)
        assert asked.right == [True, False, False]
        assert asked.errors == ["no such thing: z"]


def test_a_worker_that_dies_ends_the_comparison(tmp_path: Path, checkpoint: Checkpoint) -> None:
    (tmp_path / "worker.py").write_text("input(); raise SystemExit(3)")
    peer = Peer(Path(sys.prefix), str(tmp_path / "worker.py"), "http://none", checkpoint, 2)
    with pytest.raises(RuntimeError, match="x: its worker ended with 3"):
        peer.ask(PeerRow("x", "y", "z", checker=True), [PROBLEM])
    peer.close()


def block(right: list[bool], seconds: float, generated: int, errors: int = 0) -> Block:
    return Block(right, ["no"] * errors, seconds, generated, prompted=100, cached=60)


OURS = Measured(BASE_WITH, [block([True, True], 1, 40), block([True, False], 1, 40)])


def test_a_row_has_tokens_and_seconds_as_the_server_and_the_clock_counted() -> None:
    peer = PeerRow("its_hub", "best-of-N", "best_of_n", checker=True)
    theirs = Measured(peer, [block([True, False], 1, 80), block([True, False], 2, 80)])
    ours, other = table([OURS, theirs]).splitlines()[2:]
    assert ours.endswith("| 75.0 (30.1 to 95.4) | 20 | 40 | 37.5 (15.0 to 47.7) | 1 |")
    assert other.endswith(
        "| 50.0 (15.0 to 85.0) | 40 | 60 | 12.5 (3.8 to 21.2) | 0.50 (0.50 to 0.50) |"
    )


def test_searches_of_the_same_problems_are_compared_in_pairs() -> None:
    peer = PeerRow("its_hub", "best-of-N", "best_of_n", checker=True)
    blind = PeerRow("its_hub", "vote", "vote", checker=False)
    theirs = Measured(peer, [block([False, True], 1, 80), block([False, False], 1, 80)])
    lines = pairs([OURS, theirs, Measured(blind, theirs.blocks)], BASE_WITH).splitlines()
    assert lines[2:] == ["| its_hub, best-of-N | 2 | 0 | +50.0 | 0.5 | 2.00 |"]


def test_what_could_not_be_asked_is_refused_and_says_why() -> None:
    row = PeerRow("OptiLLM", "moa", "moa", checker=False)
    ours = Measured(BASE_WITHOUT, OURS.blocks)
    failed = Measured(row, [block([False, False], 1, 9, errors=2)] * 2)
    assert table([ours, failed]).splitlines()[-1] == "| OptiLLM | moa | refused | | | |  |"
    assert refusals([ours, failed]) == "OptiLLM: moa: 4 of 4 failed: no"
    assert len(pairs([ours, failed], BASE_WITHOUT).splitlines()) == 2


def test_rows_have_names_of_their_own() -> None:
    assert len({row.key for row in ROWS}) == len(ROWS)
    assert all(base in ROWS for base in (BASE_WITH, BASE_WITHOUT))
