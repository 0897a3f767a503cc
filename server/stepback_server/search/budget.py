"""Tokens as money: reserved before they are generated, so that a budget is never exceeded. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBudget:
    """Tokens that a search may still generate. Reserve before sampling, return the unused."""

    available: int
    reserved: int = 0

    def reserve(self, samples: int, tokens_each: int) -> tuple[int, int]:
        """Reserve as many samples as can be paid in full; return their number and tokens each.

        Where not even one can be paid in full and nothing is reserved elsewhere, one sample with
        all that is left; (0, 0) says to wait for a return, or that the purse is empty.
        """
        count = min(samples, max(self.available, 0) // tokens_each)
        # Only while nothing is reserved: what is out may come back and pay for a whole sample. The
        # remainder is spent all the same, so that a budget is used to its last token.
        if count == 0 and self.reserved == 0 and self.available > 0:
            count, tokens_each = 1, self.available
        self.available -= count * tokens_each
        self.reserved += count * tokens_each
        return (count, tokens_each) if count else (0, 0)

    def settle(self, reserved: int, used: int) -> None:
        """Close a reservation of `reserved` tokens after `used` were generated."""
        self.reserved -= reserved
        # May become negative: a lost sample counts as its worst case. That is why `reserve` looks
        # at no less than 0.
        self.available += reserved - used

    @property
    def is_empty(self) -> bool:
        return self.available == 0 and self.reserved == 0
