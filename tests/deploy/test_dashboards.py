"""Dashboard, alerts and scrape configuration: they parse, and name metrics that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/dashboards/stepback.json"
PROMETHEUS = ROOT / "deploy/prometheus"
_NAME = re.compile(r"\b(?:stepback_|vllm:|process_)[a-zA-Z0-9_:]+")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian's package prometheus has it)",
)


def dashboard_expressions() -> Iterator[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*arguments: str | Path, folder: Path = PROMETHEUS) -> None:
    run = subprocess.run(
        ["promtool", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_metric_that_is_shown_or_watched_exists(server: str) -> None:
    body = {"task": "countdown", "problem": {"numbers": [4, 16, 25, 82], "target": 95}}
    httpx.post(f"{server}/solve", json=body, timeout=300).raise_for_status()
    page = httpx.get(f"{server}/metrics", timeout=300).text
    existing = {re.split(r"[{ ]", line)[0] for line in page.splitlines() if line[:1] != "#"}
    shown = [*dashboard_expressions(), *(rule["expr"] for rule in alerts())]
    named = {name for expression in shown for name in _NAME.findall(expression)}
    assert len(named) > 15
    assert named <= existing, named - existing


def test_every_alert_says_what_to_do() -> None:
    for rule in alerts():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        text = (ROOT / page).read_text()
        headings = re.findall(r"^#+ (.+)$", text, re.M)
        anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
        assert not anchor or anchor in anchors, (rule["alert"], anchors)


@needs_promtool
def test_prometheus_takes_its_configuration_and_the_alerts_fire_when_they_should() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "alerts.test.yml")


@needs_promtool
def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    rules = [
        {
            "record": f"panel:{number}",
            "expr": expression.replace("$__rate_interval", "1m").replace("$instance", ".*"),
        }
        for number, expression in enumerate(dashboard_expressions())
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    promtool("check", "rules", "rules.yml", folder=tmp_path)


def test_what_grafana_is_given_agrees() -> None:
    [source] = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    assert source["type"] == "prometheus"
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in dashboard["panels"])
