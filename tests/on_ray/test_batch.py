"""`stepback batch --on ray`: two actors on a local cluster, one killed in the middle."""

import json
import signal
from pathlib import Path

from cluster import SECONDS, actors, begin, wait_for, written
from tests.conftest import CHECKPOINT

BODY = {"task": "countdown", "problem": {"numbers": [3, 5], "target": 15}}
COUNT = 60


def test_each_line_is_answered_once_though_an_actor_is_killed(engine: str, tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    bodies = [BODY | ({"breadth": 0} if number == 7 else {}) for number in range(COUNT)]
    lines = [{"custom_id": str(number), "body": body} for number, body in enumerate(bodies)]
    given.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ["--model", CHECKPOINT, "--on", "ray", "--actors", "2", "--in-flight", "2"]
    process = begin(["batch", given, "--out", out, *flags], tmp_path, engine)
    try:
        wait_for(lambda: len(written(out)) > 5 or process.poll() is not None)
        assert process.poll() is None
        victim, *_ = actors(process.pid)
        victim.send_signal(signal.SIGKILL)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
    found = {line["custom_id"]: line for line in written(out)}
    assert len(written(out)) == len(found) == COUNT
    assert found.pop("7")["error"]["status"] == 422
    assert {line["result"]["status"] for line in found.values()} == {"solved"}
