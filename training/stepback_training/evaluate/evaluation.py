"""The file of an evaluation: plan, controller, and the outcome of each problem."""

from codecs import BOM_UTF8
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stepback_core.errors import InvalidInput
from stepback_core.validation import first_error
from stepback_training.atomic_files import write_whole
from stepback_training.evaluate.measurement import Measured
from stepback_training.evaluate.plan import Plan
from stepback_training.evaluate.scoring import ProblemOutcome, Rule
from stepback_training.evaluate.summary import Accuracy, Row
from stepback_training.generators import Split


class Evaluation(BaseModel):
    """One evaluation, whole."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    format: Literal[1] = 1
    plan: Plan
    """Task, splits, number of problems, seed, temperature, settings."""
    controller: dict[str, Any]
    """The controller's and vLLM's versions, as /version says them."""
    model: dict[str, Any]
    """The model's name, its tasks and the SHA-256 of its weights, as /v1/models says them."""
    runs: list[dict[str, Any]]
    """Each process that worked on it: when, which version and commit of this code, changed since
    or not, how many problems in flight."""
    rows: list[Row]
    """A row for each setting and split."""
    problems: dict[Split, list[str]]
    """The problems as the model reads them, in order."""
    outcomes: dict[str, dict[Split, list[ProblemOutcome]]]
    """Outcomes by setting and split, in the order of the problems."""

    @classmethod
    def of(cls, measured: Measured) -> "Evaluation":
        plan = measured.plan
        outcomes = {
            setting.name: {split: _in_order(measured, setting.name, split) for split in plan.splits}
            for setting in measured.settings
        }
        return cls(
            plan=plan,
            controller=measured.controller,
            model=measured.model,
            runs=measured.runs,
            rows=[
                Row.of(
                    setting,
                    split,
                    outcomes[setting.name][split],
                    measured.matches.get(setting.name),
                )
                for setting in measured.settings
                for split in plan.splits
            ],
            problems={
                split: [each.prompt for each in measured.asked if each.split is split]
                for split in plan.splits
            },
            outcomes=outcomes,
        )

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """Raises InvalidInput."""
        try:
            return cls.model_validate_json(path.read_bytes().removeprefix(BOM_UTF8))
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            reason = first_error(error, whole="the file")
            raise InvalidInput(f"{path} is no evaluation: {reason}") from error

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        write_whole(path, [self.model_dump_json(), "\n"])

    def table(self) -> str:
        """The rows in Markdown: per cent by the strict checker with the 95 % interval."""
        lines = [_line(row, row.split.removeprefix("test_")) for row in self.rows]
        return "\n".join([_HEAD, _RULE, *lines, *self._lines_of_the_file()])

    def _lines_of_the_file(self) -> list[str]:
        """The settings on all problems of a file, where these are of several splits."""
        if self.plan.source is None or len(self.plan.splits) == 1:
            return []
        rows = [row for row in self.rows if row.split is self.plan.splits[0]]
        return [
            _line(Row.of(row.setting, row.split, whole, None), "all")
            for row in rows
            if (whole := [each for of in self.outcomes[row.name].values() for each in of])
        ]


def _in_order(measured: Measured, name: str, split: Split) -> list[ProblemOutcome]:
    numbers = (each.number for each in measured.asked if each.split is split)
    return [measured.outcomes[name, split, number] for number in numbers]


_RULES = {
    Rule.PERPLEXITY: "by perplexity",
    Rule.VOTE: "by vote",
    Rule.MARKER: "by marker",
    Rule.WEIGHTED_VOTE: "by weighted vote",
    Rule.LEGAL: "likeliest legal",
    Rule.VERIFIED: "verified",
}
"""Rules that choose an answer, and the heads of their columns."""
_COST = ("tokens", "samples", "s p50", "s p99")
_COLUMNS = ("setting", "problems", *_COST, *_RULES.values(), "pass@N", "lax, by perplexity")
_HEAD = f"| {' | '.join(_COLUMNS)} |"
_RULE = f"|{' --- |' * len(_COLUMNS)}"


def _line(row: Row, problems: str) -> str:
    chosen = [_strict(row.accuracy.get(rule)) for rule in _RULES]
    by_perplexity = row.accuracy.get(Rule.PERPLEXITY)
    cells = [
        row.name,
        problems,
        f"{row.tokens.mean:.0f}",
        f"{row.requests.mean:.1f}",
        f"{row.seconds.p50:.2f}",
        f"{row.seconds.p99:.2f}",
        *chosen,
        _strict(row.pass_at_n),
        f"{by_perplexity.lax.percent:.1f}" if by_perplexity else "",
    ]
    return f"| {' | '.join(cells)} |"


def _strict(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return ""
    share = accuracy.strict
    return f"{share.percent:.1f} ({share.low:.0f} to {share.high:.0f})"
