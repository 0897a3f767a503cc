"""Wrong steps of Countdown, one function for each kind that training data is made of."""

from collections.abc import Callable
from random import Random

from stepback_core.tasks.countdown.arithmetic import State, moves, reachable, results
from stepback_training.generators.countdown.small_results import can_reach

_STRANGERS = range(1, 100)
_SHARE_OF_FLOORED_DIVISIONS = 0.2
_SHARE_TOWARDS_THE_TARGET = 0.5
_SHARE_OF_NEAR_CLAIMS = 0.5
# Numbers of a state up to which all of its steps are looked at; of more, a few drawn ones.
_MOST_WITH_EVERY_STEP = 4
_STEPS_TRIED = 12


def exploration_error(state: State, target: int, unseen: frozenset[int], rng: Random) -> str | None:
    """A legal step after which the target cannot be reached; None if none is found."""
    if len(state) > _MOST_WITH_EVERY_STEP:
        return _drawn_dead_end(state, target, rng)
    dead = [
        step
        for step, after in moves(state)
        if target not in reachable(after) and not ends_in(unseen, state, step)
    ]
    return rng.choice(dead) if dead else None


def _drawn_dead_end(state: State, target: int, rng: Random) -> str | None:
    """A dead end among a few drawn steps: to judge every step of many numbers takes a second."""
    drawn = list(moves(state))
    rng.shuffle(drawn)
    tried = drawn[:_STEPS_TRIED]
    return next((step for step, after in tried if not can_reach(after, target)), None)


def ends_in(unseen: frozenset[int], state: State, step: str) -> bool:
    """Tell whether a step ends the path in a target that training never shows as right."""
    # As a wrong step it would teach that such an end is always wrong.
    result = step.rpartition("=")[2]
    return len(state) <= 2 and any(result == str(target) for target in unseen)


def computational_error(state: State, unseen: frozenset[int], rng: Random) -> str:
    """An equation whose result is wrong."""
    return _draw_unless(unseen, state, lambda: _wrong_equation(state, rng))


def _wrong_equation(state: State, rng: Random) -> str:
    a, b = sorted(rng.sample(state, 2), reverse=True)
    if b and a % b and rng.random() < _SHARE_OF_FLOORED_DIVISIONS:
        return f"{a}/{b}={a // b}"
    step, _ = rng.choice(list(moves(state)))
    equation, _, right = step.partition("=")
    result = int(right)
    while True:
        # Mostly near misses, as a model makes them; now and then a digit elsewhere.
        scale = rng.choice((1, 1, 1, 10, 10, 100))
        wrong = result + scale * rng.choice((-3, -2, -1, 1, 2, 3))
        if wrong >= 0:
            return f"{equation}={wrong}"


def rule_violation(state: State, met: State, unseen: frozenset[int], rng: Random) -> str:
    """A step with a number that is not there: used already, or never there. `met` are the numbers
    of the states on the way here."""
    return _draw_unless(unseen, state, lambda: _stranger_step(state, met, rng))


def _draw_unless(unseen: frozenset[int], state: State, draw: Callable[[], str]) -> str:
    while ends_in(unseen, state, step := draw()):
        pass
    return step


def _stranger_step(state: State, met: State, rng: Random) -> str:
    while True:
        stranger = rng.choice(met) if rng.random() < 0.5 else rng.choice(_STRANGERS)
        own = rng.choice(state)
        a, b = max(stranger, own), min(stranger, own)
        if _is_available(state, (a, b)):
            continue
        op, result = rng.choice(list(results(a, b)))
        return f"{a}{op}{b}={result}"


def _is_available(state: State, operands: tuple[int, int]) -> bool:
    return all(state.count(operand) >= operands.count(operand) for operand in operands)


def follow_up(state: State, target: int, unseen: frozenset[int], rng: Random) -> str | None:
    """Draw a legal step from a state that wrong steps claim: half of the time one from which the
    target seems to be in reach, if there is any; None if no step is left."""
    legal = [(step, after) for step, after in moves(state) if not ends_in(unseen, state, step)]
    if rng.random() < _SHARE_TOWARDS_THE_TARGET:
        legal = [(step, after) for step, after in legal if can_reach(after, target)] or legal
    return rng.choice(legal)[0] if legal else None


def false_claim(state: State, target: int, unseen: frozenset[int], rng: Random) -> str | None:
    """Return an equation of the last two numbers with the target as its false result.

    None if more numbers are left, or where training may not show that end.
    """
    if len(state) != 2 or target in unseen:
        return None
    b, a = state
    values: dict[str, float] = dict(results(a, b))
    if b:
        values["/"] = a / b  # Where it is not exact too: a claim is wrong anyway.
    wrong = {op: abs(value - target) for op, value in values.items() if value != target}
    # A model's own false claims are mostly the equation that comes closest.
    is_near = rng.random() < _SHARE_OF_NEAR_CLAIMS
    op = min(wrong, key=lambda op: wrong[op]) if is_near else rng.choice(list(wrong))
    return f"{a}{op}{b}={target}"
