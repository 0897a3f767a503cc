"""Problems to a running controller: what `stepback evaluate` and `stepback improve` share.

questions.py says what is asked, flight.py asks it, journal.py keeps each outcome as it comes,
shares.py says what many are worth, provenance.py by which code; cli.py is what both commands say.
"""
