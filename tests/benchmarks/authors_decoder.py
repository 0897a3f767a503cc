"""The paper authors' own decoder beside ours, on one checkpoint at equal tokens.

    git clone https://github.com/LAMDASZ-ML/Self-Backtracking authors
    python -m tests.benchmarks.authors_decoder --decoder authors/src [--problems 50] [-n 32]

Nothing of theirs is in this repository: the folder named is imported as it is. Their decoder reads
and writes their own format, on CUDA. So the tokenizer is wrapped, to show each text in that format,
and `.cuda()` does nothing. The checkpoint, its weights in float32, and the generation of
transformers are untouched; as in their evaluation one problem is decoded at a time. Their
`max_length` of 50 counts the prompt too: here it is the prompt and the longest answer of the task.
Problems that are done are kept in --out, each decoded from a seed of its own.

Their decoder chooses by the sum of the scores of equal candidates. Beside that stands the likeliest
of its candidates, by the mean log-probability of their own tokens, as ours is chosen.

*Generated* counts what each returned beam has up to its end. *Forwarded* is a lower
bound of what the model ran: the prompt once a round, though each beam reads it, every beam at every
step of the longest, and once more the scoring of all beams. Then our searches spend as many
generated tokens on the same problems.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepback_core.tasks import CountdownProblem
from stepback_server.checkpoint import Checkpoint
from stepback_training.sampling.statistics import Share
from tests.benchmarks.measuring import FINAL_SEED, TASK, both_kinds
from tests.benchmarks.search import table
from tests.benchmarks.search_runs import Run
from tests.benchmarks.solving import RowSolver, start_engine
from tests.conftest import CHECKPOINT

_RESPONSE = "###Response:\n"
_REACHED = "Goal Reached!"


class TheirFormat:
    """The checkpoint's tokenizer, speaking the text format that their decoder reads."""

    def __init__(self, tokenizer: Any, prompt: str, marker: str) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._marker = marker
        self.eos_token_id = tokenizer.eos_token_id

    def decode(self, ids: Any, *, skip_special_tokens: bool) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        text, end, _ = text.partition(self._tokenizer.eos_token)
        # Here an end closes each text; there it is written where no marker stands before it.
        reached = _REACHED if end and self._marker not in text else ""
        return text.replace(self._prompt, self._prompt + _RESPONSE, 1) + reached

    def batch_decode(self, rows: Any, *, skip_special_tokens: bool) -> list[str]:
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in rows]

    def __call__(self, text: str, *, return_tensors: str) -> Any:
        plain = text.replace(_RESPONSE, "", 1).replace(_REACHED, self._tokenizer.eos_token)
        return self._tokenizer(plain, return_tensors=return_tensors)


class Counted:
    """The model, counting the tokens of every generation."""

    def __init__(self, model: Any, end: int) -> None:
        self._model = model
        self._end = end
        self.generated = self.forwarded = 0

    def eval(self) -> None:
        self._model.eval()

    def __call__(self, ids: Any) -> Any:
        self.forwarded += ids.numel()
        return self._model(ids)

    def generate(self, *, tokenizer: Any, input_ids: Any, **options: Any) -> Any:
        made = self._model.generate(input_ids=input_ids, **options)
        new = made.sequences[:, input_ids.shape[1] :]
        self.generated += int(_before_padding(new, self._end).sum())
        self.forwarded += new.numel() + input_ids.numel()
        return made


def _before_padding(ids: torch.Tensor, end: int) -> torch.Tensor:
    """Mark the tokens up to the first end: they fill the rest of a row with ends."""
    ends = ids == end
    return ends.cumsum(-1) - ends.long() == 0


@dataclass(frozen=True, slots=True)
class Decoded:
    """Result of the authors' decoder on one problem."""

    chosen: bool
    likeliest: bool
    any_right: bool
    generated: int
    forwarded: int


