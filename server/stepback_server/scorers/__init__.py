"""Scorers over HTTP that the operator names: what they are asked, and what comes of it."""
