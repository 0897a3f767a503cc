"""A training run as one TOML file. Every field is checked when the file is read."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from stepback_core.tasks import TASKS, ErrorKind, Task
from stepback_core.validation import first_error
from stepback_core.wire import Select, Strategy


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file and the field."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Count = Annotated[int, Field(ge=1, le=16)]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

TRACES = "traces"
"""What stands where a task's name could: traces from files."""


class Source(_Section):
    """Where samples come from: a task's generator, or traces of the user's own."""

    name: str
    """A task, or `traces`."""
    share: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Of the samples, relative to the other sources' shares."""
    options: dict[str, JsonValue] = {}
    """Of the task's generator; the task documents them."""
    files: list[str] = []
    """With `traces`: JSONL files, relative to the working directory."""

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if self.name not in (*TASKS, TRACES):
            raise ValueError(f"unknown task {self.name!r}; known: {', '.join((*TASKS, TRACES))}")
        if (self.name == TRACES) != bool(self.files):
            raise ValueError(f"files: {TRACES} needs them, and no other task has any")
        if self.name == TRACES and self.options:
            raise ValueError(f"options: {TRACES} has none")
        try:
            _ = self.task
        except ValidationError as error:
            raise ValueError(f"options: {first_error(error, whole='all')}") from error
        return self

    @property
    def task(self) -> Task[Any] | None:
        """The task with the options of this source; None for traces."""
        return None if self.name == TRACES else TASKS[self.name].with_options(self.options)


class OwnErrors(_Section):
    """Wrong steps that a model made itself, as `stepback errors` writes them."""

    file: str
    """JSONL, relative to the working directory."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Of the samples that backtrack; the others end in invented wrong steps."""


class DataRecipe(_Section):
    """What `stepback data` writes.

    A single source may be written without a table of its own, as `task`, `options` and `files`.
    """

    tasks: list[Source] = Field(default=[Source(name="countdown")], min_length=1)
    samples: int | None = Field(default=None, gt=0)
    """Left out with traces alone: every trace once, and once more up to its wrong step where it has
    one, whatever `backtrack_share` is."""
    seed: int = 0
    backtrack_share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the samples that end in a wrong step and the marker; 0.5 is the paper's 1 : 1."""
    errors: dict[ErrorKind, float] = {
        ErrorKind.EXPLORATION: 1.0,
        ErrorKind.COMPUTATIONAL: 2.0,
        ErrorKind.RULE_VIOLATION: 2.0,
    }
    """Relative weights of the kinds of wrong step; the paper's are 1 : 2 : 2."""
    paths: Literal["uniform", "canonical", "plainest"] = "uniform"
    """Which of a problem's correct paths is taught. `uniform`: any of them with equal chance.
    `canonical`: of those that are the same steps in another order only the one that the task puts
    first, and any of the rest. `plainest`: always the one that the task puts first of all."""
    wrong_steps: dict[_Count, _Weight] = Field(default={1: 1.0}, min_length=1)
    """How many steps are wrong before the marker comes, and how often, relative to each other. The
    paper's is one: each further step takes the one before at its word."""
    own_errors: OwnErrors | None = None
    """Wrong steps of a model's own instead of invented ones, or beside them."""

    def _wants_errors_of(self, task: Task[Any]) -> bool:
        return any(self.errors.get(kind, 0) > 0 for kind in task.error_kinds)

    @property
    def names(self) -> list[str]:
        """The names of the tasks, each once; traces are none."""
        return list(dict.fromkeys(source.name for source in self.tasks if source.task))

    @model_validator(mode="before")
    @classmethod
    def _in_one_form(cls, fields: Any) -> Any:
        """`task`, `options` and `files` become the only entry of `tasks`."""
        if not isinstance(fields, dict):
            return fields
        alone = [name for name in ("task", "options", "files") if name in fields]
        if not alone:
            return fields
        if "tasks" in fields:
            raise ValueError(f"tasks: give these or {', '.join(alone)}, not both")
        rest = dict(fields)
        source = {name: rest.pop(name) for name in alone}
        return rest | {"tasks": [{"name": source.pop("task", "countdown")} | source]}

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if self.samples is None and any(source.task for source in self.tasks):
            raise ValueError("samples: say how many; a task's problems have no end")
        if any(weight < 0 for weight in self.errors.values()):
            raise ValueError("errors: weights must not be negative")
        if self.backtrack_share > 0 and not sum(self.errors.values()) > 0:
            raise ValueError("errors: at least one weight must be positive")
        if not sum(self.wrong_steps.values()) > 0:
            raise ValueError("wrong_steps: at least one weight must be positive")
        if self.own_errors and not self.names:
            raise ValueError("own_errors: there is no task to judge them; traces bring their own")
        for task in (source.task for source in self.tasks):
            if task and self.backtrack_share > 0 and not self._wants_errors_of(task):
                kinds = ", ".join(task.error_kinds)
                raise ValueError(f"errors: {task.name} has only {kinds}; give one of them a weight")
        return self


