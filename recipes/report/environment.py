"""Where a run ran, as it recorded it: hosts, libraries, device, model; and its recipe."""

from __future__ import annotations

import time
from typing import Any

from recipes.report.blocks import Block, Code, Section, Table
from recipes.report.runfolder import RunFolder
from recipes.terminal import clean


def section(run: RunFolder) -> Section:
    """The environment and the recipe."""
    recipe = [Code("recipe.yaml", run.recipe_text)] if run.recipe_text else []
    return Section("environment", "Environment and recipe", "", [*environment(run), *recipe])


def environment(run: RunFolder) -> list[Block]:
    """Hosts, libraries, device and model, as the run recorded them."""
    rows: list[list[Any]] = []
    hosts = sorted({str(row["host"]) for row in run.log if row.get("host")})
    if hosts:
        rows.append(["hosts", ", ".join(hosts)])
    stamps = [row["time"] for row in run.log if isinstance(row.get("time"), int | float)]
    if stamps:
        rows.append(["last stage finished", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(max(stamps)))])
    settings = run.state.get("settings", {})
    for key, value in settings.items():
        if key.startswith("environment."):
            rows.append([key.removeprefix("environment."), clean(str(value), 200)])
    for row in run.log:
        for key, value in (row.get("environment") or row.get("versions") or {}).items():
            if [key, value] not in rows:
                rows.append([key, clean(str(value), 200)])
    rows += [[f"model {key}", value] for key, value in run.state.get("model", {}).items()]
    return [Table("Environment", ["", "value"], rows)] if rows else []
