"""Main text of an HTML page."""
