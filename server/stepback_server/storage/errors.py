"""Error of the database, apart from it: who catches it need not load SQLAlchemy.

A database that cannot be opened, or is of a newer version, is an `InvalidInput`.
"""


class StorageUnavailable(Exception):
    """The database does not answer now."""
