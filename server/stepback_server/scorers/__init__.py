"""Scorers over HTTP that the operator names: requests, replies and failures."""
