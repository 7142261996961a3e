"""Quality signals of texts."""
