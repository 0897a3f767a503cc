"""How numbers are cut into tokens decides how far a model carries over to new targets.

    python -m tests.benchmarks.tokenization [--samples 100000] [--problems 500]

Trains the same small model on the same samples with one, two and three digits a token, and prints
what each finds of test problems: nats for a whole reference path (comparable across vocabularies,
since the text is the same), and the share that greedy decoding solves.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepback_core.manifest import Manifest
from stepback_core.tasks import TASKS, CountdownProblem, Split
from stepback_core.trace import TraceCodec
from stepback_training.encode import IGNORED, encode
from stepback_training.recipe import Recipe
from stepback_training.samples import Sample, write_samples
from stepback_training.sft import train

TASK = TASKS["countdown"]
DIGITS = (1, 2, 3)
_BATCH = 100
_LONGEST_ANSWER = 50


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


class Probe:
    """Asks a finished checkpoint about problems, with plain transformers."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._codec = TraceCodec.of(Manifest.read(folder).grammar, self._tokenizer)

    @torch.no_grad()
    def nats(self, problems: list[CountdownProblem]) -> float:
        """Mean negative log-likelihood of the plainest reference path, its end included."""
        total = 0.0
        for problem in problems:
            path = TASK.reference_paths(problem)[0]
            encoded = encode(Sample(prompt=TASK.prompt(problem), steps=path), self._codec)
            ids = torch.tensor([encoded.ids])
            labels = ids.masked_fill(~torch.tensor([encoded.has_loss]), IGNORED)
            logits = self._model(ids).logits[0, :-1].float()
            loss = torch.nn.functional.cross_entropy(
                logits, labels[0, 1:], ignore_index=IGNORED, reduction="sum"
            )
            total += loss.item()
        return total / len(problems)

    @torch.no_grad()
    def solved(self, problems: list[CountdownProblem]) -> float:
        """Share that greedy decoding solves, strict, and ends."""
        hits = sum(
            ids[-1:] == [self._codec.tokens.end_id]
            and TASK.check(problem, self._codec.decode_steps(ids)).strict
            for problem, ids in zip(problems, self._greedy(problems), strict=True)
        )
        return hits / len(problems)

    def _greedy(self, problems: list[CountdownProblem]) -> Iterator[list[int]]:
        stops = set(self._codec.tokens.stop_ids)
        for start in range(0, len(problems), _BATCH):
            prompts = [
                self._codec.encode_prompt(TASK.prompt(p)) for p in problems[start : start + _BATCH]
            ]
            batch = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
            outputs = self._model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=_LONGEST_ANSWER,
                do_sample=False,
            )
            for ids in outputs[:, batch["input_ids"].shape[1] :].tolist():
                end = next((i for i, token in enumerate(ids) if token in stops), len(ids) - 1)
                yield ids[: end + 1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--problems", type=int, default=500, help="of each test kind")
    parser.add_argument("--out", type=Path, default=Path("runs/tokenization"))
    given = parser.parse_args()
    data = given.out / "samples.jsonl"
    write_samples(recipe(1, given.samples).data, data)
    kinds = {
        kind: list(islice(TASK.stream(kind, Random(7)), given.problems))
        for kind in (Split.TEST_SEEN, Split.TEST_NEW)
    }
    rows = ["| digits a token | nats, seen | nats, new | greedy, seen | greedy, new |"]
    rows.append("| --- | --- | --- | --- | --- |")
    for digits in DIGITS:
        folder = train(recipe(digits, given.samples), data, given.out / f"digits-{digits}")
        probe = Probe(folder)
        nats = " | ".join(f"{probe.nats(problems):.2f}" for problems in kinds.values())
        solved = " | ".join(f"{100 * probe.solved(problems):.1f} %" for problems in kinds.values())
        rows.append(f"| {digits} | {nats} | {solved} |")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
