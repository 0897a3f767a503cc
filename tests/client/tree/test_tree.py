"""The tree as an outline, and as text, Mermaid and SVG."""

import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepback_client.tree import mermaid, svg, text
from stepback_client.tree.layout import Branch, Mark, Outline
from stepback_core.schemas import Answer, Outcome, TreeNode

SVG = "{http://www.w3.org/2000/svg}"


def node(
    number: int, parent: int | None, kept: int, steps: Sequence[str], outcome: Outcome | None
) -> TreeNode:
    return TreeNode(
        id=number,
        parent=parent,
        kept_steps=kept,
        steps=list(steps),
        outcome=outcome,
        score=-0.25 if steps else None,
    )


ROOT = node(0, None, 0, [], None)
ANSWER, BACKTRACK, UNFINISHED = Outcome.ANSWER, Outcome.BACKTRACK, Outcome.UNFINISHED
NODES = [
    ROOT,
    node(1, 0, 0, ["16*4=64", "82-64=18"], ANSWER),
    node(2, 0, 0, ["82+16=98", "98-25=73"], BACKTRACK),
    node(3, 0, 0, ["82-16"], UNFINISHED),
    node(4, 2, 1, ["25-4=21", "98-21=77"], BACKTRACK),
    node(5, 2, 1, [], BACKTRACK),
    node(6, 4, 2, ["21-3=18"], ANSWER),
    # Rolled back past the first own step of 4: what it keeps is of 2.
    node(7, 4, 1, ["98<&>4"], ANSWER),
    node(8, 0, 0, ["16*4=64", "82-64=18"], ANSWER),
]


def answer(*steps: str, verified: bool | None = None, reason: str | None = None) -> Answer:
    return Answer(text="", steps=list(steps), score=-0.25, verified=verified, reason=reason)


CHOSEN = answer("82+16=98", "25-4=21", "21-3=18", verified=True)
ANSWERS = [CHOSEN, answer("16*4=64", "82-64=18", verified=False, reason="not_reached")]


def outline(limit: int = 60) -> Outline:
    return Outline.of(NODES, ANSWERS, CHOSEN, limit)


def test_as_text() -> None:
    assert text.render(outline(), "caption") == (
        "caption\n"
        "├─ 1 ✗ 16*4=64, 82-64=18  \N{MULTIPLICATION SIGN}2, not reached\n"
        "├─ 2 ↩ 82+16=98, ~98-25=73~\n"
        "│  ├─ 4 ↩ 25-4=21, ~98-21=77~\n"
        "│  │  └─ 6 ✓ 21-3=18  the answer\n"
        "│  ├─ 5 ↩ takes back step 1\n"
        "│  └─ 7 ● 98<&>4\n"
        "└─ 3 … 82-16\n"
        "✓ 1 verified  ● 1 answer  ✗ 2 refused  ↩ 3 rolled back  … 1 unfinished\n"
    )  # fmt: skip


def test_a_step_that_the_model_may_take_back_says_how_likely_that_is() -> None:
    nodes = [ROOT, NODES[1].model_copy(update={"p_marker": [0.13, 0.001]}), NODES[2]]
    drawn = Outline.of(nodes, ANSWERS, None, 60)
    told = text.render(drawn, "caption")
    assert "16*4=64 (13%), 82-64=18  not reached" in told
    assert told.splitlines()[-1].endswith("(%) P(marker) after the step")
    assert "16*4=64 (13%)" in mermaid.render(drawn, "caption")
    assert "16*4=64 (13%)\n82-64=18" in svg.render(drawn, "caption")


def test_folding_keeps_the_way_to_the_answer_and_counts_the_rest() -> None:
    assert text.render(outline(3), "caption").splitlines()[1:-1] == [
        "├─ 2 ↩ 82+16=98, ~98-25=73~",
        "│  ├─ 4 ↩ 25-4=21, ~98-21=77~",
        "│  │  └─ 6 ✓ 21-3=18  the answer",
        "│  └─ +2 more: 1 answer, 1 rolled back",
        "└─ +3 more: 2 refused, 1 unfinished",
    ]


def test_as_mermaid() -> None:
    lines = mermaid.render(outline(3), 'a "b"').splitlines()
    assert lines[:6] == [
        "flowchart LR",
        '  n0(["a #34;b#34;"])',
        '  n2["↩ 2<br/>82+16=98<br/><s>98-25=73</s>"]:::rolled_back',
        "  n0 --> n2",
        '  n4["↩ 4<br/>25-4=21<br/><s>98-21=77</s>"]:::rolled_back',
        '  n2 -->|"1 kept"| n4',
    ]
    assert '  n7["● 7<br/>98#60;#38;#62;4"]:::answer' in mermaid.render(outline(), "c").splitlines()


def test_as_svg() -> None:
    drawn = ElementTree.fromstring(svg.render(outline(), "a <caption> & more"))
    assert drawn.get("role") == "img"
    assert drawn.findtext(f"{SVG}title") == "a <caption> & more"
    assert "8 branches: 1 verified" in (drawn.findtext(f"{SVG}desc") or "")
    struck = [t.text for t in drawn.iter(f"{SVG}text") if t.get("class") == "step struck"]
    assert struck == ["98-25=73", "98-21=77"]
    assert any(t.text == "98<&>4" for t in drawn.iter(f"{SVG}text"))
    [band] = [r for r in drawn.iter(f"{SVG}rect") if "band" in (r.get("class") or "")]
    assert band.get("class") == "band verified"


