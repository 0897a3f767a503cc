"""The schema, as SQLAlchemy tables. A change here needs a migration: a test compares the two."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    text,
)

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
AnyRow = Row[*tuple[Any, ...]]
# SQLite counts up only what it calls INTEGER.
_SERIAL = BigInteger().with_variant(Integer, "sqlite")

CONTROLLERS = Table(
    "controllers",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("heartbeat", Double, nullable=False),
)
"""Processes that hold leases; one without a heartbeat for a lease's length has lost them all."""

FILES = Table(
    "files",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Index(None, "tenant", "created"),
)

CHUNKS = Table(
    "file_chunks",
    METADATA,
    Column("file", Text, ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

BATCHES = Table(
    "batches",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("input_file", Text, nullable=False),
    Column("window", Text, nullable=False),
    Column("metadata", JSON),
    Column("status", Text, nullable=False),
    Column("owner", Text),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("times", JSON, nullable=False),
    Column("errors", JSON),
    Column("output_file", Text),
    Column("error_file", Text),
    Column("keep_seconds", Integer),
    Column("total", Integer, nullable=False, default=0),
    Column("completed", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("input_tokens", BigInteger, nullable=False, default=0),
    Column("cached_tokens", BigInteger, nullable=False, default=0),
    Column("output_tokens", BigInteger, nullable=False, default=0),
    Column("reasoning_tokens", BigInteger, nullable=False, default=0),
    Index(None, "tenant", "created"),
    Index(None, "status"),
)
"""Counts and tokens are those of a batch that has ended; before that its lines are counted."""

_IS_WAITING = text("batch IS NULL AND state = 'queued'")

JOBS = Table(
    "jobs",
    METADATA,
    Column("number", _SERIAL, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("tenant", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("batch", Text, ForeignKey("batches.id", ondelete="CASCADE")),
    Column("line", Integer),
    Column("custom_id", Text),
    Column("endpoint", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("owner", Text),
    Column("attempts", Integer, nullable=False, default=0),
    Column("cancelling", Boolean, nullable=False, default=False),
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("status", Integer),
    Column("answer", Text),
    Column("input_tokens", BigInteger, nullable=False, default=0),
    Column("cached_tokens", BigInteger, nullable=False, default=0),
    Column("output_tokens", BigInteger, nullable=False, default=0),
    Column("reasoning_tokens", BigInteger, nullable=False, default=0),
    Index(None, "batch", "line", unique=True),
    Index(None, "batch", "state", "number"),
    Index(None, "tenant", "number"),
    Index(None, "owner"),
    Index(None, "state"),
    # Few of many: whose searches wait is asked for with each one that begins.
    Index(
        None, "model", "tenant", "number", sqlite_where=_IS_WAITING, postgresql_where=_IS_WAITING
    ),
)
"""One request each: a background search, or a line of a batch."""

EVENTS = Table(
    "job_events",
    METADATA,
    Column("job", _SERIAL, ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("first", Integer, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("data", Text, nullable=False),
)
"""Events of a background search, many a row: JSON lines numbered from `first`."""

KEY_USAGE = Table(
    "key_usage",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("tokens", Double),
    Column("filled", Double, nullable=False),
    Column("claims", JSON, nullable=False),
)
"""Searches of a key in flight at all controllers, and its bucket of tokens."""

KEY_ANSWERS = Table(
    "key_answers",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("claim", Text, nullable=False),
    Column("renewed", Double, nullable=False),
    Column("wanted", Double),
    Column("answer", LargeBinary),
    Index(None, "claim"),
    Index(None, "renewed"),
)
"""One search for each Idempotency-Key; without an answer it runs under its claim."""
