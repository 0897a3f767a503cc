"""Training: from a task to a backtrack-aware checkpoint. Never imports the server."""
