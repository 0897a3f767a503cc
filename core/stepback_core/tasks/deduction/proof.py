"""A proof as it is written: the place that its steps have led to, and which steps are legal there.

Forward a proof goes from the question's name to an answer: each step begins with what the last one
ended in. Backward it goes from an answer to the name: each step ends in what the last one began
with. Either answer may come first. At another name the proof may begin once more, from an answer
that it has not begun from. One proof does not go both ways.
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

    node: str | None
    """The subject at first, then what the last step ended in; backward what it began with. None
    once a proof has come to another name: it may only begin once more."""
    origin: str | None = None
    """The answer that the steps go back from; None forward, and where a proof may begin."""
    untried: tuple[str, ...] = ()
    """Answers that a proof may still begin from; none forward."""
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
    """Every legal step of one direction, and the place after it. To give an answer that is shown
    is a step of the direction that has shown it."""
    sentences: list[Sentence] = []
    if direction is Direction.BACKWARD:
        sentences += [(node, end) for end in ends(graph, place) for node in graph.before(end)]
    elif place.node is not None and place.origin is None:
        sentences += [(place.node, concept) for concept in graph.after(place.node)]
    shown = shown_answer(graph, place)
    if shown is not None and (place.origin is not None) == (direction is Direction.BACKWARD):
        sentences.append((graph.subject, shown))
    found = [(sentence, _after(graph, place, sentence)) for sentence in sentences]
    return [(sentence, after) for sentence, after in found if isinstance(after, Place)]


def ends(graph: Graph, place: Place) -> tuple[str, ...]:
    """Concepts that a step backward may end in here."""
    if place.node is None or place.origin is None:
        return place.untried
    return () if place.node == graph.subject else (place.node,)


def shown_answer(graph: Graph, place: Place) -> str | None:
    """The answer that the steps have led to, which is now to be given; None if there is none."""
    if place.is_answered:
        return None
    if place.origin is not None:
        return place.origin if place.node == graph.subject else None
    return place.node if place.node in graph.answers else None


def can_finish(graph: Graph, place: Place) -> bool:
    """Tell if legal steps lead on to an answer."""
    if place.node is not None and place.origin is None:
        return graph.leads_to_an_answer(place.node)
    shown = graph.reachable([graph.subject])
    if place.node in shown:
        return True
    # Else a name must be come to, from which the proof can begin once more.
    names = [node for node in graph.edges if is_name(node)]
    is_at_a_name = place.node is None or place.node in graph.reachable(names)
    return is_at_a_name and not shown.isdisjoint(place.untried)


def _after(graph: Graph, place: Place, sentence: Sentence) -> Place | Reason:
    node, concept = sentence
    if node == graph.subject and concept == shown_answer(graph, place):
        return Place(concept, is_answered=True)
    if not graph.states(sentence):
        # A name is what the steps have shown, too; only an answer may say so again.
        is_shown = place.origin is None and node == graph.subject and concept == place.node
        return Reason.UNCONNECTED if is_shown else Reason.UNSTATED
    if place.is_answered:
        return Reason.UNCONNECTED
    if place.origin is None and node == place.node:
        return Place(concept, is_answered=node == graph.subject and concept in graph.answers)
    if concept not in ends(graph, place):
        return Reason.UNCONNECTED
    origin = place.origin or concept
    if node == graph.subject and concept == origin:
        return Place(concept, is_answered=True)
    untried = tuple(answer for answer in place.untried if answer != origin)
    if is_name(node) and node != graph.subject:
        return Place(None, untried=untried)
    return Place(node, origin, untried)
