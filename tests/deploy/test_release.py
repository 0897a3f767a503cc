"""The release workflow and the community's files agree with the repository that they speak of."""

import re

import yaml

from tests.conftest import ROOT

WORKFLOW = (ROOT / ".github/workflows/release.yml").read_text()
JOBS = yaml.safe_load(WORKFLOW)["jobs"]


def test_the_workflow_builds_every_image_of_the_dockerfile() -> None:
    targets = JOBS["images"]["strategy"]["matrix"]["target"]
    stages = re.findall(r"^FROM .* AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(targets) <= set(stages)
    assert set(targets) == {"controller", "cpu", "cuda"}


def test_each_job_names_what_it_may_do_and_none_writes_to_the_repository() -> None:
    assert yaml.safe_load(WORKFLOW)["permissions"] == {}
    for job in JOBS.values():
        assert job["permissions"]["contents"] == "read"


def test_each_command_of_the_workflow_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"run: make (\S+)", WORKFLOW):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert (ROOT / ".ci/run").is_file() and ".ci/run" in WORKFLOW


def test_an_issue_form_asks_for_something_under_a_name_of_its_own() -> None:
    forms = [
        yaml.safe_load(path.read_text())
        for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")
        if path.name != "config.yml"
    ]
    assert len(forms) == 2
    for form in forms:
        names = [part["id"] for part in form["body"]]
        assert form["name"] and form["description"] and len(set(names)) == len(names)


def test_the_citation_names_the_paper_that_the_readme_names() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    [paper] = citation["references"]
    assert paper["url"] in (ROOT / "README.md").read_text()
