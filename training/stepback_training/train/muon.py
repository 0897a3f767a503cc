"""Muon for the hidden matrices and AdamW for the rest, as one optimizer.

Muon (torch.optim.Muon; arXiv 2502.16982 for the scale that matches AdamW's update) takes matrices
only; embeddings, the output head, norms and biases stay with AdamW.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from stepback_training.train.precision import has_fast_bfloat16

# Elements of a batch at most: enough to keep a GPU busy, little memory compared with a large model.
_BATCH = 1 << 24


class BatchedMuon(Muon):
    """torch.optim.Muon that orthogonalizes matrices of one shape as one batch.

    State and options are Muon's; the rate is scaled as `match_rms_adamw` says."""

    # One at a time, the matrices of a small model take a GPU's time in starting kernels.

    def __init__(self, matrices: list[nn.Parameter], **options: Any) -> None:
        super().__init__(matrices, adjust_lr_fn="match_rms_adamw", **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("this optimizer takes no closure")
        for group in self.param_groups:
            parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
            self._init_group(group, *parts)
            same_shape = defaultdict[torch.Size, list[tuple[Tensor, ...]]](list)
            for parameter, grad, buffer in zip(*parts, strict=True):
                same_shape[parameter.shape].append((parameter, grad, buffer))
            for shape, members in same_shape.items():
                size = max(1, _BATCH // shape.numel())
                for start in range(0, len(members), size):
                    batch = members[start : start + size]
                    _update(group, shape, *map(list, zip(*batch, strict=True)))


def _update(
    group: dict[str, Any],
    shape: torch.Size,
    parameters: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
) -> None:
    """Take one step of matrices of one shape."""
    momentum, rate = group["momentum"], float(group["lr"])
    for grad, buffer in zip(grads, buffers, strict=True):
        buffer.lerp_(grad, 1 - momentum)
    ahead = torch.stack(buffers)
    if group["nesterov"]:
        ahead = torch.stack(grads).lerp(ahead, momentum)
    update = orthogonalized(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"])
    # So that an update's root mean square is AdamW's: arXiv 2502.16982, section 2.2.
    scaled = rate * 0.2 * max(shape) ** 0.5
    for parameter, change in zip(parameters, update, strict=True):
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.add_(change, alpha=-scaled)


def orthogonalized(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Bring the singular values of each of `matrices` [n, rows, columns] close to 1.

    The Newton-Schulz iteration is that of torch.optim.Muon, which takes a single matrix. It runs
    in bfloat16 as there, and in float32 on a device that emulates bfloat16.
    """
    a, b, c = coefficients
    # The Gram matrix is then of the smaller side.
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    found = matrices.mT if is_tall else matrices
    if has_fast_bfloat16(matrices.device):
        found = found.bfloat16()
    found = found / torch.linalg.vector_norm(found, dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = found @ found.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        found = torch.baddbmm(found, gram, found, beta=a)
    return found.mT if is_tall else found


class MuonWithAdamW(Optimizer):
    """Two optimizers that step together and save together.

    `lr` is Muon's rate and `adamw_lr` the other's; a scheduler scales both.
    """

    def __init__(
        self, model: nn.Module, *, lr: float, adamw_lr: float, weight_decay: float
    ) -> None:
        # Embeddings and the head are matrices too, and stay with AdamW all the same.
        matrices, others = split_parameters(model)
        self._parts: tuple[Optimizer, Optimizer] = (
            BatchedMuon(matrices, lr=lr, weight_decay=weight_decay),
            AdamW(others, lr=adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
        )
        # Plain Optimizer.__init__ would copy the groups; a scheduler must write to the parts' own.
        super().__init__([*matrices, *others], {})
        self._share_groups()

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("this optimizer takes no closure")
        for part in self._parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()

    def _share_groups(self) -> None:
        # The very same dictionaries: loading a state replaces them, and a scheduler must write to
        # those in use.
        self.param_groups = [group for part in self._parts for group in part.param_groups]


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The hidden layers' matrices, and every other trainable parameter."""
    lookups = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        lookups |= {id(parameter) for parameter in head.parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [p for p in trained if p.ndim == 2 and id(p) not in lookups]
    chosen = {id(p) for p in matrices}
    return matrices, [p for p in trained if id(p) not in chosen]
