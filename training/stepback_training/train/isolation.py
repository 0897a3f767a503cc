"""Test of isolation: in this model, no sample of a row sees another."""

import torch
from transformers import PreTrainedModel

from stepback_training.train.lora import TrainedModel
from stepback_training.train.model import embedding_rows
from stepback_training.train.shared_prompts import Collator

_TOKENS = 12
_WORDS = 1000
# Tolerance, relative to the largest logit: float32 rounds a thousandth of that, a leak is far
# above.
_ROUNDING = 1e-4


def is_blind_to_neighbours(model: PreTrainedModel) -> bool:
    """Tell whether a sample has the same logits alone and after another one in its row.

    Only attention looks at positions that begin again. Models with a recurrent state or a
    convolution, and those with another way of positions, carry one sample into the next.
    """
    generator = torch.Generator().manual_seed(0)
    words = min(_WORDS, embedding_rows(model))
    first, second = torch.randint(words, (2, 1, _TOKENS), generator=generator).unbind()
    was_training = model.training
    model.eval()
    with torch.no_grad():
        alone = _logits(model, second)
        behind = _logits(model, first, second)[:, _TOKENS:]
    model.train(was_training)
    return bool((alone - behind).abs().max() <= _ROUNDING * alone.abs().max())


def has_tree_masks(model: PreTrainedModel) -> bool:
    """Tell whether a sample has the same logits alone and as a branch after a shared prompt."""
    generator = torch.Generator().manual_seed(1)
    words = min(_WORDS, embedding_rows(model))
    prompt, one, other = torch.randint(words, (3, 1, _TOKENS), generator=generator).unbind()
    collator = Collator(tree=True, additive=takes_added_masks(model), head_on_loss=False)
    row = {
        "input_ids": torch.cat([prompt, one, other], dim=1)[0],
        "position_ids": torch.arange(2 * _TOKENS)[
            [*range(2 * _TOKENS), *range(_TOKENS, 2 * _TOKENS)]
        ],
        "until": torch.tensor([3, 2, 3]).repeat_interleave(_TOKENS) * _TOKENS,
    }
    was_training = model.training
    model.eval()
    with torch.no_grad():
        alone = _logits_of(model, torch.cat([prompt, other], dim=1))[:, _TOKENS:]
        behind = model(**collator([row]), use_cache=False).logits.float()[:, 2 * _TOKENS :]
    model.train(was_training)
    return bool((alone - behind).abs().max() <= _ROUNDING * alone.abs().max())


def takes_added_masks(model: TrainedModel) -> bool:
    """Tell whether a mask is added to the scores, as the plain attention does."""
    return model.config._attn_implementation == "eager"


def _logits_of(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(ids.shape[1])[None]
    return model(input_ids=ids, position_ids=positions, use_cache=False).logits.float()


def _logits(model: PreTrainedModel, *samples: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(_TOKENS, device=model.device).repeat(len(samples))[None]
    ids = torch.cat(samples, dim=1).to(model.device)
    return model(input_ids=ids, position_ids=positions, use_cache=False).logits.float()
