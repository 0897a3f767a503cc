"""Maze: what a maze is, the two verdicts, dead ends, and the split under symmetries."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stepback_core.tasks import TASKS, MazeProblem, Reason
from stepback_core.tasks.cells import symmetries
from stepback_core.tasks.maze.paths import distances, find, read_ways, target
from stepback_training.generators import GENERATORS, ErrorKind, Split

TASK = GENERATORS["maze"]
CHECKER = TASKS["maze"]
PROBLEM: MazeProblem = CHECKER.example
PATH = ["vDa", ">Db", ">Dc", "^Cc", ">Cd", "^Bd", "^Ad", "<Ac", "vBc", "<Bb"]
LOOP = MazeProblem(rows=["#######", "#S....#", "#.#.#.#", "#...#G#", "#######"])


def draw(seed: int, **options: Any) -> MazeProblem:
    return next(TASK.with_options(options).stream(Split.TRAIN, Random(seed)))


def test_the_example_reads_as_documented() -> None:
    assert CHECKER.prompt(PROBLEM) == "maze:Ca-Bb:A2c6cB4395C7869D3ab8"
    assert TASK.reference_paths(PROBLEM) == [PATH]
    assert str(CHECKER.picture(PROBLEM, PATH)).splitlines() == [
        "#########",
        "#   #ooo#",
        "### #o#o#",
        "# #Goo#o#",
        "# #####o#",
        "#S  #ooo#",
        "#o###o###",
        "#ooooo  #",
        "#########",
    ]


@pytest.mark.parametrize(
    ("steps", "reason", "lax"),
    [
        ([], Reason.NOT_REACHED, False),
        (PATH[:-1], Reason.NOT_REACHED, False),
        ([">Cb"], Reason.NOT_REACHED, False),
        (["<Ca"], Reason.WRONG_CELL, False),
        (["vDb"], Reason.WRONG_CELL, False),
        (["vDa", "vEa"], Reason.WALL, False),
        ([">Cb", ">Cc"], Reason.WALL, False),
        ([">Cb", "<Ca", *PATH], Reason.REVISITED, True),
        ([">Cb", "<Ca"], Reason.REVISITED, False),
        ([*PATH, ">Bc"], Reason.REVISITED, False),
        (["Da"], Reason.MALFORMED_STEP, False),
        (["vDa "], Reason.MALFORMED_STEP, False),
        (["vda"], Reason.MALFORMED_STEP, False),
        (["xDa"], Reason.MALFORMED_STEP, False),
    ],
)
def test_refusals(steps: list[str], reason: Reason, lax: bool) -> None:
    verdict = CHECKER.check(PROBLEM, steps)
    assert (verdict.strict, verdict.reason, verdict.lax) == (False, reason, lax)


def test_of_several_ways_the_shortest_are_the_references() -> None:
    assert TASK.reference_paths(LOOP) == [[">Ab", ">Ac", "vBc"]]
    around = ["vBa", ">Bb", "^Ab", ">Ac", "vBc"]
    assert CHECKER.check(LOOP, around).strict


def test_a_state_is_the_cell_whatever_the_way() -> None:
    assert (
        CHECKER.state_key(LOOP, [">Ab", "vBb"]) == CHECKER.state_key(LOOP, ["vBa", ">Bb"]) == (1, 1)
    )
    assert CHECKER.state_key(LOOP, [">Ab", "<Aa"]) is None


def test_a_dead_end_is_a_branch_and_not_only_its_last_cell() -> None:
    """In the loop, going round and back to the start's side closes the way to the goal."""
    dead = {TASK.wrong_step(LOOP, ["vBa"], ErrorKind.EXPLORATION, Random(n)) for n in range(20)}
    assert dead == {None}
    dead = {TASK.wrong_step(LOOP, [">Ab"], ErrorKind.EXPLORATION, Random(n)) for n in range(20)}
    assert dead == {"vBb"}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0]))
