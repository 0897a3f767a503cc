"""Engine requests of one search: its prompt, seeds and names on each."""

import uuid
from hashlib import sha256

from stepback_core.trace import TokenGrammar
from stepback_server.engine.base import SampleRequest
from stepback_server.search.strategy import Expansion


class SampleRequests:
    """Makes the engine requests of one search."""

    def __init__(self, grammar: TokenGrammar, prompt_ids: tuple[int, ...], seed: int | None):
        self._grammar = grammar
        self._prompt_ids = prompt_ids
        self._first_seed = None if seed is None else _first_seed(seed)
        # A prefix that another search has left in the cache was computed in other batches, and
        # differs from one that is computed now in its last bits.
        self._salt = "" if seed is None else uuid.uuid4().hex
        # Random also under a seed: two equal requests should spread over the engines.
        self._tree = uuid.uuid4().hex

    def prefix_tokens(self, expansion: Expansion) -> int:
        """Return the number of tokens that a continuation follows."""
        return len(self._prompt_ids) + len(expansion.state.ids)

    def of(self, expansion: Expansion, numbers: list[int], tokens: int) -> SampleRequest:
        """Return the request for these samples of an expansion, of at most `tokens` each."""
        grammar, first_seed = self._grammar, self._first_seed
        steps = tuple(sorted(grammar.separator_ids)) if expansion.stop_at_steps else ()
        return SampleRequest(
            ids=self._prompt_ids + expansion.state.ids,
            n=len(numbers),
            max_tokens=tokens,
            temperature=expansion.temperature,
            # By the sample's number, never by its place in the request: a request may be split for
            # the budget.
            seeds=None if first_seed is None else tuple(first_seed + each for each in numbers),
            stop_ids=grammar.stop_ids + steps,
            alternatives=expansion.alternatives,
            tree=self._tree,
            salt=self._salt,
        )


def _first_seed(seed: int) -> int:
    """Return the seed of a search's sample 0; sample i has this plus i, as within one request.

    Hashed into 62 bits, so that searches with neighbouring seeds share no sample.
    """
    # vLLM takes signed 64-bit seeds; two bits less leave room for the sample's number on top.
    return int.from_bytes(sha256(str(seed).encode()).digest()[:8]) >> 2
