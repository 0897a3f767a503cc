"""A proof as it is written: the place that its steps have led to, and which steps are legal there.

Forward a proof goes from the question's name to an answer: each step begins with what the last one
ended in. Backward it goes from an answer to the name: each step ends in what the last one began
with. A proof that has come to another name begins once more, from the other answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from stepback_core.tasks.base import Reason
from stepback_core.tasks.deduction.graph import Graph, Sentence, is_name, read_sentence


class Direction(StrEnum):
    """From where a proof is written."""

    FORWARD = "forward"
    """From the name to an answer."""
    BACKWARD = "backward"
    """From the answers, one after the other, to the name."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place that legal steps have reached."""

    node: str
    """The subject at first, then what the last step ended in; backward what it began with."""
    goal: str | None = None
    """The answer that the steps go back from; None forward, and before the first step."""
    untried: tuple[str, ...] = ()
    """Answers that a proof may still go back from; none forward."""
    is_answered: bool = False

    @classmethod
    def before_the_first_step(cls, graph: Graph) -> "Place":
        return cls(graph.subject, untried=graph.answers)


def follow(graph: Graph, steps: Sequence[str]) -> Place | Reason:
    """Return the place that the steps reach, or why one of them is illegal."""
    place = Place.before_the_first_step(graph)
    for step in steps:
        after = enter(graph, place, step)
        if isinstance(after, Reason):
            return after
        place = after
    return place


def enter(graph: Graph, place: Place, step: str) -> Place | Reason:
    """Return the place after a step, or why the step is illegal."""
    sentence = read_sentence(step)
    if sentence is None:
        return Reason.MALFORMED_STEP
    return _after(graph, place, sentence)


def moves(graph: Graph, place: Place, direction: Direction) -> list[tuple[Sentence, Place]]:
    """Every legal step of one direction, and the place after it."""
    shown = shown_answer(graph, place)
    if shown is not None:
        sentences = [(graph.subject, shown)]
    elif direction is Direction.BACKWARD:
        sentences = [(node, end) for end in ends(graph, place) for node in graph.before(end)]
    else:
        sentences = []
    if direction is Direction.FORWARD:
        sentences = [(place.node, concept) for concept in graph.after(place.node)] + sentences
    found = [(sentence, _after(graph, place, sentence)) for sentence in sentences]
    return [(sentence, after) for sentence, after in found if isinstance(after, Place)]


def ends(graph: Graph, place: Place) -> tuple[str, ...]:
    """What a step backward may end in here."""
    if not is_name(place.node):
        return () if place.goal is None else (place.node,)
    return () if place.goal is not None and place.node == graph.subject else place.untried


def shown_answer(graph: Graph, place: Place) -> str | None:
    """The answer that the steps have led to, which is now to be given; None if there is none."""
    if place.is_answered:
        return None
    if place.goal is not None:
        return place.goal if place.node == graph.subject else None
    return place.node if place.node in graph.answers else None


def can_finish(graph: Graph, place: Place) -> bool:
    """Tell if legal steps lead on to an answer."""
    if place.goal is None:
        return graph.leads_to_an_answer(place.node)
    shown = graph.reachable([graph.subject])
    if place.node in shown:
        return True
    # Another name must be come to, so that the proof can begin once more.
    names = [node for node in graph.edges if is_name(node)]
    return not shown.isdisjoint(place.untried) and place.node in graph.reachable(names)


def _after(graph: Graph, place: Place, sentence: Sentence) -> Place | Reason:
    node, concept = sentence
    if node == graph.subject and concept == shown_answer(graph, place):
        return Place(concept, is_answered=True)
    if not graph.states(sentence):
        # A name is what the steps have shown, too; only an answer may say so again.
        is_shown = place.goal is None and node == graph.subject and concept == place.node
        return Reason.UNCONNECTED if is_shown else Reason.UNSTATED
    goes_on = place.goal is None and node == place.node
    if place.is_answered or not (goes_on or concept in ends(graph, place)):
        return Reason.UNCONNECTED
    if node == graph.subject and concept in graph.answers:
        return Place(concept, is_answered=True)
    if goes_on:
        return Place(concept)
    goal = concept if is_name(place.node) else place.goal
    return Place(node, goal, tuple(each for each in place.untried if each != goal))
