"""Tasks by name: the built-in ones, and those that a start adds."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from stepback_core.errors import InvalidInput

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping that only its own `add` and `remove` change."""

    def __init__(self, built_in: Mapping[str, T]) -> None:
        self._built_in = dict(built_in)
        self._added: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """Add an entry under a name of its own. Raises InvalidInput."""
        if name in self._built_in:
            raise InvalidInput(f"{name} is the name of a built-in task")
        if name in self._added:
            raise InvalidInput(f"{name} was added already")
        self._added[name] = entry

    def remove(self, name: str) -> None:
        """Take an added entry away again. Raises KeyError."""
        del self._added[name]

    def is_built_in(self, name: str) -> bool:
        """Tell if a name is one of those that come with the package."""
        return name in self._built_in

    def __getitem__(self, name: str) -> T:
        return self._built_in[name] if name in self._built_in else self._added[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        yield from self._added

    def __len__(self) -> int:
        return len(self._built_in) + len(self._added)
