"""Reading of pip-audit's reports by `make audit`."""

import json
from typing import Any

import pytest
from deploy.audit import UNANSWERED, audit, audited

FINE = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI"}
BROKEN = "requests.exceptions.ConnectionError"


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def status(pypi: str, osv: str = "", *, or_skip: bool = True) -> int:
    return audit({"pypi": pypi, "osv": osv}.__getitem__, or_skip=or_skip)


def test_a_finding_fails_wherever_it_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(report(FINE, BAD)) == status(report(FINE, BAD), or_skip=False) == 1
    assert "b 2: CVE-1, fixed in 3" in capsys.readouterr().err
    assert status(report(FINE)) == 0


def test_a_package_that_an_answering_service_does_not_know_fails() -> None:
    assert status(report(FINE, UNKNOWN)) == 1


@pytest.mark.parametrize("silence", ["", BROKEN, "[]", "{}", report(UNKNOWN)])
def test_where_no_service_answers_only_ci_goes_on_and_says_so(
    silence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An index that serves packages and no advisories knows none of them."""
    assert status(silence, silence) == 0
    assert "audit: SKIPPED: no advisory service answers" in capsys.readouterr().err
    assert status(silence, silence, or_skip=False) == UNANSWERED


def test_another_service_is_asked_where_one_does_not_answer() -> None:
    assert status(BROKEN, report(BAD)) == 1
    assert status(report(UNKNOWN), report(FINE)) == 0


def test_a_local_build_is_looked_up_under_the_version_that_it_was_built_from() -> None:
    lock = "# Made by hand: a+b\ntorch==2.13.0+cpu\nvllm-cpu==0.32.0\n"
    assert audited(lock) == lock.replace("+cpu", "")
    assert audited("a==1 \\\n    --hash=sha256:0a \\\n    --hash=sha256:0b\n") == "a==1\n"