def test_an_exploration_error_leads_nowhere(seed: int, loops: float) -> None:
    rng = Random(seed)
    problem = draw(seed, loops=loops)
    path = TASK.reference_paths(problem)[0]
    prefix = path[: rng.randrange(len(path))]
    wrong = TASK.wrong_step(problem, prefix, ErrorKind.EXPLORATION, rng)
    if wrong is not None:
        assert not _can_be_finished(problem, [*prefix, wrong])


def _can_be_finished(problem: MazeProblem, steps: list[str]) -> bool:
    """By trying every way on, with nothing but the checker."""
    if CHECKER.check(problem, steps).strict:
        return True
    here: Any = CHECKER.state_key(problem, steps)
    ahead = [
        f"{move}{chr(65 + row)}{chr(97 + column)}"
        for move in "^>v<"
        for row, column in [target(here, move)]
        if row >= 0 and column >= 0
    ]
    return any(
        CHECKER.check_step(problem, steps, step) is None
        and _can_be_finished(problem, [*steps, step])
        for step in ahead
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(3, 9), st.integers(0, 1))
def test_mazes_are_connected_and_perfect_unless_they_have_loops(
    seed: int, side: int, loops: int
) -> None:
    problem = draw(seed, smallest=side, largest=side, loops=loops)
    ways = read_ways(problem.rows)
    assert len(distances(ways, find(problem.rows, "S"))) == side * side
    passages = sum(map(len, ways.values())) // 2
    assert (passages > side * side - 1) == bool(loops)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_the_split_is_of_the_walls_and_of_all_their_symmetries(seed: int) -> None:
    problem = draw(seed)
    seen = list(symmetries(problem.rows))
    assert len(seen) == 8
    for rows in seen:
        assert TASK.split(MazeProblem(rows=list(rows))) is TASK.split(problem)
    walls = [row.replace("S", ".").replace("G", ".") for row in problem.rows]
    walls[1] = "#S" + walls[1][2:]
    walls[-2] = walls[-2][:-2] + "G#"
    assert TASK.split(MazeProblem(rows=walls)) is TASK.split(problem)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least 3"),
        (["###", "#S#"], "at least 3"),
        (["####", "#SG#", "####"], "both must be odd"),
        (["#####", "#S.G#", "####"], "row 3 has 4 characters, the first has 5"),
        (["#####", "#S..#", "#####"], "0 times G"),
        (["#####", "#S.S#", "#####"], "2 times S"),
        (["#####", "#SGS#", "#####"], "2 times S"),
        (["#####", "#SG.#", "#####"], r"row 2, character 3 is 'G'"),
        (["#.###", "#S.G#", "#####"], r"row 1, character 2 is '\.'"),
        (["#####", "#S.G.", "#####"], r"row 2, character 5 is '\.'"),
        (["#####", "#S.G#", "#...#", "#.#.#", "#####"], r"row 3, character 3 is '\.'"),
        (["#####", "#S.G#", "#.#.#", "#.###", "#####"], r"row 4, character 4 is '#'"),
        (["#####", "#S G#", "#####"], "match pattern"),
        (["#####", "#S.G#\n", "#####"], "match pattern"),
        ([1, 2, 3], "valid string"),
        (["#" * 54] * 3, "at most 53"),
        (["#####"] * 54, "at most 53"),
    ],
)
def test_a_malformed_maze_is_refused_with_what_is_wrong(rows: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MazeProblem.model_validate({"rows": rows})


def test_the_largest_maze_is_taken() -> None:
    problem = draw(1, smallest=26, largest=26)
    assert max(map(len, problem.rows)) == len(problem.rows) == 53
    path = TASK.reference_paths(problem)[0]
    assert CHECKER.check(problem, path).strict


@pytest.mark.parametrize(
    "options", [{"smallest": 2}, {"largest": 27}, {"smallest": 9}, {"loops": 2}, {"loops": "x"}]
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TASK.with_options(options)
