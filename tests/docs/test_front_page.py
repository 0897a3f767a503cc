"""The README: one screen, few numbers, and those that it has agree with the pages."""

import re
from pathlib import Path

from stepback_client import Client, CountdownProblem
from stepback_core.schemas import Outcome
from stepback_core.tasks.countdown.arithmetic import reachable, replay
from stepback_core.tasks.countdown.checker import Countdown

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs/results.md").read_text(encoding="utf-8")
_PROBLEMS = 300
"""Problems of each kind in the tables of the results."""


def row(page: str, *beginning: str) -> dict[str, str]:
    """The first row of a page that begins with these cells, by the names of its columns."""
    header: list[str] = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells
        elif tuple(cells[: len(beginning)]) == beginning:
            return dict(zip(header, cells, strict=True))
    raise AssertionError(f"no row begins with {beginning}")


def percent(*cells: str) -> float:
    """Per cent solved of all problems, from the shares of kinds with the same number of them."""
    hits = sum(round(float(cell.split()[0]) * _PROBLEMS / 100) for cell in cells)
    return 100 * hits / (_PROBLEMS * len(cells))


def commands(page: str) -> list[str]:
    """The six commands from a base model to an answer."""
    block = re.search(
        r"run by tests/training/test_import.py -->\n```sh\n(.*?)\n```", page, re.DOTALL
    )
    assert block
    return block[1].splitlines()


def test_it_is_one_screen_with_few_numbers() -> None:
    assert len(README.splitlines()) <= 120
    assert len(re.findall(r"[0-9]+(?:[.,][0-9]+)*", README)) <= 40


def test_its_table_is_that_of_the_results() -> None:
    kinds = ["Countdown, seen", "Countdown, new"]
    columns = ["greedy", "8 samples: likelihood", "best-of-N, checker", "best-first, checker"]
    found = [row(RESULTS, kind) for kind in kinds]
    measured = [percent(*(each[column] for each in found)) for column in columns]
    blind = RESULTS.partition("Best-first search without a checker, for 192 tokens")[2]
    measured.insert(2, percent(*(row(blind, kind)["likelihood"] for kind in kinds)))
    measured.append(percent(*(row(RESULTS, kind, "depth-first")["500"] for kind in kinds)))
    _, *shown = row(README, "Countdown").values()
    for cell, value in zip(shown, measured, strict=True):
        assert abs(float(cell) - value) <= (0.051 if "." in cell else 0.51)


def test_its_six_commands_are_those_of_the_page_that_a_test_runs() -> None:
    page = (ROOT / "docs/base-models.md").read_text(encoding="utf-8")
    # The page pins the package's version.
    assert commands(README) == [re.sub(r"==[\d.]+", "", each) for each in commands(page)]


def test_its_search_is_what_the_bundled_checkpoint_does(server: str) -> None:
    """It takes back a step that is legal and a dead end, and then solves the problem."""
    block = re.search(r"```\n([\d,]+) to make (\d+)\n(.*?)\n```", README, re.DOTALL)
    assert block
    problem = CountdownProblem(
        numbers=[int(number) for number in block[1].split(",")], target=int(block[2])
    )
    assert problem == Countdown.example
    [taken_back, *steps] = [line.split()[0] for line in block[3].splitlines()]
    with Client(server) as client:
        result = client.solve(problem, tree=True)
    assert result.answer and result.answer.steps == steps and result.status == "solved"
    [struck] = [node for node in result.tree or [] if node.outcome is Outcome.BACKTRACK]
    assert struck.steps == [taken_back]
    left, _ = replay(problem.numbers, struck.steps)
    assert problem.target not in reachable(left)
