"""Limits of keys over several controllers, and answers that a repeated request finds at any.

Everything is in PostgreSQL, and nothing depends on it: while it is slow or gone, each controller
counts for itself.
"""
