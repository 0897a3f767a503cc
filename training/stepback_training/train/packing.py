"""Samples to token ids and loss mask, in one pass, and packed into rows of equal length.

No loss on the prompt, on wrong steps, or on padding. Samples that share a row do not see each
other: positions start at 0 for each, which `transformers` turns into a block-diagonal mask. Models
that carry a state past it get rows of one sample.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from stepback_core.trace import TraceCodec
from stepback_training.data.json_lines import json_lines
from stepback_training.data.samples import Sample, samples_of
from stepback_training.data.traces import PLAIN_PROMPTS
from stepback_training.train.shared_prompts import grouped

IGNORED = -100
"""The label that `transformers` leaves out of the loss."""
# Lines that one process encodes at a time.
_BLOCK = 20_000
# Samples whose steps are decoded again, to see whether they come back.
_LOOKED_AT = 1_000


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sample: its ids and, of equal length, whether each token carries loss."""

    ids: list[int]
    has_loss: list[bool]
    prompt_tokens: int


def encode(
    sample: Sample, codec: TraceCodec, encode_step: Callable[[str], list[int]] | None = None
) -> Encoded:
    """Encode step by step, so that step boundaries are token boundaries with any tokenizer;
    `encode_step` may stand in for the codec's own where it remembers steps."""
    encode_step = encode_step or codec.encode_step
    pieces = [(codec.encode_prompt(sample.prompt), False)]
    pieces += [(encode_step(step), True) for step in sample.steps]
    pieces += [(encode_step(step), False) for step in sample.wrong_steps]
    if sample.wrong_steps:
        pieces.append(([codec.tokens.marker_id], True))
    elif not sample.beginning:
        pieces.append(([codec.tokens.end_id], True))
    ids = [token for piece, _ in pieces for token in piece]
    return Encoded(ids, [loss for piece, loss in pieces for _ in piece], len(pieces[0][0]))


def check_round_trip(samples: Iterable[Sample], codec: TraceCodec) -> None:
    """Raise ValueError unless steps come back from their ids as they were: those of a probe, and
    those of the first samples."""
    codec.check_tokenizer()
    for sample in islice(samples, _LOOKED_AT):
        codec.check_round_trip(sample.steps + sample.wrong_steps)


def _refuse_reserved(sample: Sample, number: int, codec: TraceCodec) -> None:
    """Raise ValueError where a sample's text holds what ends a step or a trace, or where its prompt
    holds a control token of the tokenizer."""
    steps = sample.steps + sample.wrong_steps
    found = [(step, codec.grammar.reserved_in_step(step)) for step in steps]
    for text, reserved in found:
        if reserved is not None:
            raise ValueError(f"sample {number}: {text!r} must not contain {reserved!r}")
    reserved = codec.reserved_in_prompt(sample.prompt)
    if reserved is not None:
        raise ValueError(
            f"sample {number}: {sample.prompt!r} must not contain {reserved!r}: {PLAIN_PROMPTS}"
        )


class _Block(NamedTuple):
    """Samples that were encoded together."""

    ids: NDArray[np.int32]
    has_loss: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    prompt_lengths: NDArray[np.int64]
    longest_answers: dict[str, int]


