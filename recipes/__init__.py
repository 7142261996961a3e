"""Run a recipe end to end: its schema, the command line, and the YAML files themselves."""
