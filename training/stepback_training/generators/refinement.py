"""A certificate by colour refinement: the same for structures that differ by names alone.

Nodes are told apart by the colours around them until no round tells more apart (Weisfeiler and
Leman, 1968). Should unequal structures share a certificate, they only come to the same side of a
split.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

Colours = Mapping[str, str]
"""A text for each node; nodes of one colour are not told apart."""


def certificate(first: Colours, around: Callable[[Colours], Mapping[str, Iterable[str]]]) -> str:
    """Refine colours, and return a digest of how many nodes have each.

    `around` gives for each node its own colour and those about it, in an order that does not
    depend on names."""
    colours = first
    while True:
        finer = {node: digest(parts) for node, parts in around(colours).items()}
        if len({*finer.values()}) <= len({*colours.values()}):
            break
        colours = finer
    counted = sorted(Counter(finer.values()).items())
    return digest(f"{colour}:{number}" for colour, number in counted)


def digest(parts: Iterable[str]) -> str:
    return sha256(",".join(parts).encode()).hexdigest()
