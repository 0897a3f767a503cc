"""Self-improvement: search through a running controller, keep what is right, train, load, repeat."""
