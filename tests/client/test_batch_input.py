"""Input of `stepback batch` that cannot be used is refused before anything is asked."""

import gzip
import json
import os
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import ModuleType

import pytest

from stepback_client.batch import growing
from stepback_client.batch.command import batch
from stepback_client.batch.inputs import has_lines, read_lines
from stepback_client.batch.requests import read_items
from stepback_core.errors import InvalidInput
from tests.client.echo import echo, served


def test_parquet_without_its_reader_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidInput, match="pip install pyarrow"):
        list(read_lines([f"{tmp_path}/in.parquet"]))


def test_several_files_and_folders_are_one_input(tmp_path: Path) -> None:
    for folder in ("deeper", "_temporary"):
        (tmp_path / "more" / folder).mkdir(parents=True)
    for name in ("b", *(f"more/{each}" for each in ("2", "1", "deeper/3", "_4", "_temporary/5"))):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": name}) + "\n")
    (tmp_path / "more/_SUCCESS").touch()
    items = read_items(read_lines([f"{tmp_path}/b.jsonl", f"{tmp_path}/more"]))
    found = [(item.custom_id, item.body["prompt"]) for item in items]
    assert found == [("1", "b"), ("2", "more/1"), ("3", "more/2"), ("4", "more/deeper/3")]


def test_a_folder_without_problems_and_an_address_without_a_cluster_are_refused(
    tmp_path: Path,
) -> None:
    for given, why in ((str(tmp_path), "no file that ends in"), ("s3://a/b.jsonl", "--on ray")):
        with pytest.raises(InvalidInput, match=why):
            list(read_lines([given]))
    lines = ("s3://a/b.jsonl", "s3://a/b.jsonl.gz", "https://a/b.jsonl?signature=c.parquet")
    tables = ("s3://a/b.parquet", "s3://a/folder/", "s3://a/b.parquet?x=c.jsonl")
    assert [has_lines(each) for each in lines + tables] == 3 * [True] + 3 * [False]


@pytest.mark.parametrize(
    ("status", "code", "ends"), [(500, "internal", 0), (422, "c", 0), (500, "other", 1)]
)
def test_a_line_that_fails_by_itself_is_a_line(
    tmp_path: Path, status: int, code: str, ends: int
) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text('{"prompt": "p", "budget": {"answer_tokens": 5}}\n')
    with echo(status, code) as url:
        assert batch([str(given), "--out", str(out), "--url", url]) == ends
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    expected = {"custom_id": "1", "error": {"status": status, "message": "p"}}
    assert lines == ([] if ends else [expected])


def test_answers_never_go_into_the_input_or_among_other_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, link, other = (tmp_path / name for name in ("in.jsonl", "link.jsonl", "other.jsonl"))
    given.write_text('{"custom_id": "a", "body": {}}\n')
    link.symlink_to(given)
    other.write_text('{"custom_id": "a"}\n')
    for out, why in ((given, "the input"), (link, "the input"), (other, "other lines")):
        before = out.read_text()
        assert batch([str(given), "--out", str(out)]) == 2
        assert why in capsys.readouterr().err and out.read_text() == before
    assert batch([str(tmp_path), "--out", str(tmp_path / "new.jsonl")]) == 2
    assert "in it" in capsys.readouterr().err and not (tmp_path / "new.jsonl").exists()


LINES = b'{"task": "countdown", "problem": {}}\n{"prompt": "\xc3\xa9"}\n'


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbf" + LINES, LINES.replace(b"\n", b"\r\n"), b"\n" + LINES + b"\n\n"]
)
def test_a_byte_order_mark_and_other_line_ends_are_skipped(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    assert [item.body for item in read_items(read_lines([str(path)]))] == [
        {"task": "countdown", "problem": {}},
        {"prompt": "é"},
    ]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (LINES.decode().encode("utf-16"), "UTF-16"),
        (b"[" + LINES.strip().replace(b"\n", b",") + b"]", "JSON array"),
        (gzip.compress(LINES, mtime=0), "compressed"),
    ],
)
def test_a_file_in_another_form_is_called_by_its_form(
    tmp_path: Path, content: bytes, form: str
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=form):
        list(read_items(read_lines([str(path)])))


