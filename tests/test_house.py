"""House rules that can be counted: exception classes, comments, and plain docstrings."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for package in ("core", "client", "server", "training")
    for path in sorted((ROOT / package).rglob("*.py"))
]
MOST_EXCEPTIONS = 25
LEAST_COMMENTS = 3
"""A 100 lines that are not empty."""
LONGEST = 40
"""Words of a docstring's first sentence."""
_BUILT_IN = {"Exception", "BaseException", "ValueError", "RuntimeError", "KeyError", "OSError"}
_RIDDLE = re.compile(r"(What|Of|That|Where|As|How often|Whose)\b")
_IDIOM = re.compile(
    r"\b(whoever|anew|so many|of which|None where|what there is|at their word|told of|asked of|"
    r"said of|behind (an?|the|its?) (step|marker|end|claim|point)|"
    r"beside (it|them|these|those|that))\b"
)


def exceptions(sources: list[str]) -> set[str]:
    """Names of the classes that are exceptions, by the names of their bases."""
    bases = {
        node.name: {ast.unparse(base).split(".")[-1] for base in node.bases}
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }
    found = set[str]()
    while more := {n for n, b in bases.items() if b & (found | _BUILT_IN)} - found:
        found |= more
    return found


def docstrings(source: str) -> Iterator[str]:
    """Docstrings of a module, its classes and functions, and texts below attributes."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        # The body of a lambda and of `a if b else c` is no list.
        for part in body if isinstance(body, list) else []:
            value = part.value if isinstance(part, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield " ".join(value.value.split())


def comments(source: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)


def faults(docstring: str) -> list[str]:
    """Faults of one docstring: a riddle at its beginning, an idiom, a long first sentence."""
    first = re.split(r"(?<=[.:])\s", docstring, maxsplit=1)[0]
    return [
        *(["begins with a riddle"] if _RIDDLE.match(docstring) else []),
        *(["has an idiom"] if _IDIOM.search(docstring) else []),
        *(["is long"] if len(first.split()) > LONGEST else []),
    ]


def test_the_counts_count() -> None:
    assert exceptions(["class A(Exception): ...\nclass B(m.A): ...\nclass C: ..."]) == {"A", "B"}
    assert [*docstrings('"""One."""\nclass A:\n    """Two."""\n    x: int\n    """Three."""')] == [
        "One.",
        "Two.",
        "Three.",
    ]
    assert comments("# one\nx = '# two'  # three\n") == 2
    assert faults("What it is.") and faults("A name; None where it has none.") and faults("a " * 41)
    assert not faults("Return the name, or None.")


def test_exception_classes_are_few() -> None:
    found = exceptions([path.read_text(encoding="utf-8") for path in SOURCES])
    assert {"StepbackError", "ApiError", "EngineError", "InvalidInput"} <= found
    # Client and server have an ApiError each.
    assert len(found) + 1 <= MOST_EXCEPTIONS, sorted(found)


def test_comments_say_why_often_enough() -> None:
    texts = [path.read_text(encoding="utf-8") for path in SOURCES]
    lines = sum(bool(line.strip()) for text in texts for line in text.splitlines())
    assert 100 * sum(map(comments, texts)) / lines >= LEAST_COMMENTS


@pytest.mark.parametrize("package", ["core", "client", "server", "training"])
def test_docstrings_are_plain(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {docstring[:80]!r} {fault}"
        for path in SOURCES
        if path.is_relative_to(ROOT / package)
        for docstring in docstrings(path.read_text(encoding="utf-8"))
        for fault in faults(docstring)
    ]
    assert not found, "\n".join(found)
