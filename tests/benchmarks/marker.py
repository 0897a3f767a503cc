"""Choosing without a checker: by likelihood, by vote, by the marker, on the same samples.

    python -m tests.benchmarks.marker [--problems 1000] [--temperatures 0.7,1.3] [--breadth 16]
        [--model models/multitask-10m] [--numbers 4]

A checkpoint of Countdown through transformers (float32), a few hundred samples at once: no server
and no engine. Samples become branches of the search, with the four likeliest tokens of each place
as an engine names them, and the server's own ranking chooses among the N of a problem. The checker
only marks what each rule has chosen. A row is solved per cent with the 95 % interval; under each
table stand McNemar's exact test of the marker against likelihood, problem by problem, and how much
of the gap between likelihood and pass@N the marker closes.

Last comes the marker on the model's own errors: the AUC of P(marker) after the first wrong step of
a sample, against that after the right steps before it. A dead end is a legal step that leaves no
way to the target. Equal beginnings of one problem count once.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from tqdm import tqdm
from transformers import AutoModelForCausalLM, DynamicCache

from stepback_core.schemas import Outcome, Select
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Alternative, Finish, Sample
from stepback_server.search.ranking import Judgement, rank
from stepback_server.search.strategy import Expansion
from stepback_server.search.tree import Branch, State
from stepback_training.generators import GENERATORS, ErrorKind
from stepback_training.generators.first_error import first_mistake
from stepback_training.sampling.statistics import Pairs
from tests.benchmarks.measuring import FINAL_SEED, KINDS, TASK, share, task_problems
from tests.benchmarks.probe import auc
from tests.conftest import CHECKPOINT

RULES = (Select.PERPLEXITY, Select.VOTE, Select.MARKER, Select.WEIGHTED_VOTE)
ALTERNATIVES = Expansion(State(), 1, 1.0).alternatives


_Place = tuple[int, float, tuple[Alternative, ...]]
"""A token, its log-probability, and the likeliest others there."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One problem: whether each rule's choice is right, and any candidate at all."""

    right: dict[str, bool]
    tokens: int
    p_marker: dict[str, list[float]]
    """P(marker) after right steps ("right"), and after each kind of first wrong step."""


class Sampler:
    """Batches of independent samples, with a cache of keys and values."""

    def __init__(self, checkpoint: Checkpoint, seed: int) -> None:
        loader: Any = AutoModelForCausalLM
        self._model: Any = loader.from_pretrained(checkpoint.folder, dtype=torch.float32).eval()
        self._grammar = checkpoint.codec.tokens
        self._most = checkpoint.longest_answer(TASK.name)
        self._random = torch.Generator().manual_seed(seed)

    @torch.inference_mode()
    def sample(self, prompts: Sequence[Sequence[int]], n: int, temperature: float) -> list[Branch]:
        """Draw n samples of each prompt, those of one prompt after another; greedy at 0.

        Samples that have written the same text so far share its forward pass."""
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in prompts])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
        samples: list[list[_Place]] = [[] for _ in range(n * len(prompts))]
        texts = [range(at, at + n) for at in range(0, len(samples), n)]
        cache = DynamicCache()
        for _ in range(self._most):
            positions = (mask.cumsum(-1) - 1)[:, -ids.shape[1] :].clamp(min=0)
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                logits_to_keep=1,
            )
            logprobs = output.logits[:, -1].log_softmax(-1)
            parents, tokens, texts = self._write(samples, texts, logprobs, n, temperature)
            if not texts:
                break
            if parents != list(range(len(mask))):
                cache.batch_select_indices(torch.tensor(parents))
                mask = mask[parents]
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], -1)
            ids = torch.tensor(tokens).unsqueeze(-1)
        return [self._branch(number, row) for number, row in enumerate(samples)]

    def _write(
        self,
        samples: list[list[_Place]],
        texts: Sequence[Sequence[int]],
        logprobs: torch.Tensor,
        n: int,
        temperature: float,
    ) -> tuple[list[int], list[int], list[list[int]]]:
        """Add a token to every sample of each text. Returns the texts that go on: the one that each
        goes on from, its new token, and its samples."""
        values, names = (each.tolist() for each in logprobs.topk(ALTERNATIVES))
        drawn = self._draw(logprobs, n, temperature)
        table = logprobs.tolist()
        going: dict[tuple[int, int], list[int]] = {}
        for at, text in enumerate(texts):
            told = list(zip(names[at], values[at], strict=True))
            for sample, token in zip(text, drawn[at], strict=False):
                others = tuple((name, value) for name, value in told if name != token)
                samples[sample].append((token, table[at][token], others))
                if token not in self._grammar.stop_ids:
                    going.setdefault((at, token), []).append(sample)
        return [at for at, _ in going], [token for _, token in going], list(going.values())

    def _draw(self, logprobs: torch.Tensor, n: int, temperature: float) -> list[list[int]]:
        if temperature == 0:
            return logprobs.argmax(-1, keepdim=True).expand(-1, n).tolist()
        shares = (logprobs / temperature).softmax(-1)
        return torch.multinomial(shares, n, replacement=True, generator=self._random).tolist()

    def _branch(self, number: int, row: Sequence[_Place]) -> Branch:
        ids, logprobs, others = zip(*row, strict=True)
        finish = Finish.STOP if ids[-1] in self._grammar.stop_ids else Finish.LENGTH
        sample = Sample(
            index=0,
            ids=ids,
            logprobs=logprobs,
            finish=finish,
            cached_tokens=0,
            alternatives=others,
        )
        return Branch.of(self._grammar, number, State(), sample)


