"""New weights for a served model: which folders and which weights are taken, and the exchange."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from stepback_core.errors import InvalidInput
from stepback_core.schemas import Reload
from stepback_server.checkpoint import Checkpoint, tensor_shapes
from stepback_server.engine.base import EngineError, ReloadFailed, ReloadNotOffered
from stepback_server.engine.supervisor import EngineProvider
from stepback_server.errors import reload_refused
from stepback_server.gateway.admission import Admission
from stepback_server.solve.solver import Solver

_log = logging.getLogger(__name__)

# Fields of config.json that change nothing of what an engine computes with given weights.
_IGNORED_CONFIG_FIELDS = frozenset(
    {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"}
)
# Parts of tokenizer.json that say how it was called last, not how it reads a text.
_TRUNCATION_FIELDS = ("padding", "truncation")
# One code for every such path: an answer must not tell what is elsewhere.
_NOT_UNDER = "reload_path_refused"


def folder_under(root: Path, path: str, *, first: Path | None = None) -> Path:
    """The folder that a caller names, absolute or relative to `root`, every link followed.

    Raises ApiError where it, or a file in it, is not under `root`, whether it exists or not.
    `first` may be named too: what the operator serves from the start.
    """
    try:
        top = root.resolve()
        folder = (top / path).resolve()
        # The first folder may lie elsewhere, and going back to it must be possible without moving
        # it.
        is_first = first is not None and folder == first.resolve()
        is_inside = is_first or (
            folder.is_relative_to(top)
            # A link inside of an allowed folder could name any file of the machine.
            and all(each.resolve().is_relative_to(top) for each in _files(folder))
        )
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a NUL
        raise reload_refused(_NOT_UNDER, "it names no folder that can be read.") from error
    if not is_inside:
        raise reload_refused(
            _NOT_UNDER, "it is not under the folder that this server takes weights from."
        )
    return folder


def _files(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


def check_successor(served: Checkpoint, new: Checkpoint) -> None:
    """Raise InvalidInput unless an engine that serves the one can go on with the other, and a
    caller too: the same name, tasks, grammar, tokenizer, and shape of the weights."""
    for part in ("name", "tasks", "grammar", "marker_id", "end_id", "separator_ids"):
        _agree(new, f"stepback.json: {part}", getattr(served.manifest, part), new.manifest)
    # The prompts of searches in the queue are encoded already, with the tokenizer of before.
    if _tokenizer(served) != _tokenizer(new):
        raise InvalidInput(f"{new.folder}/tokenizer.json differs from that of what is served")
    old_config, config = _config(served), _config(new)
    for field in sorted(old_config.keys() | config.keys()):
        if old_config.get(field) != config.get(field):
            raise InvalidInput(
                f"{new.folder}/config.json: {field} is {config.get(field)!r}, of what is served "
                f"{old_config.get(field)!r}: another architecture needs a restart"
            )
    shapes = tensor_shapes(new.folder)
    # Checked on the new folder alone: shapes that differ are refused below, so both are untied or
    # neither.
    if "lm_head.weight" not in shapes or config.get("tie_word_embeddings"):
        raise InvalidInput(
            f"{new.folder}: its embeddings are tied, and vLLM would keep the old output head: "
            "export it untied (tie_word_embeddings false, an lm_head.weight of its own) and serve "
            "it so from the start"
        )
    if tensor_shapes(served.folder) != shapes:
        raise InvalidInput(f"{new.folder}: its weights have other names or shapes")


def _agree(new: Checkpoint, part: str, wanted: object, holder: Any) -> None:
    found = getattr(holder, part.rpartition(" ")[2])
    if found != wanted:
        raise InvalidInput(f"{new.folder}/{part} is {found!r}, of what is served {wanted!r}")


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    fields = _read(checkpoint.folder / "config.json")
    return {name: value for name, value in fields.items() if name not in _IGNORED_CONFIG_FIELDS}


def _tokenizer(checkpoint: Checkpoint) -> dict[str, Any]:
    """tokenizer.json, without what does not count."""
    parts = _read(checkpoint.folder / "tokenizer.json")
    return {name: part for name, part in parts.items() if name not in _TRUNCATION_FIELDS}


def _read(path: Path) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: cannot be read ({error})") from error


class Served:
    """The checkpoint that is served now. Every engine is started with this one."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.shortened: Callable[[int], None] = lambda tokens: None
        """Called with each shorter context."""

    def shorten(self, tokens: int) -> None:
        """Go on with a context of `tokens`, if that is shorter. May be called in any thread."""
        before = self.checkpoint.context_tokens
        if tokens >= before:
            return
        _log.warning(
            "an engine has a context of %d tokens, so %d are served and not %d: "
            "STEPBACK_CONTEXT_TOKENS names a context that every engine must have",
            *(tokens, tokens, before),
        )
        self.checkpoint = replace(self.checkpoint, context_tokens=tokens)
        self.shortened(tokens)


