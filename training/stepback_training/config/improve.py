"""`[improve]`: rounds of self-improvement."""

from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from stepback_core.schemas import Select, Strategy


class ImproveRecipe(BaseModel, extra="forbid", frozen=True):
    """Rounds of `stepback improve`: search, keep what is right, train on it."""

    rounds: int = Field(default=3, gt=0)
    """May be raised later; the run goes on."""
    problems: int = Field(default=2000, gt=0)
    """Training-split problems that a round searches; none comes twice in a run."""
    seed: int = 0
    strategy: Strategy = Strategy.BEST_FIRST
    breadth: int = Field(default=16, ge=1)
    backtracks: int = Field(default=1, ge=0)
    temperature: float = Field(default=0.7, gt=0, le=2)
    select: Select = Select.VERIFIED
    """Rule of selection; kept is only what the task's checker accepts strictly."""
    tokens: int | None = Field(default=None, gt=0)
    """Budget of one search; None for the server's own."""
    old_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of a round's samples that are made as `[data]` says, against forgetting."""
    backtrack_share: float | None = Field(default=None, ge=0, lt=1)
    """Share among the other samples; None for that of `[data]`."""
    wrong_steps: Literal["own", "invented"] = "own"
    """`own`: the first wrong steps that the search itself met, illegal ones and dead ends, and
    invented ones where it met none. `invented`: those of the task's generator alone."""
    train: dict[str, JsonValue] = {}
    """Fields of `[train]` that are others in a round, such as a lower learning rate."""
    validation: int = Field(default=200, gt=0)
    """Training-split problems that are never trained on: the best round is chosen by them."""
    test: int = Field(default=200, ge=0)
    """Problems of each task and kind of test, to report; nothing is chosen by them."""
    test_search: bool = False
    """Test the search too, not greedy decoding alone."""
