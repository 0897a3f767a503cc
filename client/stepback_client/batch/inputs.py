"""Inputs of `stepback batch` as JSON lines: files of JSONL or Parquet, folders of them, addresses.

On a Ray cluster an address such as s3://bucket/problems.parquet is read by Ray Data.
"""

import importlib
import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from stepback_client.batch.line_files import json_lines
from stepback_core.errors import InvalidInput

_TABLE = ".parquet"
_LINES = (".jsonl", ".jsonl.gz")
_IN_FOLDERS = (".jsonl", _TABLE)
# Columns that may hold JSON as text: rows of several tasks have problems of several shapes, which
# no column of structures can have.
_JSON_COLUMNS = ("body", "problem")


def read_lines(inputs: Sequence[str], *, on_cluster: bool = False) -> Iterator[bytes]:
    """Read all inputs as one: lines of JSONL, and rows of Parquet as such. Raises InvalidInput and
    OSError; ModuleNotFoundError for an address without Ray."""
    for given in inputs:
        if "://" in given:
            yield from _elsewhere(given, on_cluster)
            continue
        for file in _files(Path(given)):
            yield from _rows(file) if file.suffix == _TABLE else json_lines(file)


def refuse_as_output(inputs: Sequence[str], out: Path) -> None:
    """Raise InvalidInput where the file of answers is an input, or lies in one."""
    whole = out.resolve()
    for given in inputs:
        path = Path(given)
        is_input = path.resolve() in (whole, *whole.parents)
        if is_input or (out.exists() and path.exists() and out.samefile(path)):
            raise InvalidInput(f"{out}: it is the input, or in it: name another file for answers")


def _files(path: Path) -> Sequence[Path]:
    """The file, or by name those of a folder and of the folders in it. Raises InvalidInput."""
    if not path.is_dir():
        return [path]
    found = sorted(
        each
        for each in path.rglob("*")
        if each.suffix in _IN_FOLDERS
        and each.is_file()
        # Spark and editors put such files and folders beside the data.
        and not any(part[0] in "._" for part in each.relative_to(path).parts)
    )
    if not found:
        raise InvalidInput(f"{path}: the folder has no file that ends in .jsonl or .parquet")
    return found


def _rows(file: Path) -> Iterator[bytes]:
    """Rows of a Parquet file, a group at a time."""
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise InvalidInput(f"{file}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches():
                for row in batch.to_pylist(maps_as_pydicts="lossy"):
                    yield _line(row)
    except (arrow.ArrowException, ValueError, OSError) as error:
        # With a number it is the system's: no such file, no right to read it.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidInput(f"{file}: it cannot be read as Parquet: {str(error).strip()}") from None


def has_lines(address: str) -> bool:
    """Tell whether an address names lines; else it is of Parquet. Options or a signature may follow
    its name."""
    return address.partition("?")[0].endswith(_LINES)


def _elsewhere(address: str, on_cluster: bool) -> Iterator[bytes]:
    if not on_cluster:
        raise InvalidInput(f"{address}: addresses are read with --on ray alone: copy it here first")
    # Named, not imported: the client alone is a whole install.
    ray = importlib.import_module("stepback_server.on_ray")
    try:
        if has_lines(address):
            yield from (line.encode() for line in ray.read_text(address))
        else:
            yield from (_line(row) for row in ray.read_tables(address))
    except ValueError as error:
        raise InvalidInput(f"{address}: it cannot be read: {error}") from None


def _line(row: dict[str, Any]) -> bytes:
    """A row of a table as a line of JSON."""
    whole = row | {name: _parsed(row[name]) for name in _JSON_COLUMNS if name in row}
    return json.dumps(_present(whole), default=_as_json).encode()


def _parsed(value: Any) -> Any:
    """The object in a text of JSON; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _present(value: Any) -> Any:
    """A row without its nulls: a table has a column where some rows have nothing."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {name: _present(each) for name, each in fields.items() if each is not None}
    if isinstance(value, list):
        return [_present(each) for each in cast("list[Any]", value)]
    return value


def _as_json(value: Any) -> Any:
    """The nearest JSON of a type that tables have and JSON lacks."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return value.decode(errors="replace")
        case _:  # Dates, times, UUIDs.
            return str(value)
