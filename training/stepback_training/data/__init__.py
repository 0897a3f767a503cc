"""Training samples: from task generators, from traces, with wrong paths."""
