"""Python's cyclic garbage collector, set for a process that holds much and drops little of it."""

import gc

# Between collections: allocations, collections of the youngest, collections of the middle ones.
# With Python's own 700 the collector took a quarter of a controller's time under load.
_THRESHOLDS = (20_000, 20, 50)


def tune_gc() -> None:
    """Exempt everything loaded so far from garbage collection: it stays.

    Else every full collection walks through the modules, which stops the event loop for a tenth of
    a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
