"""A form of a question that is the same whatever its words and the order of its sentences are."""

from collections import defaultdict

from stepback_core.tasks.deduction.graph import Graph, is_name
from stepback_training.generators.refinement import Colours, certificate


def renamed_form(graph: Graph) -> str:
    """A certificate of the graph by colour refinement: that of all graphs that differ from it by
    names alone."""
    first = {node: _first_colour(graph, node) for node in _nodes(graph)}
    return certificate(first, lambda colours: _around(graph, colours))


def _around(graph: Graph, colours: Colours) -> dict[str, list[str]]:
    """Give each node's colour, and those of the nodes before and after it."""
    ahead, behind = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for node, all_after in graph.edges.items():
        for after in all_after:
            ahead[node].append(colours[after])
            behind[after].append(colours[node])
    return {
        node: [colour, *sorted(ahead[node]), "from", *sorted(behind[node])]
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
