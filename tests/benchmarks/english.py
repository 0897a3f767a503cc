"""The loss of a base model on a page of English, in nats a token: what dequantising left of it.

The page is the beginning of the LICENSE of this repository, or another text file. A published
model has this text in its training data, so the number compares copies of one model with each
other, and not models.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import ROOT

_CHARACTERS = 6000


def loss_of(folder: Path, text: str) -> tuple[float, int]:
    """Mean loss a token in float32, and the number of tokens."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([tokenizer.encode(text)])
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss), ids.shape[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a folder")
    parser.add_argument("--text", type=Path, default=ROOT / "LICENSE", help="the page")
    given = parser.parse_args()
    text = given.text.read_text(encoding="utf-8")[:_CHARACTERS]
    loss, tokens = loss_of(given.model, text)
    print(f"{given.model.name} on {given.text.name}: {loss:.3f} nats a token, of {tokens} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
