"""A run folder as the commands leave it, built once from texts and pages; some of them attack the page they land in."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import app
from tests.cli.report.browser import PROGRAM, Browser
from tests.conftest import PROSE, page, write_warc

ATTACK = (
    "<script>document.title = 'attacked'; console.error('attacked')</script></script></blockquote></article>"
    "<img src=x onerror=\"document.title = 'attacked'\"><iframe src='http://192.0.2.1/'></iframe> ]]> --> {{ 7 * 7 }}"
)
RECIPE = """\
name: attacked
sources:
  - {name: pages, type: warc, paths: ["pages.warc.gz"]}
  - {name: texts, type: text, paths: ["texts/*.txt"]}
stages: [extract, language, dedup, quality, tokenize]
language: {threshold: 0.3}
dedup: {verify: 0.6}
quality: {presets: [gopher, c4]}
tokenize: {tokenizer: {vocab_size: 300}, sequence_length: 128, validation: 0.3}
executor: {workers: 1}
train:
  steps: 4
  global_batch_tokens: 256
  micro_batch: 2
  compile: false
  precision: fp32
  model: {layers: 1, width: 32, heads: 2, kv_heads: 1, head_dim: 16, ffn: 64}
  checkpoint: {every: 2}
  evaluation: {every: 2, batches: 1}
  log_every: 1
  prompts: ["<script>document.title = 'attacked'</script>The river"]
"""


@pytest.fixture(scope="session")
def attacked(tmp_path_factory) -> Path:
    """The run folder of RECIPE, trained; documents and a prompt hold script elements."""
    base = tmp_path_factory.mktemp("report")
    (base / "texts").mkdir()
    for name, text in PROSE.items():
        for number in range(4):
            words = " ".join(word for i, word in enumerate(text.split()) if (i + 7 * number) % 29)
            (base / f"texts/{name}{number}.txt").write_text(f"{words} Part {number}.")
        (base / f"texts/{name}-attack.txt").write_text(f"{ATTACK} {text} {{ {name} }} {ATTACK}")
        (base / f"texts/{name}-again.txt").write_text(f"{text} {text}")
    (base / f"texts/{ATTACK[:8]}short.txt").write_text("Far too <b>short</b> to keep.")
    hidden = ATTACK.replace("<", "&lt;")
    pages = {f"http://x.example/{name}?<script>": page(f"{text}\n\n{hidden}") for name, text in PROSE.items()}
    write_warc(base / "pages.warc.gz", pages)
    (base / "recipe.yaml").write_text(RECIPE)
    before = Path.cwd()
    os.chdir(base)
    try:
        result = CliRunner().invoke(app, ["run", "recipe.yaml"], catch_exceptions=False)
    finally:
        os.chdir(before)
    assert result.exit_code == 0, result.output
    return base / "runs/attacked"


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium; tests that need it are skipped where it is absent."""
    if PROGRAM is None:
        pytest.skip("chromium is not installed; on Debian `make setup-browser` installs it")
    chromium = Browser(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()
