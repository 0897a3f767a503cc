"""Rows in which samples of one prompt share it, and what a pass over such rows needs.

A shared prompt is computed once, and each sample branches off it:

    p1 p2 | p3 a1 a2 <end> | p3 b1 b2 <marker>

The prompt's last token opens every branch, since it is what predicts a branch's first token. Each
branch sees the prompt and itself, and its positions go on from the prompt's end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import default_collate

# Positions with a loss are rounded up to this, so that compiled passes are of few sizes.
_MULTIPLE = 64


def grouped(
    order: Sequence[int],
    prompts: Sequence[bytes],
    lengths: Sequence[int],
    sizes: Sequence[int],
    row_tokens: int,
) -> list[list[int]]:
    """Samples in an order, those of one prompt together, as many as fit into a row. `prompts` are
    the prompts of all samples, `lengths` those of the samples and `sizes` those of their prompts.
    """
    groups: list[list[int]] = []
    open_groups: dict[bytes, tuple[list[int], int]] = {}
    for sample in order:
        group, used = open_groups.get(prompts[sample], ([], row_tokens))
        trunk = sizes[sample] - 1
        if used + lengths[sample] - trunk > row_tokens:
            groups.append(group := [])
            used = trunk
        group.append(sample)
        open_groups[prompts[sample]] = (group, used + lengths[sample] - trunk)
    return groups


@dataclass(frozen=True, slots=True)
class Collator:
    """Rows to a batch: with the mask of a tree, and with where there is a loss."""

    tree: bool
    """Rows have `groups` and `branches`, which become a mask."""
    additive: bool
    """The mask is of numbers to add, as the plain attention takes it, and not of truth values."""
    head_on_loss: bool

    def __call__(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        batch = default_collate(rows)
        if self.tree:
            seen = tree_mask(batch.pop("groups"), batch.pop("branches"))
            batch["attention_mask"] = _to_add(seen) if self.additive else seen
        if self.head_on_loss:
            batch["kept"], batch["shift_labels"] = loss_positions(batch["labels"])
        return batch


def tree_mask(groups: torch.Tensor, branches: torch.Tensor) -> torch.Tensor:
    """Return the attention mask, of shape [rows, 1, tokens, tokens].

    A token sees those before it of its own branch, and of its group's prompt.
    """
    same_group = groups[:, :, None] == groups[:, None, :]
    same_branch = branches[:, :, None] == branches[:, None, :]
    in_prompt = (branches == 0)[:, None, :]
    # Causal as well, within a branch.
    before = torch.ones(groups.shape[1], groups.shape[1], dtype=torch.bool).tril()
    return (same_group & (same_branch | in_prompt) & before)[:, None]


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
