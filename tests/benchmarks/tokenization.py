"""Tokenization of numbers: it decides how far a model carries over to new targets.

    python -m tests.benchmarks.tokenization [--samples 100000] [--problems 500]

Trains the same small model on the same samples with one, two and three digits a token, and prints
what each finds of test problems: nats for a whole reference path (comparable across vocabularies,
since the text is the same), and the share that greedy decoding solves.
"""

import argparse
import sys
from itertools import islice
from pathlib import Path
from random import Random

from stepback_training.config import Recipe
from stepback_training.data.samples import write_samples
from stepback_training.train.sft import train
from tests.benchmarks.measuring import KINDS, TASK
from tests.benchmarks.probe import Probe
from tests.progress import counted

DIGITS = (1, 2, 3)


def recipe(digits: int, samples: int) -> Recipe:
    return Recipe.model_validate(
        {
            "name": f"digits-{digits}",
            "data": {"samples": samples, "backtrack_share": 0.3, "paths": "plainest"},
            "scratch": {
                "hidden_size": 128,
                "intermediate_size": 352,
                "layers": 4,
                "heads": 4,
                "digits_per_token": digits,
            },
            "train": {
                "optimizer": "muon",
                "learning_rate": 3e-3,
                "adamw_learning_rate": 2e-3,
                "schedule": "linear",
                "batch_tokens": 8192,
                "checkpoint_every": 500,
            },
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--problems", type=int, default=500, help="of each test kind")
    parser.add_argument("--out", type=Path, default=Path("runs/tokenization"))
    given = parser.parse_args()
    data = given.out / "samples.jsonl"
    write_samples(recipe(1, given.samples).data, data)
    kinds = {kind: list(islice(TASK.stream(kind, Random(7)), given.problems)) for kind in KINDS}
    rows = ["| digits a token | nats, seen | nats, new | greedy, seen | greedy, new |"]
    rows.append("| --- | --- | --- | --- | --- |")
    for digits in counted(DIGITS, "tokenizations"):
        folder = train(recipe(digits, given.samples), data, given.out / f"digits-{digits}")
        probe = Probe(folder)
        nats = " | ".join(f"{probe.solving(problems)['nats']:.2f}" for problems in kinds.values())
        solved = " | ".join(f"{100 * probe.solved(problems):.1f} %" for problems in kinds.values())
        rows.append(f"| {digits} | {nats} | {solved} |")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