class EncodedSamples:
    """Many encoded samples in three flat arrays: ids, loss flags, and where each sample starts.

    `tasks` are the names that prompts may begin with: the longest answer is told of each. Raises
    ValueError for a sample whose text holds the marker, the end, or a separator in a step.
    """

    def __init__(
        self, samples: Iterable[Sample], codec: TraceCodec, tasks: Sequence[str] = ()
    ) -> None:
        self._join([_encode_block(samples, codec, tasks)])

    @classmethod
    def read(
        cls, path: Path, codec: TraceCodec, tasks: Sequence[str] = (), *, processes: int
    ) -> "EncodedSamples":
        """Encode the samples of a JSONL file with `processes` processes. Raises InvalidInput as
        well."""
        lines = list(json_lines(path))
        starts = range(0, len(lines), _BLOCK)
        jobs = [(path, start, lines[start : start + _BLOCK], codec, tasks) for start in starts]
        if processes == 1 or len(jobs) <= 1:
            blocks = [_encode_lines(*job) for job in jobs]
        else:
            # Not forked: the process has threads by now, and maybe a GPU.
            context = get_context("forkserver")
            with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
                blocks = list(pool.map(_encode_lines, *zip(*jobs, strict=True)))
        encoded = cls.__new__(cls)
        encoded._join(blocks)
        return encoded

    def _join(self, blocks: list[_Block]) -> None:
        self.ids = np.concatenate([block.ids for block in blocks] or [np.zeros(0, np.int32)])
        self.has_loss = np.concatenate([b.has_loss for b in blocks] or [np.zeros(0, np.bool_)])
        self.lengths = np.concatenate([b.lengths for b in blocks] or [np.zeros(0, np.int64)])
        self.prompt_lengths = np.concatenate(
            [b.prompt_lengths for b in blocks] or [np.zeros(0, np.int64)]
        )
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.longest_answers: dict[str, int] = {}
        """Tokens of the longest whole answer without its prompt, by task; "" for other prompts."""
        for block in blocks:
            for task, longest in block.longest_answers.items():
                self.longest_answers[task] = max(longest, self.longest_answers.get(task, 0))

    def __len__(self) -> int:
        return len(self.lengths)

    def prompt(self, sample: int) -> bytes:
        """The ids of a sample's prompt, to be compared."""
        start = self.starts[sample]
        return self.ids[start : start + self.prompt_lengths[sample]].tobytes()


def _encode_lines(
    path: Path, skipped: int, lines: list[bytes], codec: TraceCodec, tasks: Sequence[str]
) -> _Block:
    """The lines of a file behind the first `skipped` ones."""
    samples = samples_of(path, lines, first=skipped + 1)
    return _encode_block(samples, codec, tasks, skipped + 1)


def _encode_block(
    samples: Iterable[Sample], codec: TraceCodec, tasks: Sequence[str], first: int = 1
) -> _Block:
    ids: list[int] = []
    has_loss: list[bool] = []
    lengths: list[int] = []
    prompts: list[int] = []
    longest: dict[str, int] = {}
    # Most of a call of a tokenizer is overhead, and short steps repeat.
    encode_step = lru_cache(maxsize=_BLOCK)(codec.encode_step)
    for number, sample in enumerate(samples, start=first):
        _refuse_reserved(sample, number, codec)
        encoded = encode(sample, codec, encode_step)
        ids += encoded.ids
        has_loss += encoded.has_loss
        lengths.append(len(encoded.ids))
        prompts.append(encoded.prompt_tokens)
        task = next((name for name in tasks if sample.prompt.startswith(f"{name}:")), "")
        if not sample.beginning:
            longest[task] = max(longest.get(task, 0), len(encoded.ids) - encoded.prompt_tokens)
    return _Block(
        np.asarray(ids, np.int32),
        np.asarray(has_loss, np.bool_),
        np.asarray(lengths, np.int64),
        np.asarray(prompts, np.int64),
        longest,
    )