class ScratchModel(_Section):
    """A Llama trained from scratch, with a vocabulary of its own."""

    hidden_size: int = Field(default=256, gt=0)
    layers: int = Field(default=6, gt=0)
    heads: int = Field(default=8, gt=0)
    intermediate_size: int = Field(default=704, gt=0)
    max_positions: int = Field(default=256, gt=0)
    digits_per_token: Literal[1, 2, 3] = 1
    """How many digits of a number one token holds at most."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "ScratchModel":
        if self.hidden_size % self.heads:
            raise ValueError("hidden_size must be a multiple of heads")
        return self


class BaseModelChoice(_Section):
    """A Hugging Face causal language model to start from."""

    path: str
    """A local folder, or a hub name where the hub can be reached."""


class LoraRecipe(_Section):
    """Low-rank adapters (arXiv 2106.09685) on a base model instead of all of its weights; the
    marker's rows in the embedding and in the head are trained beside them."""

    rank: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0)
    """An adapter's update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the adapters' input."""
    target_modules: str | list[str] = "all-linear"
    """The modules with an adapter: names, a regular expression over whole names, or `all-linear`,
    which is every linear layer but the head."""


class TrainRecipe(_Section):
    """How the weights are fitted."""

    epochs: float | None = Field(default=None, gt=0)
    """Passes over the samples; 1 where neither these nor `tokens` are given."""
    tokens: int | None = Field(default=None, gt=0)
    """Instead of epochs: tokens to train on, padding left out. Recipes with as many compare at
    equal training, however long their samples are."""
    batch_tokens: int = Field(default=16384, gt=0)
    """Tokens of one optimizer step over all processes, padding included."""
    row_tokens: int = Field(default=256, gt=0)
    """Samples are packed into rows of this length; a sample longer than a row is refused."""
    micro_rows: int | None = Field(default=None, gt=0)
    """Rows of one forward pass of one process; None for its whole share of a step. Smaller saves
    memory."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(gt=0)
    adamw_learning_rate: float | None = Field(default=None, gt=0)
    """With muon: the rate of embeddings, output head and norms, which AdamW fits."""
    weight_decay: float = Field(default=0.1, ge=0)
    warmup_steps: int = Field(default=50, ge=0)
    """Optimizer steps with a rising learning rate."""
    schedule: Literal["linear", "cosine", "wsd"] = "cosine"
    """wsd (warmup, stable, decay) does not depend on the run's length until its decay starts, so a
    run can be cut short or prolonged by `epochs` and resumed."""
    decay: float = Field(default=0.25, gt=0, le=1)
    """With wsd: share of the steps in which the rate falls to zero."""
    checkpoint_every: int = Field(default=250, gt=0)
    """Optimizer steps between resumable checkpoints."""
    compile: bool = False
    """torch.compile; needs a C++ compiler on a CPU."""
    gradient_checkpointing: bool = False
    """Keep no activations inside a layer and compute them anew in the backward pass: less memory
    for about a third more computation."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the computation: pure float32, or bfloat16 by autocast over float32 weights. auto is bf16
    where the machine is fast in it."""
    report_to: list[Literal["tensorboard", "wandb"]] = ["tensorboard"]
    """Where the loss curve goes. wandb needs the extra of that name, and reads its own environment
    variables (WANDB_MODE, WANDB_PROJECT, ...)."""

    @model_validator(mode="after")
    def _rows_divide_the_batch(self) -> "TrainRecipe":
        if self.epochs is not None and self.tokens is not None:
            raise ValueError("epochs: give these or tokens, not both")
        if self.batch_tokens % self.row_tokens:
            raise ValueError("batch_tokens must be a multiple of row_tokens")
        if self.rows_per_step % (self.micro_rows or 1):
            raise ValueError("micro_rows must divide batch_tokens / row_tokens")
        return self

    def epochs_over(self, tokens: int) -> float:
        """Passes over samples that have so many tokens."""
        return self.tokens / tokens if self.tokens is not None else self.epochs or 1.0

    @property
    def rows_per_step(self) -> int:
        return self.batch_tokens // self.row_tokens

    def passes(self, processes: int) -> tuple[int, int]:
        """Rows of one forward pass, and such passes of one process in a step of `processes`
        processes. Raises ValueError where the processes cannot share the step evenly."""
        share, rest = divmod(self.rows_per_step, processes)
        rows = self.micro_rows or share
        if rest or share % rows:
            raise ValueError(
                f"{processes} processes cannot share the {self.rows_per_step} rows of a step in "
                f"passes of {self.micro_rows or 'equal size'}: batch_tokens / row_tokens must be a "
                "multiple of processes x micro_rows"
            )
        return rows, share // rows


class ImproveRecipe(_Section):
    """What `stepback improve` does in each round: search, keep what is right, train on it."""

    rounds: int = Field(default=3, gt=0)
    """May be raised later; the run goes on."""
    problems: int = Field(default=2000, gt=0)
    """Training-split problems that a round asks; no problem is asked twice in a run."""
    seed: int = 0
    strategy: Strategy = Strategy.BEST_FIRST
    breadth: int = Field(default=16, ge=1)
    backtracks: int = Field(default=1, ge=0)
    temperature: float = Field(default=0.7, gt=0, le=2)
    select: Select = Select.VERIFIED
    """What is kept is always what the task's checker accepts strictly."""
    tokens: int | None = Field(default=None, gt=0)
    """Budget of one search; None for the server's own."""
    old_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of a round's samples that are made as `[data]` says, against forgetting."""
    backtrack_share: float | None = Field(default=None, ge=0, lt=1)
    """Of the other samples; None for that of `[data]`."""
    wrong_steps: Literal["own", "invented"] = "own"
    """`own`: illegal steps that the search itself met where it was right so far, and invented ones
    where it met none. `invented`: those of the task's generator alone."""
    train: dict[str, JsonValue] = {}
    """Fields of `[train]` that are others in a round, such as a lower learning rate."""
    validation: int = Field(default=200, gt=0)
    """Training-split problems that are never trained on: the best round is chosen by them."""
    test: int = Field(default=200, ge=0)
    """Problems of each kind of test, to report; nothing is chosen by them."""
    test_search: bool = False
    """Whether to test the search too, not greedy decoding alone."""


