"""The numbers that a processor multiplies fast. Imports no torch: a controller asks too."""

from functools import cache
from pathlib import Path

_PROCESSOR = Path("/proc/cpuinfo")
# oneDNN has bfloat16 products for x86 with AVX-512 and for ARM with its own instructions. Without
# them torch computes each product number by number: a batch of 32 took 2.7 times as long as in
# float32, measured with the bundled model on AVX2.
_FAST_BFLOAT16 = frozenset({"avx512bw", "bf16"})


def cpu_dtype(dtype: str) -> str:
    """Resolve "auto" for a CPU: bfloat16 where its products are fast, else float32."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if has_fast_bfloat16(_PROCESSOR) else "float32"


@cache
def has_fast_bfloat16(described: Path) -> bool:
    """Tell from Linux's description of the processor; True where there is none."""
    try:
        text = described.read_text()
    except OSError:
        return True
    return not _FAST_BFLOAT16.isdisjoint(text.split())
