"""The documentation site: every page of the navigation exists, and the reference names every field of a recipe."""

import importlib.util
import re
from pathlib import Path

from recipes.schema import Recipe
from trainer.config import TrainConfig

ROOT = Path(__file__).parent.parent


def test_the_navigation_and_the_pages_fit_each_other():
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert named <= there
    assert {page for page in there if "/" in page} <= named


def test_the_reference_names_every_field():
    spec = importlib.util.spec_from_file_location("hook", ROOT / "docs/reference/hook.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = hook.on_page_markdown((ROOT / "docs/reference/recipe.md").read_text())
    assert "<!--" not in page
    for model in (Recipe, TrainConfig):
        for name in model.model_fields:
            assert f"| `{name}` | `" in page
    assert "## train.optimizer" in page
    assert "lowest score kept (FineWeb, DCLM, Dolma 3: 0.65)" in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    assert hook.on_page_markdown("another page") == "another page"
    pages = {path.name: hook.on_page_markdown(path.read_text()) for path in (ROOT / "docs/how-to").glob("*.md")}
    assert not [name for name, text in pages.items() if "<!--" in text]
    assert "| `verify_by` | `" in pages["dedup.md"]
    assert "Fields of `sources.0`:" in pages["extract.md"]
    assert "| `muon_lr` | `float` or `null` | `null` |" in pages["train.md"]
    assert "| `gopher_top_2gram` | `top_2gram <= 0.2` |" in pages["quality.md"]
