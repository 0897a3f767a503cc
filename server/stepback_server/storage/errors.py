"""Errors of the database, apart from it: who catches them need not load SQLAlchemy.

StorageError        it cannot be opened, or is of a newer version
StorageUnavailable  it does not answer now
UnknownId           there is no such row, or it is another tenant's
"""


class StorageError(ValueError):
    """A database that cannot be used; the message says what to do."""


class StorageUnavailable(Exception):
    """The database does not answer now."""


class UnknownId(Exception):
    """There is nothing of this kind with this id, or it is another tenant's."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"there is no {kind} {id!r}")
        self.kind = kind