def test_without_fcntl_a_file_is_held_as_windows_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        if held:
            raise PermissionError(13, "held")
        held.append(os.lseek(descriptor, 0, os.SEEK_CUR))

    windows = ModuleType("msvcrt")
    windows.locking, windows.LK_NBLCK = locking, 2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    path = tmp_path / "out.jsonl"
    with growing(path) as out:
        out.append({"a": 1})
        with pytest.raises(InvalidInput, match="another process"), growing(path):
            pass
    assert held[0] == 1 << 40 and path.read_text() == '{"a":1}\n'


def test_a_cluster_needs_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "in.jsonl"
    given.write_text("{}\n")
    assert batch([str(given), "--out", str(tmp_path / "out.jsonl"), "--on", "ray"]) == 2
    assert "--on ray needs --model" in capsys.readouterr().err


class _Refusing(BaseHTTPRequestHandler):
    """Answers as what is no Stepback server, or not at its address."""

    answer = 404, b"<html>not here</html>"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, content = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def error_body(code: str) -> bytes:
    detail = {"type": "not_found", "code": code, "message": "m"}
    return json.dumps({"error": detail}).encode()


@pytest.mark.parametrize(
    ("status", "content", "ends"),
    [
        (404, b"<html>not here</html>", 1),
        (405, b"", 1),
        (301, b"", 1),
        (403, b'{"detail": "Forbidden"}', 1),
        (200, b"<html>welcome</html>", 1),
        (404, error_body("no_such_path"), 1),
        (404, error_body("unknown_task"), 0),
        # One line is too large for a proxy; the others are not.
        (413, b"<html>too large</html>", 0),
    ],
)
def test_an_address_that_is_no_stepback_servers_ends_without_a_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    status: int,
    content: bytes,
    ends: int,
) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text('{"prompt": "p"}\n{"prompt": "q"}\n')
    with served(type("_Answering", (_Refusing,), {"answer": (status, content)})) as url:
        assert batch([str(given), "--out", str(out), "--url", url]) == ends
    assert len(out.read_text().splitlines()) == (0 if ends else 2)
    assert not ends or "Stepback" in capsys.readouterr().err


class _Filtered(_Refusing):
    """Answers as a Stepback server behind a proxy that lets one body not pass."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, content = (403, b"") if b"bad" in body else (422, error_body("c"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def test_a_proxy_that_refuses_one_body_of_many_stops_no_batch(tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text('{"prompt": "p"}\n{"prompt": "bad"}\n{"prompt": "q"}\n')
    with served(_Filtered) as url:
        assert batch([str(given), "--out", str(out), "--url", url, "--in-flight", "1"]) == 0
    statuses = [json.loads(line)["error"]["status"] for line in out.read_text().splitlines()]
    assert statuses == [422, 403, 422]


def test_failed_lines_are_asked_again_where_that_is_wanted(tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    (link := tmp_path / "link.jsonl").symlink_to(out)
    given.write_text('{"custom_id": "a", "prompt": "p"}\n{"custom_id": "b", "prompt": "q"}\n')
    solved, failed = {"custom_id": "a", "result": {}}, {"custom_id": "b", "error": {"status": 500}}
    out.write_text("".join(json.dumps(each) + "\n" for each in (solved, failed)))
    out.chmod(0o640)
    with echo(422) as url:
        command = [str(given), "--out", str(link), "--url", url]
        for flags, status in (([], 500), (["--retry-failed"], 422)):
            assert batch([*command, *flags]) == 0
            kept, last = (json.loads(line) for line in out.read_text().splitlines())
            assert kept == solved and (last["custom_id"], last["error"]["status"]) == ("b", status)
    assert link.is_symlink() and out.stat().st_mode & 0o777 == 0o640
    assert {each.name for each in tmp_path.iterdir()} == {"in.jsonl", "link.jsonl", "out.jsonl"}


def test_a_file_of_other_lines_stays_as_it_is(tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text('{"prompt": "p"}\n')
    out.write_text('{"error": "a log of something else"}\n')
    assert batch([str(given), "--out", str(out), "--retry-failed"]) == 2
    assert out.read_text() == '{"error": "a log of something else"}\n'
    assert {each.name for each in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}
