"""Rules on signals: the recipe's presets and overrides resolved per language, then applied to columns."""

from __future__ import annotations

import operator
from functools import cache
from typing import Any

import numpy as np

from pipeline.config import QualityConfig, Rule
from pipeline.presets import ALPHABETIC_ONLY, ENGLISH_ONLY, PRESETS, SHORT_WORD_LANGUAGES, QualityRule
from pipeline.signals import signals

_OPERATORS = {">=": operator.ge, "<=": operator.le}
Signals = dict[str, np.ndarray[Any, Any]]


def keep(texts: list[str], *, preset: str = "fineweb", language: str = "en") -> list[str | None]:
    """None for each text that a preset (gopher, c4, fineweb) keeps, else the first rule that it fails.

    >>> keep(["too short"], preset="gopher")
    ['gopher_min_words']
    """
    settings = QualityConfig(presets=[preset])
    failures = failing(rules_for(settings, language), signals(texts, language=language), len(texts))
    return [names[0] if names else None for names in failures]


def rules_for(settings: QualityConfig, language: str) -> dict[str, QualityRule]:
    """Rules in force for a language, in order of the presets: defaults, then the recipe's overrides."""
    rules: dict[str, QualityRule] = {}
    overrides = {**settings.rules, **settings.languages.get(language, {})}
    for preset in settings.presets:
        for name, rule in PRESETS[preset].items():
            override = _override(overrides[name]) if name in overrides else Rule(enabled=_applies(name, language))
            if override.enabled:
                threshold = rule.threshold if override.threshold is None else override.threshold
                rules[name] = rule._replace(threshold=threshold)
    return rules


def failing(rules: dict[str, QualityRule], found: Signals, count: int) -> list[list[str]]:
    """For each document the names of the rules that it fails, in the rules' order."""
    failures: list[list[str]] = [[] for _ in range(count)]
    for name, rule in rules.items():
        holds = _OPERATORS[rule.op](found[rule.signal], rule.threshold)
        for i in np.flatnonzero(~holds):
            failures[i].append(name)
    return failures


@cache
def _applies(name: str, language: str) -> bool:
    if name in ENGLISH_ONLY:
        return language == "en"
    return not (name in ALPHABETIC_ONLY and language in SHORT_WORD_LANGUAGES)


def _override(given: float | bool | Rule) -> Rule:
    if isinstance(given, Rule):
        return given
    if isinstance(given, bool):
        return Rule(enabled=given)
    return Rule(threshold=given)
