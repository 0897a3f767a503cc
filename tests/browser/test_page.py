"""The page: searches watched to their end, compared, continued, shared; batches; large trees."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import PATIENCE, SHOTS
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
    budget = page.get_by_label("token budget")
    expect(budget).to_have_attribute("placeholder", "100000 for each")
    asked: list[Any] = []
    page.on("request", lambda sent: asked.append(sent) if sent.url.endswith("/solve") else None)
    solve(page)
    expect(page.locator(OVER)).to_have_count(2)
    # Left to the server, each strategy would have a budget of its own.
    budgets = [each.post_data_json["budget"] for each in asked]
    assert budgets == [{"tokens": 100_000}] * 2
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


def test_a_link_pasted_into_the_open_page_shows_its_search(page: Page) -> None:
    solve(page)
    expect(page.locator(OVER)).to_have_count(1)
    page.get_by_role("button", name="Link").click()
    page.wait_for_url("**/*#run=*")
    link = page.url
    address = link.split("#")[0]
    page.goto(address)
    page.get_by_label("problem").select_option("maze")
    page.goto(f"{address}#run=AAAA")
    expect(page.get_by_role("alert")).to_contain_text("damaged")
    page.get_by_role("button", name="Jobs").click()
    page.goto(link)
    expect(page.get_by_role("treeitem").first).to_contain_text("93+48=141")
    expect(page.get_by_role("alert")).to_have_count(0)
    # Nothing was loaded anew: the form is as it was left.
    expect(page.get_by_label("problem")).to_have_value("maze")


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


def asked_for(page: Page) -> dict[str, Any]:
    """The request that the form makes."""
    with page.expect_request("**/solve") as sent:
        solve(page)
    return dict(sent.value.post_data_json)


def test_what_is_continued_ends_with_another_problem(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "search.json"
    way = {"strategy": "best_of_n", "breadth": 7, "select": "vote", "seed": 3}
    request = {"task": "countdown", "problem": PROBLEM, "budget": {"tokens": 900}} | way
    file.write_text(json.dumps({"request": request, "result": finished(FROM_THE_START)}))
    note = page.get_by_text("continues 1 steps")
    changes = (
        lambda: page.get_by_label("target").fill("95"),
        lambda: page.get_by_label("problem").select_option("maze"),
    )
    for change in changes:
        page.locator("input[type=file]").first.set_input_files(file)
        page.get_by_role("treeitem").first.click()
        page.get_by_role("button", name="Continue from here").click()
        expect(note).to_be_visible()
        # The form searches as the search did that it goes on with.
        again = asked_for(page)
        assert again["steps"] == ["16-4=12"] and again["budget"] == {"tokens": 900}
        assert {key: again[key] for key in way} == way
        change()
        expect(note).to_have_count(0)
        assert "steps" not in asked_for(page)


def chooses(page: Page, rule: str) -> bool:
    """Whether the form lets a rule of choice be chosen."""
    option = page.get_by_label("choose by").first.locator(f"option[value={rule}]")
    return not option.is_disabled()


def test_the_form_offers_no_pair_that_the_server_refuses(page: Page) -> None:
    strategy, rule = page.get_by_label("strategy"), page.get_by_label("choose by")
    assert not chooses(page, "vote") and chooses(page, "verified")
    strategy.select_option("best_of_n")
    rule.select_option("vote")
    strategy.select_option("best_first")
    expect(rule).to_have_value("")
    assert "select" not in asked_for(page)
    strategy.select_option("majority")
    expect(rule).to_have_value("vote")
    assert not chooses(page, "perplexity") and not chooses(page, "score")
    assert asked_for(page)["select"] == "vote"
    expect(page.locator(OVER)).to_have_count(1)
    strategy.select_option("best_of_n")
    page.get_by_label("scorer").select_option("generous")
    assert chooses(page, "score")
    page.get_by_label("scorer").select_option("none")
    assert not chooses(page, "score")
    page.get_by_label("problem").select_option("a prompt")
    assert not chooses(page, "verified")


def weights(page: Page) -> dict[str, int]:
    """The font's weight of each step in sight."""
    steps = page.locator(".row .step")
    read = "all => all.map((one) => [one.textContent, Number(getComputedStyle(one).fontWeight)])"
    return dict(steps.evaluate_all(read))


