"""Self-improvement: search through a controller, keep what is right, train on it, repeat."""
