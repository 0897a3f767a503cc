"""What model, controller and caller must agree on. Standard library and pydantic only."""
