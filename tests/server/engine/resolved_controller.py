"""A controller for which one name resolves to the addresses that stand in a file.

Run it as `python -m tests.server.engine.resolved_controller FILE`; the name is `engines.test`.
"""

import sys
from collections.abc import Collection
from pathlib import Path

from stepback_client.cli import main
from stepback_server.engine import discovery

NAME = "engines.test"
_files: list[Path] = []


async def _resolved(host: str, port: int) -> Collection[str]:
    assert host == NAME
    if not (addresses := _files[0].read_text().split()):
        raise OSError("Name or service not known")
    return addresses


if __name__ == "__main__":
    # Before the command imports what uses it: the system's resolver cannot be given a file.
    discovery.resolve_name = _resolved
    _files.append(Path(sys.argv[1]))
    sys.argv[1:] = ["serve"]
    sys.exit(main())
