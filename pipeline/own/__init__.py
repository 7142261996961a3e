"""A stage of the user's own code."""
