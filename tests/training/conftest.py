"""A controller for what is refused before an engine is asked anything."""

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.conftest import CHECKPOINT, start_controller, wait_until_ok


@pytest.fixture(scope="session")
def knows_countdown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a controller whose model knows Countdown alone. It has no engine."""
    folder = tmp_path_factory.mktemp("countdown")
    model = shutil.copytree(CHECKPOINT, folder / "model")
    manifest = json.loads((model / "stepback.json").read_text()) | {"tasks": ["countdown"]}
    (model / "stepback.json").write_text(json.dumps(manifest))
    log = folder / "log.txt"
    process, url = start_controller(log, model, engine_urls="http://127.0.0.1:9")
    try:
        wait_until_ok(f"{url}/health", process, log)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)
