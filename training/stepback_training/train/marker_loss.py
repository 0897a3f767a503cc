"""The loss of causal language models with a weight on one token, the marker.

A sample that backtracks has one marker among its tokens with a loss, and other samples have none.
In the bundled recipe that is about one token in 110, so a mean over tokens hardly sees it. The
paper (arXiv 2502.04404) writes the losses of the two kinds of samples apart, each with its own
mean. Its code, like ours without a weight, takes one mean over all tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class MarkerWeightedLoss:
    """Cross-entropy in nats a token, in which the marker counts `weight` times.

    It stands in for the loss of `transformers` (`ForCausalLMLoss`), and has its arguments.
    """

    marker_id: int
    weight: float

    def __call__(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor | None,
        vocab_size: int,
        num_items_in_batch: torch.Tensor | int | None = None,
        ignore_index: int = -100,
        shift_labels: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Loss of `logits` [..., vocab_size] against labels [...], over the batch's items or mean.

        The divisor counts tokens and not weights. So a weight changes the marker's share alone, and
        every other token keeps the gradient that it has without one.
        """
        if shift_labels is None:
            if labels is None:
                raise ValueError("a loss needs labels or shift_labels")
            shift_labels = functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
        targets = shift_labels.flatten().to(logits.device)
        weights = torch.ones(vocab_size, device=logits.device)
        weights[self.marker_id] = self.weight
        total = functional.cross_entropy(
            logits.float().view(-1, vocab_size),
            targets,
            weight=weights,
            ignore_index=ignore_index,
            reduction="sum",
        )
        return total / (
            (targets != ignore_index).sum() if num_items_in_batch is None else num_items_in_batch
        )
