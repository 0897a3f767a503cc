"""Input of `stepback batch` that cannot be used is refused before anything is asked."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from stepback_client.batch.command import batch
from stepback_client.batch.requests import read_items, read_lines
from stepback_core.errors import InvalidInput


def test_parquet_without_its_reader_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InvalidInput, match="pip install pyarrow"):
        list(read_lines(tmp_path / "in.parquet"))


def test_rows_of_a_table_are_lines_without_their_nulls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class File:
        def __init__(self, path: Path) -> None: ...

        def iter_batches(self) -> "list[File]":
            return [self]

        def to_pylist(self) -> list[dict[str, object]]:
            problem = {"numbers": [3, 5], "target": 15, "rows": None}
            return [{"custom_id": "a", "body": {"task": "countdown", "problem": problem}}]

    parquet = ModuleType("pyarrow.parquet")
    parquet.ParquetFile = File  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)
    [item] = read_items(read_lines(tmp_path / "in.parquet"))
    assert item.custom_id == "a"
    assert item.body["problem"] == {"numbers": [3, 5], "target": 15}


def test_a_cluster_needs_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "in.jsonl"
    given.write_text("{}\n")
    assert batch([str(given), "--out", str(tmp_path / "out.jsonl"), "--on", "ray"]) == 2
    assert "--on ray needs --model" in capsys.readouterr().err
