"""`stepback tree`: draw the tree of a search, from its result or by searching."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from stepback_client.client import Client
from stepback_client.errors import StepbackError
from stepback_client.problem_arguments import add_problem_flags, read_problem_arguments, read_text
from stepback_client.search_flags import add_search_flags, search_options
from stepback_client.tree import mermaid, svg, text
from stepback_client.tree.layout import DEFAULT_LIMIT, Outline
from stepback_core.schemas import SolveResult
from stepback_core.validation import first_error

_FORMATS = {"text": text.render, "mermaid": mermaid.render, "svg": svg.render}
# So that every answer comes with its verdict.
_ALL_CANDIDATES = 1024


def tree(arguments: Sequence[str]) -> int:
    """Draw a tree. Returns 0, or 2 where there is none to draw."""
    given = _parser().parse_args(arguments)
    try:
        result = _solved(given) if _asks(given) else _read(given.source)
        outline = Outline.of_result(result, given.limit)
        _write(_FORMATS[given.format](outline, caption(result)), given.output)
        if result.warning:
            print(f"stepback tree: warning: {result.warning}", file=sys.stderr)
    except ValidationError as error:
        return _refuse(first_error(error, whole="the result"))
    except (StepbackError, OSError, ValueError) as error:
        return _refuse(str(error))
    return 0


def caption(result: SolveResult) -> str:
    """Describe a search: its problem, strategy and outcome."""
    usage = result.usage
    cost = f"{usage.generated_tokens} tokens · {usage.seconds_searching:.2f} s"
    return f"{result.model} · {result.strategy} · {result.status} · {cost}"


def _asks(given: argparse.Namespace) -> bool:
    """Tell whether there is something to solve first."""
    return any(each is not None for each in (given.target, given.problem, given.prompt))


def _solved(given: argparse.Namespace) -> SolveResult:
    given.numbers = [int(number) for number in given.source]
    question = read_problem_arguments(given)
    options = search_options(given) | question.options
    options |= {"tree": True, "candidates": _ALL_CANDIDATES}
    with Client.from_environment(given.url) as client:
        return client.solve(question.problem, **options)


def _read(source: Sequence[str]) -> SolveResult:
    if len(source) > 1:
        raise ValueError("give one FILE, or numbers with --target")
    return SolveResult.model_validate_json(read_text(source[0] if source else "-"))


def _write(drawing: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(drawing)
    else:
        output.write_text(drawing, encoding="utf-8")


def _refuse(message: str) -> int:
    print(f"stepback tree: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "stepback tree",
        description="Draw the tree of a search: of a result that was asked for with "
        '"tree": true, or of a problem that a running controller solves now.',
    )
    parser.add_argument(
        "source",
        nargs="*",
        metavar="FILE | NUMBER",
        help="a result as JSON, standard input if left out; or the inputs, with --target",
    )
    add_problem_flags(parser)
    parser.add_argument("--format", choices=[*_FORMATS], default="text")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there")
    parser.add_argument(
        "--limit",
        type=int,
        default=DEFAULT_LIMIT,
        help=f"branches to show, the rest is folded and counted; {DEFAULT_LIMIT} if left out",
    )
    add_search_flags(parser)
    return parser
