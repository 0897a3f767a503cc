"""The lock of a file that one process writes, on Unix and on Windows."""

import errno
import importlib
import logging
import os
from typing import IO, Any

_log = logging.getLogger(__name__)

# Mounts by NFS, SMB or FUSE may write files well and have no locks.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
# Windows locks bytes and keeps others from reading them: one far behind any content.
_FAR = 1 << 40


def lock(file: IO[Any]) -> None:
    """Hold a file until it is closed. Raises BlockingIOError where another process does. Where the
    file's system has no locks nothing is held, and a warning says so."""
    try:
        # By name: a type checker knows each module on its own system alone.
        fcntl: Any = importlib.import_module("fcntl")
    except ModuleNotFoundError:
        _lock_a_byte(file, importlib.import_module("msvcrt"))
    else:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            message = "%s: no lock can be had there (%s): let no other process write it"
            _log.warning(message, file.name, error.strerror)


def _lock_a_byte(file: IO[Any], msvcrt: Any) -> None:
    file.seek(_FAR)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(*error.args) from error
    finally:
        file.seek(0, os.SEEK_END)
