"""`stepback import`."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from stepback_core.tasks import TASKS
from stepback_core.trace import Grammar


def import_model(arguments: Sequence[str]) -> int:
    """Turn a causal model into a folder to train from and to serve. Returns 0 or 2."""
    given = _parser().parse_args(arguments)
    # Imported here: torch takes seconds, and a bad command line should not wait for it.
    from safetensors import SafetensorError
    from transformers.utils import logging

    from stepback_training.bases.grammar import Wishes
    from stepback_training.importing.import_base import Import, import_base

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    order = Import(
        base=given.base,
        folder=given.out,
        name=given.name or re.sub(r"[^A-Za-z0-9._-]+", "-", given.out.resolve().name),
        wishes=Wishes(
            given.marker, _unescaped(given.separator), given.end, _unescaped(given.frame)
        ),
        tasks=given.task,
        adapter=given.adapter,
        untie=given.untie,
    )
    try:
        imported = import_base(order)
    except (OSError, ValueError, SafetensorError) as error:
        print(f"stepback import: {error}", file=sys.stderr)
        return 2
    grammar = imported.manifest.grammar
    print(f"marker {grammar.marker!r}{' (new)' if imported.adopted.marker_is_new else ''}")
    print(f"separator {grammar.separator!r}, end {grammar.end!r}")
    print(f"prompt frame {grammar.prompt_frame!r}")
    if imported.is_tied:
        print("its head is its embedding: for new weights while it is served, import it by --untie")
    print(given.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    plain = Grammar()
    parser = argparse.ArgumentParser(
        "stepback import",
        description="Turn a causal model of Hugging Face, or a GGUF file, into a folder for "
        "[base] of a recipe and for `stepback serve`.",
    )
    parser.add_argument("base", help="a folder, a .gguf file, package:NAME, or a hub name")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--adapter",
        type=Path,
        help="an adapter of PEFT to merge into it: what `stepback train` with [lora] writes to "
        "adapter/, or any other",
    )
    parser.add_argument("--name", help="the model's name; that of the folder if left out")
    parser.add_argument("--marker", help=f"{plain.marker} if left out; added where it is no token")
    parser.add_argument("--separator", help=r"what closes a step; \n if left out")
    parser.add_argument("--end", help="the token that closes an answer; else the model's own")
    parser.add_argument(
        "--frame",
        help=r"the text around a prompt, with {prompt} in it; the chat template's, or {prompt}\n",
    )
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        choices=[*TASKS],
        help="a task that the model was trained on elsewhere; may be given several times",
    )
    parser.add_argument(
        "--untie", action="store_true", help="give the head weights of its own, for reloading"
    )
    return parser


def _unescaped(text: str | None) -> str | None:
    r"""A text of the command line, where \n and \t stand for what they mean."""
    return text and text.replace(r"\n", "\n").replace(r"\t", "\t")
