"""`make audit`: known vulnerabilities of what requirements.lock names, as pip-audit finds them.

    python deploy/audit.py [--or-skip]

Run it by the interpreter whose environment has pip-audit. Asks one advisory service after another
until one answers. Exit status: 0 none is known; 1 some are, or the service that answered does not
know a package; 3 no service answers, which `--or-skip` makes 0, with a line that says so.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SERVICES = ("pypi", "osv")
UNANSWERED = 3
_SECONDS = 300

Ask = Callable[[str], str]
"""pip-audit's report in JSON, from a service; anything else where it fails."""


def audited(lock: str) -> str:
    """A lock as an advisory service can look it up: without hashes, and a local build (2.13.0+cpu)
    under the version that it was made of, which is the one that advisories name."""
    pins = re.sub(r" \\\n +--hash=\S+", "", lock)
    return re.sub(r"(==[^\s+]+)\+[\w.]+", r"\1", pins)


def ask(service: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(audited((ROOT / "requirements.lock").read_text()))
        file.flush()
        return _run(service, file.name)


def _run(service: str, requirements: str) -> str:
    command = [Path(sys.executable).with_name("pip-audit"), "--vulnerability-service", service]
    command += ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    command += ["--requirement", requirements]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.decode()


@dataclass(frozen=True)
class Answer:
    """Report of a service: a line for each finding, and for each package that it does not know."""

    findings: list[str]
    unknown: list[str]


def answer_of(report: str) -> Answer | None:
    """Read a service's report. None if it is no answer: a service that is not there, or a package
    index that has no advisories, knows no package at all."""
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None
    unknown = [f"{each['name']}: {each['skip_reason']}" for each in packages if _skipped(each)]
    if len(unknown) == len(packages):
        return None
    findings = [
        f"{each['name']} {each['version']}: {one['id']}, fixed in "
        f"{', '.join(one['fix_versions']) or 'no version yet'}"
        for each in packages
        if not _skipped(each)
        for one in each["vulns"]
    ]
    return Answer(findings, unknown)


def _skipped(package: dict[str, Any]) -> bool:
    return "skip_reason" in package


def audit(ask: Ask, *, or_skip: bool) -> int:
    for service in SERVICES:
        if (answer := answer_of(ask(service))) is not None:
            return _report(service, answer)
    print(
        f"audit: {'SKIPPED' if or_skip else 'FAILED'}: no advisory service answers "
        f"({', '.join(SERVICES)}), so nothing is known of what requirements.lock names",
        file=sys.stderr,
    )
    return 0 if or_skip else UNANSWERED


def _report(service: str, answer: Answer) -> int:
    for line in (*answer.findings, *answer.unknown):
        print(f"audit: {line}", file=sys.stderr)
    print(
        f"audit: {len(answer.findings)} known vulnerabilities, {len(answer.unknown)} packages that "
        f"{service} does not know"
    )
    return 1 if answer.findings or answer.unknown else 0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Known vulnerabilities of requirements.lock.")
    parser.add_argument("--or-skip", action="store_true", help="0 where no service answers")
    return audit(ask, or_skip=parser.parse_args(arguments).or_skip)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
