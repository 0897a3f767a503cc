"""Encoded samples packed into rows of equal length.

Samples that share a row do not see each other: positions start at 0 for each, which `transformers`
turns into a block-diagonal mask. Models that carry a state past it get rows of one sample. Padding
carries no loss.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from stepback_training.train.encoded_samples import EncodedSamples
from stepback_training.train.loss_mask import IGNORED
from stepback_training.train.shared_prompts import grouped


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
        # Shuffled once, here: the Trainer then reads the rows in their order.
        order = np.random.default_rng(seed).permutation(len(samples)).tolist()
        self._groups = self._grouped(order) if share_prompts else [[sample] for sample in order]
        lengths = [self._length(group) for group in self._groups]
        units = list(range(len(lengths)))
        self._rows = _pack(units, lengths, row_tokens) if together else [[unit] for unit in units]
        self.filled = len(self._rows)
        """Rows with samples in them."""
        self.tokens = sum(lengths)
        """Tokens of all samples, padding left out; a shared prompt counts once."""
        # A last step of fewer rows would weigh its samples more.
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
        # Without its last token, which opens every branch: it predicts the branch's first one.
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
        """The next group: one sample, or several after their prompt."""
        trunk = int(samples.prompt_lengths[group[0]]) - 1 if len(group) > 1 else 0
        begun = self.at
        if trunk:
            self._copy(samples, group[0], 0, trunk)
        for branch, sample in enumerate(group, start=1):
            here = self._copy(samples, sample, trunk, int(samples.lengths[sample]))
            self.branches[here] = branch if len(group) > 1 else 0
        self.groups[begun : self.at] = number
        # Padding is a sample of its own to the mask, so that nothing sees it.
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
                # The fullest is closed: it has the least chance to take another sample.
                fullest = min(range(open_rows), key=lambda index: rows[index][1])
                closed.append(rows.pop(fullest)[0])
            rows.append(([sample], row_tokens - length))
    return closed + [row for row, _ in rows]
