"""The weight of the marker in the loss."""

from typing import Any

import torch
from transformers.loss.loss_utils import ForCausalLMLoss

from stepback_training.train.loss_mask import IGNORED
from stepback_training.train.marker_loss import MarkerWeightedLoss

MARKER, WORDS = 3, 7
LABELS = torch.tensor([[0, IGNORED, 2, MARKER], [1, MARKER, 5, IGNORED]])
LOGITS = torch.randn(2, 4, WORDS, generator=torch.Generator().manual_seed(0))


def test_a_weight_of_one_is_the_loss_of_transformers() -> None:
    for more in ({}, {"num_items_in_batch": torch.tensor(5)}, {"num_items_in_batch": 5}):
        given: dict[str, Any] = {"logits": LOGITS, "labels": LABELS, "vocab_size": WORDS} | more
        torch.testing.assert_close(
            MarkerWeightedLoss(MARKER, 1.0)(**given), ForCausalLMLoss(**given)
        )


def test_a_weight_multiplies_the_marker_alone() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = MarkerWeightedLoss(MARKER, 3.0)(logits, LABELS, WORDS, 5)
    chances = LOGITS[:, :-1].log_softmax(-1)
    there = LABELS[:, 1:]
    by_hand = sum(
        -(3.0 if token == MARKER else 1.0) * chances[row, place, token]
        for row in range(2)
        for place, token in enumerate(there[row].tolist())
        if token != IGNORED
    )
    torch.testing.assert_close(loss, by_hand / 5)
    loss.backward()
    plain = LOGITS.clone().requires_grad_()
    MarkerWeightedLoss(MARKER, 1.0)(plain, LABELS, WORDS, 5).backward()
    assert logits.grad is not None and plain.grad is not None
    ratio = logits.grad / plain.grad
    for row in range(2):
        for place, token in enumerate(there[row].tolist()):
            if token != IGNORED:
                wanted = 3.0 if token == MARKER else 1.0
                torch.testing.assert_close(ratio[row, place], torch.full((WORDS,), wanted))


def test_labels_that_are_shifted_already_are_taken_as_they_are() -> None:
    shifted = torch.nn.functional.pad(LABELS, (0, 1), value=IGNORED)[:, 1:]
    loss = MarkerWeightedLoss(MARKER, 2.0)
    torch.testing.assert_close(
        loss(LOGITS, None, WORDS, shift_labels=shifted), loss(LOGITS, LABELS, WORDS)
    )
