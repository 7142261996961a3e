"""Errors in what a person wrote: a recipe or a command's arguments. The command line exits 2 on them."""

from __future__ import annotations

from collections.abc import Sequence


class RecipeError(Exception):
    """A recipe cannot be used. Each message names file, line and field, what was found, and what is allowed."""

    def __init__(self, messages: str | Sequence[str]) -> None:
        self.messages = [messages] if isinstance(messages, str) else list(messages)
        super().__init__("\n".join(self.messages))
