"""Endpoints without HTTP: a body becomes an answer. Jobs and LocalSolver use them."""
