"""A small recipe and its texts, in a folder of their own."""

import pytest

from tests.conftest import PROSE

RECIPE = """\
name: small
sources:
  - {name: web, type: text, paths: ["texts/*.txt"]}
stages: [extract, quality, tokenize]
quality: {presets: [gopher]}
tokenize:
  tokenizer: {vocab_size: 300}
  sequence_length: 32
  validation: 0.2
executor: {workers: 1}
train:
  steps: 4
  global_batch_tokens: 64
  micro_batch: 2
  compile: false
  precision: fp32
  model: {layers: 1, width: 32, heads: 2, kv_heads: 1, head_dim: 16, ffn: 64}
  checkpoint: {every: 2}
  evaluation: {every: 2, batches: 1}
  log_every: 2
  prompts: ["The river"]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with a recipe and its texts; two of them are too short for Gopher's rules."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    for name, text in PROSE.items():
        for number in range(8):
            (tmp_path / f"texts/{name}{number}.txt").write_text(f"{text} Number {number}.")
    for name in ("a", "b"):
        (tmp_path / f"texts/short-{name}.txt").write_text(f"Far too\x1b short to keep, {name}.")
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path
