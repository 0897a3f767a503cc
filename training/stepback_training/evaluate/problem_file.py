"""Problems of a user's own, from a CSV, JSONL or JSON file whose columns the user names.

    Rank,Puzzles,AMT (s)            {"numbers": [4, 16, 25, 82], "target": 95}
    1,1 1 4 6,4.4                   {"numbers": [1, 2, 3, 4], "target": 24}

A JSON file is a list of what would be lines of a JSONL file. A record without named columns is a
problem as the task's own model writes it. Each problem is put on the side of the split that the
task's rule says, so that what training may have seen is told apart. All errors of a file come at
once, each with its line, or of JSON with its place in the list.
"""

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from math import isqrt
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from stepback_core.errors import InvalidInput
from stepback_core.validation import first_error
from stepback_training.generators import Generator, Split
from stepback_training.sampling.problems import Question

_MOST_ERRORS = 20
_LIST = re.compile(r"\[?\s*[0-9]+(?:[\s,;]+[0-9]+)*\s*\]?", re.ASCII)
_SENTENCE = re.compile(r"[^\s.?][^.?]*[.?]")

_Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """Source of each part of a problem: a column's name or, for the target, a number."""

    numbers: str | None = None
    target: str | None = None
    grid: str | None = None
    question: str | None = None
    statements: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """Columns by the field of the problem that each one fills."""
        fields = {
            "numbers": self.numbers,
            "target": self.target,
            "rows": self.grid,
            "question": self.question,
            "statements": self.statements,
        }
        return {field: column for field, column in fields.items() if column is not None}


@dataclass(frozen=True, slots=True)
class ProblemFile:
    """The problems of a file, in its order."""

    name: str
    digest: str
    questions: list[Question]

    @property
    def problems(self) -> dict[Split, int]:
        """Tell how many there are of each split, in the order of the splits."""
        found = Counter(question.split for question in self.questions)
        return {split: found[split] for split in Split if found[split]}

    @classmethod
    def read(
        cls, path: Path, task: Generator[Any], columns: Columns, rows: range | None = None
    ) -> "ProblemFile":
        """Read `rows` of a file, counted from 1 without its header. Raises InvalidInput."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
        records = _chosen(path, _records(path, content), rows)
        problems = _problems(path, records, task, columns)
        return cls(path.name, sha256(content).hexdigest(), _questions(task, problems))


def side_of_split(task: Generator[Any], problem: BaseModel) -> Split:
    """The split that a problem counts under."""
    # One that is kept out of every split was in no training, so it counts as new.
    return task.split(problem) or Split.TEST_NEW


def _questions(task: Generator[Any], problems: Sequence[BaseModel]) -> list[Question]:
    numbers: Counter[Split] = Counter()
    questions: list[Question] = []
    for problem in problems:
        split = side_of_split(task, problem)
        questions.append(Question(task, split, numbers[split], problem))
        numbers[split] += 1
    return questions


def _records(path: Path, content: bytes) -> list[tuple[int, _Record]]:
    """Each record with the line that it ends in."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InvalidInput(f"{path}: it is UTF-16: save it as UTF-8")
    try:
        # A byte order mark is what spreadsheets put before the header.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: is not UTF-8 (byte {error.start}): save it so") from error
    if path.suffix.lower() == ".csv":
        return list(_of_csv(path, text))
    if path.suffix.lower() == ".jsonl":
        return list(_of_jsonl(path, text))
    if path.suffix.lower() == ".json":
        return list(_of_json(path, text))
    raise InvalidInput(f"{path}: must end in .csv, .jsonl or .json")


def _of_csv(path: Path, text: str) -> Iterator[tuple[int, _Record]]:
    # Not `splitlines`, which also cuts at signs that a cell may have.
    reader = csv.DictReader(StringIO(text, newline=""), strict=True)
    try:
        for record in reader:
            if None in record or None in record.values():
                raise InvalidInput(f"{path}:{reader.line_num}: has not as many cells as the header")
            yield reader.line_num, record
    except csv.Error as error:
        raise InvalidInput(f"{path}:{reader.line_num}: is no CSV ({error})") from error