def test_a_tree_of_nothing_but_the_prompt_can_be_drawn() -> None:
    empty = Outline.of([ROOT], [], None, 60)
    assert text.render(empty, "caption") == "caption\nno branches\n"
    assert ElementTree.fromstring(svg.render(empty, "caption")).tag == f"{SVG}svg"
    assert mermaid.render(empty, "caption").startswith("flowchart")


@pytest.mark.parametrize(
    "nodes",
    [
        [ROOT, node(1, 2, 0, ["a"], ANSWER), node(2, 1, 0, ["b"], ANSWER)],
        [ROOT, node(1, None, 0, ["a"], ANSWER)],
        [ROOT, node(1, 0, 0, ["a"], ANSWER), node(1, 0, 0, ["b"], ANSWER)],
    ],
    ids=["circle", "second root", "same id"],
)
def test_what_is_no_tree_is_refused(nodes: list[TreeNode]) -> None:
    with pytest.raises(ValueError, match="broken at node"):
        Outline.of(nodes, [], None, 60)


@st.composite
def trees(draw: st.DrawFn) -> list[TreeNode]:
    """Any tree that a server could answer with, and some that it could not."""
    nodes = [ROOT]
    lengths = [0]
    for number in range(1, draw(st.integers(1, 25))):
        parent = draw(st.integers(0, number - 1))
        kept = draw(st.integers(0, lengths[parent]))
        steps = draw(st.lists(st.text(max_size=40), max_size=3))
        outcome = draw(st.sampled_from(Outcome))
        nodes.append(node(number, parent, kept, steps, outcome))
        lengths.append(kept + len(steps))
    return nodes


@settings(max_examples=150, deadline=None)
@given(trees(), st.integers(0, 30), st.text(max_size=20))
def test_every_branch_is_shown_or_counted_once_in_every_form(
    nodes: list[TreeNode], limit: int, caption: str
) -> None:
    drawn = Outline.of(nodes, [], None, limit)
    branches = [row.item for row in drawn.rows if isinstance(row.item, Branch)]
    shown = [number for branch in branches for number in (branch.id, *branch.twins)]
    folded = sum(row.item.count for row in drawn.rows if not isinstance(row.item, Branch))
    assert len(set(shown)) == len(shown) and len(shown) + folded == len(nodes) - 1
    assert len(branches) <= limit
    assert sum(drawn.marks.values()) == len(nodes) - 1
    assert_text(text.render(drawn, "caption"), drawn)
    assert_mermaid(mermaid.render(drawn, caption), branches)
    assert_svg(svg.render(drawn, caption), drawn)


def assert_text(rendered: str, drawn: Outline) -> None:
    lines = rendered.split("\n")[1:-2]
    assert len(lines) == len(drawn.rows)
    for line, row in zip(lines, drawn.rows, strict=True):
        assert line.isprintable()
        name = f"{row.item.id} " if isinstance(row.item, Branch) else f"+{row.item.count} more: "
        assert line[3 * len(row.rails) :].startswith(name)


def assert_mermaid(rendered: str, branches: list[Branch]) -> None:
    declared = re.findall(r"^  n(\d+)\[\"", rendered, re.MULTILINE)
    assert sorted(map(int, declared)) == sorted(branch.id for branch in branches)
    for line in rendered.splitlines()[1:]:
        assert re.fullmatch(
            r"  (n0\(\[\"[^\"]*\"\]\)|n\d+\[\"([^\"\[\]<>]|<br/>|</?s>)*\"\]:::\w+"
            r"|more\d+\(\[\"[^\"]*\"\]\)|n\d+ -->(\|\"\d+ kept\"\|)? \w+|class(Def)? .*)",
            line,
        ), line


def assert_svg(rendered: str, drawn: Outline) -> None:
    picture = ElementTree.fromstring(rendered)
    rows = [group for group in picture.iter(f"{SVG}g") if group.get("class") == "row"]
    assert len(rows) == len(drawn.rows)
    ids = [t.text for t in picture.iter(f"{SVG}text") if t.get("class") == "id"]
    assert ids == [str(row.item.id) for row in drawn.rows if isinstance(row.item, Branch)]


def test_a_thousand_branches_and_a_long_chain_stay_usable() -> None:
    wide = [ROOT] + [node(n, 0, 0, [f"{n % 300}=1"], BACKTRACK) for n in range(1, 1001)]
    drawn = Outline.of(wide, [], None, 60)
    assert len(drawn.rows) == 61 and drawn.marks[Mark.BACKTRACK] == 1000
    assert len(svg.render(drawn, "wide")) < 60_000
    deep = [ROOT] + [node(n, n - 1, n - 1, ["x"], UNFINISHED) for n in range(1, 1001)]
    chain = Outline.of(deep, [], None, 1000)
    assert len(chain.rows) == 1000
    assert ElementTree.fromstring(svg.render(chain, "deep")).tag == f"{SVG}svg"
    assert text.render(chain, "deep").count("\n") == 1002
