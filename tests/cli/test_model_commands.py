"""The commands around a trained model, on one small run: export, import, generate, eval, trace."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from transformers import AutoModelForCausalLM

from tests.cli.conftest import RECIPE
from tests.cli.test_cli import pretrain
from tests.conftest import PROSE

STEPS = 6


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run; two of its texts are too short for Gopher's rules, and three checkpoints stay."""
    home = tmp_path_factory.mktemp("home")
    (home / "texts").mkdir()
    for name, text in PROSE.items():
        for number in range(8):
            (home / f"texts/{name}{number}.txt").write_text(f"{text} Number {number}.")
    for name in ("a", "b"):
        (home / f"texts/short-{name}.txt").write_text(f"Far too short to keep, {name}.")
    recipe = yaml.safe_load(RECIPE)
    recipe["sources"][0]["license"] = "CC0-1.0"
    recipe["runs"] = str(home / "runs")
    recipe["train"] |= {"steps": STEPS, "checkpoint": {"every": 2, "keep_last": 3}, "prompts": []}
    (home / "small.yaml").write_text(yaml.safe_dump(recipe))
    pretrain("run", str(home / "small.yaml"))
    return home


@pytest.fixture(scope="module")
def run(home: Path) -> str:
    return str(home / "runs/small")


def test_export_writes_a_folder_that_transformers_loads_and_a_card_from_the_run(run: str) -> None:
    out = pretrain("export", run, "--json")[0]
    report = json.loads(out)
    assert (report["step"], report["dtype"]) == (STEPS, "f32")
    assert all(Path(name).stat().st_size == size for name, size in report["files"].items())
    AutoModelForCausalLM.from_pretrained(f"{run}/export/hf")
    card = (Path(run) / "export/hf/README.md").read_text()
    manifest = json.loads((Path(run) / "shards/manifest.json").read_bytes())
    for fact in (
        "# small",
        "it is not an assistant",
        "| web | text | CC0-1.0 |",
        "| quality | 26 | 24 |",
        f"| train/web | {manifest['streams']['train/web']['documents']} |",
        "SHA-256 of the resolved recipe: `",
        "| all | ",
        "## Limits",
    ):
        assert fact in card


def test_export_writes_gguf_with_a_modelfile(run: str, tmp_path: Path) -> None:
    out = pretrain("export", run, "--format", "gguf", "--dtype", "q8_0", "--output", str(tmp_path / "m.gguf"))[0]
    assert out.startswith(f"{tmp_path}/m.gguf: step 6 as q8_0, ")
    assert (tmp_path / "Modelfile").read_text().startswith("FROM ./m.gguf\n")
    assert "a Hugging Face folder takes f32" in pretrain("export", run, "--dtype", "q8_0", code=1)[1]


def test_import_leads_back_to_the_same_model(run: str, tmp_path: Path) -> None:
    pretrain("export", run, "--output", str(tmp_path / "hf"))
    out = pretrain("import", str(tmp_path / "again"), "--hf", str(tmp_path / "hf"))[0]
    assert "Qwen3, 1 layers of width 32" in out
    prompt = ["--prompt", "The river", "--tokens", "8", "--json"]
    assert pretrain("generate", str(tmp_path / "again"), *prompt) == pretrain("generate", run, *prompt)
    assert "holds checkpoints already" in pretrain("import", run + "/train", "--hf", str(tmp_path / "hf"), code=1)[1]


def test_generate_streams_what_it_returns(run: str) -> None:
    options = ["--tokens", "12", "--top-p", "0.9", "--min-p", "0.01", "--repetition-penalty", "1.1"]
    (completion,) = json.loads(pretrain("generate", run, "--prompt", "The river", *options, "--json")[0])
    streamed = pretrain("generate", run, "--prompt", "The river", *options)[0]
    assert completion["tokens"] == 12
    assert streamed == "".join(c for c in "The river" + completion["text"] if c.isprintable() or c in "\n\t") + "\n"
    both = json.loads(pretrain("generate", run, "--prompt", "The river", "--prompt", "A bowl", *options, "--json")[0])
    assert [each["prompt"] for each in both] == ["The river", "A bowl"]
    assert both[0] == completion


