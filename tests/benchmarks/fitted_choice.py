"""Compare a fitted rule of choice with likelihood and with the marker.

    python -m tests.benchmarks.fitted_choice [--fitted-on 2000] [--problems 1000]
        [--temperatures 0.7,1.3] [--model models/multitask-10m] [--numbers 4]

`select: marker` is one rule that reads the marker's probabilities. Could another one do better with
them? A choice model (McFadden's conditional logit) weighs what is known of each distinct answer.
Its weights make right answers the likeliest choice on development problems, and it chooses on the
final ones. It is linear in what it reads, and so no upper bound. A checker is needed to fit it.

The samples are those of `tests.benchmarks.marker`, given the same `--batch`. Printed is how much of
the gap between likelihood and pass@N each rule closes, and McNemar's test against likelihood.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel
from tqdm import tqdm

from stepback_core.preference import LEAST_DOUBT
from stepback_core.schemas import Outcome
from stepback_server.checkpoint import Checkpoint
from stepback_server.search.tree import Branch
from stepback_training.generators import GENERATORS
from stepback_training.sampling.statistics import Pairs
from tests.benchmarks.marker import Sampler, add_sampling_options
from tests.benchmarks.measuring import (
    DEVELOPMENT_SEED,
    FINAL_SEED,
    KINDS,
    TASK,
    share,
    task_problems,
)

_LEAST_P = 1e-6
"""Floor of P(marker) and of 1 - P(marker) before a logarithm."""
_SHRINK = 1e-3
"""Weight of the squared weights in the fit, against the mean log-probability of right choices."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The distinct answers to one problem, and which of them are right."""

    known: torch.Tensor
    """Features of each answer, shape (answers, features): the numbers of `_known`."""
    right: torch.Tensor
    """Shape (answers,)."""

    @property
    def decides(self) -> bool:
        """A choice between right and wrong ones."""
        return bool(self.right.any()) and not bool(self.right.all())


def _known(
    branch: Branch, after: Sequence[float], sure: float, equal: int, alike: Sequence[Branch]
) -> list[float]:
    """Return the features of an answer: P(marker) after its steps, its confidence, likelihoods,
    votes, and samples that begin alike."""
    doubts = [max(p, _LEAST_P) for p in after] or [_LEAST_P]
    kept = [math.log(max(1 - p, _LEAST_P)) for p in after]
    ended_in_marker = sum(each.outcome is Outcome.BACKTRACK for each in alike)
    return [
        _score(branch),
        # What `select: marker` compares.
        math.log(max(min(sure, 1 - LEAST_DOUBT), _LEAST_P)),
        math.log(max(doubts)),
        math.log(doubts[0]),
        math.log(doubts[-1]),
        sum(map(math.log, doubts)),
        min(kept, default=0.0),
        sum(branch.logprobs),
        min(branch.logprobs),
        math.log(equal),
        math.log(len(alike)),
        ended_in_marker / len(alike),
    ]


def _score(branch: Branch) -> float:
    # An answer has at least its end token, and so a score.
    assert branch.score is not None
    return branch.score


_LIKELIHOOD, _MARKER = 0, 1
"""Columns of `_known`: the score, and the capped confidence."""


def choice(checkpoint: Checkpoint, problem: BaseModel, samples: Sequence[Branch]) -> Choice:
    """Group a problem's samples by their answers."""
    steps_of = [tuple(checkpoint.codec.decode_steps(branch.ids)) for branch in samples]
    groups: dict[tuple[str, ...], list[Branch]] = defaultdict(list)
    beginnings: dict[tuple[str, ...], list[Branch]] = defaultdict(list)
    for steps, branch in zip(steps_of, samples, strict=True):
        beginnings[steps[:1]].append(branch)
        if branch.outcome is Outcome.ANSWER:
            groups[steps].append(branch)
    known: list[list[float]] = []
    for steps, group in groups.items():
        best = max(group, key=_score)
        after = best.p_marker_after_steps(checkpoint.codec.tokens)
        told = [p for p in after if p is not None]
        sure = max(branch.confidence(checkpoint.codec.tokens) for branch in group)
        known.append(_known(best, told, sure, len(group), beginnings[steps[:1]]))
    right = [TASK.checker.check(problem, steps).strict is True for steps in groups]
    return Choice(torch.tensor(known), torch.tensor(right, dtype=torch.bool))


