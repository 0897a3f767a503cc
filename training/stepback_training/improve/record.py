"""`improve.json`: the problems, samples, losses and scores of each round."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stepback_training.atomic_files import write_whole
from stepback_training.improve.outcomes import SearchOutcome
from stepback_training.improve.samples import Counts
from stepback_training.sampling.provenance import Provenance
from stepback_training.sampling.statistics import Share


class Score(BaseModel):
    """Number of problems solved, by the strict checker."""

    solved: Share
    tokens: int
    """Tokens generated in all."""
    failed: int = 0
    """Searches without a result; they count as unsolved."""

    @classmethod
    def of(cls, outcomes: Sequence[SearchOutcome]) -> "Score":
        """Raises ValueError for no outcome at all."""
        return cls(
            solved=Share.count([outcome.solved for outcome in outcomes]),
            tokens=sum(outcome.tokens for outcome in outcomes),
            failed=sum(outcome.failure is not None for outcome in outcomes),
        )


class Round(BaseModel):
    """One round; round 0 is the model that the run starts from, measured and nothing more."""

    number: int
    checkpoint: str
    digest: str
    """SHA-256 of its weights."""
    search: Score | None = None
    """Problems of the training split that were searched."""
    paths: int | None = None
    """Checked paths in all, of this round and those before, each once."""
    samples: Counts | None = None
    training: dict[str, Any] | None = None
    """Measurements of the training: its final loss, tokens, optimizer steps, hours."""
    validation: Score
    """Score of greedy decoding, on training-split problems that are never trained on."""
    greedy: dict[str, Score] = {}
    """Scores of greedy decoding, by task and kind of test."""
    searched: dict[str, Score] = {}
    """Scores of the search without an oracle, by task and kind of test, if those were asked for."""


class Record(BaseModel):
    """The whole file."""

    code: Provenance
    """Code version that wrote this file; the journals have that of each search."""
    seed: int
    recipe: dict[str, Any]
    rounds: list[Round] = []

    @classmethod
    def begin(cls, recipe: dict[str, Any], seed: int) -> "Record":
        return cls(code=Provenance.here(), seed=seed, recipe=recipe)

    @property
    def best(self) -> Round:
        """The round after the start that solves most of the validation problems; the first such."""
        # By validation alone: choosing by the test would make its score a best of several.
        return max(self.rounds[1:], key=lambda each: each.validation.solved.hits)

    def write(self, path: Path) -> None:
        """Write the file in the place of an older one, whole."""
        best = {"best": self.best.number} if len(self.rounds) > 1 else {}
        text = json.dumps(self.model_dump(mode="json") | best, indent=2)
        write_whole(path, [text, "\n"])
