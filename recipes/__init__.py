"""Recipes: the project's YAML files, and what loads, checks, plans and mirrors a recipe."""

from recipes.load import Loaded, check_paths, load_recipe, load_training, resolved_yaml, training_config
from recipes.plan import plan_corpus, plan_training
from recipes.schema import Recipe, Training, json_schema

__all__ = [
    "Loaded", "Recipe", "Training", "check_paths", "json_schema", "load_recipe", "load_training", "plan_corpus",
    "plan_training", "resolved_yaml", "training_config",
]  # fmt: skip
