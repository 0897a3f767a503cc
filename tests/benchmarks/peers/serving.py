"""One vLLM server for all, that speaks text too, and what it has counted."""

from dataclasses import dataclass
from pathlib import Path

import httpx

from stepback_server.checkpoint import Checkpoint
from stepback_server.settings import Settings
from tests.benchmarks.processes import series
from tests.server.engine.conftest import VllmServer

TEMPLATE = Path(__file__).with_name("chat.jinja")
"""The checkpoint's own prompt frame as a chat template: a system's message is left out."""
_MOST_LOGPROBS = 64
"""vLLM's beam search asks for twice as many as it has beams."""


class TextServer(VllmServer):
    """The server of `stepback engine` with a tokenizer, for clients that send text.

    The marker ends a sample for everybody, as the checkpoint's generation_config.json says.
    """

    @staticmethod
    def flags(settings: Settings, checkpoint: Checkpoint) -> list[str]:
        usual = VllmServer.flags(settings, checkpoint)
        usual.remove("--skip-tokenizer-init")
        del usual[(at := usual.index("--generation-config")) : at + 2]
        more = {"--chat-template": TEMPLATE, "--max-logprobs": _MOST_LOGPROBS}
        return [*usual, *(str(part) for pair in more.items() for part in pair)]


@dataclass(frozen=True, slots=True)
class Counters:
    """Tokens that a server has generated, been asked to continue, and found in its cache."""

    generated: int
    prompted: int
    cached: int

    @classmethod
    def read(cls, url: str) -> "Counters":
        page = httpx.get(f"{url}/metrics", timeout=600).raise_for_status().text
        names = ("generation_tokens_total", "prompt_tokens_total", "prefix_cache_hits_total")
        return cls(*(round(series(page, f"vllm:{name}")) for name in names))

    def since(self, before: "Counters") -> "Counters":
        return Counters(
            self.generated - before.generated,
            self.prompted - before.prompted,
            self.cached - before.cached,
        )
