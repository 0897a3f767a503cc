"""Loss curves of a run: TensorBoard's files in its folder, and Weights & Biases."""

import os
import secrets
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback

from stepback_training.config import Recipe


def check_reporters(recipe: Recipe) -> None:
    """Raise ValueError where what the recipe reports to is not installed."""
    if "wandb" not in recipe.train.report_to:
        return
    try:
        import wandb  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed, and train.report_to asks for it: "
            "pip install 'stepback-llm[training,wandb]', or leave it out"
        ) from error


def reporters(recipe: Recipe, run: Path, step: int) -> list[TrainerCallback]:
    """Return the reporters of losses, in the main process. The run goes on from `step`: what a
    killed run reported past it is dropped, or drawn over."""
    found: list[TrainerCallback] = []
    if "tensorboard" in recipe.train.report_to:
        purge = step + 1 if step else None
        writer = SummaryWriter(str(run / "tensorboard"), purge_step=purge)
        found.append(TensorBoardCallback(writer))
    if "wandb" in recipe.train.report_to:
        found.append(_wandb(recipe, run))
    return found


def _wandb(recipe: Recipe, run: Path) -> TrainerCallback:
    """The Trainer's own callback, on a run that is the same one after a resume."""
    import wandb  # pyright: ignore[reportMissingImports]
    from transformers.integrations.integration_utils import WandbCallback

    identity = run / "wandb-id"
    if not identity.exists():
        # Kept in the run's folder, so that a resumed run goes on with its own curve.
        identity.write_text(secrets.token_hex(4))
    wandb.init(
        project=os.environ.get("WANDB_PROJECT", "stepback"),
        name=os.environ.get("WANDB_NAME", recipe.name),
        id=identity.read_text(),
        resume="allow",
        dir=str(run),
        config={"recipe": recipe.model_dump(mode="json")},
    )
    return WandbCallback()
