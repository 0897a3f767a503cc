"""The batched Muon against torch's own."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Muon

from stepback_training.train.muon import BatchedMuon, MuonWithAdamW
from stepback_training.train.precision import has_fast_bfloat16

SHAPES = [(16, 16), (16, 16), (44, 16), (44, 16), (16, 44), (16, 16)]


def steps(kind: Callable[..., Muon], **options: Any) -> list[torch.Tensor]:
    """Matrices after four steps along seeded random gradients."""
    torch.manual_seed(0)
    matrices = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = kind(matrices, lr=3e-3, **options)
    for _ in range(4):
        for matrix in matrices:
            matrix.grad = torch.randn_like(matrix)
        optimizer.step()
    return [matrix.detach() for matrix in matrices]


def test_a_batch_that_is_cut_up_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    together = steps(BatchedMuon)
    monkeypatch.setattr("stepback_training.train.muon._BATCH", 600)
    for ours, cut in zip(together, steps(BatchedMuon), strict=True):
        torch.testing.assert_close(ours, cut, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.0}, {"nesterov": False}])
def test_matrices_of_one_shape_take_the_steps_that_they_take_alone(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepback_training.train.muon.has_fast_bfloat16", lambda _: True)
    assert _furthest_from_torch(options) < 1e-4


def test_in_float32_the_steps_differ_by_rounding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is 3e-3 large; bfloat16, which torch's own takes, keeps 8 bits of it."""
    monkeypatch.setattr("stepback_training.train.muon.has_fast_bfloat16", lambda _: False)
    assert 0 < _furthest_from_torch({}) < 3e-4


def _furthest_from_torch(options: dict[str, Any]) -> float:
    together = steps(BatchedMuon, **options)
    alone = steps(Muon, adjust_lr_fn="match_rms_adamw", **options)
    return max((a - b).abs().max().item() for a, b in zip(together, alone, strict=True))


def test_a_matrix_without_a_gradient_stays_as_it_is() -> None:
    first, second = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    optimizer = BatchedMuon([first, second], lr=0.1)
    first.grad = torch.eye(4)
    optimizer.step()
    assert torch.equal(second, torch.ones(4, 4))
    assert not torch.equal(first, torch.ones(4, 4))


def test_a_closure_is_refused() -> None:
    matrix = nn.Parameter(torch.ones(4, 4))
    model = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="closure"):
        BatchedMuon([matrix], lr=0.1).step(lambda: 0.0)
    with pytest.raises(ValueError, match="closure"):
        MuonWithAdamW(model, lr=0.1, adamw_lr=0.1, weight_decay=0.0).step(lambda: 0.0)


@pytest.mark.parametrize(("capability", "is_fast"), [(7, False), (8, True)])
def test_a_gpu_that_emulates_bfloat16_is_not_taken_for_a_fast_one(
    capability: int, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a T4 does, on which torch makes such tensors all the same."""
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=capability)
    )
    assert has_fast_bfloat16(torch.device("cuda")) is is_fast
