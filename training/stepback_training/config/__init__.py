"""A training run as one TOML file. Every field is checked when the file is read."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from stepback_core.errors import InvalidInput
from stepback_core.validation import every_error, first_error
from stepback_training.config.data import TRACES, DataRecipe, OwnErrors, Source
from stepback_training.config.improve import ImproveRecipe
from stepback_training.config.train import BaseModelChoice, LoraRecipe, ScratchModel, TrainRecipe

__all__ = [
    "TRACES",
    "BaseModelChoice",
    "DataRecipe",
    "ImproveRecipe",
    "LoraRecipe",
    "OwnErrors",
    "Recipe",
    "ScratchModel",
    "Source",
    "TrainRecipe",
]


class Recipe(BaseModel, extra="forbid", frozen=True):
    """One run: data, model, training."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    seed: int = 0
    data: DataRecipe
    scratch: ScratchModel | None = None
    base: BaseModelChoice | None = None
    lora: LoraRecipe | None = None
    train: TrainRecipe
    improve: ImproveRecipe | None = None
    """Settings that `stepback improve` alone reads."""

    @model_validator(mode="after")
    def _check_improve_train(self) -> "Recipe":
        try:
            TrainRecipe.model_validate(self._round_train_fields())
        except ValidationError as error:
            raise ValueError(f"improve.train: {first_error(error, whole='all')}") from error
        return self

    @property
    def round_train(self) -> TrainRecipe:
        """Recipe by which a round of self-improvement trains."""
        return TrainRecipe.model_validate(self._round_train_fields())

    def _round_train_fields(self) -> dict[str, Any]:
        changes = self.improve.train if self.improve else {}
        train = self.train.model_dump()
        if changes.keys() & {"epochs", "tokens"}:  # One of them stands in the place of the other.
            del train["epochs"], train["tokens"]
        return train | changes

    @model_validator(mode="after")
    def _starts_from_one_model(self) -> "Recipe":
        if (self.scratch is None) == (self.base is None):
            raise ValueError("give exactly one of [scratch] and [base]")
        return self

    @model_validator(mode="after")
    def _check_lora(self) -> "Recipe":
        if self.lora and self.base is None:
            raise ValueError("[lora] adapts a [base]; a [scratch] model has nothing to keep")
        if self.lora and self.train.optimizer == "muon":
            raise ValueError("train.optimizer: [lora] takes adamw; muon is for whole matrices")
        return self

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read a TOML recipe. Raises InvalidInput."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path}: not TOML: {error}") from error
        except ValidationError as error:
            wrong = "; ".join(every_error(error, whole="the recipe"))
            raise InvalidInput(f"{path}: {wrong}") from error
