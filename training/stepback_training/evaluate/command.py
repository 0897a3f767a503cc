"""`stepback evaluate` and `stepback plot`."""

import argparse
import asyncio
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from stepback_client import ApiError, AsyncClient, Overloaded, Select, StepbackError, Strategy
from stepback_client.base import DEFAULT_URL, BadKey
from stepback_client.cli import api_key
from stepback_core.tasks import TASKS, Split
from stepback_core.validation import first_error
from stepback_training.evaluate.evaluation import Evaluation, EvaluationError
from stepback_training.evaluate.journal import JournalError
from stepback_training.evaluate.measuring import (
    PATIENCE,
    Measured,
    Stopped,
    WrongController,
    check_at_equal_tokens,
    measure,
)
from stepback_training.evaluate.plan import Plan, settings_of
from stepback_training.evaluate.provenance import Provenance

T = TypeVar("T")

_SPLITS = {"seen": (Split.TEST_SEEN,), "new": (Split.TEST_NEW,), "train": (Split.TRAIN,)}
_TEST = "test"
_STRATEGIES = [
    Strategy.GREEDY,
    Strategy.BEST_OF_N,
    Strategy.SELF_BACKTRACKING,
    Strategy.BEST_FIRST,
]
_NO_MATPLOTLIB = "matplotlib is not installed: install this distribution with its extra [plot]"
_INTERRUPTED = 130


def evaluate(arguments: Sequence[str]) -> int:
    """Evaluate what a running controller serves. Returns 0; 1 for what failed on the way; 2 for
    what was refused; 130 where its user stopped it. The last three keep what was done."""
    given = _evaluate_parser().parse_args(arguments)
    if given.picture and not _can_draw():
        return _say("evaluate", f"{_NO_MATPLOTLIB}, or give --no-picture", 2)
    try:
        plan = _plan(given)
    except ValidationError as error:
        return _say("evaluate", first_error(error, whole="the plan"), 2)
    except ValueError as error:
        return _say("evaluate", error, 2)
    try:
        evaluation = Evaluation.of(asyncio.run(_measure(plan, given)))
        evaluation.write(given.out)
    except Stopped as stopped:
        return _stopped(stopped, given.out)
    except (JournalError, WrongController, BadKey) as error:
        return _say("evaluate", error, 2)
    except (StepbackError, OSError) as error:
        return _say("evaluate", error, 2 if _is_refusal(error) else 1)
    print(evaluation.table())
    if given.picture:
        _draw_one(evaluation, given.out)
    return 0


def plot(arguments: Sequence[str]) -> int:
    """Draw evaluations. Returns 0, or 2 for what cannot be drawn."""
    parser = argparse.ArgumentParser(
        "stepback plot",
        description="Draw evaluations: accuracy against generated tokens, and against N for each "
        "b, beside the paper's published curve. One pair of figures a task, as PNG and SVG.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of stepback evaluate")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="the folder to draw into")
    given = parser.parse_args(arguments)
    if not _can_draw():
        return _say("plot", _NO_MATPLOTLIB, 2)
    # Imported here: matplotlib takes its time, and may be absent.
    from stepback_training.evaluate.figures import draw_all

    try:
        read = {_name(path, given.files): Evaluation.read(path) for path in given.files}
        files = draw_all(read, given.out)
    except (EvaluationError, OSError) as error:
        return _say("plot", error, 2)
    print("\n".join(map(str, files)))
    return 0


async def _measure(plan: Plan, given: argparse.Namespace) -> Measured:
    stop = asyncio.Event()
    _drain_on_signals(stop)
    run = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        **Provenance.here().model_dump(),
    }
    async with AsyncClient(given.url, api_key=api_key(), retry=PATIENCE) as client:
        return await measure(
            client,
            plan,
            given.out.with_suffix(".jsonl"),
            run=run,
            in_flight=given.in_flight,
            at_equal_tokens=given.at_equal_tokens,
            stop=stop,
        )


def _drain_on_signals(stop: asyncio.Event) -> None:
    """The first SIGINT or SIGTERM lets what is in flight come back; a second one ends the process
    as it always does."""
    loop = asyncio.get_running_loop()

    def drain(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)
        _say("evaluate", "finishing what is in flight; once more to leave at once", 0)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, drain, number)


