"""Wrong steps of a deduction, one function for each kind that training data is made of."""

from collections.abc import Sequence
from random import Random

from stepback_core.tasks.base import Reason
from stepback_core.tasks.deduction.graph import Graph, Sentence, read_sentence, write_sentence
from stepback_core.tasks.deduction.proof import (
    Direction,
    Place,
    can_finish,
    ends,
    enter,
    moves,
    shown_answer,
)

_SHARE_TOWARDS_AN_ANSWER = 0.5


def exploration_error(graph: Graph, place: Place, direction: Direction, rng: Random) -> str | None:
    """A sentence of the problem that leads to neither answer; None if there is none."""
    found = moves(graph, place, direction)
    dead = [sentence for sentence, after in found if not can_finish(graph, after)]
    return write_sentence(rng.choice(dead)) if dead else None


def computational_error(
    graph: Graph, place: Place, direction: Direction, rng: Random
) -> str | None:
    """A wrong inference: what no sentence says of where the steps have led. Half of the time it
    goes to where the goal is near: an answer, or backward the name."""
    towards = _towards_the_goal(graph, direction, rng)
    if direction is Direction.FORWARD:
        concepts = {after for ahead in graph.edges.values() for after in ahead}
        made = [(place.node, to) for to in sorted(concepts) if towards is None or to in towards]
    elif shown_answer(graph, place) is not None:
        made = [(graph.subject, answer) for answer in graph.answers]
    else:
        nodes = [node for node in sorted(graph.edges) if towards is None or node in towards]
        made = [(node, end) for end in ends(graph, place) for node in nodes if node != end]
    return _refused(graph, place, made, Reason.UNSTATED, rng)


def rule_violation(graph: Graph, place: Place, rng: Random) -> str | None:
    """A sentence of the problem that does not go on from where the steps have led."""
    sentences = [(node, after) for node in graph.edges for after in graph.after(node)]
    return _refused(graph, place, sentences, Reason.UNCONNECTED, rng)


def _towards_the_goal(graph: Graph, direction: Direction, rng: Random) -> set[str] | None:
    """Where the goal is near, half of the time; else None, for anywhere."""
    if rng.random() >= _SHARE_TOWARDS_AN_ANSWER:
        return None
    if direction is Direction.BACKWARD:
        return graph.reachable([graph.subject])
    nodes = {*graph.edges, *(after for ahead in graph.edges.values() for after in ahead)}
    return {node for node in nodes if graph.leads_to_an_answer(node)}


def _refused(
    graph: Graph, place: Place, sentences: Sequence[Sentence], reason: Reason, rng: Random
) -> str | None:
    """One of the sentences that are refused here for a reason."""
    steps = [write_sentence(sentence) for sentence in sentences]
    refused = [step for step in steps if enter(graph, place, step) is reason]
    return rng.choice(refused) if refused else None


def believe(graph: Graph, steps: Sequence[str], direction: Direction) -> Place:
    """Return the place that the steps reach if each one is believed."""
    place = Place.before_the_first_step(graph)
    for step in steps:
        after = enter(graph, place, step)
        if isinstance(after, Place):
            place = after
        elif (said := read_sentence(step)) is not None:
            place = _believed(graph, place, said, direction)
    return place


def _believed(graph: Graph, place: Place, said: Sentence, direction: Direction) -> Place:
    node, concept = said
    if node == graph.subject and concept in graph.answers:
        return Place(concept, is_answered=True)
    if direction is Direction.FORWARD:
        return Place(concept)
    goal = place.goal or graph.answers[0]
    return Place(node, goal, tuple(each for each in place.untried if each != goal))


def follow_up(graph: Graph, place: Place, direction: Direction, rng: Random) -> str | None:
    """A sentence on from where wrong steps claim to be, half of the time towards the goal; None
    if there is none, or an answer was given."""
    if place.is_answered:
        return None
    shown = shown_answer(graph, place)
    if shown is not None:
        return write_sentence((graph.subject, shown))
    ahead = [sentence for sentence, _ in moves(graph, place, direction)]
    towards = _towards_the_goal(graph, direction, rng)
    if towards is not None:
        new = 1 if direction is Direction.FORWARD else 0
        ahead = [sentence for sentence in ahead if sentence[new] in towards] or ahead
    return write_sentence(rng.choice(ahead)) if ahead else None


def false_claim(graph: Graph, place: Place, rng: Random) -> str | None:
    """An answer that the steps have not shown; None once an answer was given."""
    if place.is_answered:
        return None
    stated = (shown_answer(graph, place), *graph.after(graph.subject))
    unshown = [answer for answer in graph.answers if answer not in stated]
    return write_sentence((graph.subject, rng.choice(unshown))) if unshown else None
