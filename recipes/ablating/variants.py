"""Variants of a recipe: every combination of the varied fields' values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.errors import RecipeError

if TYPE_CHECKING:
    from recipes.load import Loaded
    from recipes.schema import Recipe


@dataclass(frozen=True)
class Variant:
    """One choice of the varied fields: a name for people and folders, and the recipe that it makes."""

    name: str
    loaded: Loaded[Recipe]


def list_variants(recipe: Path, overrides: Sequence[str], vary: Sequence[str]) -> list[Variant]:
    """Every combination of the varied fields' values, as valid recipes. Raises RecipeError."""
    choices: list[list[tuple[str, str]]] = []
    for given in vary:
        field, equals, values = given.partition("=")
        if not equals or len(split_values(values)) < 2:
            raise RecipeError(f"--vary {given}: got no `FIELD=A,B`, allowed: e.g. `quality.presets=gopher,c4`")
        choices.append([(field, value) for value in split_values(values)])
    variants = []
    for chosen in product(*choices):
        settings = [f"{field}={value}" for field, value in chosen]
        # One value stands for a list of one where the field is a list.
        spellings = product(*((f"{field}={value}", f"{field}=[{value}]") for field, value in chosen))
        loaded = _first_valid(recipe, overrides, spellings)
        variants.append(Variant(" ".join(settings), loaded))
    return variants


def _first_valid(recipe: Path, overrides: Sequence[str], spellings: Iterable[tuple[str, ...]]) -> Loaded[Recipe]:
    """The recipe with the first spelling that is valid. Raises the RecipeError that says most where none is."""
    from recipes.load import load_recipe

    wrong: RecipeError | None = None
    for settings in spellings:
        try:
            return load_recipe(recipe, [*overrides, *settings])
        except RecipeError as error:
            if wrong is None or str(wrong).endswith("allowed: a list"):  # a list it is: what is wrong in it?
                wrong = error
    assert wrong is not None  # there is at least one spelling
    raise wrong


def split_values(text: str) -> list[str]:
    """Values at commas that stand in no bracket.

    >>> split_values("[a, b],{c: 1, d: 2},e")
    ['[a, b]', '{c: 1, d: 2}', 'e']
    """
    values, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and not depth:
            values.append("")
        else:
            values[-1] += character
    return [value.strip() for value in values if value.strip()]