def _plan(given: argparse.Namespace) -> Plan:
    """Raises ValueError for what cannot be asked."""
    task = TASKS[given.task].with_options(given.options)
    plan = Plan(
        task=given.task,
        options=given.options,
        splits=_splits(given.split, task.splits),
        problems=given.problems,
        seed=given.seed,
        temperature=given.temperature,
        settings=settings_of(
            given.strategies,
            given.breadths,
            given.backtracks,
            given.select,
            given.budget_tokens or [None],
        ),
    )
    if given.at_equal_tokens:
        check_at_equal_tokens(plan)
    return plan


def _splits(names: Sequence[str], known: Sequence[Split]) -> tuple[Split, ...]:
    """Of a task: training problems are asked only by name."""
    wanted: list[Split] = []
    for name in names:
        tests = tuple(split for split in known if split is not Split.TRAIN)
        wanted += tests if name == _TEST else _SPLITS[name]
    return tuple(dict.fromkeys(wanted))


def _stopped(stopped: Stopped, out: Path) -> int:
    kept = f"what was done is in {out.with_suffix('.jsonl')}, and the same command goes on from it"
    error = stopped.__cause__
    if error is None:
        return _say("evaluate", f"stopped: {kept}", _INTERRUPTED)
    return _say("evaluate", f"{error}\n{kept}", 2 if _is_refusal(error) else 1)


def _is_refusal(error: BaseException) -> bool:
    """Whether to ask the same again is in vain."""
    return isinstance(error, ApiError) and error.status < 500 and not isinstance(error, Overloaded)


def _draw_one(evaluation: Evaluation, out: Path) -> None:
    from stepback_training.evaluate.figures import draw_one

    draw_one(evaluation, out.with_suffix(""))


def _can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def _name(path: Path, among: Sequence[Path]) -> str:
    """A file's stem, or its whole path where another one has the same."""
    return path.stem if sum(other.stem == path.stem for other in among) == 1 else str(path)


def _say(command: str, message: object, status: int) -> int:
    print(f"stepback {command}: {message}", file=sys.stderr)
    return status


def _evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "stepback evaluate",
        description="Ask a running controller held-out problems, over strategies x N x b, and "
        "write what came of it: NAME.json, the picture NAME.png and NAME.svg, and NAME.jsonl, from "
        "which the same command goes on when it was killed. Where the controller needs a key, set "
        "STEPBACK_API_KEY.",
    )
    add = parser.add_argument
    add("--url", default=os.environ.get("STEPBACK_URL", DEFAULT_URL),
        help=f"the controller; STEPBACK_URL or {DEFAULT_URL} if left out")  # fmt: skip
    add("--task", choices=[*TASKS], default="countdown")
    add("--options", type=_options, default={}, metavar="JSON", help="of the task's generator")
    add("--split", type=_list_of(_one_of(*_SPLITS, _TEST)), default=[_TEST], metavar="NAME,...",
        help="seen, new, or test (the default): all test splits of the task; train")  # fmt: skip
    add("--problems", type=_positive, default=1000, help="of each split; 1000")
    add("--strategies", type=_list_of(Strategy), metavar="NAME,...",
        default=_STRATEGIES,
        help=f"{','.join(_STRATEGIES)} if left out")  # fmt: skip
    add("--breadths", type=_list_of(_positive), default=[1, 8, 32], metavar="N,...")
    add("--backtracks", type=_list_of(_natural), default=[0, 1], metavar="b,...")
    add("--select", type=_list_of(Select), default=[*Select], metavar="RULE,...",
        help="perplexity and vote look at every candidate of one search; verified is a search of "
        "its own, which the first right answer ends")  # fmt: skip
    add("--budget-tokens", type=_list_of(_positive), metavar="TOKENS,...",
        help="every setting under each of these budgets; none if left out")  # fmt: skip
    add("--at-equal-tokens", action="store_true",
        help="also best-of-N with the N that generates as much as each search did")  # fmt: skip
    add("--temperature", type=float, default=0.7)
    add("--seed", type=_natural, default=0, help="of problems and searches; 0")
    add("--in-flight", type=_positive, default=32, help="problems at once; 32")
    add("--out", type=_json_file, required=True, metavar="NAME.json")
    add("--no-picture", dest="picture", action="store_false")
    return parser


def _list_of(kind: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Reads values that are separated by commas."""

    def read(text: str) -> list[T]:
        try:
            return [kind(part.strip()) for part in text.split(",")]
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is none of {', '.join(names)}")
        return text

    return read


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _natural(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _options(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError("not a JSON object") from error


def _json_file(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".json":
        raise argparse.ArgumentTypeError(f"{text} does not end in .json")
    return path
