"""The page: searches watched to their end, compared, continued, shared; batches; large trees."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import SHOTS
from playwright.sync_api import Page, Route, expect

SSE = "text/event-stream"
OVER = ".status.solved, .status.unsolved, .status.unverified"


def solve(page: Page) -> None:
    page.get_by_role("button", name="Solve").click()


def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def assert_accessible(page: Page) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page)
        assert not found.violations_count, found.generate_report()


def test_the_first_click_shows_a_watched_answer(page: Page) -> None:
    solve(page)
    expect(page.locator(".status")).to_contain_text("solved")
    # A dead end that the model takes back, and then the answer.
    expect(page.get_by_role("treeitem").first).to_contain_text("93+48=141")
    expect(page.get_by_role("treeitem").first).to_contain_text("taken back")
    expect(page.locator(".step.lit").first).to_have_text("93-48=45")
    assert_accessible(page)
    shoot(page, "search")


def test_a_maze_and_a_sudoku_show_their_pictures(page: Page) -> None:
    for task, filled in (("maze", "td.way"), ("sudoku", "td.filled")):
        page.get_by_label("problem").select_option(task)
        solve(page)
        expect(page.locator(".status")).to_contain_text("solved")
        expect(page.locator(f".picture {filled}").first).to_be_visible()
        shoot(page, task)


def test_the_picture_fills_while_a_search_runs(page: Page) -> None:
    """The stream is cut after two steps, so the page stays as it was in the middle."""
    limits = {"tokens": 900, "seconds": 60, "tokens_per_branch": 99}
    told = [
        {"type": "started", "id": "s-1", "model": "m", "strategy": "best_first"}
        | {"select": "verified", "limits": limits},
        *(
            {"type": "step", "branch": 1, "parent": 0, "index": index, "text": text}
            for index, text in enumerate(("Aa4", "Ab2"))
        ),
        {"type": "usage", "branches": 1, "in_flight": 6, "generated_tokens": 40}
        | {"cached_tokens": 0, "backtracks": 0, "seconds_searching": 0.3},
    ]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in told)
    page.route("**/solve", lambda route: route.fulfill(body=stream, content_type=SSE))
    page.get_by_label("problem").select_option("sudoku")
    page.get_by_label("rows").fill("..3.\n3...\n...1\n.1..")
    solve(page)
    expect(page.locator(".status")).to_contain_text("failed")
    expect(page.locator(".picture td.filled")).to_have_text(["4", "2"])
    expect(page.get_by_role("heading", name="Latest branch")).to_be_visible()
    expect(page.locator(".timeline figcaption")).to_contain_text("1 branch, up to 6 at once")
    assert_accessible(page)


def test_two_searches_run_side_by_side(page: Page) -> None:
    page.get_by_label("strategy").select_option("self_backtracking")
    page.get_by_label("choose by").select_option("perplexity")
    page.get_by_label("compare with a second search").check()
    page.get_by_label("token budget").fill("2000")
    solve(page)
    expect(page.locator(OVER)).to_have_count(2)
    page.get_by_role("treeitem").first.click()
    page.keyboard.press("End")
    expect(page.locator("[aria-selected=true]")).to_have_count(1)
    assert_accessible(page)
    shoot(page, "compare")


def test_a_bad_problem_is_refused_with_a_sentence(page: Page) -> None:
    page.get_by_label("numbers").fill("4 sixteen")
    solve(page)
    expect(page.get_by_role("alert")).to_contain_text("write numbers with spaces")
    page.get_by_label("numbers").fill("4")
    solve(page)
    expect(page.get_by_role("alert")).to_contain_text("numbers")


def test_a_link_opens_a_finished_search_without_the_server(page: Page) -> None:
    solve(page)
    expect(page.locator(OVER)).to_have_count(1)
    page.get_by_role("button", name="Link").click()
    page.wait_for_url("**/*#run=*")
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_role("treeitem").first).to_contain_text("93+48=141")


PROBLEM = {"numbers": [4, 16, 25, 81], "target": 94}


def finished(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """A result with this tree and no answer."""
    usage = {"generated_tokens": 75513, "seconds_searching": 22.1}
    return {
        "id": "s-1", "status": "unsolved", "stop_reason": "exhausted", "answer": None,
        "strategy": "self_backtracking", "candidates": [], "usage": usage, "tree": nodes,
    }  # fmt: skip


def node(id: int, parent: int | None, kept: int, steps: list[str], ended: str | None) -> Any:
    plain = {"id": id, "parent": parent, "kept_steps": kept, "steps": steps}
    return plain | {"outcome": ended, "score": None if parent is None else -0.5}


FROM_THE_START = [
    node(0, None, 0, [], None),
    node(1, 0, 0, ["16-4=12", "81-25=56"], "unfinished"),
    node(2, 1, 1, ["25+12=38"], "illegal"),
]
FROM_A_STEP = [
    node(0, None, 0, ["16-4=12"], None),
    node(1, 0, 1, ["25-12=13", "81+12=93"], "unfinished"),
    node(2, 1, 2, ["81-13=69"], "illegal"),
]


def test_a_plugins_picture_is_text(page: Page, tmp_path: Path) -> None:
    answer = {"text": "16-4=12", "steps": ["16-4=12"], "score": -0.1, "verified": True, "votes": 1}
    drawn = {"answer": answer, "candidates": [answer], "picture": "<b>+</b>\n|x|"}
    file = tmp_path / "search.json"
    request = {"task": "countdown", "problem": PROBLEM, "strategy": "best_first", "breadth": 16}
    result = finished(FROM_THE_START) | drawn
    file.write_text(json.dumps({"request": request, "result": result}))
    page.locator("input[type=file]").first.set_input_files(file)
    expect(page.locator("pre.picture")).to_have_text("<b>+</b>\n|x|")
    assert_accessible(page)


@pytest.mark.parametrize(
    ("nodes", "steps"),
    [(FROM_THE_START, ["16-4=12"]), (FROM_A_STEP, ["16-4=12", "25-12=13"])],
    ids=["once", "again"],
)
def test_a_branch_is_continued(
    page: Page, tmp_path: Path, nodes: list[Any], steps: list[str]
) -> None:
    file = tmp_path / "search.json"
    request = {"task": "countdown", "problem": PROBLEM, "strategy": "best_first", "breadth": 16}
    file.write_text(json.dumps({"request": request, "result": finished(nodes)}))
    page.locator("input[type=file]").first.set_input_files(file)
    page.get_by_role("treeitem").first.click()
    assert page.locator(".details li").all_inner_texts() == steps
    assert_accessible(page)
    with page.expect_request("**/solve") as asked:
        page.get_by_role("button", name="Continue from here").click()
    assert asked.value.post_data_json["steps"] == steps
    expect(page.locator(".status")).to_contain_text("solved")
    expect(page.locator(".step.lit").first).to_have_text("16-4=12")
    expect(page.get_by_text(f"continues {len(steps)} steps")).to_be_visible()
    expect(page.get_by_label("target")).to_have_value("94")
    shoot(page, "continued")


def test_a_scorer_chooses_where_the_server_has_one(page: Page) -> None:
    page.get_by_label("scorer").select_option("generous")
    page.get_by_label("choose by").select_option("score")
    page.get_by_label("token budget").fill("300")
    with page.expect_request("**/solve") as asked:
        solve(page)
    body = asked.value.post_data_json
    assert (body["scorer"], body["select"]) == ("generous", "score")
    expect(page.locator(OVER)).to_have_count(1)
    assert_accessible(page)
    shoot(page, "scorer")


def test_a_batch_is_cancelled(page: Page, tmp_path: Path) -> None:
    """Its lines would take minutes."""
    body = {"task": "countdown", "problem": {"numbers": [25, 81], "target": 7}, "select": "vote"}
    line = {"method": "POST", "url": "/solve", "body": body | {"strategy": "best_of_n"}}
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"custom_id": f"r{n}"} | line) + "\n" for n in range(5000)))
    page.get_by_role("button", name="Jobs").click()
    page.get_by_label("File of the batch").set_input_files(file)
    row = page.get_by_role("row").filter(has_text="in_progress")
    expect(row).to_contain_text("of 5000")
    assert_accessible(page)
    shoot(page, "batch")
    page.get_by_role("button", name="Cancel batch_").click()
    expect(page.get_by_role("row").filter(has_text="cancelled")).to_contain_text("of 5000")
    expect(page.get_by_role("button", name="Cancel batch_")).to_have_count(0)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Errors of batch_").click()
    assert saved.value.path().read_text().count("batch_cancelled") > 0
    assert_accessible(page)
    shoot(page, "jobs")


def large_tree(branches: int) -> dict[str, Any]:
    """A result with a tree of that many branches, nearly all of them different."""
    draw = random.Random(1)
    nodes: list[dict[str, Any]] = [
        {"id": 0, "parent": None, "kept_steps": 0, "steps": [], "outcome": None, "score": None}
    ]
    for number in range(1, branches + 1):
        parent = draw.randrange(number)
        kept = draw.randrange(1 + len(nodes[parent]["steps"]) + nodes[parent]["kept_steps"])
        steps = [f"{draw.randrange(500)}+{draw.randrange(9)}={n}" for n in range(3)]
        outcome = draw.choice(["answer", "backtrack", "illegal", "unfinished"])
        nodes.append(
            {"id": number, "parent": parent, "kept_steps": kept, "steps": steps}
            | {"outcome": outcome, "score": -draw.random()}
        )
    return finished(nodes)


def test_a_key_is_kept_in_memory_alone(page: Page) -> None:
    def locked(route: Route) -> None:
        headers = route.request.headers
        if headers.pop("authorization", None) == "Bearer my-secret":
            route.continue_(headers=headers)
        else:
            route.fulfill(status=401, json={"error": {"message": "Send an API key."}})

    page.route("**/v1/models", locked)
    page.reload()
    page.get_by_label("API key").fill("my-secret")
    assert_accessible(page)
    shoot(page, "key")
    page.get_by_role("button", name="Use").click()
    expect(page.get_by_role("button", name="Solve")).to_be_visible()
    expect(page.get_by_label("API key")).to_have_count(0)
    kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
    assert kept == [0, 0, ""] and "my-secret" not in page.content() + page.url
    page.reload()
    expect(page.get_by_label("API key")).to_have_value("")


def test_a_tree_of_6656_branches_draws_what_is_seen(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "search.json"
    file.write_text(json.dumps(large_tree(6656)))
    page.locator("input[type=file]").first.set_input_files(file)
    expect(page.locator(".timeline figcaption")).to_contain_text("6656 branches")
    tree = page.get_by_role("tree")
    assert int(tree.evaluate("box => box.scrollHeight")) > 28 * 3000
    assert page.get_by_role("treeitem").count() < 80
    tree.focus()
    page.keyboard.press("End")
    last = page.locator("[aria-selected=true]")
    expect(last).to_be_visible()
    # A screen reader tells the place among siblings that are not drawn.
    assert last.get_attribute("aria-posinset") == last.get_attribute("aria-setsize")
    assert int(last.get_attribute("aria-setsize") or 0) >= 1
    assert page.get_by_role("treeitem").count() < 80
    assert_accessible(page)
    shoot(page, "large")


def test_a_broken_file_and_a_broken_link_say_so(page: Page, tmp_path: Path, url: str) -> None:
    file = tmp_path / "broken.json"
    file.write_text("{")
    page.locator("input[type=file]").first.set_input_files(file)
    expect(page.locator(".toolbar [role=status]")).to_contain_text("no search")
    page.goto(f"{url}/ui/#run=AAAA")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("damaged")


WHOLE = finished(FROM_THE_START)


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        "a search",
        [None],
        WHOLE | {"usage": {}},
        WHOLE | {"answer": {"steps": "16-4=12"}},
        WHOLE | {"candidates": None},
        WHOLE | {"tree": [{"id": 1}]},
        WHOLE | {"tree": [node(1, 0, 0, [{"a": 1}], "answer")]},  # pyright: ignore[reportArgumentType]
        {"request": {"task": "countdown"}, "result": None},
    ],
)
def test_a_file_that_is_no_search_changes_nothing(page: Page, tmp_path: Path, found: Any) -> None:
    whole, file = tmp_path / "whole.json", tmp_path / "broken.json"
    whole.write_text(json.dumps(WHOLE))
    page.locator("input[type=file]").first.set_input_files(whole)
    page.get_by_role("treeitem").first.click()
    # Nothing says which problem it is of.
    expect(page.get_by_role("button", name="Continue from here")).to_have_count(0)
    file.write_text(json.dumps(found))
    page.locator("input[type=file]").first.set_input_files(file)
    expect(page.locator(".toolbar [role=status]")).to_contain_text("no search")
    expect(page.locator(".status")).to_contain_text("unsolved")


def answer_with(page: Page, path: str, body: dict[str, Any]) -> None:
    page.route(path, lambda route: route.fulfill(json=body))


def test_background_searches_are_shown_continued_and_say_why_they_failed(page: Page) -> None:
    base = {"object": "search", "created_at": 1, "generated_tokens": 5}
    asked = {"task": "countdown", "problem": PROBLEM, "background": True}
    jobs = [
        base | {"id": "s-good", "status": "completed", "request": asked, "result": WHOLE},
        base | {"id": "s-bad", "status": "failed", "error": {"message": "the key was withdrawn"}},
        base | {"id": "s-cut", "status": "cancelled"},
    ]
    for job in jobs:
        answer_with(page, f"**/v1/searches/{job['id']}", job)
    answer_with(page, "**/v1/searches?*", {"data": jobs})
    page.get_by_role("button", name="Jobs").click()
    expect(page.get_by_role("button", name="Cancel s-")).to_have_count(0)
    expect(page.get_by_role("button", name="Show s-cut")).to_have_count(0)
    page.get_by_role("button", name="Show s-bad").click()
    expect(page.get_by_role("alert")).to_contain_text("the key was withdrawn")
    page.wait_for_timeout(3000)  # the next look at the jobs leaves it there
    expect(page.get_by_role("alert")).to_contain_text("the key was withdrawn")
    page.get_by_role("button", name="Show s-good").click()
    page.get_by_role("treeitem").first.click()
    tree = page.get_by_role("tree")
    chosen = page.locator(f"#{tree.get_attribute('aria-activedescendant')}")
    expect(chosen).to_have_attribute("aria-selected", "true")
    with page.expect_request("**/solve") as sent:
        page.get_by_role("button", name="Continue from here").click()
    body = sent.value.post_data_json
    assert (body["strategy"], body["background"]) == ("self_backtracking", False)
    expect(page.locator(OVER)).to_have_count(1)


@pytest.mark.parametrize("path", ["/", "/ui", "/ui/"])
def test_every_address_of_the_page_leads_to_it(page: Page, url: str, path: str) -> None:
    page.goto(url + path)
    assert page.url == f"{url}/ui/"
    expect(page.get_by_role("button", name="Solve")).to_be_visible()


@pytest.mark.parametrize("path", ["docs", "redoc"])
def test_the_interface_is_described_without_the_internet(page: Page, url: str, path: str) -> None:
    """The fixture fails on a request to elsewhere."""
    page.goto(f"{url}/{path}")
    expect(page.get_by_text("/v1/batches").locator("visible=true").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    shoot(page, path)
