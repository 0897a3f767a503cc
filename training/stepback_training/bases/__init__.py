"""Base models: refused by name of the part, or brought into a form that is trained and served."""
