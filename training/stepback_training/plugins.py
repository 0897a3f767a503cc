"""Tasks of other packages in a training command: their generators, and their checkers' workers."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from typing import Any

from stepback_core.errors import InvalidInput
from stepback_core.isolation import IsolatedChecker, Worker
from stepback_core.tasks import TASKS, Checker
from stepback_core.tasks.plugins import VARIABLE, find, read_names
from stepback_training.generators import GENERATORS, Generator

GROUP = "stepback.generators"
"""The group of entry points of generators: a `Generator`, its class, or a function that makes it.
A generator has the name of its task."""

Command = Callable[[Sequence[str]], int]


def add_plugins(environment: Mapping[str, str] = os.environ) -> None:
    """Add the tasks that the environment names to `GENERATORS` and `TASKS`; each once.

    Raises InvalidInput.
    """
    for name in read_names(environment.get(VARIABLE, "")):
        if name in GENERATORS and not GENERATORS.is_built_in(name):
            continue
        [plugin] = find([name], GROUP)
        generator = plugin.load()
        if not isinstance(generator, Generator):
            raise plugin.fault("is no generator: subclass stepback_training.generators.Generator")
        checker = getattr(generator, "checker", None)
        if not isinstance(checker, Checker) or checker.name != name:
            raise plugin.fault("has no checker of that name")
        GENERATORS.add(name, generator)
        TASKS.add(name, checker)


def with_plugins(command: Command) -> Command:
    """Add the plug-ins before a command runs; it is refused where that fails."""

    @wraps(command)
    def run(arguments: Sequence[str]) -> int:
        try:
            add_plugins()
        except InvalidInput as error:
            print(f"stepback {command.__name__}: {error}", file=sys.stderr)
            return 2
        return command(arguments)

    return run


def judge_of(task: Generator[Any]) -> Checker[Any]:
    """Return the checker for texts of a model: a plug-in's in a worker, since they are hostile."""
    name = task.name
    is_plugin = name in GENERATORS and not GENERATORS.is_built_in(name)
    return _isolated(name) if is_plugin else task.checker


@cache
def _isolated(name: str) -> Checker[Any]:
    return IsolatedChecker(Worker(name))
