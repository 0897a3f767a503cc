"""Tasks of other distributions, by entry point; none is loaded unless a start names it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from stepback_core.errors import InvalidInput
from stepback_core.tasks.base import Checker, Verdict

CHECKERS = "stepback.tasks"
"""The group of entry points of checkers: a `Checker`, its class, or a function that makes it."""
VARIABLE = "STEPBACK_TASKS"
"""Names the plug-ins that a process loads, separated by commas."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point under the name that asked for it, such as `sorting` or `gym:countdown`."""

    name: str
    entry: EntryPoint
    member: str | None
    """The text after the colon; the entry point is called with it."""

    @property
    def origin(self) -> str:
        """The distribution that brings it, with its version."""
        distribution = self.entry.dist
        return f"{distribution.name} {distribution.version}" if distribution else "no distribution"

    def load(self) -> object:
        """Import it and make what it names. Raises InvalidInput."""
        try:
            factory = self.entry.load()
            if self.member is not None:
                return factory(self.member)
            return factory() if callable(factory) else factory
        # Another's module may raise anything, and even exit.
        except (Exception, SystemExit) as error:
            raise self.fault(f"cannot be loaded ({type(error).__name__}: {error})") from error

    def fault(self, what: str) -> InvalidInput:
        """Return the error that says what is wrong with it."""
        return InvalidInput(f"{VARIABLE}: {self.name} ({self.origin}) {' '.join(what.split())}")


def read_names(text: str) -> list[str]:
    """Return the names in the text of the variable, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def find(names: Iterable[str], group: str = CHECKERS) -> list[Plugin]:
    """Return the plug-ins of these names. Raises InvalidInput, naming those that are installed."""
    installed = entry_points(group=group)
    return [_find(name, list(installed)) for name in names]


def _find(name: str, installed: Sequence[EntryPoint]) -> Plugin:
    family, colon, member = name.partition(":")
    for wanted, given in ((name, None), *(((family, member),) if colon and member else ())):
        # An editable install is found twice on some paths, with one value.
        fitting = {each.value: each for each in installed if each.name == wanted}
        if len(fitting) > 1:
            origins = " and ".join(sorted(Plugin(name, e, None).origin for e in fitting.values()))
            raise InvalidInput(f"{VARIABLE}: {name} is in {origins}; uninstall one")
        for entry in fitting.values():
            if not _NAME.fullmatch(name):
                raise InvalidInput(f"{VARIABLE}: {name!r} is no name of a task")
            return Plugin(name, entry, given)
    known = ", ".join(sorted({each.name for each in installed})) or "none"
    raise InvalidInput(f"{VARIABLE}: no installed package has a task {name!r}; installed: {known}")


def load_checker(plugin: Plugin) -> Checker[Any]:
    """Load a checker and try its interface on its own example. Raises InvalidInput."""
    checker: Any = plugin.load()
    if not isinstance(checker, Checker):
        raise plugin.fault("is no checker: subclass stepback_core.tasks.Checker")
    known = cast("Checker[Any]", checker)
    if (name := getattr(known, "name", None)) != plugin.name:
        raise plugin.fault(f"calls itself {name!r}")
    try:
        fault = _fault_of(known)
    # Another's code may raise anything.
    except Exception as error:
        raise plugin.fault(f"fails on its own example ({type(error).__name__}: {error})") from error
    if fault is not None:
        raise plugin.fault(fault)
    return known


def _fault_of(checker: Any) -> str | None:
    """The fault of a stranger's checker, whose annotations say nothing yet."""
    kind, example = checker.problem_type, checker.example
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return "has a problem_type that is no pydantic model"
    if not isinstance(example, kind):
        return "has an example that is not of its problem_type"
    try:
        again = kind.model_validate(example.model_dump(mode="json"))
    except ValidationError as error:
        return f"has an example that its JSON does not give back ({error.errors()[0]['msg']})"
    prompt = checker.prompt(again)
    if not isinstance(prompt, str) or not prompt:
        return f"has a prompt that is no text: {prompt!r}"
    verdict = checker.check(again, [])
    if not isinstance(verdict, Verdict):
        return f"has a check that gives no Verdict: {verdict!r}"
    return None
