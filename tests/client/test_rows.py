"""Problems as rows of the libraries that people keep their data in."""

import json
from collections import namedtuple
from collections.abc import Iterator, Mapping
from typing import Any

import numpy
import pytest
import torch
from pydantic import ValidationError

from stepback_client import solve_body
from stepback_core.schemas import SolveRequest

FIELDS = {"numbers": [4, 16, 25, 82], "target": 95}
Row = namedtuple("Row", ["numbers", "target"])


# As pandas' `itertuples` makes them: the number of the row comes first.
Numbered = namedtuple("Pandas", ["Index", "numbers", "target"], module="pandas.core.frame")


class NAType:
    """What pandas has for a missing value in a column of integers."""


class Series:
    """Has what a row of pandas has and `dict` does not know: it is no mapping."""

    def to_dict(self) -> dict[str, Any]:
        return {"numbers": numpy.array(FIELDS["numbers"]), "target": numpy.int64(95)}


class LazyRow(Mapping[str, Any]):
    """Decodes its fields when they are asked for, as a row of datasets does."""

    def __getitem__(self, key: str) -> Any:
        return FIELDS[key]

    def __iter__(self) -> Iterator[str]:
        return iter(FIELDS)

    def __len__(self) -> int:
        return len(FIELDS)


RECORD = numpy.array(
    [([4, 16, 25, 82], 95)], dtype=[("numbers", numpy.int32, 4), ("target", numpy.int16)]
)[0]

ROWS = {
    "a dictionary": FIELDS,
    "numpy within": {"numbers": list(numpy.array(FIELDS["numbers"])), "target": numpy.uint8(95)},
    "a record of numpy": RECORD,
    "a series": Series(),
    "a lazy row": LazyRow(),
    "a named tuple": Row((4, 16, 25, 82), numpy.int64(95)),
    "a named tuple with its number": Numbered(7, numpy.array(FIELDS["numbers"]), 95),
    "tensors": {"numbers": torch.tensor(FIELDS["numbers"]), "target": torch.tensor(95)},
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_is_a_problem(row: Any) -> None:
    body = solve_body(row, {"seed": numpy.int64(3), "temperature": numpy.float32(0.5)})  # type: ignore[typeddict-item]
    assert body == {"task": "countdown", "problem": FIELDS, "seed": 3, "temperature": 0.5}
    json.dumps(body)


@pytest.mark.parametrize("missing", [float("nan"), numpy.float64("nan"), NAType()])
def test_a_missing_value_is_none(missing: Any) -> None:
    problem = {"words": ["b", "a"], "source": missing}
    assert solve_body(problem, {"task": "sorting"})["problem"] == problem | {"source": None}


def test_a_task_that_is_not_known_here_is_the_servers_to_check() -> None:
    body = solve_body({"words": ["b", "a"]}, {"task": "sorting"})
    assert body == {"task": "sorting", "problem": {"words": ["b", "a"]}}
    assert SolveRequest.model_validate(body).task == "sorting"


@pytest.mark.parametrize("problem", [{"words": ["b", "a"]}, {}, {"target": 95}, [FIELDS], "4,16"])
def test_what_fits_no_task_needs_one_by_name(problem: Any) -> None:
    with pytest.raises(ValidationError, match=r"task|problem"):
        solve_body(problem, {})
