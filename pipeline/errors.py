"""Errors that are meant for people: the command line prints their text and exits 1, without a traceback."""


class PipelineError(Exception):
    """A corpus cannot be built; the message names the file or field, what was found and what to do."""
