"""The command line of `stepback evaluate`, and the plan that it says."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from stepback_client import Select, Strategy
from stepback_client.batch import positive
from stepback_core.schemas import Sampling
from stepback_training.evaluate.measurement import check_at_equal_tokens
from stepback_training.evaluate.plan import Plan, Source, settings_of
from stepback_training.evaluate.problem_file import Columns, ProblemFile
from stepback_training.generators import GENERATORS, Generator, Split
from stepback_training.sampling.cli import add_controller_flags
from stepback_training.sampling.problems import Question

T = TypeVar("T")

_SPLITS = {"seen": (Split.TEST_SEEN,), "new": (Split.TEST_NEW,), "train": (Split.TRAIN,)}
_TEST = "test"
_STRATEGIES = [
    Strategy.GREEDY,
    Strategy.BEST_OF_N,
    Strategy.SELF_BACKTRACKING,
    Strategy.BEST_FIRST,
]


def read_plan(given: argparse.Namespace) -> tuple[Plan, list[Question]]:
    """The plan and its problems. Raises ValueError for what cannot be asked."""
    task = GENERATORS[given.task].with_options(given.options)
    read = _read_file(given, task)
    plan = Plan(
        task=given.task,
        options=given.options,
        splits=tuple(read.problems) if read else _splits(given.split, task.splits),
        problems=sum(read.problems.values()) if read else given.problems,
        seed=given.seed,
        temperature=given.temperature,
        settings=settings_of(
            given.strategies,
            given.breadths,
            given.backtracks,
            given.select,
            given.budget_tokens or [None],
            given.sampling,
        ),
        source=read and Source(name=read.name, sha256=read.digest, problems=read.problems),
    )
    if given.at_equal_tokens:
        check_at_equal_tokens(plan)
    return plan, read.questions if read else plan.drawn()


def _read_file(given: argparse.Namespace, task: Generator[Any]) -> ProblemFile | None:
    """The problems of `--file`, where there is one. Raises ValueError."""
    columns = Columns(
        numbers=given.numbers,
        target=given.target,
        grid=given.grid,
        question=given.question,
        statements=given.statements,
    )
    if given.file is not None:
        return ProblemFile.read(given.file, task, columns, given.rows)
    if columns.named or given.rows:
        raise ValueError(
            "file: --numbers, --target, --grid, --question, --statements and --rows are of --file"
        )
    return None


def _splits(names: Sequence[str], known: Sequence[Split]) -> tuple[Split, ...]:
    """Splits of a task; training problems only by name."""
    wanted: list[Split] = []
    for name in names:
        tests = tuple(split for split in known if split is not Split.TRAIN)
        wanted += tests if name == _TEST else _SPLITS[name]
    return tuple(dict.fromkeys(wanted))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line that `read_plan` reads."""
    made = argparse.ArgumentParser(
        "stepback evaluate",
        description="Ask a running controller held-out problems, over strategies x N x b, and "
        "write what came of it: NAME.json, the picture NAME.png and NAME.svg, and NAME.jsonl, from "
        "which the same command goes on when it was killed. Where the controller needs a key, set "
        "STEPBACK_API_KEY.",
    )
    add = made.add_argument
    add_controller_flags(made, in_flight=32)
    add("--task", choices=[*GENERATORS], default="countdown")
    add("--options", type=_options, default={}, metavar="JSON", help="of the task's generator")
    add("--split", type=_list_of(_one_of(*_SPLITS, _TEST)), default=[_TEST], metavar="NAME,...",
        help="seen, new, or test (the default): all test splits of the task; train")  # fmt: skip
    add("--problems", type=positive, default=1000, help="of each split; 1000")
    add("--file", type=Path, metavar="FILE", help="your own problems (CSV, JSONL, JSON) instead of "
        "drawn ones: all of them, each under the split that the task's rule says")  # fmt: skip
    add("--rows", type=_rows, metavar="FIRST-LAST", help="of the file, from 1; all if left out")
    add("--numbers", metavar="COLUMN", help="of the file: the numbers of Countdown, as 4 16 25 82")
    add("--target", metavar="COLUMN", help="of the file; or one target for all, as 24")
    add("--grid", metavar="COLUMN", help="of the file: a maze or a Sudoku, its rows divided by /")
    add("--question", metavar="COLUMN", help="of the file: sentences of deduction and a question")
    add(
        "--statements", metavar="COLUMN", help="of the file: what people say, of knights and knaves"
    )
    add("--strategies", type=_list_of(Strategy), metavar="NAME,...",
        default=_STRATEGIES,
        help=f"{','.join(_STRATEGIES)} if left out")  # fmt: skip
    add("--breadths", type=_list_of(positive), default=[1, 8, 32], metavar="N,...")
    add("--backtracks", type=_list_of(_natural), default=[0, 1], metavar="b,...")
    add("--sampling", type=_list_of(Sampling), default=[Sampling.INDEPENDENT], metavar="NAME,...",
        help="independent, or beam for distinct samples (stochastic beam search)")  # fmt: skip
    add("--select", type=_list_of(Select), default=[*Select], metavar="RULE,...",
        help="verified is a search of its own, which the first right answer ends; for any of the "
        "others one search is asked, and all of them choose among its candidates")  # fmt: skip
    add("--budget-tokens", type=_list_of(positive), metavar="TOKENS,...",
        help="every setting under each of these budgets; none if left out")  # fmt: skip
    add("--at-equal-tokens", action="store_true",
        help="also best-of-N with the N that generates as much as each search did")  # fmt: skip
    add("--temperature", type=float, default=0.7)
    add("--seed", type=_natural, default=0, help="of problems and searches; 0")
    add("--out", type=_json_file, required=True, metavar="NAME.json")
    add("--no-picture", dest="picture", action="store_false")
    return made


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


def _natural(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _rows(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST-LAST, as 901-1000") from error
    if found.start < 1 or not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST-LAST, counted from 1")
    return found


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
