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

_SHARE_TOWARDS_THE_END = 0.5


def exploration_error(graph: Graph, place: Place, direction: Direction, rng: Random) -> str | None:
    """A legal sentence after which no answer can be shown; None if there is none."""
    found = moves(graph, place, direction)
    dead = [sentence for sentence, after in found if not can_finish(graph, after)]
    return write_sentence(rng.choice(dead)) if dead else None


def computational_error(
    graph: Graph, place: Place, direction: Direction, rng: Random
) -> str | None:
    """A wrong inference: what no sentence says of where the steps have led. Half of the time it
    goes to where the proof's end is near; it may be true then, with steps left out."""
    concepts = {concept for ahead in graph.edges.values() for concept in ahead}
    if direction is Direction.FORWARD:
        made = [(place.node, to) for to in sorted(concepts) if place.node is not None]
    elif shown_answer(graph, place) is not None:
        made = [(graph.subject, answer) for answer in graph.answers]
    else:
        nodes = sorted({*graph.edges, *concepts})
        made = [(node, end) for end in ends(graph, place) for node in nodes if node != end]
    if rng.random() < _SHARE_TOWARDS_THE_END:
        made = _towards_the_end(graph, made, direction)
    return _refused(graph, place, made, Reason.UNSTATED, rng)


def rule_violation(graph: Graph, place: Place, rng: Random) -> str | None:
    """A sentence of the problem that does not go on from where the steps have led."""
    sentences = [(node, after) for node in graph.edges for after in graph.after(node)]
    return _refused(graph, place, sentences, Reason.UNCONNECTED, rng)


def _towards_the_end(
    graph: Graph, sentences: Sequence[Sentence], direction: Direction
) -> list[Sentence]:
    """Those that go to where the proof's end is near: an answer, or backward the subject."""
    if direction is Direction.FORWARD:
        return [sentence for sentence in sentences if graph.leads_to_an_answer(sentence[1])]
    near = graph.reachable([graph.subject])
    return [sentence for sentence in sentences if sentence[0] in near]


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
    # A step that ends in an answer begins from it; any other is taken to go on.
    begun = concept if concept in place.untried else place.origin or graph.answers[0]
    return Place(node, begun, tuple(each for each in place.untried if each != begun))


def follow_up(graph: Graph, place: Place, direction: Direction, rng: Random) -> str | None:
    """The answer, if wrong steps claim to have shown it; else a sentence on from where they claim
    to be, half of the time towards the end. None if there is none, or an answer was given."""
    if place.is_answered:
        return None
    shown = shown_answer(graph, place)
    if shown is not None:
        return write_sentence((graph.subject, shown))
    ahead = [sentence for sentence, _ in moves(graph, place, direction)]
    if rng.random() < _SHARE_TOWARDS_THE_END:
        ahead = _towards_the_end(graph, ahead, direction) or ahead
    return write_sentence(rng.choice(ahead)) if ahead else None


def false_claim(graph: Graph, place: Place, rng: Random) -> str | None:
    """An answer that neither steps nor a sentence have shown; None once one was given."""
    if place.is_answered:
        return None
    stated = (shown_answer(graph, place), *graph.after(graph.subject))
    unshown = [answer for answer in graph.answers if answer not in stated]
    return write_sentence((graph.subject, rng.choice(unshown))) if unshown else None
