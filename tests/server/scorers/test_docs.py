"""The examples of docs/scorers.md: the scorer runs, the entries are read."""

import asyncio
import re
from pathlib import Path
from typing import Any

import uvicorn

from stepback_server.scorers.config import headers_of, read_entries
from stepback_server.scorers.messages import Candidate, Opinion, Question
from stepback_server.scorers.scorer import Scorer
from tests.asgi import listening
from tests.conftest import ROOT

PAGE = (ROOT / "docs/scorers.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_is_a_whole_scorer(tmp_path: Path) -> None:
    [code] = [block for block in blocks("python") if "FastAPI" in block]
    names: dict[str, Any] = {}
    exec(code, names)
    with listening(uvicorn.Config(names["app"], log_level="critical")) as port:
        path = tmp_path / "scorers.toml"
        path.write_text(f'[mine]\nurl = "http://127.0.0.1:{port}/score"')
        scorer = Scorer("mine", read_entries(path)["mine"], {})

        async def ask() -> dict[str, Opinion]:
            candidates = [Candidate(text, text, [text], True) for text in ("5*3=15", "5+3=8")]
            try:
                return await scorer.score(Question("countdown:3,5=15"), candidates)
            finally:
                await scorer.close()

        assert asyncio.run(ask()) == {"5*3=15": Opinion(1.0, True), "5+3=8": Opinion(0.0, False)}


def test_every_entry_of_the_page_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scorers.toml"
    path.write_text("\n".join(blocks("toml")))
    entries = read_entries(path)
    assert {entry.kind for entry in entries.values()} == {"stepback", "vllm-classify", "judge"}
    environment = {"PROOFS_TOKEN": "a", "JUDGE_TOKEN": "b"}
    for name, entry in entries.items():
        headers_of(entry, environment, name)


def test_the_page_has_every_field_with_its_default(tmp_path: Path) -> None:
    path = tmp_path / "scorers.toml"
    url = 'url = "http://x/"\nmodel = "m"'
    kinds = ("vllm-score", "vllm-classify", "judge")
    path.write_text("\n".join(f'[{kind}]\nkind = "{kind}"\n{url}' for kind in kinds))
    fields = {name for entry in read_entries(path).values() for name in type(entry).model_fields}
    table = PAGE.partition("## Fields")[2].partition("##")[0]
    assert {name for name in fields if f"`{name}`" not in table} == set()