def test_a_likely_step_is_bold_whatever_the_number_of_its_branches(
    page: Page, tmp_path: Path
) -> None:
    nodes = [
        node(0, None, 0, [], None),
        *(node(id, 0, 0, ["4+16=20"], "illegal") | {"score": -3.0} for id in (1, 2, 3)),
        node(4, 0, 0, ["81+25=106", "16-4=12"], "unfinished") | {"score": -0.01},
        node(5, 4, 1, ["16+4=20"], "unfinished") | {"score": -1.0},
    ]
    file = tmp_path / "search.json"
    file.write_text(json.dumps(finished(nodes)))
    page.locator("input[type=file]").first.set_input_files(file)
    page.get_by_role("treeitem").first.click()
    found = weights(page)
    assert found["4+16=20"] < 300 and found["16+4=20"] < 500
    # As likely as the likeliest branch through it.
    assert found["81+25=106"] == found["16-4=12"] > 700
    expect(page.locator(".legend")).to_contain_text("mean probability of a token")
    expect(page.locator(".details")).to_contain_text("likelihood of a token5.0 %")
    assert_accessible(page)
    shoot(page, "likelihood")


def test_the_steps_of_a_search_have_their_weights_while_it_runs(page: Page) -> None:
    """The stream comes from the server, without its result and so without its tree."""

    def cut(route: Route) -> None:
        body = route.fetch(timeout=PATIENCE).text()
        route.fulfill(body=body[: body.rindex("event: result")], content_type=SSE)

    page.route("**/solve", cut)
    solve(page)
    expect(page.locator(".status")).to_contain_text("failed")
    assert any(weight > 700 for weight in weights(page).values())


def test_a_file_keeps_the_timeline(page: Page, tmp_path: Path) -> None:
    page.get_by_label("problem").select_option("sudoku")
    page.get_by_label("strategy").select_option("best_of_n")
    page.get_by_label("token budget").fill("5000")
    solve(page)
    expect(page.locator(OVER)).to_have_count(1)
    caption, line = page.locator(".timeline figcaption"), page.locator(".timeline polyline").last
    told, drawn = caption.inner_text(), line.get_attribute("points")
    assert "of 5000" in told
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save").click()
    file = tmp_path / "search.json"
    saved.value.save_as(file)
    page.reload()
    page.locator("input[type=file]").first.set_input_files(file)
    expect(caption).to_have_text(told)
    assert line.get_attribute("points") == drawn
    [run] = json.loads(file.read_text())
    former = tmp_path / "former.json"
    former.write_text(json.dumps({key: run[key] for key in ("request", "label", "result")}))
    page.locator("input[type=file]").first.set_input_files(former)
    expect(caption).to_contain_text("tokens,")


