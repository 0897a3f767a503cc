"""The rules of each task: every legal step from a state, for solvers without a model."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from stepback_core.tasks import (
    CountdownProblem,
    DeductionProblem,
    KnightsProblem,
    MazeProblem,
    SudokuProblem,
)
from stepback_core.tasks.cells import Cell, cell_name
from stepback_core.tasks.countdown.arithmetic import State
from stepback_core.tasks.countdown.arithmetic import moves as equations
from stepback_core.tasks.deduction.graph import Graph, write_sentence
from stepback_core.tasks.deduction.proof import Direction, Place, moves
from stepback_core.tasks.knights.statements import people_left, people_of, write_role
from stepback_core.tasks.maze.paths import GOAL, START, find, move_between, read_ways
from stepback_core.tasks.sudoku.grid import Grid, candidates, digits_in
from stepback_training.generators.knights.generation import next_person, possible
from stepback_training.generators.sudoku.errors import step_of

Move = tuple[str, Hashable]
"""A legal step and the state after it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """One problem as a tree of states."""

    start: Hashable
    moves: Callable[[Any], list[Move]]
    """Legal steps that a solver tries from a state; none where a path ends. Every one;
    but of Sudoku those in one cell, and of knights those about one person."""
    is_goal: Callable[[Any], bool]
    cost: Callable[[str], int]
    """Tokens of a step."""


def rules_of(
    problem: BaseModel,
    cost: Callable[[str], int],
    *,
    narrowest: bool = False,
    direction: Direction = Direction.FORWARD,
) -> Rules:
    if isinstance(problem, CountdownProblem):
        return _countdown(problem, cost)
    if isinstance(problem, MazeProblem):
        return _maze(problem, cost)
    if isinstance(problem, DeductionProblem):
        return _deduction(problem, cost, direction)
    if isinstance(problem, KnightsProblem):
        return _knights(problem, cost, narrowest=narrowest)
    assert isinstance(problem, SudokuProblem)
    return _sudoku(problem, cost, narrowest=narrowest)


def _countdown(problem: CountdownProblem, cost: Callable[[str], int]) -> Rules:
    def following(state: State) -> list[Move]:
        return list(equations(state))

    goal = (problem.target,)
    return Rules(tuple(sorted(problem.numbers)), following, lambda state: state == goal, cost)


def _maze(problem: MazeProblem, cost: Callable[[str], int]) -> Rules:
    """A state is the way so far: a cell may not be entered twice."""
    ways, goal = read_ways(problem.rows), find(problem.rows, GOAL)

    def following(way: tuple[Cell, ...]) -> list[Move]:
        here = way[-1]
        return [
            (move_between(here, cell) + cell_name(cell), (*way, cell))
            for cell in ways[here]
            if cell not in way
        ]

    return Rules((find(problem.rows, START),), following, lambda way: way[-1] == goal, cost)


def _deduction(
    problem: DeductionProblem, cost: Callable[[str], int], direction: Direction
) -> Rules:
    graph = Graph.of(problem)

    def following(place: Place) -> list[Move]:
        return [
            (write_sentence(sentence), after) for sentence, after in moves(graph, place, direction)
        ]

    start = Place.before_the_first_step(graph)
    return Rules(start, following, lambda place: place.is_answered, cost)


def _knights(problem: KnightsProblem, cost: Callable[[str], int], *, narrowest: bool) -> Rules:
    statements = problem.parsed
    people = people_of(statements)

    def following(known: frozenset[tuple[str, bool]]) -> list[Move]:
        roles = dict(known)
        left = people_left(statements, roles)
        if not left:
            return []
        person = (next_person(statements, roles) if narrowest else None) or left[0]
        return [
            (write_role(person, role), known | {(person, role)})
            for role in possible(statements, roles, person)
        ]

    return Rules(frozenset(), following, lambda known: len(known) == len(people), cost)


def _sudoku(problem: SudokuProblem, cost: Callable[[str], int], *, narrowest: bool) -> Rules:
    def following(grid: Grid) -> list[Move]:
        masks = candidates(grid)
        if not masks:
            return []
        place = min(masks, key=lambda p: masks[p].bit_count()) if narrowest else min(masks)
        return [
            (step_of(grid, place, digit), (*grid[:place], digit, *grid[place + 1 :]))
            for digit in digits_in(masks[place])
        ]

    return Rules(problem.grid, following, lambda grid: 0 not in grid, cost)
