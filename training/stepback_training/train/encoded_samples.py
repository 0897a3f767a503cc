"""Many samples as token ids and loss flags, in flat arrays."""

from array import array
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepback_client.batch import json_lines
from stepback_core.trace import TraceCodec
from stepback_training.data.samples import Sample, samples_of
from stepback_training.train.loss_mask import encode, refuse_reserved

# Lines that one process encodes at a time.
_BLOCK = 20_000
_SHORT = 64
"""Characters of the longest step that is remembered."""


class _Block(NamedTuple):
    """Samples that were encoded together."""

    ids: NDArray[np.int32]
    has_loss: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    prompt_lengths: NDArray[np.int64]
    longest_answers: dict[str, int]


class EncodedSamples:
    """Many encoded samples in three flat arrays: ids, loss flags, and where each sample starts.

    `tasks` are the names that prompts may begin with: the longest answer of each is known. Raises
    ValueError for a sample whose text holds the marker, the end, or a separator in a step.
    """

    def __init__(self, blocks: Sequence[_Block]) -> None:
        """Join blocks; `of` and `read` make them."""
        self.ids = np.concatenate([block.ids for block in blocks] or [np.zeros(0, np.int32)])
        self.has_loss = np.concatenate([b.has_loss for b in blocks] or [np.zeros(0, np.bool_)])
        self.lengths = np.concatenate([b.lengths for b in blocks] or [np.zeros(0, np.int64)])
        self.prompt_lengths = np.concatenate(
            [b.prompt_lengths for b in blocks] or [np.zeros(0, np.int64)]
        )
        # One more than there are samples: the last one's end.
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.longest_answers: dict[str, int] = {}
        """Tokens of the longest whole answer without its prompt, by task; "" for other prompts."""
        for block in blocks:
            for task, longest in block.longest_answers.items():
                self.longest_answers[task] = max(longest, self.longest_answers.get(task, 0))

    @classmethod
    def of(
        cls, samples: Iterable[Sample], codec: TraceCodec, tasks: Sequence[str] = ()
    ) -> "EncodedSamples":
        """Encode samples in this process."""
        return cls([_encode_block(samples, codec, tasks)])

    @classmethod
    def read(
        cls, path: Path, codec: TraceCodec, tasks: Sequence[str] = (), *, processes: int
    ) -> "EncodedSamples":
        """Encode the samples of a JSONL file with `processes` processes. Raises InvalidInput as
        well."""
        lines = list(json_lines(path))
        starts = range(0, len(lines), _BLOCK)
        jobs = [(path, start, lines[start : start + _BLOCK], codec, tasks) for start in starts]
        if processes == 1 or len(jobs) <= 1:
            blocks = [_encode_lines(*job) for job in jobs]
        else:
            # Not forked: the process has threads by now, and maybe a GPU.
            context = get_context("forkserver")
            with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
                blocks = list(pool.map(_encode_lines, *zip(*jobs, strict=True)))
        return cls(blocks)

    def __len__(self) -> int:
        return len(self.lengths)

    def there(self, sample: int) -> slice:
        """The place of a sample in the flat arrays."""
        return slice(int(self.starts[sample]), int(self.starts[sample + 1]))

    def ids_of(self, sample: int) -> NDArray[np.int32]:
        """The ids of a sample."""
        return self.ids[self.there(sample)]

    def prompt(self, sample: int) -> bytes:
        """The ids of a sample's prompt, to be compared."""
        return self.ids_of(sample)[: self.prompt_lengths[sample]].tobytes()


def _encode_lines(
    path: Path, skipped: int, lines: list[bytes], codec: TraceCodec, tasks: Sequence[str]
) -> _Block:
    """Encode the lines of a file after the first `skipped` ones."""
    samples = samples_of(path, lines, first=skipped + 1)
    return _encode_block(samples, codec, tasks, skipped + 1)


def _encode_block(
    samples: Iterable[Sample], codec: TraceCodec, tasks: Sequence[str], first: int = 1
) -> _Block:
    # Arrays: a list takes ten times the memory, which for long traces is many times the file's.
    ids, has_loss = array("i"), array("b")
    lengths: list[int] = []
    prompts: list[int] = []
    longest: dict[str, int] = {}
    # Most of a call of a tokenizer is overhead, and short steps repeat.
    remembered = lru_cache(maxsize=_BLOCK)(codec.encode_step)

    def encode_step(step: str) -> list[int]:
        return remembered(step) if len(step) <= _SHORT else codec.encode_step(step)

    for number, sample in enumerate(samples, start=first):
        refuse_reserved(sample, number, codec)
        encoded = encode(sample, codec, encode_step)
        ids.extend(encoded.ids)
        has_loss.extend(encoded.has_loss)
        lengths.append(len(encoded.ids))
        prompts.append(encoded.prompt_tokens)
        # By the prompt's beginning, since samples from elsewhere name no task.
        task = next((name for name in tasks if sample.prompt.startswith(f"{name}:")), "")
        if not sample.beginning:
            longest[task] = max(longest.get(task, 0), len(encoded.ids) - encoded.prompt_tokens)
    return _Block(
        # Four bytes a token: there are many millions, and blocks travel between processes.
        np.asarray(ids, np.int32),
        np.asarray(has_loss).astype(np.bool_),
        np.asarray(lengths, np.int64),
        np.asarray(prompts, np.int64),
        longest,
    )
