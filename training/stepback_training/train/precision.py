"""Devices on which bfloat16 is fast enough to compute in."""

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell a GPU or a processor that multiplies in bfloat16 from one that emulates it.

    With AVX2 alone a product takes 8 times as long in bfloat16 as in float32, measured.
    """
    if device.type == "cuda":
        # Without a word torch counts those that emulate it (T4, V100) among them.
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported())  # pyright: ignore[reportPrivateUsage]
