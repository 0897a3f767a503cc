"""`improve.json`: what each round asked, kept, learned, and was worth."""

import json
import os
import subprocess
from collections.abc import Sequence
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stepback_training.evaluate.intervals import wilson
from stepback_training.improve.ledger import Outcome
from stepback_training.improve.mixture import Counts


class Score(BaseModel):
    """How many were solved, by the strict checker; percentages with a 95 % Wilson interval."""

    asked: int
    solved: int
    percent: float
    interval: tuple[float, float]
    tokens: int
    """Generated in all."""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Score":
        solved = sum(outcome.solved for outcome in outcomes)
        low, high = wilson(solved, len(outcomes))
        return cls(
            asked=len(outcomes),
            solved=solved,
            percent=round(100 * solved / max(1, len(outcomes)), 2),
            interval=(round(low, 2), round(high, 2)),
            tokens=sum(outcome.tokens for outcome in outcomes),
        )


class Round(BaseModel):
    """One round; round 0 is the model that the run starts from, measured and nothing more."""

    number: int
    checkpoint: str
    digest: str
    """SHA-256 of its weights."""
    search: Score | None = None
    """What was asked of the training split, by search."""
    paths: int | None = None
    """Checked paths in all, of this round and those before, each once."""
    samples: Counts | None = None
    training: dict[str, Any] | None = None
    """What training measured: its final loss, tokens, optimizer steps, hours."""
    validation: Score
    """Greedy, on training-split problems that are never trained on."""
    greedy: dict[str, Score] = {}
    """Greedy, by kind of test."""
    searched: dict[str, Score] = {}
    """By search without an oracle, by kind of test, where that was wanted."""


class Record(BaseModel):
    """The whole file."""

    stepback: str
    commit: str | None
    """Of the source tree, where there is one; with `+` where it was changed since."""
    seed: int
    recipe: dict[str, Any]
    rounds: list[Round] = []

    @classmethod
    def begin(cls, recipe: dict[str, Any], seed: int) -> "Record":
        stepback = distribution_version("stepback")
        return cls(stepback=stepback, commit=_commit(), seed=seed, recipe=recipe)

    @property
    def best(self) -> Round:
        """The round after the start that solves most of the validation problems; the first such."""
        return max(self.rounds[1:], key=lambda each: each.validation.solved)

    def write(self, path: Path) -> None:
        """Write the file in the place of an older one, whole."""
        best = {"best": self.best.number} if len(self.rounds) > 1 else {}
        staging = path.with_name(path.name + ".partial")
        text = json.dumps(self.model_dump(mode="json") | best, indent=2)
        staging.write_text(text + "\n", encoding="utf-8")
        os.replace(staging, path)


def _commit() -> str | None:
    folder = Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()
