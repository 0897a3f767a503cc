"""Sentences of the pages: none over 40 words, at most 14 on average."""

import re
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST = 40
MEAN = 14
_CODE = re.compile(r"```.*?```|<!--.*?-->", re.DOTALL)
_SPAN = re.compile(r"`[^`]+`")
_LINK = re.compile(r"!?\[(?P<text>[^\]]*)\]\([^)]*\)")
_NOT_PROSE = ("|", "#", "<", "!", "=== ", "--8<--", "::: ")
_ITEM = re.compile(r"\s*(?:[-*]|\d+\.) ")
_END = re.compile(r"(?<=[.!?:])[)*_]*\s+(?=[A-Z0-9*_(`\"])")


def paragraphs(text: str) -> list[str]:
    """Paragraphs and list items of a page, without code, tables and headings."""
    found = [""]
    for line in _CODE.sub("\n", text).split("\n"):
        if not line.strip() or line.lstrip().startswith(_NOT_PROSE):
            found.append("")
        elif _ITEM.match(line):
            found.append(_ITEM.sub("", line, count=1))
        else:
            found[-1] += f" {line.strip()}"
    return [each for each in found if each.strip()]


def sentences(text: str) -> list[str]:
    """Sentences of a page. A link counts as its text."""
    return [
        sentence
        for paragraph in paragraphs(text)
        for sentence in _END.split(_LINK.sub(r"\g<text>", paragraph))
        if words(sentence)
    ]


def words(sentence: str) -> int:
    """Words of a sentence. A span of code counts as one."""
    return len(re.findall(r"[A-Za-z0-9][A-Za-z0-9'.,/-]*", _SPAN.sub("code", sentence)))


def test_a_sentence_is_counted_as_a_reader_counts_it() -> None:
    page = "# Head\n\nOne `code of three` [link of](x.md) five. Then\ntwo.\n\n- item: A tail\n"
    assert [words(each) for each in sentences(page)] == [5, 2, 1, 2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_sentence_is_long(page: Path) -> None:
    found = sentences(page.read_text(encoding="utf-8"))
    long = [f"{words(each)} words: {each}" for each in found if words(each) > LONGEST]
    assert not long, "\n".join(long)


def test_sentences_are_short_on_average() -> None:
    lengths = [words(s) for page in PAGES for s in sentences(page.read_text(encoding="utf-8"))]
    assert mean(lengths) <= MEAN
