"""`make bench-peers`: its_hub, OptiLLM and vLLM's beam search beside ours, on one server.

    python -m tests.benchmarks.peers [--problems 100] [--block 25] [--only REGEX]

Every search asks the same vLLM server about the same problems, so many in flight at once, and the
same strict checker judges what it returns. Tokens are those that the server counted. Problems are
cut into blocks, and in each block the searches take turns, so that a neighbour of the machine
slows all of them alike: problems a second are ratios within a block. Blocks that are done are kept
in --out, and a run that was killed goes on.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from stepback_core.tasks import CountdownProblem
from stepback_server.checkpoint import Checkpoint
from tests.benchmarks.measuring import DEVELOPMENT_SEED, FINAL_SEED, KINDS, problems
from tests.benchmarks.model_free import measure as without_a_model
from tests.benchmarks.model_free import step_costs
from tests.benchmarks.model_free import table as costs_line
from tests.benchmarks.peers.asking import Asker, Ours, Peer, VllmBeams
from tests.benchmarks.peers.report import Block, Measured, pairs, refusals, table
from tests.benchmarks.peers.rows import (
    BASE_WITH,
    BASE_WITHOUT,
    ITS_HUB,
    OPTILLM,
    OURS,
    ROWS,
    VLLM,
    PeerRow,
)
from tests.benchmarks.peers.serving import Counters, TextServer
from tests.conftest import CHECKPOINT, controller
from tests.progress import bar

_BUDGETS = (125, 250, 500)


def blocks_of(count: int, size: int, seed: int) -> list[list[CountdownProblem]]:
    """Draw `count` problems of each kind, in blocks of `size` of each."""
    kinds = [problems(kind, count, seed) for kind in KINDS]
    starts = range(0, count, size)
    return [[each for kind in kinds for each in kind[at : at + size]] for at in starts]


class Bench:
    """The server and all who ask it; keeps each block of each search in a file."""

    def __init__(self, url: str, askers: dict[str, Asker], kept: Path) -> None:
        self._url = url
        self._askers = askers
        self._kept = kept
        kept.mkdir(parents=True, exist_ok=True)

    def block(self, row: PeerRow, name: str, asked: Sequence[CountdownProblem]) -> Block:
        file = self._kept / f"{re.sub(r'[^A-Za-z0-9]+', '-', row.key)}-{name}.json"
        if file.exists():
            return Block(**json.loads(file.read_text()))
        before = Counters.read(self._url)
        answered = self._askers[row.by].ask(row, asked)
        spent = Counters.read(self._url).since(before)
        block = Block(**asdict(answered), **asdict(spent))
        file.write_text(json.dumps(asdict(block)))
        return block


def measure(given: argparse.Namespace, rows: Sequence[PeerRow]) -> list[Measured]:
    asked = blocks_of(given.problems, given.block, given.seed)
    found: dict[str, list[Block]] = {row.key: [] for row in rows}
    with ExitStack() as stack, bar("searches", len(rows) * len(asked)) as shown:
        bench = Bench(*_started(stack, given, rows), given.out / "rows")
        for number, block in enumerate(asked):
            name = f"{number}-{len(block)}-{given.seed}"
            for row in rows:
                shown.set_postfix_str(row.key)
                found[row.key].append(bench.block(row, name, block))
                shown.update()
    return [Measured(row, found[row.key]) for row in rows]


def _started(
    stack: ExitStack, given: argparse.Namespace, rows: Sequence[PeerRow]
) -> tuple[str, dict[str, Asker]]:
    """The server's address, and who asks it: what no row wants is not started."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    checkpoint = Checkpoint.open(CHECKPOINT)
    server = given.engine or _server(stack, folder / "vllm.txt")
    ours = stack.enter_context(
        controller(folder / "controller.txt", engine_urls=server, log_level="warning")
    )
    askers: dict[str, Asker] = {
        OURS: Ours(ours, given.in_flight),
        VLLM: VllmBeams(server, checkpoint, given.in_flight),
    }
    for by, environment, worker in (
        (ITS_HUB, "its-hub", "its_hub_worker.py"),
        (OPTILLM, "optillm", "optillm_worker.py"),
    ):
        if any(row.by == by for row in rows):
            place = given.environments / environment
            peer = Peer(place, worker, server, checkpoint, given.in_flight)
            stack.callback(peer.close)
            askers[by] = peer
    return server, askers


def _server(stack: ExitStack, log: Path) -> str:
    server = TextServer(log)
    stack.callback(server.stop)
    server.wait_until_up()
    return server.url


def model_free(given: argparse.Namespace) -> str:
    asked = [each for block in blocks_of(given.problems, given.block, given.seed) for each in block]
    heads = " | ".join(f"{budget:,}" for budget in _BUDGETS)
    lines = [f"| without a model, tokens | {heads} | mean | median |", "| --- " * 6 + "|"]
    for name, costs in without_a_model(asked, step_costs()).items():
        lines.append(f"| {costs_line(name, costs, _BUDGETS)}".replace("| |", "|"))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=100, help="of each kind")
    parser.add_argument("--block", type=int, default=25, help="of each kind in a turn")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--engine", help="a vLLM server that nobody else asks, with its tokenizer")
    parser.add_argument("--only", default="", help="rows whose name matches this expression")
    parser.add_argument("--development", action="store_true", help="on the development problems")
    parser.add_argument("--environments", type=Path, default=Path(".cache/peers"))
    parser.add_argument("--out", type=Path, default=Path("runs/bench-peers"))
    given = parser.parse_args()
    given.seed = DEVELOPMENT_SEED if given.development else FINAL_SEED
    bases = (BASE_WITH, BASE_WITHOUT)
    rows = [row for row in ROWS if row in bases or re.search(given.only, row.key)]
    measured = measure(given, rows)
    print(table(measured), model_free(given), sep="\n\n")
    for base in bases:
        print("", pairs(measured, base), sep="\n")
    if failed := refusals(measured):
        print("", failed, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
