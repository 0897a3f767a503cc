"""Paths that more than one module names."""

SEARCH_PATH = "/solve"

SEARCH_PATHS = frozenset({SEARCH_PATH})
"""Paths that search: the metric of refusals counts these."""
