"""`stepback.json`: what a checkpoint says of itself, so that a server can agree or refuse."""

from codecs import BOM_UTF8
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepback_core.errors import InvalidInput
from stepback_core.trace import PROTOCOL_VERSION, Grammar
from stepback_core.validation import first_error

MANIFEST_NAME = "stepback.json"


class Manifest(BaseModel):
    """The content of `stepback.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: int = PROTOCOL_VERSION
    name: str = Field(min_length=1)
    """The model's name, as `/v1/models` and every result give it."""
    grammar: Grammar = Grammar()
    marker_id: int = Field(ge=0)
    end_id: int = Field(ge=0)
    separator_ids: list[int]
    """Ids of the separator, encoded alone."""
    vocabulary_size: int = Field(gt=0)
    """Rows of the embedding."""
    answer_tokens: int | None = Field(default=None, gt=0)
    """The most tokens that a branch may generate; None for the rest of the context."""
    task_answer_tokens: dict[str, Annotated[int, Field(gt=0)]] = {}
    """The same by task, where there are several: those of one may be far longer than another's."""
    tasks: list[str]
    trained_for: dict[str, dict[str, tuple[int, int]]] = {}
    """For each task, the fewest and most entries that each list of a training problem has, as
    Countdown's `numbers`; nothing is known of a task that is left out."""
    base_model: str | None = None
    """The model that training started from; None for one trained from scratch."""
    recipe: dict[str, Any] = {}
    """The whole recipe that made it."""
    split: str = ""
    """The data split, in words."""
    training: dict[str, Any] = {}
    """Measurements of the training: samples, tokens, hours, final loss."""

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read a folder's manifest. Raises InvalidInput."""
        path = folder / MANIFEST_NAME
        try:
            manifest = cls.model_validate_json(path.read_bytes().removeprefix(BOM_UTF8))
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            raise InvalidInput(f"{path}: {first_error(error, whole='the file')}") from error
        if manifest.protocol != PROTOCOL_VERSION:
            raise InvalidInput(
                f"{path}: protocol is {manifest.protocol}; this version serves {PROTOCOL_VERSION}"
            )
        return manifest

    def write(self, folder: Path) -> None:
        # Left out where it says nothing: servers older than the field refuse it.
        unsaid = {n for n in ("task_answer_tokens", "trained_for") if not getattr(self, n)}
        text = self.model_dump_json(indent=2, exclude=unsaid)
        (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def unlike_training(trained: dict[str, tuple[int, int]], problem: BaseModel) -> str | None:
    """Say what sets a problem apart from those of the training; None for one like them."""
    fields: dict[str, Any] = problem.model_dump()
    for name, (fewest, most) in trained.items():
        count = len(fields[name])
        if not fewest <= count <= most:
            known = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            entries = "entry" if count == 1 else "entries"
            return f"{name} has {count} {entries}; the model was trained on problems with {known}"
    return None


def weights_digest(folder: Path) -> str:
    """SHA-256 of a folder's weights (`*.safetensors`, by name), in hexadecimal: it differs between
    two states of one model. Raises OSError."""
    digest = sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + file_digest(file, "sha256").digest())
    return digest.hexdigest()