class Recipe(_Section):
    """One run: data, model, training."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    seed: int = 0
    data: DataRecipe
    scratch: ScratchModel | None = None
    base: BaseModelChoice | None = None
    lora: LoraRecipe | None = None
    train: TrainRecipe
    improve: ImproveRecipe | None = None
    """Only `stepback improve` reads it."""

    @model_validator(mode="after")
    def _rounds_train_as_they_can(self) -> "Recipe":
        try:
            _ = self.round_train
        except ValidationError as error:
            raise ValueError(f"improve.train: {first_error(error, whole='all')}") from error
        return self

    @property
    def round_train(self) -> TrainRecipe:
        """How a round of self-improvement trains."""
        changes = self.improve.train if self.improve else {}
        return TrainRecipe.model_validate(self.train.model_dump() | changes)

    @model_validator(mode="after")
    def _starts_from_one_model(self) -> "Recipe":
        if (self.scratch is None) == (self.base is None):
            raise ValueError("give exactly one of [scratch] and [base]")
        return self

    @model_validator(mode="after")
    def _adapts_what_it_can(self) -> "Recipe":
        if self.lora and self.base is None:
            raise ValueError("[lora] adapts a [base]; a [scratch] model has nothing to keep")
        if self.lora and self.train.optimizer == "muon":
            raise ValueError("train.optimizer: [lora] takes adamw; muon is for whole matrices")
        return self

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read a TOML recipe. Raises RecipeError."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: not TOML: {error}") from error
        except ValidationError as error:
            raise RecipeError(f"{path}: {first_error(error, whole='the recipe')}") from error