class FittedRule:
    """The weights under which right answers were likeliest to be chosen."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        """Raises ValueError where no problem has both right and wrong answers."""
        deciding = [each for each in choices if each.decides]
        if not deciding:
            raise ValueError("no problem has both right and wrong answers: sample more, or hotter")
        told = torch.cat([each.known for each in choices if len(each.right)])
        self._mean, self._scale = told.mean(0), told.std(0) + 1e-9
        self.weights = torch.zeros(told.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([self.weights], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            parts: list[torch.Tensor] = []
            for each in deciding:
                values = self.values(each)
                parts.append(values.logsumexp(0) - values[each.right].logsumexp(0))
            total = torch.stack(parts).mean() + _SHRINK * self.weights.square().sum()
            total.backward()
            return total

        optimizer.step(loss)

    def values(self, of: Choice) -> torch.Tensor:
        return ((of.known - self._mean) / self._scale) @ self.weights

    def chooses_right(self, of: Choice) -> bool:
        """False where there is no answer."""
        return bool(len(of.right)) and bool(of.right[self.values(of).detach().argmax()])


def by(columns: Sequence[int], of: Choice) -> bool:
    """Whether the answer with the greatest values in these columns, the first first, is right."""
    if not len(of.right):
        return False
    rows: list[list[float]] = of.known[:, list(columns)].tolist()
    return bool(of.right[max(range(len(rows)), key=rows.__getitem__)])


def choices(
    checkpoint: Checkpoint, asked: Sequence[BaseModel], given: argparse.Namespace, heat: float
) -> list[Choice]:
    """Sample every problem, a few at once."""
    sampler = Sampler(checkpoint, given.seed)
    found: list[Choice] = []
    for at in tqdm(range(0, len(asked), given.batch), mininterval=5):
        batch = asked[at : at + given.batch]
        prompts = [checkpoint.codec.encode_prompt(TASK.checker.prompt(each)) for each in batch]
        samples = sampler.sample(prompts, given.breadth, heat)
        for index, problem in enumerate(batch):
            own = samples[index * given.breadth : (index + 1) * given.breadth]
            found.append(choice(checkpoint, problem, own))
    return found


def report(kind: str, heat: float, fitted: FittedRule, found: Sequence[Choice]) -> None:
    """Print each rule's share of right choices, and of the gap."""
    right = {
        "likelihood": [by((_LIKELIHOOD,), each) for each in found],
        "marker": [by((_MARKER, _LIKELIHOOD), each) for each in found],
        "fitted": [fitted.chooses_right(each) for each in found],
        "any": [bool(each.right.any()) for each in found],
    }
    gap = sum(right["any"]) - sum(right["likelihood"])
    for rule, hits in right.items():
        pairs = Pairs.count(hits, right["likelihood"])
        solved = share(sum(hits), len(hits), 1)
        closed = f"{100 * (pairs.wins - pairs.losses) / gap:.0f} %" if gap else "no gap"
        tested = f"{pairs.wins} / {pairs.losses} | {pairs.p:.2g}"
        print(f"| {kind} | {heat} | {rule} | {solved} | {closed} | {tested} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A fitted rule of choice, beside the server's.")
    parser.add_argument("--fitted-on", type=int, default=2000, help="problems of each kind")
    parser.add_argument("--problems", type=int, default=1000, help="of each kind, to choose on")
    add_sampling_options(parser, batch=125)
    given = parser.parse_args()
    checkpoint = Checkpoint.open(given.model)
    print("| targets | temperature | rule | right, % | of the gap | wins / losses | p |")
    print("| --- " * 7 + "|")
    task = GENERATORS["countdown"].with_options({"numbers": given.numbers})
    for heat in map(float, given.temperatures.split(",")):
        learned = [
            each
            for kind in KINDS
            for each in choices(
                checkpoint,
                task_problems(task, kind, given.fitted_on, DEVELOPMENT_SEED),
                given,
                heat,
            )
        ]
        fitted = FittedRule(learned)
        for kind in KINDS:
            asked = task_problems(task, kind, given.problems, FINAL_SEED)
            report(kind.value, heat, fitted, choices(checkpoint, asked, given, heat))


if __name__ == "__main__":
    main()
