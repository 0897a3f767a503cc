"""Checkpoints: the finished, self-describing folder, and the resumable ones during a run.

Everything is written next to its place, forced to disk and renamed into it, so a kill never leaves
half of one under its name.
"""

import errno
import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from stepback_core.manifest import Manifest
from stepback_training.train.model_card import model_card

_NO_SYNC_OF_FOLDERS = frozenset(
    {
        *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EISDIR),
        # Some refuse to open a folder at all.
        *(errno.EACCES, errno.EPERM),
    }
)
_RESUMABLE = re.compile(r"checkpoint-(\d+)")


def export(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    manifest: Manifest,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write a folder that plain `transformers` and plain vLLM load, as safetensors."""
    model.generation_config = GenerationConfig(
        eos_token_id=[manifest.end_id, manifest.marker_id], pad_token_id=tokenizer.pad_token_id
    )
    model.config.use_cache = True
    with whole_folder(folder) as staging:
        model.to(dtype).save_pretrained(staging)  # pyright: ignore[reportArgumentType]
        tokenizer.save_pretrained(staging)
        manifest.write(staging)
        (staging / "README.md").write_text(model_card(manifest), encoding="utf-8")


@contextmanager
def whole_folder(folder: Path) -> Generator[Path]:
    """Give a folder to write to, which then takes this one's place. Raises OSError where writing
    fails."""
    staging = folder.with_name(folder.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    with told_of_full_disks(folder, staging):
        yield staging
    replace_folder(staging, folder)


@contextmanager
def told_of_full_disks(folder: Path, staging: Path) -> Generator[None]:
    """Raise an OSError where writing fails, without what was written to `staging` by then. Errors
    of safetensors and torch are of other types; torch's does not even say that a disk is full."""
    try:
        yield
    except (SafetensorError, RuntimeError, OSError) as error:
        # Half a checkpoint is of no use, and takes the room that is wanting.
        shutil.rmtree(staging, ignore_errors=True)
        text = str(error)
        if "No space left" in text or "PytorchStreamWriter" in text or "inline_container" in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise


def replace_folder(staging: Path, folder: Path) -> None:
    """Put a finished folder in its place, over an older one. After a kill in between the older one
    is still there, under its own name or with `.old` after it."""
    sync(staging)
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
    staging.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def resumable(run: Path) -> list[Path]:
    """A run's whole checkpoints, oldest first."""
    found = [(int(m[1]), path) for path in run.glob("*") if (m := _RESUMABLE.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def sync(folder: Path) -> None:
    """Force a folder's files to disk before it is renamed."""
    for path in [*folder.rglob("*"), folder]:
        try:
            _sync_one(path)
        except OSError as error:
            # Mounts by SMB or FUSE write files well and refuse to sync a folder.
            if not path.is_dir() or error.errno not in _NO_SYNC_OF_FOLDERS:
                raise


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
