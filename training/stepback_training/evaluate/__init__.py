"""Evaluation: held-out problems through a running controller, and what the outcomes say.

plan.py says what is asked, measuring.py asks it, journal.py keeps each outcome as it comes,
scoring.py reads one result, summary.py many, evaluation.py is the file that all of it ends in.
"""
