"""Many problems to a running controller or a Ray cluster: what three commands share.

problems.py says what is asked, searchers.py of whom, bounded_gather.py asks it, journal.py keeps
each outcome as it comes, statistics.py says what many are worth, provenance.py by which code.
"""
