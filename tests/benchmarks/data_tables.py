"""The tables of `make bench-data`, from what was measured of each arm."""

from collections.abc import Sequence
from typing import Any

from stepback_training.collect_errors.first_error import Tally
from stepback_training.generators import ErrorKind
from tests.benchmarks.measuring import KINDS, share
from tests.benchmarks.probe import LATE

Found = dict[str, Any]


def tables(found: dict[str, Found], searches: Sequence[str]) -> str:
    """Two Markdown tables with a row an arm: what the logits say, and what is solved."""
    learned = ["samples", "tokens", "nats", "right sample %"]
    learned += [f"AUC {kind}" for kind in (*ErrorKind, LATE)]
    learned += ["precision %", "recall %", "false alarms %"]
    solved = [f"{search}, {kind.removeprefix('test_')} %" for search in searches for kind in KINDS]
    return "\n\n".join(
        (
            _table(["arm", *learned], {name: _learned(each) for name, each in found.items()}),
            _table(
                ["arm", "a path solves %", "its error is noticed %", *solved],
                {name: _solved(each, searches) for name, each in found.items()},
            ),
        )
    )


def _table(head: list[str], rows: dict[str, list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _learned(found: Found) -> list[str]:
    """Nats and right samples for seen / new targets."""
    training, marker = found["training"], found["marker"]
    seen, new = (found["solving"][kind] for kind in KINDS)
    return [
        f"{training['samples']:,}",
        f"{training['tokens'] / 1e6:.2f}M",
        f"{seen['nats']:.2f} / {new['nats']:.2f}",
        f"{100 * seen['right']:.1f} / {100 * new['right']:.1f}",
        *(f"{marker[f'auc_{kind}']:.3f}" for kind in (*ErrorKind, LATE)),
        # A model that never emits the marker has no precision.
        f"{100 * marker['precision']:.1f}" if marker["recall"] + marker["false_alarms"] else "",
        *(f"{100 * marker[name]:.1f}" for name in ("recall", "false_alarms")),
    ]


def _solved(found: Found, searches: Sequence[str]) -> list[str]:
    """Shares with their intervals; single paths of both kinds of problems together."""
    paths = [Tally.model_validate(found["paths"][kind]) for kind in KINDS]
    errors = sum(sum(tally.errors.values()) for tally in paths)
    noticed = sum(sum(tally.noticed.values()) for tally in paths)
    solved = sum(tally.solved for tally in paths) / sum(tally.paths for tally in paths)
    cells = [f"{100 * solved:.1f}", f"{100 * noticed / max(1, errors):.1f}"]
    for search in searches:
        for kind in KINDS:
            result = found["searches"][search][kind]
            cells.append(share(result["solved"], result["problems"]))
    return cells
