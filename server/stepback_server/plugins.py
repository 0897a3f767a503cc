"""The plug-ins of a server: each task in a worker of its own, while the server runs."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

from stepback_core.errors import InvalidInput
from stepback_core.isolation import IsolatedChecker, Limits, Worker
from stepback_core.tasks import TASKS
from stepback_core.tasks.plugins import VARIABLE
from stepback_server.settings import Settings

_log = logging.getLogger(__name__)


@contextmanager
def plugins_of(settings: Settings) -> Generator[list[IsolatedChecker]]:
    """Add the plug-ins that the settings name to `TASKS`, and take them away at the end.

    Raises InvalidInput.
    """
    limits = Limits(settings.task_seconds, settings.task_memory_mib << 20)
    workers: list[Worker] = []
    added: list[IsolatedChecker] = []
    try:
        for name in settings.tasks:
            if TASKS.is_built_in(name):
                raise InvalidInput(f"{VARIABLE}: {name} is built in; leave it out")
            workers.append(Worker(name, limits))
            checker = IsolatedChecker(workers[-1])
            _add(checker)
            added.append(checker)
        yield added
    finally:
        for checker in added:
            TASKS.remove(checker.name)
        for worker in workers:
            worker.close()


def _add(checker: IsolatedChecker) -> None:
    try:
        TASKS.add(checker.name, checker)
    except InvalidInput as error:
        raise InvalidInput(f"{VARIABLE}: {error}") from error
    _log.info(
        "task %s of %s, confined by: %s",
        checker.name,
        checker.origin,
        ", ".join(checker.means),
        extra={"task": checker.name, "origin": checker.origin},
    )
