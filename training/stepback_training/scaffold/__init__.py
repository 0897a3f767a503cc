"""`stepback task new`: a package with a task of its own, which holds from the first minute."""
