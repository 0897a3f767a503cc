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
from stepback_training.train.shared_prompts import Tree, alike, common_length, grouped


class PackedRows(Dataset[dict[str, torch.Tensor]]):
    """Samples in a seeded random order, or in that of their file, packed into rows of `row_tokens`.

    A row is `input_ids`, `position_ids` and `labels`, each int64 of shape [row_tokens]; where
    samples share prompts or beginnings, `until` too, which says up to where each token is seen.
    Rows of padding alone follow until their number is a multiple of `multiple`: with the rows of a
    step, every step is a whole one, however many processes share it. Without `together` a row holds
    one sample. Raises ValueError for a sample longer than a row.
    """

    def __init__(
        self,
        samples: EncodedSamples,
        row_tokens: int,
        pad_id: int,
        seed: int,
        *,
        shuffle: bool = True,
        multiple: int = 1,
        together: bool = True,
        share_prompts: bool = False,
        share_beginnings: bool = False,
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
        self._shares = share_prompts or share_beginnings
        self._deeply = share_beginnings
        order = list(range(len(samples)))
        if shuffle:
            # Once, here: the Trainer then reads the rows in their order.
            order = np.random.default_rng(seed).permutation(len(samples)).tolist()
        self._groups = self._grouped(order) if self._shares else [[sample] for sample in order]
        lengths = [self._length(group) for group in self._groups]
        units = list(range(len(lengths)))
        self._rows = _pack(units, lengths, row_tokens) if together else [[unit] for unit in units]
        self.filled = len(self._rows)
        """Rows with samples in them."""
        self.tokens = sum(lengths)
        """Tokens of all samples, padding left out; what is shared counts once."""
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
        for unit in self._rows[index]:
            row.add(self._samples, self._tree(self._groups[unit], row.at))
        return row.tensors(with_until=self._shares)

    def _grouped(self, order: list[int]) -> list[list[int]]:
        samples = self._samples
        prompts = [samples.prompt(sample) for sample in range(len(samples))]
        keys = alike(prompts) if self._deeply else prompts
        return grouped(order, keys, samples.lengths.tolist(), self._row_tokens, self._shared)

    def _shared(self, group: list[int], sample: int) -> int:
        if not self._deeply:
            return int(self._samples.prompt_lengths[sample])
        ids = self._samples.ids_of(sample)
        return max(common_length(ids, self._samples.ids_of(other)) for other in group)

    def _length(self, group: list[int]) -> int:
        return self._tree(group).at if len(group) > 1 else int(self._samples.lengths[group[0]])

    def _tree(self, group: list[int], at: int = 0) -> Tree:
        samples = self._samples
        tree = Tree(
            {sample: samples.ids_of(sample) for sample in group},
            {sample: samples.has_loss[samples.there(sample)] for sample in group},
            at,
            [],
        )
        if self._deeply:
            tree.add(group)
        else:
            tree.add_after(group, int(samples.prompt_lengths[group[0]]))
        return tree


@dataclass(slots=True)
class _Row:
    """A row while it is filled."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    until: NDArray[np.int64]
    at: int = 0

    @classmethod
    def of_padding(cls, tokens: int, pad_id: int) -> "_Row":
        return cls(
            np.full(tokens, pad_id, np.int64),
            np.full(tokens, IGNORED, np.int64),
            np.arange(tokens),
            np.full(tokens, tokens, np.int64),
        )

    def add(self, samples: EncodedSamples, tree: Tree) -> None:
        """The next group: one sample, or several that share their beginnings."""
        for piece in tree.pieces:
            here = slice(self.at, self.at + piece.end - piece.first)
            self.ids[here] = samples.ids_of(piece.sample)[piece.first : piece.end]
            self.labels[here] = np.where(piece.has_loss, self.ids[here], IGNORED)
            self.positions[here] = np.arange(piece.first, piece.end)
            self.until[here] = piece.until
            self.at = here.stop
        # Padding is a sample of its own to the mask, so that nothing sees it.
        self.positions[self.at :] = np.arange(len(self.ids) - self.at)

    def tensors(self, *, with_until: bool) -> dict[str, torch.Tensor]:
        found = {"input_ids": self.ids, "position_ids": self.positions, "labels": self.labels}
        if with_until:
            found["until"] = self.until
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
