"""Branches in the order in which their samples were requested. Pure."""

from stepback_server.search.tree import Branch


class InOrder:
    """Holds a branch back until all with lower numbers have come."""

    def __init__(self) -> None:
        # Numbers come without gaps, since they are given out as samples are asked for.
        self._early: dict[int, Branch] = {}
        self._next = 0

    def add(self, branch: Branch) -> list[Branch]:
        """Take a branch; return those whose turn it is now."""
        self._early[branch.number] = branch
        due: list[Branch] = []
        while (following := self._early.pop(self._next, None)) is not None:
            due.append(following)
            self._next += 1
        return due

    def rest(self) -> list[Branch]:
        """Return what is still held back, in order."""
        return [self._early[number] for number in sorted(self._early)]
