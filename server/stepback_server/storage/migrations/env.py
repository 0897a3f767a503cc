"""Alembic's entry point: migrates over the connection that `storage.database` hands in."""

from alembic import context
from sqlalchemy import Connection

from stepback_server.storage.tables import METADATA


def run(connection: Connection) -> None:
    """Migrate within the connection's transaction, which its opener commits."""
    # SQLite alters tables by copying them.
    context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
    context.run_migrations()


run(context.config.attributes["connection"])
