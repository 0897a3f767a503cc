"""Wrong steps of a deduction, one function for each kind that training data is made of."""

from collections.abc import Sequence
from random import Random

from stepback_core.tasks.base import Reason
from stepback_core.tasks.deduction.checker import Place, enter
from stepback_core.tasks.deduction.graph import Graph, Sentence, read_sentence, write_sentence

_SHARE_TOWARDS_AN_ANSWER = 0.5


def exploration_error(graph: Graph, place: Place, rng: Random) -> str | None:
    """A sentence of the problem that leads to neither answer; None if there is none."""
    dead = [after for after in graph.after(place.node) if not graph.leads_to_an_answer(after)]
    return write_sentence((place.node, rng.choice(dead))) if dead else None


def computational_error(graph: Graph, place: Place, rng: Random) -> str | None:
    """A wrong inference: what no sentence says of where the steps have led. Half of the time it
    goes to where an answer is near."""
    concepts = sorted({after for ahead in graph.edges.values() for after in ahead})
    if rng.random() < _SHARE_TOWARDS_AN_ANSWER:
        concepts = [node for node in concepts if graph.leads_to_an_answer(node)]
    return _refused(graph, place, [(place.node, to) for to in concepts], Reason.UNSTATED, rng)


def rule_violation(graph: Graph, place: Place, rng: Random) -> str | None:
    """A sentence of the problem that does not go on from where the steps have led."""
    sentences = [(node, after) for node in graph.edges for after in graph.after(node)]
    return _refused(graph, place, sentences, Reason.UNCONNECTED, rng)


def _refused(
    graph: Graph, place: Place, sentences: Sequence[Sentence], reason: Reason, rng: Random
) -> str | None:
    """One of the sentences that are refused here for a reason."""
    steps = [write_sentence(sentence) for sentence in sentences]
    refused = [step for step in steps if enter(graph, place, step) is reason]
    return rng.choice(refused) if refused else None


def believe(graph: Graph, steps: Sequence[str]) -> Place:
    """Return the place that the steps reach if each one is believed."""
    place = Place(graph.subject)
    for step in steps:
        if (said := read_sentence(step)) is not None:
            is_answer = said[0] == graph.subject and said[1] in graph.answers
            place = Place(said[1], is_answered=is_answer)
    return place


def follow_up(graph: Graph, place: Place, rng: Random) -> str | None:
    """A sentence on from where wrong steps claim to be, half of the time towards an answer; None
    if there is none, or an answer was given."""
    if place.is_answered:
        return None
    if place.node in graph.answers:
        return write_sentence((graph.subject, place.node))
    ahead = list(graph.after(place.node))
    if rng.random() < _SHARE_TOWARDS_AN_ANSWER:
        ahead = [node for node in ahead if graph.leads_to_an_answer(node)] or ahead
    return write_sentence((place.node, rng.choice(ahead))) if ahead else None


def false_claim(graph: Graph, place: Place, rng: Random) -> str | None:
    """An answer that the steps have not shown; None once an answer was given."""
    if place.is_answered:
        return None
    stated = (place.node, *graph.after(graph.subject))
    unshown = [answer for answer in graph.answers if answer not in stated]
    return write_sentence((graph.subject, rng.choice(unshown))) if unshown else None
