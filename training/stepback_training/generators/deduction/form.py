"""A form of a question that is the same whatever its words and the order of its sentences are."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from hashlib import sha256

from stepback_core.tasks.deduction.graph import Graph, is_name

_Colours = dict[str, str]


def renamed_form(graph: Graph) -> str:
    """Return a certificate of the graph by colour refinement.

    Graphs that differ by names alone share it by construction. Should others share it too, they
    only come to the same side of the split.
    """
    colours = {node: _first_colour(graph, node) for node in _nodes(graph)}
    while len({*(finer := _refined(graph, colours)).values()}) > len({*colours.values()}):
        colours = finer
    counted = sorted(Counter(finer.values()).items())
    return _digest(f"{colour}:{number}" for colour, number in counted)


def _refined(graph: Graph, colours: _Colours) -> _Colours:
    """Colours that tell apart what has neighbours of other colours."""
    ahead, behind = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for node, all_after in graph.edges.items():
        for after in all_after:
            ahead[node].append(colours[after])
            behind[after].append(colours[node])
    return {
        node: _digest([colour, *sorted(ahead[node]), "from", *sorted(behind[node])])
        for node, colour in colours.items()
    }


def _nodes(graph: Graph) -> set[str]:
    after = {node for ahead in graph.edges.values() for node in ahead}
    return {*graph.edges, *after, *graph.answers, graph.subject}


def _first_colour(graph: Graph, node: str) -> str:
    if node == graph.subject:
        return "subject"
    if node in graph.answers:
        return "right" if node in graph.reachable([graph.subject]) else "wrong"
    return "name" if is_name(node) else "concept"


def _digest(parts: Iterable[str]) -> str:
    return sha256(",".join(parts).encode()).hexdigest()
