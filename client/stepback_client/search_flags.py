"""Flags of a search, for the commands that search, and the options that they give."""

import argparse

from stepback_client.connection import DEFAULT_URL
from stepback_client.environment import server_url
from stepback_client.request import SolveOptions
from stepback_core.schemas import Rollback, Sampling, Select, Strategy

# Flags that are fields of the request, sent only where given.
_OPTIONS = (
    "steps",
    "strategy",
    "breadth",
    "backtracks",
    "sampling",
    "rollback",
    "widening",
    "greedy_first",
    "ignore_marker",
    "temperature",
    "seed",
    "select",
    "scorer",
    "tokens",
    "seconds",
    "answer_tokens",
)


def add_search_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the controller's address and of the search."""
    parser.add_argument(
        "--url",
        default=server_url(),
        help=f"the controller; STEPBACK_URL or {DEFAULT_URL} if left out",
    )
    parser.add_argument(
        "--step",
        dest="steps",
        action="append",
        metavar="STEP",
        help="a step that the search starts from; several in order",
    )
    parser.add_argument("--strategy", choices=[*Strategy], type=str)
    parser.add_argument("--breadth", type=int, help="N, samples of one expansion")
    parser.add_argument("--backtracks", type=int, help="b, rounds of backtracking")
    parser.add_argument("--sampling", choices=[*Sampling], type=str)
    parser.add_argument("--rollback", choices=[*Rollback], type=str)
    parser.add_argument(
        "--no-widening",
        dest="widening",
        action="store_const",
        const=False,
        help="ask for all samples at once",
    )
    parser.add_argument(
        "--greedy-first", action="store_const", const=True, help="make the first sample greedy"
    )
    parser.add_argument(
        "--ignore-marker", action="store_const", const=True, help="search without P(marker)"
    )
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--select", choices=[*Select], type=str)
    parser.add_argument("--scorer", help="a scorer of the server's, by its name")
    parser.add_argument("--tokens", type=int, help="budget in generated tokens")
    parser.add_argument("--seconds", type=float, help="budget in seconds of searching")
    parser.add_argument("--answer-tokens", type=int, help="the longest answer, in tokens")


def search_options(given: argparse.Namespace) -> SolveOptions:
    """Return the options that the flags of `add_search_flags` give."""
    options: SolveOptions = {}
    for name in _OPTIONS:
        # Only what was given: the server's defaults are its own.
        if getattr(given, name) is not None:
            options[name] = getattr(given, name)
    return options
