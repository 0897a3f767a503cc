"""Paths that more than one module names."""

SEARCH_PATH = "/solve"
FILES_PATH = "/v1/files"

BATCH_PATH = "/solve/batch"
CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"

SEARCH_PATHS = frozenset({SEARCH_PATH, BATCH_PATH, CHAT_PATH, COMPLETIONS_PATH})
"""Paths that search: the metric of refusals counts these."""
