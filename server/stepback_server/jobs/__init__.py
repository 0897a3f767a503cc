"""Requests that outlive their callers and this process: background searches and batches.

A job is one request in the database. A controller claims it under a lease, answers it, and writes
the answer once; the jobs of a controller that stops its heartbeat are claimed by another.
"""