class Reloader:
    """Exchanges the weights of running engines while no search is in flight."""

    def __init__(
        self,
        served: Served,
        keeper: EngineProvider,
        admission: Admission,
        solver: Solver,
        *,
        root: Path | None,
        grace_seconds: float,
    ) -> None:
        """`root` is the folder that weights may come from; None offers no reload."""
        self._served = served
        self._first = served.checkpoint.folder
        self._keeper = keeper
        self._admission = admission
        self._solver = solver
        self._root = root
        self._grace_seconds = grace_seconds
        self._one_at_a_time = asyncio.Lock()

    async def reload(self, path: str) -> Reload:
        """Go on with the weights of another folder, once the searches in flight have ended or
        outlasted the grace period; new ones wait meanwhile. Weights that are served already are
        not loaded again.

        Raises ApiError and ReloadNotOffered, with nothing changed;
        ReloadFailed, after which engines are started again with what was served before.
        """
        if self._root is None:
            raise ReloadNotOffered("no STEPBACK_RELOAD_ROOT is set")
        # Two at once could leave some engines with the weights of one and others with those of the
        # other.
        async with self._one_at_a_time:
            # Digests read whole files: seconds for large weights, which the loop does not have.
            new = await asyncio.to_thread(self._find, self._root, path)
            self._keeper.ensure_up()
            started, previous = time.monotonic(), self._served.checkpoint.digest
            # Searches wait in the queue meanwhile instead of being refused: a reload is no outage.
            with self._admission.held():
                cut_short = 0 if new.digest == previous else await self._settle()
                await self._follow(new)
        return Reload(
            model=new.manifest.name,
            digest=new.digest,
            previous=previous,
            cut_short=cut_short,
            seconds=time.monotonic() - started,
        )

    def _find(self, root: Path, path: str) -> Checkpoint:
        folder = folder_under(root, path, first=self._first)
        try:
            new = Checkpoint.open(folder)
            check_successor(self._served.checkpoint, new)
        except InvalidInput as error:
            raise reload_refused("reload_mismatch", str(error)) from error
        # The engine keeps the context that it was started with, whatever the new config.json would
        # allow.
        return replace(new, context_tokens=self._served.checkpoint.context_tokens)

    async def _settle(self) -> int:
        """Wait until no search is in flight; return how many had to be cut short for that."""
        try:
            async with asyncio.timeout(self._grace_seconds):
                await self._admission.idle.wait()
            return 0
        except TimeoutError:
            cut_short = self._solver.cut_short()
            await self._admission.idle.wait()
            return cut_short

    async def _follow(self, new: Checkpoint) -> None:
        previous = self._served.checkpoint
        # First, so that an engine that is lost meanwhile comes back with the new weights.
        self._served.checkpoint = new
        try:
            await self._load(new, previous)
        # A cancelled reload too: the weights may be of either checkpoint by then, and only a fresh
        # engine is known to have the ones of before.
        except BaseException as error:
            self._served.checkpoint = previous
            if not isinstance(error, ReloadNotOffered):
                await self._keeper.discard(f"new weights could not be loaded ({error})")
            if isinstance(error, EngineError) and not isinstance(error, ReloadNotOffered):
                raise ReloadFailed(str(error)) from error
            raise
        # Last, once no error can come: answers name the digest that the solver holds. Not `new`: an
        # engine that came meanwhile may have shortened the context.
        self._solver.follow(self._served.checkpoint)

    async def _load(self, new: Checkpoint, previous: Checkpoint) -> None:
        if new.digest != previous.digest and not await self._keeper.reload(new.folder):
            raise ReloadFailed("the engine has the weights that it had before")
