"""The sample corpus and the pages that only the demo needs."""