def test_eval_scores_held_out_text_as_training_did_and_draws_the_curve(run: str) -> None:
    report = json.loads(pretrain("eval", run, "--all-steps", "--json")[0])
    assert [entry["step"] for entry in report["checkpoints"]] == [2, 4, 6]
    rows = [json.loads(line) for line in (Path(run) / "train/metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "eval"][-1]
    limited = json.loads(pretrain("eval", run, "--limit", "2", "--json")[0])["checkpoints"][0]["sets"]["held-out"]
    assert limited["tokens"] == last["tokens"]  # two samples, as `evaluation.batches: 1` of two
    assert limited["loss"] == pytest.approx(last["loss"], rel=1e-6)
    assert limited["bits_per_byte"] == pytest.approx(last["bits_per_byte"], rel=1e-6)
    assert limited["sources"]["web"]["tokens"] == limited["tokens"]
    table = pretrain("eval", run, "--all-steps")[0]
    assert "held-out: bits per byte" in table
    assert "held-out, step 6" in table


def test_eval_scores_files_by_source_and_language_and_finds_what_was_trained_on(run: str, tmp_path: Path) -> None:
    rows = [
        {"text": PROSE["river"] + " Number 1.", "source": "seen", "lang": "en"},
        {"text": "Größere Häuser stehen weiter oben, und niemand weiß, wem sie gehören.", "language": "de"},
        {"text": "Kurz."},
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    (tmp_path / "plain.txt").write_text("One plain text.")
    texts = ["--text", str(file), "--text", str(tmp_path / "plain.txt")]
    report = json.loads(pretrain("eval", run, *texts, "--json")[0])
    scores = report["checkpoints"][0]["sets"][str(file)]
    assert set(scores["sources"]) == {"seen", "mine"}
    assert set(scores["languages"]) == {"en", "de", "und"}
    assert scores["documents"] == 3
    bytes_of = {name: len(row["text"].encode()) for name, row in zip(("en", "de", "und"), rows, strict=True)}
    for name, each in scores["languages"].items():  # every token stands for text
        nats = each["loss"] * each["tokens"]
        assert each["bits_per_byte"] == pytest.approx(nats / 0.6931471805599453 / bytes_of[name])
    found = report["contamination"]
    assert (found["documents"], found["documents_seen"]) == (4, 1)
    assert found["worst"][0]["document"] == f"{file}:1"
    assert found["worst"][0]["share"] > 0.8
    assert "1 of 4 documents" in pretrain("eval", run, *texts)[0]


def test_eval_refuses_what_it_cannot_read(run: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n{"body": "y"}\n')
    assert "bad.jsonl:2: expected a JSON object" in pretrain("eval", run, "--text", f"{tmp_path}/bad.jsonl", code=2)[1]
    assert "no checkpoint of step 3; existing steps: 2, 4, 6" in pretrain("eval", run, "--step", "3", code=1)[1]
    assert "has no shards" in pretrain("eval", f"{run}/train", code=2)[1]


def test_trace_leads_from_steps_to_documents_and_back(run: str) -> None:
    urls = {row["id"]: row["url"] for row in pq.read_table(f"{run}/shards/documents.parquet").to_pylist()}
    trained: dict[str, set[int]] = {}
    for step in range(1, STEPS + 1):
        pieces = json.loads(pretrain("trace", run, "--step", str(step), "--json")[0])
        assert sum(piece["share"] for piece in pieces) == pytest.approx(1)
        for piece in pieces:
            assert urls[piece["id"]] == piece["url"]
            trained.setdefault(piece["id"], set()).add(step)
    for name in urls:
        (fate,) = json.loads(pretrain("trace", run, "--doc", name, "--json")[0])
        assert set(fate["steps"]) == trained.get(name, set())
        assert fate["fate"] != "trained" or fate["steps"]
    assert "step 7 was not trained" in pretrain("trace", run, "--step", "7", code=1)[1]


def test_trace_says_which_rule_dropped_a_document(run: str) -> None:
    (path,) = Path(run).glob("corpus/*-quality/dropped/*.parquet")
    row = pq.read_table(path).to_pylist()[0]
    out = pretrain("trace", run, "--doc", row["id"])[0]
    assert "dropped by stage quality, rule gopher_min_words: value 6, threshold 50" in out
    assert "no document whose url is 'nowhere'" in pretrain("trace", run, "--url", "nowhere", code=2)[1]
    assert "takes one of --step, --doc, --url, --text; got none" in pretrain("trace", run, code=2)[1]


def test_trace_finds_the_documents_that_share_most_of_a_text(run: str) -> None:
    wanted = "the cubs come out to play between the graves of two sea captains"
    found = json.loads(pretrain("trace", run, "--text", f"In May {wanted} again", "--limit", "3", "--json")[0])
    assert len(found) == 3
    assert all(wanted in row["shared"] for row in found)
    assert [row["overlap"] for row in found] == sorted((row["overlap"] for row in found), reverse=True)
    assert all(row["fate"] in ("trained", "in the shards, not trained on yet") for row in found)
