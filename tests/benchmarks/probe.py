"""Beliefs of a checkpoint about Countdown, read off its logits with plain transformers, unsampled.

How likely it is to solve a problem, how well the marker's probability tells wrong steps from right
ones, and how often it gives up where there is no solution.

    python -m tests.benchmarks.probe models/multitask-10m
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepback_core.manifest import Manifest
from stepback_core.tasks import CountdownProblem
from stepback_core.trace import TraceCodec
from stepback_training.data.samples import Sample
from stepback_training.generators import ErrorKind
from stepback_training.train.loss_mask import encode
from tests.benchmarks.measuring import KINDS, TASK, both_kinds
from tests.progress import counted

LATE = "late"
"""The boundary behind a further step that takes a wrong one at its word."""
CLAIM = "claim"
"""The boundary behind a last step that says that it makes the target, and does not; of seen targets
alone, since training may not show the others as wrong."""
LAST = "last"
"""The boundary behind a right last step."""
RIGHT = "right"
_BATCH = 256
_DRAWS = 2
"""Boundaries of each kind for each problem."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """The end of a step, and what the step is."""

    kind: str
    """An error's kind, `late`, `claim`, `right` or `last`."""
    sample: Sample
    """A sample whose last token is the marker, whether that belongs there or not."""


class Probe:
    """One checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        manifest = Manifest.read(folder)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._codec = TraceCodec.of(manifest.grammar, self._tokenizer)
        self._longest = manifest.task_answer_tokens.get("countdown", manifest.answer_tokens)

    def solving(self, problems: Sequence[CountdownProblem]) -> dict[str, float]:
        """`nats`: mean negative log-likelihood of the plainest path, its end included. `right`: the
        mean probability that one sample at temperature 1 is any of the reference paths, which are
        all the right ones with the larger operand first."""
        paths = [TASK.reference_paths(problem) for problem in problems]
        samples = [
            Sample(prompt=TASK.checker.prompt(problem), steps=path)
            for problem, found in zip(problems, paths, strict=True)
            for path in found
        ]
        logprobs = np.asarray([total for total, _ in self._read(samples)])
        first = np.cumsum([0, *(len(found) for found in paths)])
        return {
            "nats": float(-logprobs[first[:-1]].mean()),
            "right": float(np.add.reduceat(np.exp(logprobs), first[:-1]).mean()),
        }

    def marker(self, problems: Sequence[CountdownProblem], seed: int = 0) -> dict[str, float]:
        """Behind steps drawn for the problems: `auc_KIND` of the marker's probability, that kind of
        wrong step against right steps; `recall_KIND`, how often the marker is the likeliest token
        there, and `false_alarms`, how often behind right steps (`false_alarms_last`: behind right
        last steps, which claims are compared with); `precision` and `recall` over the
        three kinds of first error in equal numbers, and as many right steps."""
        boundaries = list(_boundaries(problems, seed))
        found: dict[str, list[tuple[float, bool]]] = {}
        for boundary, (_, last) in zip(
            boundaries, self._read([each.sample for each in boundaries]), strict=True
        ):
            found.setdefault(boundary.kind, []).append(last)
        scores = {kind: np.asarray([p for p, _ in each]) for kind, each in found.items()}
        emitted = {kind: float(np.mean([top for _, top in each])) for kind, each in found.items()}
        wrong = [kind for kind in found if kind not in (RIGHT, LAST)]
        against = {kind: LAST if kind == CLAIM else RIGHT for kind in wrong}
        told = {f"auc_{kind}": auc(scores[kind], scores[against[kind]]) for kind in wrong}
        told |= {f"recall_{kind}": emitted[kind] for kind in wrong}
        alarms = emitted[RIGHT]
        recall = float(np.mean([emitted[kind] for kind in ErrorKind]))
        precision = recall / (recall + alarms) if recall + alarms else float("nan")
        told |= {"false_alarms": alarms, "recall": recall, "precision": precision}
        return told | {"false_alarms_last": emitted[LAST]}

    def solved(self, problems: Sequence[CountdownProblem]) -> float:
        """Share that greedy decoding solves, strict, and ends."""
        hits = sum(
            ids[-1:] == [self._codec.tokens.end_id]
            and TASK.checker.check(problem, self._codec.decode_steps(ids)).strict is True
            for problem, ids in zip(problems, self._greedy(problems), strict=True)
        )
        return hits / len(problems)

    def giving_up(self, problems: Sequence[CountdownProblem]) -> float:
        """Share on which greedy decoding ends in the marker; without a solution, rightly."""
        marker = [self._codec.tokens.marker_id]
        return sum(ids[-1:] == marker for ids in self._greedy(problems)) / len(problems)

    @torch.no_grad()
    def _greedy(self, problems: Sequence[CountdownProblem]) -> Iterator[list[int]]:
        """The ids of each answer, up to the end or the marker."""
        stops = set(self._codec.tokens.stop_ids)
        for start in range(0, len(problems), _BATCH):
            prompts = [
                self._codec.encode_prompt(TASK.checker.prompt(problem))
                for problem in problems[start : start + _BATCH]
            ]
            batch = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
            outputs = self._model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=self._longest,
                do_sample=False,
            )
            for ids in outputs[:, batch["input_ids"].shape[1] :].tolist():
                end = next((i for i, token in enumerate(ids) if token in stops), len(ids) - 1)
                yield ids[: end + 1]

    @torch.no_grad()
    def _read(self, samples: Sequence[Sample]) -> Iterator[tuple[float, tuple[float, bool]]]:
        """Yield for each sample the log-probability of all after the prompt; and of its last token
        the probability, and whether it is the likeliest."""
        for start in range(0, len(samples), _BATCH):
            batch = [encode(sample, self._codec) for sample in samples[start : start + _BATCH]]
            # Padded on the right: what comes later changes nothing in a causal model.
            ids = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(each.ids) for each in batch], batch_first=True
            )
            logprobs = self._model(ids[:, :-1]).logits.float().log_softmax(-1)
            taken = logprobs.gather(-1, ids[:, 1:, None])[..., 0]
            for row, each in enumerate(batch):
                last = len(each.ids) - 2
                is_top = logprobs[row, last].argmax() == ids[row, last + 1]
                answer = taken[row, each.prompt_tokens - 1 : last + 1]
                yield float(answer.sum()), (float(taken[row, last].exp()), bool(is_top))


def _boundaries(problems: Sequence[CountdownProblem], seed: int) -> Iterator[Boundary]:
    """Right steps and wrong ones of each kind, on any of the right paths; claims and right last
    steps on the plainest."""
    rng = Random(seed)
    for number, problem in enumerate(problems):
        paths, prompt = TASK.reference_paths(problem), TASK.checker.prompt(problem)

        def at(kind: str, steps: list[str], prompt: str = prompt) -> Boundary:
            return Boundary(kind, Sample(prompt=prompt, steps=steps[:-1], wrong_step=steps[-1]))

        for _ in range(_DRAWS):
            path = rng.choice(paths)
            yield at(RIGHT, path[: rng.randint(1, len(path))])
            prefix = path[: rng.randrange(len(path))]
            for kind in ErrorKind:
                wrong = TASK.wrong_step(problem, prefix, kind, rng)
                if wrong is None:
                    continue
                yield at(kind, [*prefix, wrong])
                following = TASK.follow_up(problem, [*prefix, wrong], rng)
                if following is not None:
                    yield at(LATE, [*prefix, wrong, following])
        yield at(LAST, paths[0])
        # Drawn apart: what the other kinds are must not hang on it.
        for steps in _claims(problem, paths[0], Random(f"{seed}:{number}")):
            yield at(CLAIM, steps)


def _claims(problem: CountdownProblem, path: list[str], rng: Random) -> Iterator[list[str]]:
    """False claims behind a right prefix, and where the way was lost a step earlier."""
    dead = TASK.wrong_step(problem, path[:-2], ErrorKind.EXPLORATION, rng)
    for steps in (path[:-1], [*path[:-2], dead] if dead is not None else []):
        claim = TASK.false_claim(problem, steps, rng)
        if claim is not None:
            yield [*steps, claim]


def unsolvable(count: int) -> list[CountdownProblem]:
    """Draw `count` of each kind: the inputs of test problems, with targets of others that they
    cannot make."""
    return [
        problem
        for kind in KINDS
        for problem in islice(_mismatched(TASK.stream(kind, Random(2026))), count)
    ]


def _mismatched(problems: Iterator[CountdownProblem]) -> Iterator[CountdownProblem]:
    for one, other in pairwise(problems):
        problem = CountdownProblem(numbers=one.numbers, target=other.target)
        if not TASK.reference_paths(problem):
            yield problem


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Share of pairs in which the positive has the higher score, ties as a half."""
    ranked = np.sort(negative)
    below = np.searchsorted(ranked, positive, "left") + np.searchsorted(ranked, positive, "right")
    return float(below.mean() / (2 * len(ranked)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--problems", type=int, default=300, help="of each test kind")
    given = parser.parse_args()
    asked, without = both_kinds(given.problems), unsolvable(given.problems)
    for folder in counted(given.models, "models"):
        probe = Probe(folder)
        told = probe.marker(asked) | {
            "gives_up_solvable": probe.giving_up(asked),
            "gives_up_unsolvable": probe.giving_up(without),
        }
        print(folder, json.dumps({name: round(value, 3) for name, value in told.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
