"""OpenAI-compatible routes: a chat or completion request becomes requests of `/solve`."""