def test_a_scorer_chooses_where_the_server_has_one(page: Page) -> None:
    page.get_by_label("scorer").select_option("generous")
    page.get_by_label("choose by").select_option("score")
    page.get_by_label("token budget").fill("300")
    with page.expect_request("**/solve") as asked:
        solve(page)
    body = asked.value.post_data_json
    assert (body["scorer"], body["select"]) == ("generous", "score")
    expect(page.locator(OVER)).to_have_count(1)
    # Not of the chosen answer alone: what the scorer and the checker said of each is there.
    judged = page.locator(".verdict.good, .verdict.answer")
    answers = page.get_by_role("treeitem").filter(has=judged)
    assert answers.count()
    for answer in answers.all():
        answer.click()
        expect(page.locator(".details dl")).to_contain_text("scorer1.0000")
        expect(page.locator(".details dl")).to_contain_text("confidence")
        expect(page.locator(".details dl")).to_contain_text("checker")
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
    rows = page.get_by_role("table", name="Batches").get_by_role("row")
    row = rows.filter(has_text="in_progress")
    expect(row).to_contain_text("of 5000")
    assert_accessible(page)
    shoot(page, "batch")
    page.get_by_role("button", name="Cancel batch_").click()
    expect(rows.filter(has_text="cancelled").first).to_contain_text("of 5000")
    expect(page.get_by_role("button", name="Cancel batch_")).to_have_count(0)
    with page.expect_download() as saved:
        rows.get_by_role("button", name="Errors of batch_").first.click()
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
    secret = "my-secret"

    def locked(route: Route) -> None:
        headers = route.request.headers
        if headers.pop("authorization", None) == f"Bearer {secret}":
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
    # Withdrawn later: the page asks for another, and keeps what it shows.
    page.get_by_label("target").fill("94")
    page.route("**/solve", locked)
    secret = "my-other-secret"
    solve(page)
    expect(page.get_by_label("API key")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("Send an API key.")
    page.get_by_label("API key").fill(secret)
    page.get_by_role("button", name="Use").click()
    expect(page.get_by_label("API key")).to_have_count(0)
    solve(page)
    expect(page.locator(OVER)).to_have_count(1)
    expect(page.get_by_label("target")).to_have_value("94")
    page.get_by_role("button", name="Change key").click()
    expect(page.get_by_label("API key")).to_have_value("")
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


def test_background_searches_show_their_progress_and_all_their_pages(page: Page, url: str) -> None:
    example = {"task": "countdown", "problem": PROBLEM, "strategy": "greedy", "background": True}
    ids = [page.request.post(f"{url}/solve", data=example).json()["id"] for _ in range(25)]
    # It has no answer: it goes on until it is cancelled.
    endless = example | {"problem": {"numbers": [25, 81], "target": 7}, "strategy": "best_first"}
    endless |= {"budget": {"tokens": 100_000}}
    long = page.request.post(f"{url}/solve", data=endless).json()["id"]
    page.get_by_role("button", name="Jobs").click()
    table = page.get_by_role("table", name="Background searches")
    row = table.get_by_role("row").filter(has_text=long)
    expect(row).to_contain_text("of 100000")
    expect(row.get_by_role("progressbar")).to_be_visible()
    shoot(page, "searches")
    pages = page.get_by_role("navigation", name="Pages of background searches")
    expect(table).not_to_contain_text(ids[0])
    expect(pages.get_by_role("button", name="Newer")).to_be_disabled()
    pages.get_by_role("button", name="Older").click()
    expect(pages).to_contain_text("page 2")
    expect(table.get_by_role("row").filter(has_text=ids[0])).to_contain_text("tokens")
    expect(table).not_to_contain_text(long)
    assert_accessible(page)
    pages.get_by_role("button", name="Newer").click()
    row.get_by_role("button", name="Watch").click()
    expect(page.locator(".status")).to_have_text("searches")
    expect(page.get_by_role("treeitem").first).to_be_visible()
    assert_accessible(page)
    shoot(page, "watched")
    page.get_by_role("button", name="Stop watching").click()
    page.get_by_role("button", name="Jobs").click()
    row.get_by_role("button", name="Cancel").click()
    expect(row).to_contain_text("cancelled")
    expect(row).to_contain_text("branches")


def test_a_background_search_is_shown_with_the_tree_that_its_events_tell(
    page: Page, url: str
) -> None:
    example = {"task": "countdown", "problem": PROBLEM, "strategy": "greedy", "background": True}
    id = page.request.post(f"{url}/solve", data=example).json()["id"]
    page.get_by_role("button", name="Jobs").click()
    page.get_by_role("button", name=f"Show {id}").click()
    expect(page.locator(OVER)).to_have_count(1)
    expect(page.get_by_role("treeitem")).to_have_count(1)
    expect(page.locator(".timeline figcaption")).to_contain_text("1 branch,")


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
