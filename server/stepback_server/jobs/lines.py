"""Lines of a batch: reading the input file, writing output and error files. Pure."""

import codecs
import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from stepback_core.schemas.jobs import (
    BatchError,
    BatchLine,
    BatchOutputLine,
    LineError,
    LineResponse,
)
from stepback_core.validation import first_error
from stepback_server.jobs.job import State

MOST_ERRORS = 100
_MESSAGES = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "The batch was cancelled before this request was executed.",
}


class LineReader:
    """Cuts an input file, chunk by chunk, into checked lines; collects what is wrong with them."""

    def __init__(self, endpoint: str, most: int, most_bytes: int) -> None:
        """`most`: lines that one batch may have; `most_bytes`: bytes of one line."""
        self.errors: list[BatchError] = []
        self._endpoint = endpoint
        self._most = most
        self._most_bytes = most_bytes
        self._rest = b""
        self._number = 0
        self._count = 0
        self._seen: set[str] = set()

    def read(self, chunk: bytes) -> Iterator[tuple[int, BatchLine]]:
        """Take a chunk; give the whole lines with their numbers from 1."""
        *whole, rest = (self._rest + chunk).split(b"\n")
        for text in whole:
            yield from self._checked(text)
        # What is too long is refused anyway: its beginning is enough, and bounds the memory.
        self._rest = rest[: self._most_bytes + 1]

    def end(self) -> Iterator[tuple[int, BatchLine]]:
        """Give a last line without its end."""
        yield from self._checked(self._rest)
        self._rest = b""
        if not self._count and not self.errors:
            self._fail("empty_file", "the file has no requests", None, None)

    def _checked(self, text: bytes) -> Iterator[tuple[int, BatchLine]]:
        self._number += 1
        if self._number == 1:
            text = text.removeprefix(codecs.BOM_UTF8)
        # A file of the wrong kind has an error in every line: the first hundred say enough.
        if not text.strip() or len(self.errors) >= MOST_ERRORS:
            return
        self._count += 1
        if len(text) > self._most_bytes:
            message = f"a line has at most {self._most_bytes} bytes"
            self._fail("line_too_long", message, None)
            return
        if self._count > self._most:
            # Said once, not for each line that is too many.
            if self._count == self._most + 1:
                self._fail("too_many_requests", f"a batch has at most {self._most} lines", None)
            return
        try:
            line = BatchLine.model_validate_json(text)
        except ValidationError as error:
            kind = error.errors()[0]["type"]
            code = "invalid_json_line" if kind == "json_invalid" else "invalid_request"
            param = ".".join(map(str, error.errors()[0]["loc"])) or None
            self._fail(code, first_error(error, whole="the line"), param)
            return
        if line.url != self._endpoint:
            message = f"url: the endpoint of the batch is {self._endpoint}, not {line.url}"
            self._fail("mismatched_endpoint", message, "url")
        elif line.custom_id in self._seen:
            message = f"custom_id: {line.custom_id!r} stands twice"
            self._fail("duplicate_custom_id", message, "custom_id")
        else:
            self._seen.add(line.custom_id)
            yield self._number, line

    def _fail(self, code: str, message: str, param: str | None, line: int | None = -1) -> None:
        number = self._number if line == -1 else line
        self.errors.append(BatchError(code=code, line=number, message=message, param=param))


def output_line(job: Any, *, expired: bool) -> tuple[bytes, bool]:
    """The line of a job's row in its file, and True where that is the output file."""
    if job.state == State.DONE:
        body = json.loads(job.answer)
        response = LineResponse(status_code=job.status, request_id=job.id, body=body)
        line = BatchOutputLine(id=_id(job), custom_id=job.custom_id, response=response, error=None)
        # A refused request is a line of the error file, as OpenAI's batches have it.
        return _encoded(line), job.status < 400
    code = "batch_expired" if expired else "batch_cancelled"
    error = LineError(code=code, message=_MESSAGES[code])
    line = BatchOutputLine(id=_id(job), custom_id=job.custom_id, response=None, error=error)
    return _encoded(line), False


def _id(job: Any) -> str:
    return f"batch_req_{job.id}"


def _encoded(line: BatchOutputLine) -> bytes:
    return line.model_dump_json().encode() + b"\n"
