"""Protection of the search: keys, rate limits, admission and idempotency."""
