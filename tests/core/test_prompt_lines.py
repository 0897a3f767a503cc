"""A task's prompt line names its problem again; other text names none."""

from itertools import islice
from random import Random

import pytest

from stepback_core.tasks import TASKS
from stepback_core.tasks.prompt_lines import read_prompt_line
from stepback_training.generators import GENERATORS, Split


@pytest.mark.parametrize("name", TASKS)
def test_each_prompt_names_its_problem_again(name: str) -> None:
    task = TASKS[name]
    for problem in islice(GENERATORS[name].stream(Split.TEST_SEEN, Random(3)), 20):
        line = task.prompt(problem)
        found = read_prompt_line(line, TASKS)
        assert found is not None and found[0] == name
        assert task.prompt(found[1]) == line
        assert read_prompt_line(line, []) is None, "a task that is not served"


def test_the_numbers_may_come_in_any_order() -> None:
    found = read_prompt_line("countdown:82,4,25,16=95", TASKS)
    assert found is not None
    assert TASKS["countdown"].prompt(found[1]) == "countdown:4,16,25,82=95"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "countdown:",
        "countdown:4,16,25,82=",
        "countdown:4,16,25,82=0",
        "countdown:0,16=5",
        "countdown:4,16,25,82=95 please",
        "countdown:٤,16=20",
        "sudoku:A12",
        "sudoku:A11..B....C....D....",
        "maze:Aa-Zz:A6B6",
        "maze:Aa-Ab:A2B",
        "maze:Aa-Ba:A28Bff",
        "knights:",
        "knights:A:B-,",
        "knights:A:B=B",
        "knights:A:B-;B:A+",
        "chess:e4",
    ],
)
def test_other_text_is_no_problem(text: str) -> None:
    assert read_prompt_line(text, TASKS) is None
