"""Paths that more than one module names."""

SEARCH_PATH = "/solve"
FILES_PATH = "/v1/files"

SEARCH_PATHS = frozenset({SEARCH_PATH})
"""Paths that search: the metric of refusals counts these."""
