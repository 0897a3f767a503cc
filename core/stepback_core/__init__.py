"""Contract of model, controller and caller. Standard library and pydantic only."""