class PackedRows(Dataset[dict[str, torch.Tensor]]):
    """Samples in a seeded random order, packed into rows of `row_tokens`.

    A row is `input_ids`, `position_ids` and `labels`, each int64 of shape [row_tokens]; where
    samples share their prompts, `groups` and `branches` too, which say who sees whom. Rows of
    padding alone follow until their number is a multiple of `multiple`: with the rows of a step,
    every step is a whole one, however many processes share it. Without `together` a row holds one
    sample. Raises ValueError for a sample longer than a row.
    """

    def __init__(
        self,
        samples: EncodedSamples,
        row_tokens: int,
        pad_id: int,
        seed: int,
        *,
        multiple: int = 1,
        together: bool = True,
        share_prompts: bool = False,
    ) -> None:
        if not len(samples):
            raise ValueError("there are no samples to train on")
        longest = int(samples.lengths.max())
        if longest > row_tokens:
            raise ValueError(
                f"row_tokens is {row_tokens}, but the longest sample has {longest} tokens"
            )
        self._samples = samples
        self._row_tokens = row_tokens
        self._pad_id = pad_id
        self._shares = share_prompts
        order = np.random.default_rng(seed).permutation(len(samples)).tolist()
        self._groups = self._grouped(order) if share_prompts else [[sample] for sample in order]
        lengths = [self._length(group) for group in self._groups]
        units = list(range(len(lengths)))
        self._rows = _pack(units, lengths, row_tokens) if together else [[unit] for unit in units]
        self.filled = len(self._rows)
        """Rows with samples in them."""
        self.tokens = sum(lengths)
        """Tokens of all samples, padding left out; a shared prompt counts once."""
        self._rows += [[] for _ in range(-self.filled % multiple)]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def fill(self) -> float:
        """Share of the rows' tokens that are not padding."""
        return self.tokens / (len(self) * self._row_tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = _Row.of_padding(self._row_tokens, self._pad_id)
        for number, unit in enumerate(self._rows[index], start=1):
            row.add(self._samples, self._groups[unit], number)
        return row.tensors(with_groups=self._shares)

    def _grouped(self, order: list[int]) -> list[list[int]]:
        samples = self._samples
        prompts = [samples.prompt(sample) for sample in range(len(samples))]
        sizes = samples.prompt_lengths.tolist()
        return grouped(order, prompts, samples.lengths.tolist(), sizes, self._row_tokens)

    def _length(self, group: list[int]) -> int:
        if len(group) == 1:
            return int(self._samples.lengths[group[0]])
        trunk = int(self._samples.prompt_lengths[group[0]]) - 1
        return int(self._samples.lengths[group].sum()) - trunk * (len(group) - 1)


@dataclass(slots=True)
class _Row:
    """A row while it is filled."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    groups: NDArray[np.int64]
    branches: NDArray[np.int64]
    at: int = 0

    @classmethod
    def of_padding(cls, tokens: int, pad_id: int) -> "_Row":
        nothing = np.zeros(tokens, np.int64)
        return cls(
            np.full(tokens, pad_id, np.int64),
            np.full(tokens, IGNORED, np.int64),
            np.arange(tokens),
            nothing,
            nothing.copy(),
        )

    def add(self, samples: EncodedSamples, group: list[int], number: int) -> None:
        """The next group: one sample, or several behind their prompt."""
        trunk = int(samples.prompt_lengths[group[0]]) - 1 if len(group) > 1 else 0
        begun = self.at
        if trunk:
            self._copy(samples, group[0], 0, trunk)
        for branch, sample in enumerate(group, start=1):
            here = self._copy(samples, sample, trunk, int(samples.lengths[sample]))
            self.branches[here] = branch if len(group) > 1 else 0
        self.groups[begun : self.at] = number
        self.positions[self.at :] = np.arange(len(self.ids) - self.at)

    def _copy(self, samples: EncodedSamples, sample: int, first: int, end: int) -> slice:
        start = int(samples.starts[sample])
        here = slice(self.at, self.at + end - first)
        there = slice(start + first, start + end)
        self.ids[here] = samples.ids[there]
        self.labels[here] = np.where(samples.has_loss[there], self.ids[here], IGNORED)
        self.positions[here] = np.arange(first, end)
        self.at = here.stop
        return here

    def tensors(self, *, with_groups: bool) -> dict[str, torch.Tensor]:
        found = {"input_ids": self.ids, "position_ids": self.positions, "labels": self.labels}
        if with_groups:
            found |= {"groups": self.groups, "branches": self.branches}
        return {name: torch.from_numpy(array) for name, array in found.items()}


def _pack(
    order: list[int], lengths: list[int], row_tokens: int, open_rows: int = 16
) -> list[list[int]]:
    """First fit over a few open rows: close to full rows, and neighbours stay in random order."""
    closed: list[list[int]] = []
    rows: list[tuple[list[int], int]] = []
    for sample in order:
        length = lengths[sample]
        for index, (row, free) in enumerate(rows):
            if length <= free:
                row.append(sample)
                rows[index] = (row, free - length)
                break
        else:
            if len(rows) == open_rows:
                fullest = min(range(open_rows), key=lambda index: rows[index][1])
                closed.append(rows.pop(fullest)[0])
            rows.append(([sample], row_tokens - length))
    return closed + [row for row, _ in rows]
