"""Turns of keys: whose jobs a controller claims next. Pure."""

from collections.abc import Mapping
from itertools import count


class Turns:
    """Shares out free slots. Of the keys that wait, the one with the fewest jobs in flight is next,
    and of several such the one that was served longest ago."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._count = count(1)

    def shares(
        self, slots: int, waiting: Mapping[str, int], running: Mapping[str, int]
    ) -> dict[str, int]:
        """Slots for each key. `waiting`: how many jobs each may have in flight; `running`: how many
        it has."""
        in_flight = {name: running.get(name, 0) for name in waiting}
        shares = dict.fromkeys(waiting, 0)
        for _ in range(slots):
            below = [name for name, most in waiting.items() if in_flight[name] < most]
            if not below:
                break
            name = min(below, key=lambda each: (in_flight[each], self._served.get(each, 0)))
            self._served[name] = next(self._count)
            in_flight[name] += 1
            shares[name] += 1
        return shares
