"""Errors that are meant for people: the command line prints their text and exits 1, without a traceback."""


class TrainerError(Exception):
    """A training run cannot start or go on; the message says what was found, what was expected, what to do."""
