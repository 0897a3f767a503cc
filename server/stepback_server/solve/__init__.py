"""One request to one result: acceptance, search, events and answer."""