def _of_jsonl(path: Path, text: str) -> Iterator[tuple[int, _Record]]:
    # At line feeds alone: JSON may have other line ends in its strings as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"{path}:{number}: is no JSON ({error})") from error
        if not isinstance(record, dict):
            hint = "; a list needs a name that ends in .json" if isinstance(record, list) else ""
            raise InvalidInput(f"{path}:{number}: is no JSON object{hint}")
        yield number, record


def _of_json(path: Path, text: str) -> Iterator[tuple[int, _Record]]:
    """Records by their place in the list: lines say nothing here."""
    try:
        records = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{path}: is no JSON ({error})") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InvalidInput(f"{path}: is no list of JSON objects")
    yield from enumerate(records, start=1)


def _chosen(
    path: Path, records: list[tuple[int, _Record]], rows: range | None
) -> list[tuple[int, _Record]]:
    if not records:
        raise InvalidInput(f"{path}: has no problems")
    if rows is None:
        return records
    if rows.stop - 1 > len(records):
        raise InvalidInput(f"{path}: rows: there are {len(records)}, not {rows.stop - 1}")
    return records[rows.start - 1 : rows.stop - 1]


def _problems(
    path: Path, records: Sequence[tuple[int, _Record]], task: Generator[Any], columns: Columns
) -> list[BaseModel]:
    if not columns.named and path.suffix.lower() == ".csv":
        raise InvalidInput(
            f"{path}: name its columns: --numbers and --target, or --grid, --question or "
            f"--statements; it has {', '.join(records[0][1])}"
        )
    _check_columns(path, records[0][1], columns)
    problems: list[BaseModel] = []
    errors: list[str] = []
    for line, record in records:
        try:
            problems.append(task.checker.problem_type.model_validate(_fields(record, columns)))
        except ValidationError as error:
            errors.append(f"{path}:{line}: {first_error(error, whole='the problem')}")
        except ValueError as error:
            errors.append(f"{path}:{line}: {error}")
    if errors:
        more = [f"and {len(errors) - _MOST_ERRORS} more"] if len(errors) > _MOST_ERRORS else []
        raise InvalidInput("\n".join([*errors[:_MOST_ERRORS], *more]))
    return problems


def _check_columns(path: Path, record: Mapping[str, Any], columns: Columns) -> None:
    for field, column in columns.named.items():
        if column not in record and not (field == "target" and column.isdecimal()):
            known = ", ".join(map(str, record))
            raise InvalidInput(f"{path}: has no column {column!r}; it has {known}")


def _fields(record: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """A problem's fields. Raises ValueError for a cell that cannot be read."""
    if not columns.named:
        return dict(record)
    if columns.question is not None:
        return _question(record.get(columns.question))
    readers = {
        "numbers": _numbers,
        "target": _target,
        "rows": _rows,
        "statements": _statements,
    }
    return {
        field: readers[field](record.get(column, column)) for field, column in columns.named.items()
    }


def _question(cell: Any) -> dict[str, Any]:
    """Sentences with a question at their end, as ProsQA has them. An article may be left out."""
    sentences = _SENTENCE.findall(cell) if isinstance(cell, str) else []
    if not sentences or not sentences[-1].endswith("?"):
        raise ValueError(f"question: {cell!r} is no sentences with a question at their end")
    return {"facts": sentences[:-1], "question": sentences[-1]}


def _statements(cell: Any) -> Any:
    # Cut between sentences alone: what is no statement is left for the schema to refuse.
    return re.split(r"(?<=\.)\s+", cell.strip()) if isinstance(cell, str) else cell


def _numbers(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    if _LIST.fullmatch(cell.strip()) is None:
        raise ValueError(f"numbers: {cell!r} is no list of whole numbers, such as 4 16 25 82")
    return [int(number) for number in re.findall(r"[0-9]+", cell)]


def _target(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    if not (cell.strip().isascii() and cell.strip().isdecimal()):
        raise ValueError(f"target: {cell!r} is no whole number")
    return int(cell)


def _rows(cell: Any) -> Any:
    """Rows in one text: separated by line ends or /, or a square in one piece."""
    if not isinstance(cell, str):
        return cell
    if separated := [row for row in re.split(r"[/\n]", cell.strip()) if row]:
        if len(separated) > 1:
            return separated
        side = isqrt(len(cell.strip()))
        return [cell.strip()[start : start + side] for start in range(0, len(cell.strip()), side)]
    raise ValueError("grid: is empty")
