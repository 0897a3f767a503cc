"""Tables as input of `stepback batch`: Parquet of pyarrow and pandas, and what Ray Data reads."""

import gzip
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest
from cluster import SECONDS, begin, written
from pyarrow import parquet
from tests.conftest import CHECKPOINT

from stepback_client.batch.command import batch
from stepback_client.batch.inputs import read_lines
from stepback_client.batch.requests import BatchItem, read_items
from stepback_core.errors import InvalidInput

PROBLEM = {"numbers": [3, 5], "target": 15}
BODY = {"task": "countdown", "problem": PROBLEM}


def items(*inputs: Path | str) -> list[BatchItem]:
    return list(read_items(read_lines([str(each) for each in inputs])))


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


def test_rows_of_nested_structures_are_requests_without_their_nulls(tmp_path: Path) -> None:
    problem = {"numbers": [Decimal(3), Decimal(5)], "target": Decimal("1.5"), "rows": None}
    problem |= {"cells": [{"a": 1, "b": None}, {"a": None, "b": 2}], "text": b"x"}
    problem |= {"day": date(2026, 1, 2), "at": datetime(2026, 1, 2, 3, tzinfo=UTC)}
    rows = [
        {"custom_id": 7, "body": {"task": "a", "problem": problem, "seed": None}},
        {"custom_id": 8, "body": {"task": "b", "problem": None, "seed": 4}},
    ]
    first, second = items(write(tmp_path / "in.parquet", rows))
    assert (first.custom_id, second.custom_id) == ("7", "8")
    assert first.body == {
        "task": "a",
        "problem": {
            "numbers": [3, 5],
            "target": 1.5,
            "cells": [{"a": 1}, {"b": 2}],
            "text": "x",
            "day": "2026-01-02",
            "at": "2026-01-02 03:00:00+00:00",
        },
    }
    assert second.body == {"task": "b", "seed": 4}


def test_rows_are_numbered_over_all_groups_and_files(tmp_path: Path) -> None:
    rows = [BODY | {"seed": number} for number in range(10)]
    one = write(tmp_path / "a.parquet", rows, row_group_size=3)
    assert parquet.ParquetFile(one).num_row_groups == 4
    write(tmp_path / "b.parquet", rows[:2], compression="zstd")
    (tmp_path / "c.jsonl").write_text(json.dumps(BODY))
    write(tmp_path / "empty.parquet", rows).unlink()
    found = items(tmp_path)
    assert [item.custom_id for item in found] == [str(number) for number in range(1, 14)]
    assert [item.body.get("seed") for item in found] == [*range(10), 0, 1, None]
    assert {json.dumps(item.body["problem"]) for item in found} == {json.dumps(PROBLEM)}


def test_problems_of_several_shapes_are_text_or_maps(tmp_path: Path) -> None:
    """No column of structures can have them."""
    sudoku = {"task": "sudoku", "problem": {"grid": "1..."}}
    rows = [
        {"custom_id": name, "body": json.dumps(body)} for name, body in (("a", BODY), ("b", sudoku))
    ]
    assert [item.body for item in items(write(tmp_path / "text.parquet", rows))] == [BODY, sudoku]
    rows = [body | {"problem": json.dumps(body["problem"])} for body in (BODY, sudoku)]
    assert [item.body for item in items(write(tmp_path / "half.parquet", rows))] == [BODY, sudoku]
    kind = pyarrow.map_(pyarrow.string(), pyarrow.int64())
    column = pyarrow.array([[("a", 1), ("b", 2)]], kind)
    parquet.write_table(pyarrow.table({"problem": column}), tmp_path / "map.parquet")
    [item] = items(tmp_path / "map.parquet")
    assert item.body == {"problem": {"a": 1, "b": 2}}


def test_a_frame_of_pandas_is_an_input(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"prompt": ["p", "q"], "seed": [1, None], "at": pandas.Timestamp(0)})
    frame.to_parquet(tmp_path / "in.parquet")
    first, second = items(tmp_path / "in.parquet")
    assert first.body == {"prompt": "p", "seed": 1, "at": "1970-01-01 00:00:00"}
    assert second.body == {"prompt": "q", "at": "1970-01-01 00:00:00"}


def test_a_table_without_rows_has_no_requests(tmp_path: Path) -> None:
    schema = pyarrow.schema([("prompt", pyarrow.string())])
    parquet.write_table(schema.empty_table(), tmp_path / "in.parquet")
    assert items(tmp_path / "in.parquet") == []


def test_what_is_no_parquet_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write(tmp_path / "whole.parquet", [BODY | {"seed": n} for n in range(5000)])
    content = whole.read_bytes()
    given, out = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    middle = len(content) // 2
    damaged = content[:4] + bytes(100) + content[104:]
    for broken in (b"", b"PAR1", json.dumps(BODY).encode(), content[:middle], damaged):
        given.write_bytes(broken)
        assert batch([str(given), "--out", str(out)]) == 2, broken[:20]
        assert "in.parquet" in capsys.readouterr().err and not out.exists()
    given.unlink()
    assert batch([str(given), "--out", str(out)]) == 2
    given.mkdir()
    with pytest.raises(InvalidInput, match="no file that ends in"):
        items(given)


def test_a_cluster_answers_tables_from_a_folder_and_from_an_address(
    engine: str, tmp_path: Path
) -> None:
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    row = {"custom_id": "", "body": BODY | {"breadth": None}}
    bad = {"custom_id": "bad", "body": BODY | {"breadth": 0}}
    # A null is a column without a value in a table; in JSON it would be a value.
    lines = [{"custom_id": f"d{n}", "body": BODY} for n in range(6)]
    rows = [[row | {"custom_id": f"{part}{n}"} for n in range(6)] for part in "abcd"]
    write(folder / "a.parquet", [*rows[0], bad], row_group_size=4)
    write(elsewhere / "b1.parquet", rows[1], row_group_size=4)
    write(elsewhere / "b2.parquet", rows[2])
    text = "".join(json.dumps(each) + "\n" for each in [*lines, BODY])
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(text.encode("utf-8-sig")))
    inputs = [folder, f"file://{elsewhere}", f"file://{tmp_path}/d.jsonl.gz"]
    out = tmp_path / "out.jsonl"
    flags = ["--out", out, "--model", CHECKPOINT, "--on", "ray", "--actors", "2"]
    process = begin(["batch", *inputs, *flags], tmp_path, engine)
    try:
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
    found = {line["custom_id"]: line for line in written(out)}
    # Numbered over all inputs: seven rows, twelve, and the seventh line.
    names = [each["custom_id"] for part in rows for each in part] + ["bad", "26"]
    assert len(written(out)) == len(names) and found.keys() == set(names)
    assert found.pop("bad")["error"]["status"] == 422
    assert {line["result"]["status"] for line in found.values()} == {"solved"}


def test_an_address_that_has_nothing_is_refused(engine: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes("{}".encode("utf-16"))
    for name in ("none.parquet", "bad.jsonl"):
        flags = ["--out", tmp_path / "out.jsonl", "--model", CHECKPOINT, "--on", "ray"]
        process = begin(["batch", f"file://{tmp_path}/{name}", *flags], tmp_path, engine)
        try:
            assert process.wait(SECONDS) == 2
        finally:
            process.kill()
            process.wait()
