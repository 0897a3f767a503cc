"""Handlers: a body becomes an answer, without HTTP. Jobs and LocalSolver use them."""
