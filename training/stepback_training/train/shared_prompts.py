"""Rows in which samples share what they begin with, and what a pass over such rows needs.

A shared prompt is computed once, and each sample branches off it:

    p1 p2 | p3 a1 a2 <end> | p3 b1 b2 <marker>

The prompt's last token opens every branch, since it is what predicts a branch's first token. Each
branch sees the prompt and itself, and its positions go on from the prompt's end. Where beginnings
are shared, branches have branches: questions about the same sentences, and steps.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

# Positions with a loss are rounded up to this, so that compiled passes are of few sizes.
_MULTIPLE = 64


def grouped(
    order: Sequence[int],
    keys: Sequence[bytes],
    lengths: Sequence[int],
    row_tokens: int,
    shared: Callable[[list[int], int], int],
) -> list[list[int]]:
    """Samples in an order, those of one key together, as many as fit into a row. `shared` tells how
    many first tokens the next sample shares with those of a group."""
    groups: list[list[int]] = []
    open_groups: dict[bytes, tuple[list[int], int]] = {}
    for sample in order:
        group, used = open_groups.get(keys[sample], ([], row_tokens))
        # The last shared token is there again: it opens the branch.
        more = lengths[sample] - max(0, shared(group, sample) - 1) if group else 0
        if not group or used + more > row_tokens:
            groups.append(group := [])
            used, more = 0, lengths[sample]
        group.append(sample)
        open_groups[keys[sample]] = (group, used + more)
    return groups


def alike(prompts: Sequence[bytes]) -> list[bytes]:
    """A key for each prompt. Prompts next to each other in the alphabet have one if at least half
    of the longer one is the beginning of both."""
    keys: dict[bytes, bytes] = {}
    for before, prompt in pairwise([b"", *sorted(set(prompts))]):
        common = common_length(*(np.frombuffer(each, np.uint8) for each in (before, prompt)))
        is_near = 2 * common >= max(len(before), len(prompt))
        keys[prompt] = keys[before] if is_near and before in keys else prompt
    return [keys[prompt] for prompt in prompts]


def common_length(one: NDArray[Any], other: NDArray[Any]) -> int:
    """Tell with how many equal entries two arrays begin."""
    least = min(len(one), len(other))
    different = np.flatnonzero(one[:least] != other[:least])
    return int(different[0]) if len(different) else least


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens `first` to `end` of a sample, which those up to place `until` of the row see."""

    sample: int
    first: int
    end: int
    until: int
    has_loss: NDArray[np.bool_]


@dataclass(slots=True)
class Tree:
    """The pieces of samples that share their beginnings, each branch right after what it goes on
    from; `at` is the place of the next one in the row."""

    ids: dict[int, NDArray[np.int32]]
    has_loss: dict[int, NDArray[np.bool_]]
    at: int
    pieces: list[Piece]

    def add(self, samples: list[int], first: int = 0, opening: bool | None = None) -> None:
        """Add samples that are alike up to token `first`. That token is in every branch, and its
        loss in one alone: `opening`, or None for what the samples say."""
        common = self._common(samples)
        if common == max(len(self.ids[sample]) for sample in samples):
            self._piece(samples, first, common, opening)
            return
        split = max(first, common - 1)
        trunk = len(self.pieces)
        if split > first:
            self._piece(samples, first, split, opening)
            opening = any(self.has_loss[sample][split] for sample in samples)
        for branch in self._branches(samples, common):
            self.add(branch, split, opening)
            opening = False
        if split > first:
            self._see(trunk)

    def add_after(self, samples: list[int], prompt: int) -> None:
        """Add samples with nothing in common but the first `prompt` tokens."""
        trunk = prompt - 1
        if len(samples) > 1:
            self._piece(samples[:1], 0, trunk)
        for sample in samples:
            self._piece([sample], trunk if len(samples) > 1 else 0, len(self.ids[sample]))
        if len(samples) > 1:
            self._see(0)

    def _common(self, samples: list[int]) -> int:
        one = self.ids[samples[0]]
        return min(common_length(one, self.ids[sample]) for sample in samples)

    def _branches(self, samples: list[int], common: int) -> list[list[int]]:
        """The samples by their next token. One that ends here is a beginning of all others."""
        branches: dict[int, list[int]] = defaultdict(list)
        for sample in samples:
            if len(self.ids[sample]) > common:
                branches[int(self.ids[sample][common])].append(sample)
        return list(branches.values())

    def _piece(self, samples: list[int], first: int, end: int, opening: bool | None = None) -> None:
        # A token is learned if any of the samples learns it.
        has_loss = np.any([self.has_loss[sample][first:end] for sample in samples], axis=0)
        if opening is not None:
            has_loss[:1] = opening
        self.at += end - first
        self.pieces.append(Piece(samples[0], first, end, self.at, has_loss))

    def _see(self, place: int) -> None:
        """Let all that has come since see the piece at a place."""
        piece = self.pieces[place]
        self.pieces[place] = Piece(piece.sample, piece.first, piece.end, self.at, piece.has_loss)


@dataclass(frozen=True, slots=True)
class Collator:
    """Rows to a batch: with the mask of a tree, and with where there is a loss."""

    tree: bool
    """Rows have `until`, which becomes a mask."""
    additive: bool
    """The mask is of numbers to add, as the plain attention takes it, and not of truth values."""
    head_on_loss: bool

    def __call__(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        batch = default_collate(rows)
        if self.tree:
            seen = tree_mask(batch.pop("until"))
            batch["attention_mask"] = _to_add(seen) if self.additive else seen
        if self.head_on_loss:
            batch["kept"], batch["shift_labels"] = loss_positions(batch["labels"])
        return batch


def tree_mask(until: torch.Tensor) -> torch.Tensor:
    """Return the attention mask, of shape [rows, 1, tokens, tokens].

    Each token is seen by itself and those after it, up to its own place in `until`, left out.
    """
    places = torch.arange(until.shape[1])
    before = places[None, :] <= places[:, None]
    return (before & (places[:, None] < until[:, None, :]))[:, None]


def _to_add(seen: torch.Tensor) -> torch.Tensor:
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(seen.shape).masked_fill(~seen, lowest)


def loss_positions(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The positions of a flat batch that predict a token with a loss, and these tokens; filled up
    by positions without a loss."""
    # A position predicts the token after it; the last one of a row predicts nothing.
    shifted = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:].flatten()
    kept = (shifted != -100).nonzero().flatten()
    fill = -len(kept) % _MULTIPLE
    kept = torch.nn.functional.pad(kept, (0, fill))
    tokens = shifted[kept]
    tokens[len(tokens) - fill :] = -100
    return kept, tokens[None]
