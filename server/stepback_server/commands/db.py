"""`stepback db upgrade`: the database of jobs and shared limits, brought to this version."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from stepback_core.errors import InvalidInput
from stepback_server.settings import Settings


def db(arguments: Sequence[str]) -> int:
    """Migrate the database that the environment names. Returns 0, or 2 where that is refused, or 1
    where it does not answer."""
    _parser().parse_args(arguments)
    # Imported here: SQLAlchemy and Alembic take half a second, and `--help` needs neither.
    from stepback_server.storage.database import upgrade
    from stepback_server.storage.errors import StorageUnavailable

    try:
        settings = Settings.read(os.environ, command="db")
        name = asyncio.run(upgrade(settings.database_url.get_secret_value()))
    except InvalidInput as error:
        print(f"stepback db: {error}", file=sys.stderr)
        return 2
    except StorageUnavailable as error:
        print(f"stepback db: the database does not answer: {error}", file=sys.stderr)
        return 1
    print(f"{name} is of this version")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("stepback db", description="The controllers' database.")
    parser.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "upgrade",
        help="bring its schema to this version",
        description="Bring the schema of STEPBACK_DATABASE_URL to this version.",
    )
    return parser
