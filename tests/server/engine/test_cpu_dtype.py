"""The dtype that suits a processor."""

from pathlib import Path

import pytest

from stepback_server.engine import cpu_dtype


@pytest.mark.parametrize(
    ("described", "dtype"),
    [
        ("flags\t\t: fpu sse2 avx avx2 fma", "float32"),
        ("flags\t\t: avx2 avx512f avx512bw avx512vl", "bfloat16"),
        ("flags\t\t: avx512bw avx512_bf16 amx_bf16 amx_tile", "bfloat16"),
        ("Features\t: fp asimd sve bf16 i8mm", "bfloat16"),
        ("Features\t: fp asimd aes", "float32"),
    ],
)
def test_bfloat16_where_its_products_are_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, described: str, dtype: str
) -> None:
    processor = tmp_path / "cpuinfo"
    processor.write_text(f"processor\t: 0\n{described}\nbogomips\t: 4890.82\n")
    monkeypatch.setattr(cpu_dtype, "_PROCESSOR", processor)
    assert cpu_dtype.cpu_dtype("auto") == dtype
    assert cpu_dtype.cpu_dtype("float16") == "float16"


def test_a_system_without_that_description_keeps_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_dtype, "_PROCESSOR", tmp_path / "none")
    assert cpu_dtype.cpu_dtype("auto") == "bfloat16"