def choose(
    checkpoint: Checkpoint, problem: BaseModel, greedy: Branch, samples: Sequence[Branch]
) -> Chosen:
    """Judge what each rule chooses among a problem's samples."""
    codec = checkpoint.codec

    def first(branches: Sequence[Branch], select: Select) -> list[bool]:
        ranked = rank(
            [branch for branch in branches if branch.outcome is Outcome.ANSWER],
            select,
            lambda branch: codec.decode_steps(branch.ids),
            codec.grammar.separator,
            lambda steps: Judgement.of_verdict(TASK.checker.check(problem, steps)),
            lambda branch: branch.confidence(codec.tokens),
        )
        return [bool(candidate.answer.verified) for candidate in ranked]

    by_rule = {select.value: first(samples, select) for select in RULES}
    right = {rule: bool(verdicts and verdicts[0]) for rule, verdicts in by_rule.items()}
    right["greedy"] = any(first([greedy], Select.PERPLEXITY))
    right["pass@N"] = any(by_rule[Select.PERPLEXITY.value])
    generated = sum(branch.generated for branch in samples)
    return Chosen(right, generated, own_errors(checkpoint, problem, samples))


def own_errors(
    checkpoint: Checkpoint, problem: BaseModel, samples: Sequence[Branch]
) -> dict[str, list[float]]:
    """P(marker) after each step of the samples, up to the first wrong one; by its kind."""
    found: dict[tuple[str, ...], tuple[str, float]] = {}
    for branch in samples:
        after = branch.p_marker_after_steps(checkpoint.codec.tokens)
        steps = checkpoint.codec.decode_steps(branch.ids)[: len(after)]
        mistake = first_mistake(TASK.checker, problem, steps)
        judged = len(steps) if mistake is None else mistake.index + 1
        kinds = ["right"] * judged
        if mistake is not None:
            kinds[-1] = mistake.kind
        for number, (kind, p) in enumerate(zip(kinds, after, strict=False), start=1):
            if p is not None:
                found[tuple(steps[:number])] = (kind, p)
    by_kind: dict[str, list[float]] = defaultdict(list)
    for kind, p in found.values():
        by_kind[kind].append(p)
    return dict(by_kind)


def ask(
    sampler: Sampler,
    checkpoint: Checkpoint,
    asked: Sequence[BaseModel],
    options: argparse.Namespace,
    temperature: float,
) -> Iterator[Chosen]:
    """Sample every problem, a few at once, and choose."""
    for at in tqdm(range(0, len(asked), options.batch), mininterval=5):
        batch = asked[at : at + options.batch]
        prompts = [
            checkpoint.codec.encode_prompt(TASK.checker.prompt(problem)) for problem in batch
        ]
        greedy = sampler.sample(prompts, 1, 0.0)
        samples = sampler.sample(prompts, options.breadth, temperature)
        for index, problem in enumerate(batch):
            own = samples[index * options.breadth : (index + 1) * options.breadth]
            yield choose(checkpoint, problem, greedy[index], own)


def report(kind: str, temperature: float, chosen: Sequence[Chosen]) -> None:
    """Print one table's rows, and the paired test under them."""
    rules = ("greedy", *(select.value for select in RULES), "pass@N")
    right = {rule: [each.right[rule] for each in chosen] for rule in rules}
    for rule in rules:
        hits = share(sum(right[rule]), len(chosen), 1)
        print(f"| {kind} | {temperature} | {rule} | {hits} |")
    pairs = Pairs.count(right["marker"], right["perplexity"])
    gap = sum(right["pass@N"]) - sum(right["perplexity"])
    closed = f"{100 * (pairs.wins - pairs.losses) / gap:.0f} %" if gap else "nothing"
    tokens = sum(each.tokens for each in chosen) / len(chosen)
    print(
        f"{kind}, T={temperature}: only the marker right {pairs.wins}, "
        f"only likelihood {pairs.losses}, p = {pairs.p:.2g}; {closed} of the gap closed; "
        f"{tokens:.0f} tokens a problem",
    )
    right_steps = _collected(chosen, "right")
    for error in ErrorKind:
        wrong = _collected(chosen, error)
        if len(wrong) and len(right_steps):
            print(
                f"{kind}, T={temperature}: AUC of P(marker) on own errors, {error}: "
                f"{auc(wrong, right_steps):.3f} ({len(wrong)} against {len(right_steps)} steps)",
                flush=True,
            )


def _collected(chosen: Sequence[Chosen], kind: str) -> np.ndarray:
    return np.asarray([p for each in chosen for p in each.p_marker.get(kind, ())])


def add_sampling_options(parser: argparse.ArgumentParser, batch: int) -> None:
    """Add the flags of what is sampled, with a default for `--batch`."""
    parser.add_argument("--temperatures", default="0.7,1.3")
    parser.add_argument("--breadth", type=int, default=16, help="N")
    parser.add_argument("--batch", type=int, default=batch, help="problems at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=CHECKPOINT)
    parser.add_argument("--numbers", type=int, default=4, help="of a problem")


def main() -> None:
    parser = argparse.ArgumentParser(description="Choosing without a checker, by several rules.")
    parser.add_argument("--problems", type=int, default=1000, help="of each kind")
    add_sampling_options(parser, batch=32)
    options = parser.parse_args()
    checkpoint = Checkpoint.open(options.model)
    task = GENERATORS["countdown"].with_options({"numbers": options.numbers})
    for temperature in map(float, options.temperatures.split(",")):
        for kind in KINDS:
            sampler = Sampler(checkpoint, options.seed)
            asked = task_problems(task, kind, options.problems, FINAL_SEED)
            found = list(ask(sampler, checkpoint, asked, options, temperature))
            report(kind.value, temperature, found)


if __name__ == "__main__":
    main()
