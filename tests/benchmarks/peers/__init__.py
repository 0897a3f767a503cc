"""Other projects' searches beside ours: one vLLM server, one checkpoint, one checker."""
