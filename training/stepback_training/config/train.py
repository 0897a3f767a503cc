"""`[scratch]`, `[base]`, `[lora]` and `[train]`: which model is trained, and how."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

# Tokens of a pass on a CPU: small enough for its caches, large enough for its matrices.
_CPU_PASS = 4096


class ScratchModel(BaseModel, extra="forbid", frozen=True):
    """A Llama trained from scratch, with a vocabulary of its own."""

    hidden_size: int = Field(default=256, gt=0)
    layers: int = Field(default=6, gt=0)
    heads: int = Field(default=8, gt=0)
    intermediate_size: int = Field(default=704, gt=0)
    max_positions: int = Field(default=256, gt=0)
    digits_per_token: Literal[1, 2, 3] = 1
    """Most digits of a number in one token."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "ScratchModel":
        if self.hidden_size % self.heads:
            raise ValueError("hidden_size must be a multiple of heads")
        return self


class BaseModelChoice(BaseModel, extra="forbid", frozen=True):
    """A Hugging Face causal language model to start from."""

    path: str
    """A local folder, a GGUF file, or a hub name where the hub can be reached."""
    prompt_frame: str | None = None
    """Text around a prompt, with `{prompt}` in it. None for that of the folder's `stepback.json`,
    or one user's turn in the model's chat template, or the prompt and a line's end."""


class LoraRecipe(BaseModel, extra="forbid", frozen=True):
    """Low-rank adapters (arXiv 2106.09685) on a base model instead of all of its weights. The
    marker's rows in the embedding and in the head are trained as well."""

    rank: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0)
    """An adapter's update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of the adapters' input."""
    target_modules: str | list[str] = "all-linear"
    """The modules with an adapter: names, a regular expression over whole names, or `all-linear`,
    which is every linear layer but the head."""


class TrainRecipe(BaseModel, extra="forbid", frozen=True):
    """Settings of the optimizer, its schedule and the passes."""

    epochs: float | None = Field(default=None, gt=0)
    """Passes over the samples; 1 where neither these nor `tokens` are given."""
    tokens: int | None = Field(default=None, gt=0)
    """Instead of epochs: tokens to train on, padding left out. Recipes with as many compare at
    equal training, however long their samples are."""
    batch_tokens: int = Field(default=16384, gt=0)
    """Tokens of one optimizer step over all processes, padding included."""
    row_tokens: int = Field(default=256, gt=0)
    """Samples are packed into rows of this length; a sample longer than a row is refused."""
    shuffle: bool = True
    """Samples in an order of the recipe's seed. Without it they keep the order of their file, up to
    what fits into a row: recipes that compare then see the same problems one after another."""
    micro_rows: int | None = Field(default=None, gt=0)
    """Rows of one forward pass of one process; smaller saves memory. None for its whole share of a
    step on a GPU, and on a CPU for what fits its caches: at most 4,096 tokens."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(gt=0)
    adamw_learning_rate: float | None = Field(default=None, gt=0)
    """Rate of embeddings, output head and norms, which AdamW fits where muon fits the rest."""
    weight_decay: float = Field(default=0.1, ge=0)
    warmup_steps: int = Field(default=50, ge=0)
    """Optimizer steps with a rising learning rate."""
    schedule: Literal["linear", "cosine", "wsd"] = "cosine"
    """Schedule of the learning rate. wsd (warmup, stable, decay) does not depend on the run's
    length until its decay starts: a run can be cut short or prolonged by `epochs`, and resumed."""
    decay: float = Field(default=0.25, gt=0, le=1)
    """Share of the steps in which the rate falls to zero; of wsd alone."""
    checkpoint_every: int | None = Field(default=None, gt=0)
    """Optimizer steps between resumable checkpoints: what a kill costs at most. Left out: 250, or a
    quarter of the run where that is less."""
    compile: bool = False
    """torch.compile; needs a C++ compiler on a CPU."""
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """Attention of `transformers` in training.

    `eager` keeps rows x heads x row_tokens^2 scores of a pass
    in memory. `auto` is eager for short rows on a CPU (up to 128 tokens, compiled up to
    512), where the fused kernel's backward pass is slow, else the model's own."""
    gradient_checkpointing: bool = False
    """Keep no activations inside a layer and compute them again in the backward pass: less memory
    for about a third more computation."""
    head: Literal["all", "loss"] = "all"
    """Positions of the output head: at all tokens, or at those alone that a loss is on. With
    `loss` a model of many words trains faster; its losses are the same up to rounding."""
    share_prompts: bool = False
    """Samples of one prompt share it in a row: it is computed once, and they branch off it. Each
    has the loss that it has alone, up to rounding."""
    share_beginnings: bool = False
    """Samples share all that they begin with, and not whole prompts alone: sentences that several
    questions are about, and first steps. A token that is shared has its loss once."""
    marker_weight: float = Field(default=1.0, gt=0)
    """Weight of the marker in the loss, where every other token has 1. Samples that backtrack are
    few, and have one marker each: a weight raises its share without more of them."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the computation: pure float32, or bfloat16 by autocast over float32 weights.
    auto is bf16 where the machine is fast in it."""
    report_to: list[Literal["tensorboard", "wandb"]] = ["tensorboard"]
    """Destinations of the loss curve. wandb needs the extra of that name, and reads its own
    environment variables (WANDB_MODE, WANDB_PROJECT, ...)."""

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
        """Passes over samples of `tokens` tokens."""
        return self.tokens / tokens if self.tokens is not None else self.epochs or 1.0

    @property
    def shares(self) -> str | None:
        """The option by which samples share tokens; None without one."""
        chosen = [name for name in ("share_beginnings", "share_prompts") if getattr(self, name)]
        return chosen[0] if chosen else None

    @property
    def rows_per_step(self) -> int:
        return self.batch_tokens // self.row_tokens

    def check_processes(self, processes: int) -> None:
        """Raise ValueError where this many processes cannot share a step evenly."""
        self.passes(processes)

    def passes(self, processes: int, *, on_gpu: bool = True) -> tuple[int, int]:
        """Rows of one forward pass, and such passes of one process in a step of `processes`
        processes. Raises ValueError where the processes cannot share the step evenly."""
        share, rest = divmod(self.rows_per_step, processes)
        most = share if on_gpu else max(1, min(share, _CPU_PASS // self.row_tokens))
        rows = self.micro_rows or next((n for n in range(most, 0, -1) if share % n == 0), 1)
        if rest or share % rows:
            raise ValueError(
                f"{processes} processes cannot share the {self.rows_per_step} rows of a step in "
                f"passes of {self.micro_rows or 'equal size'}: batch_tokens / row_tokens must be a "
                "multiple of processes x micro_rows"
            )
        return rows, share // rows
