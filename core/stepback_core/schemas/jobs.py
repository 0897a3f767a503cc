"""Searches in the background, files and batches: the latter as OpenAI's SDK expects them."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from stepback_core.schemas.base import RequestModel, ResponseModel
from stepback_core.schemas.errors import ErrorDetail
from stepback_core.schemas.result import SolveResult

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class SearchProgress(ResponseModel):
    """Running totals of a search in the background."""

    branches: int
    """Branches that have ended."""
    generated_tokens: int
    """Every sampled token, stop tokens included."""
    backtracks: int
    """Branches that ended in the marker."""
    seconds_searching: float
    """Seconds since the search's start."""


class SearchJob(ResponseModel):
    """A search in the background, as `GET /v1/searches/ID` gives it."""

    id: str
    """Its name in the paths under `/v1/searches`."""
    object: Literal["search"] = "search"
    """Always `search`."""
    status: JobStatus
    """`queued`, `running`, then `completed`, `failed` or `cancelled`."""
    created_at: int
    """Seconds since 1970."""
    started_at: int | None
    """Start of the last attempt: a search begins again where its controller was lost."""
    ended_at: int | None
    """Once it has ended."""
    attempts: int
    """Number of attempts: more than one where a controller was lost."""
    cancelling: bool
    """It is to be cancelled and has not ended yet."""
    request: dict[str, JsonValue]
    """The body as it was sent."""
    generated_tokens: int
    """Those of a search that has ended; while it runs, see `progress`."""
    progress: SearchProgress | None = None
    """Totals so far, while it runs."""
    result: SolveResult | None = None
    """Answer of the same request without `background`."""
    error: ErrorDetail | None = None
    """Error of a failed search."""


class Page(ResponseModel):
    """Fields that all lists share."""

    object: Literal["list"] = "list"
    first_id: str | None = None
    """The first of this page."""
    last_id: str | None = None
    """Send it as `after` for the next page."""
    has_more: bool = False
    """There is a next page."""


class SearchJobList(Page):
    """Searches in the background, the newest first, without their results."""

    data: list[SearchJob]
    """This page."""


class FileObject(ResponseModel):
    """A file: the input or the output of a batch."""

    id: str
    """Its name in the paths under `/v1/files`."""
    object: Literal["file"] = "file"
    """Always `file`."""
    bytes: int
    """Its size."""
    created_at: int
    """Seconds since 1970."""
    expires_at: int | None
    """When it is deleted; null is never."""
    filename: str
    """Name of the uploaded file."""
    purpose: Literal["batch", "batch_output"]
    """`batch` for input, `batch_output` for output."""
    status: Literal["processed"] = "processed"
    """Always `processed`; OpenAI's SDK has the field."""


class FileList(Page):
    """Files, the newest first."""

    data: list[FileObject]
    """This page."""


class FileDeleted(ResponseModel):
    """A file that is gone."""

    id: str
    """Its former name."""
    object: Literal["file"] = "file"
    """Always `file`."""
    deleted: Literal[True] = True
    """Always true."""


class BatchRequest(RequestModel):
    """The body of `POST /v1/batches`."""

    input_file_id: str = Field(min_length=1, max_length=128)
    """A file of purpose `batch`: a line `{custom_id, method, url, body}` each."""
    endpoint: str = Field(min_length=1, max_length=128)
    """The path that every line asks."""
    completion_window: str = Field(default="24h", pattern=r"^[1-9][0-9]{0,3}[smhd]$")
    """After that time what is left expires: a number and `s`, `m`, `h` or `d`."""
    metadata: Metadata | None = None
    """Your own notes, given back with the batch."""


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class BatchError(ResponseModel):
    """A fault of the input file."""

    code: str
    """Name of the error, for programs to match on."""
    line: int | None
    """The line at fault, from 1."""
    message: str
    """The fault and its remedy."""
    param: str | None
    """The field at fault."""


class BatchErrors(ResponseModel):
    """Faults of the input file, the first hundred."""

    object: Literal["list"] = "list"
    data: list[BatchError]
    """One each."""


class BatchCounts(ResponseModel):
    """Lines of a batch by what became of them."""

    total: int
    """All lines."""
    completed: int
    """Answered with success."""
    failed: int
    """Answered with an error."""


class InputTokens(ResponseModel):
    """Details of the input tokens."""

    cached_tokens: int
    """Tokens that the engine had in its prefix cache."""


class OutputTokens(ResponseModel):
    """Details of the output tokens."""

    reasoning_tokens: int
    """Those that are not part of the answers: discarded branches."""


class BatchUsage(ResponseModel):
    """Cost of a batch."""

    input_tokens: int
    """Tokens of the framed prompts."""
    input_tokens_details: InputTokens
    """Details of the number above."""
    output_tokens: int
    """Every sampled token."""
    output_tokens_details: OutputTokens
    """Details of the number above."""
    total_tokens: int
    """Both."""


class Batch(ResponseModel):
    """Many requests in a file, answered in another."""

    id: str
    """Its name in the paths under `/v1/batches`."""
    object: Literal["batch"] = "batch"
    """Always `batch`."""
    endpoint: str
    """The path that every line asks."""
    model: str
    """The model that answers."""
    errors: BatchErrors | None
    """Faults of the input file, for which the batch failed."""
    input_file_id: str
    """The requests."""
    completion_window: str
    """The window that the request names."""
    status: BatchStatus
    """State of the batch."""
    output_file_id: str | None
    """The answers, once it has ended and where there is one."""
    error_file_id: str | None
    """The lines without an answer, once it has ended and where there is one."""
    created_at: int
    """Seconds since 1970, as are the other times."""
    in_progress_at: int | None
    """The lines began."""
    expires_at: int
    """Deadline; lines left by then expire."""
    finalizing_at: int | None
    """The files are being written."""
    completed_at: int | None
    """It has ended whole."""
    failed_at: int | None
    """The input file was refused."""
    expired_at: int | None
    """It was not done in time."""
    cancelling_at: int | None
    """It was to be cancelled."""
    cancelled_at: int | None
    """It has ended before its end."""
    request_counts: BatchCounts
    """Its lines so far."""
    usage: BatchUsage
    """Cost so far."""
    metadata: dict[str, str] | None
    """Metadata of the request."""


class BatchList(Page):
    """Batches, the newest first."""

    data: list[Batch]
    """This page."""


class BatchLine(RequestModel):
    """One line of an input file."""

    custom_id: str = Field(min_length=1, max_length=512)
    """Your own name for it, unique in the file."""
    method: Literal["POST"]
    """Always POST."""
    url: str
    """The endpoint of the batch."""
    body: dict[str, JsonValue]
    """Body for that endpoint."""


class LineResponse(ResponseModel):
    """The HTTP answer to a line."""

    status_code: int
    """HTTP's status."""
    request_id: str
    """Its name in the server's log."""
    body: Any
    """The endpoint's answer, or its error."""


class LineError(ResponseModel):
    """Why a line has no HTTP answer."""

    code: Literal["batch_expired", "batch_cancelled"]
    """The batch ended before it."""
    message: str
    """The same in words."""


class BatchOutputLine(ResponseModel):
    """One line of an output file or of an error file."""

    id: str
    """Its own name."""
    custom_id: str
    """`custom_id` of the request."""
    response: LineResponse | None
    """The answer."""
    error: LineError | None
    """Or why there is none."""