class Theirs:
    """Their decoder over one checkpoint."""

    def __init__(self, folder: Path, checkpoint: Checkpoint, n: int, backtracks: int) -> None:
        # `decoder` is a package of theirs, and found by its folder alone.
        sys.path.insert(0, str(folder))
        from decoder import SelfBackTrackingDecoder  # pyright: ignore

        torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # pyright: ignore
        self._decoder = SelfBackTrackingDecoder
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
        self._model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
        self._checkpoint = checkpoint
        self._rounds = {"k": n, "backtrack_times": backtracks + 1}

    def solve(self, problem: CountdownProblem) -> Decoded:
        framed = self._checkpoint.codec.grammar.frame(TASK.checker.prompt(problem))
        ids = self._tokenizer(framed, return_tensors="pt").input_ids
        model = Counted(self._model, self._tokenizer.eos_token_id)
        marker = self._checkpoint.codec.grammar.marker
        decoder = self._decoder(model, TheirFormat(self._tokenizer, framed, marker))
        longest = ids.shape[1] + self._checkpoint.longest_answer(TASK.name)
        chosen = decoder.decode(ids, max_length=longest, **self._rounds)
        found = decoder.candidate_outputs or []
        right = [self._is_right(problem, text) for _, text, _ in found]
        scores = [self._likelihood(candidate[0], ids.shape[1]) for candidate, _, _ in found]
        likeliest = bool(found) and right[scores.index(max(scores))]
        one = chosen is not None and self._is_right(
            problem, decoder.tokenizer.decode(chosen[0], skip_special_tokens=False)
        )
        return Decoded(one, likeliest, any(right), model.generated, model.forwarded)

    @torch.no_grad()
    def _likelihood(self, ids: torch.Tensor, prompt: int) -> float:
        """Mean log-probability of a candidate's tokens, its first end included."""
        new = ids[prompt:]
        logprobs = self._model(ids[None]).logits[0, prompt - 1 : -1].log_softmax(-1)
        own = logprobs.gather(-1, new[:, None])[:, 0]
        return float(own[_before_padding(new, self._tokenizer.eos_token_id)].mean())

    def _is_right(self, problem: CountdownProblem, text: str) -> bool:
        """Apply the strict checker to the text before the first end."""
        answer = text.partition(_RESPONSE)[2]
        steps, found, _ = answer.partition(_REACHED)
        verdict = TASK.checker.check(problem, steps.removesuffix("\n").split("\n"))
        return bool(found) and verdict.strict is True


def _decode_all(theirs: Theirs, asked: Sequence[CountdownProblem], kept: Path) -> Sequence[Decoded]:
    """Decode what no earlier process has kept, a line for each problem."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.touch()
    done = [Decoded(**json.loads(line)) for line in kept.read_text().splitlines()]
    left = list(enumerate(asked))[len(done) :]
    with kept.open("a") as lines:
        for seed, problem in tqdm(left, unit="problem", initial=len(done), total=len(asked)):
            torch.manual_seed(seed)
            done.append(theirs.solve(problem))
            print(json.dumps(asdict(done[-1])), file=lines, flush=True)
    return done


def _show(decoded: Sequence[Decoded]) -> None:
    chosen = Share.count([each.chosen for each in decoded])
    likeliest = Share.count([each.likeliest for each in decoded])
    found = Share.count([each.any_right for each in decoded])
    generated = sum(each.generated for each in decoded) / len(decoded)
    forwarded = sum(each.forwarded for each in decoded) / len(decoded)
    print(f"their decoder: {generated:,.0f} generated, {forwarded:,.0f} forwarded a problem")
    shares = {"own choice": chosen, "likeliest candidate": likeliest, "any candidate": found}
    for name, share in shares.items():
        print(f"  {name}: {share.percent:.1f} ({share.low:.1f} to {share.high:.1f}) %")


async def _ours(
    given: argparse.Namespace,
    checkpoint: Checkpoint,
    asked: Sequence[CountdownProblem],
    budget: int,
) -> None:
    rounds = {"breadth": given.n, "backtracks": given.backtracks}
    limits = {"budget": {"tokens": budget}}
    runs = [
        Run("self-backtracking", budget, {"strategy": "self_backtracking", **rounds}),
        Run("best-first", budget, {"strategy": "best_first"}),
        Run("best-of-N", budget, {"strategy": "best_of_n", "breadth": 256, "temperature": 1.3}),
    ]
    engine = start_engine(checkpoint, 128)
    try:
        limit = asyncio.Semaphore(64)
        solver = RowSolver(engine, checkpoint, TASK, limit, given.out / "rows")
        rows = [
            (run, await solver.row(f"{run.key} {select}", "both", options, asked, FINAL_SEED))
            for run in runs
            for select in ("perplexity", "verified")
            if (options := run.options | limits | {"select": select})
            and (run.name == "self-backtracking" or select == "verified")
        ]
    finally:
        await engine.close(kill=False)
    print(table(rows, ["perplexity", "checker"], checkpoint))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoder", type=Path, required=True, help="their folder `src`")
    parser.add_argument("--problems", type=int, default=50, help="of each kind")
    parser.add_argument("-n", type=int, default=32)
    parser.add_argument("--backtracks", type=int, default=1)
    parser.add_argument("--model", type=Path, default=CHECKPOINT)
    parser.add_argument("--theirs-alone", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/authors"))
    given = parser.parse_args()
    if not (given.decoder / "decoder").is_dir():
        parser.error(f"{given.decoder}: has no folder `decoder`: name `src` of their repository")
    checkpoint = Checkpoint.open(given.model)
    asked = both_kinds(given.problems, FINAL_SEED)
    theirs = Theirs(given.decoder, checkpoint, given.n, given.backtracks)
    rounds = f"{given.n}-{given.backtracks}-{given.problems}"
    kept = given.out / f"theirs-{checkpoint.manifest.name}-{rounds}.jsonl"
    decoded = _decode_all(theirs, asked, kept)
    _show(decoded)
    if not given.theirs_alone:
        mean = round(sum(each.generated for each in decoded) / len(decoded))
        asyncio.run(_ours(given, checkpoint, asked, mean))
    return 0


if __name__ == "__main__":
    sys.exit(main())
