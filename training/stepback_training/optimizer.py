"""Muon for the hidden matrices and AdamW for the rest, as one optimizer.

Muon (torch.optim.Muon; arXiv 2502.16982 for the scale that matches AdamW's update) takes matrices
only; embeddings, the output head, norms and biases stay with AdamW.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer


class MuonWithAdamW(Optimizer):
    """Two optimizers that step together and save together.

    `lr` is Muon's rate and `adamw_lr` the other's; a scheduler scales both.
    """

    def __init__(
        self, model: nn.Module, *, lr: float, adamw_lr: float, weight_decay: float
    ) -> None:
        matrices, others = split_parameters(model)
        self._parts: tuple[Optimizer, Optimizer] = (
            Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
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
