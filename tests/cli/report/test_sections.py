"""What the report computes: samples, histograms, rules, spans, curves, comparisons; and its size on a large run."""

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.contents import ROW_GROUPS, find_rows, read_sample
from cli.report import corpus, histograms, learning, page, write
from cli.report.learning import environment
from cli.report.page import Figure, Table, show, thin
from cli.report.passages import fragments
from cli.report.write import write_report
from common.errors import RecipeError
from common.runfolder import RunFolder
from tests.cli.report.conftest import ATTACK


def blocks(run, *parts):
    """Blocks of some parts of a section, by title."""
    return {block.title: block for part in parts for block in part(run)}


def test_a_long_text_is_cut_around_its_first_mark():
    text = "x" * 5000 + "{" + "y" * 5000
    parts = fragments(text, [(5000, 5001)], 1000)
    assert parts[0] == ("… ", False)
    assert ("{", True) in parts
    assert parts[-1] == (" …", False)
    assert sum(len(part) for part, _ in parts) < 1010
    assert fragments("all of it", [], 1000) == [("all of it", False)]
    assert "".join(part for part, _ in fragments("a {b} c", [(2, 3), (4, 5)], 100)) == "a {b} c"


def test_bins_hold_the_bulk_and_the_thresholds_in_round_steps():
    edges, logarithmic = histograms.bin_edges(np.linspace(0, 1, 1001), [0.65])
    assert not logarithmic
    assert edges[0] == pytest.approx(0, abs=0.02)
    assert edges[-1] >= 0.99
    edges, logarithmic = histograms.bin_edges(np.geomspace(10, 1e6, 500), [50, 1e9])
    assert logarithmic
    assert edges[0] <= 50 < 1e5 < edges[-1] < 1e8
    edges, _ = histograms.bin_edges(np.zeros(5), [0])
    assert (np.diff(edges) > 0).all()
    assert histograms.round_numbers(0, 1.04, logarithmic=False) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert histograms.round_numbers(8, 2000, logarithmic=True) == [10, 100, 1000]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.0303), (3, 97), (-2, 11), (0, 123456)])
def test_an_axis_has_a_few_ticks_within_its_range(low, high):
    ticks = histograms.round_numbers(low, high, logarithmic=False)
    assert 3 <= len(ticks) <= 7
    assert low <= ticks[0] < ticks[-1] <= high


def test_long_curves_are_averaged_and_keep_their_mean():
    points = [(step, float(step % 7)) for step in range(1, 7001)] + [(7001, float("nan"))]
    short = page.averaged(points)
    assert len(short) <= page.POINTS
    assert short[-1][0] == 7000
    assert np.mean([y for _, y in short]) == pytest.approx(3.0)
    assert page.averaged([(1, 2.0)]) == [(1, 2.0)]


def test_cells_and_rows():
    assert [show(value) for value in (1234567, 0.12345, 0.0001, 12345.6, None, "", True)] == [
        *("1,234,567", "0.1235", "1.00e-04", "12,346", "–", "–", "yes")
    ]
    assert thin([[i] for i in range(1000)], 5) == [[0], [250], [500], [749], [999]]


def test_the_funnel_and_the_rules_add_up(attacked):
    run = RunFolder(attacked)
    shown = blocks(run, corpus.documents_by_stage, corpus.document_flows)
    rows = shown["Documents by stage"].table.rows
    assert [row[0] for row in rows] == ["extract", "language", "dedup", "quality", "tokenize"]
    assert all(row[1] == row[2] + row[3] for row in rows)
    assert all(later[1] == earlier[2] for earlier, later in pairwise(rows))
    flows = shown["Documents by source and language"].table.rows
    assert sum(row[3] for row in flows) == rows[0][1]
    assert sum(row[3] for row in flows if row[2] == "corpus") == rows[-1][1]
    drops = blocks(run, corpus.drops_by_rule)["Documents dropped, by rule"].table.rows
    assert sum(row[3] for row in drops) == sum(row[3] for row in rows)
    assert all(row[2] <= row[3] <= row[4] for row in drops)
    assert "c4_curly_brackets" in {row[1] for row in drops}


def test_every_signal_with_a_rule_has_a_histogram_of_all_documents(attacked):
    run = RunFolder(attacked)
    found = blocks(run, histograms.signal_histograms)
    assert {"language_score", "words", "curly_brackets", "duplicate_5gram"} <= found.keys()
    assert "fineweb_newlines" not in str(found)  # a preset that the recipe does not use
    read = run.stages["quality"].stats["documents_in"]
    for name, figure in found.items():
        if name != "language_score":
            assert sum(sum(trace["y"]) for trace in figure.traces) == read
            assert figure.layout["shapes"]


def test_tokens_by_language_and_stream_are_those_of_the_shards(attacked):
    run = RunFolder(attacked)
    found = blocks(run, corpus.tokenizer_fertility, corpus.training_mixture)
    count = run.stages["tokenize"].stats["tokens"]
    assert sum(row[2] for row in found["Tokenizer fertility by language"].table.rows) == count
    assert sum(row[3] for row in found["Mixture of training"].table.rows) == count


def test_plotly_accepts_every_figure(attacked):
    import plotly.graph_objects as go

    run = RunFolder(attacked)
    parts = [*write.sections(run), *write.comparison([run, run])]
    figures = [block for part in parts for block in part.blocks if isinstance(block, Figure)]
    assert len(figures) > 30
    for figure in figures:
        go.Figure(data=figure.traces, layout=figure.layout)  # raises ValueError for what plotly does not know
        assert isinstance(figure.table, Table)
        assert all(len(row) == len(figure.table.columns) for row in figure.table.rows)


def test_times_and_environment(attacked):
    run = RunFolder(attacked)
    rows = learning.stage_times_and_cost(run, learning.Prices())[0].rows
    assert [row[0] for row in rows] == ["extract", "language", "dedup", "quality", "tokenize", "train"]
    assert dict(environment(run)[0].rows)["device"]


def test_hours_cost_what_the_user_says(attacked):
    table = learning.stage_times_and_cost(RunFolder(attacked), learning.Prices(core=3600.0, gpu=7200.0))[0]
    rows = {row[0]: row for row in table.rows}
    assert table.columns[-1] == "cost"
    assert rows["dedup"][-1] == pytest.approx(rows["dedup"][4] * 3600)
    assert rows["train"][-1] == pytest.approx(rows["train"][4] * 7200)
    assert rows["all"][-1] == pytest.approx(sum(row[-1] for row in table.rows[:-1]))


def test_samples_are_shown_by_prompt_as_the_model_learns(attacked, tmp_path):
    rows = [
        {"kind": "samples", "step": step, "samples": [{"prompt": ATTACK, "text": f"text {step}\x1b[31m"}]}
        for step in (*range(10, 200, 10), 190)  # the last one twice: resumed
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (texts,) = learning.prompt_completions(RunFolder(tmp_path))
    assert len(texts.items) == learning.STEPS
    assert [item.heading for item in (texts.items[0], texts.items[-1])] == ["step 10", "step 190"]
    assert texts.items[-1].columns[0][1] == [(ATTACK, True), ("text 190[31m", False)]
    assert "<script>document.title" not in write_report([tmp_path]).read_text()
    at_the_end = learning.prompt_completions(RunFolder(attacked))[0]
    assert at_the_end.items[-1].heading == "step 4"


def test_a_run_that_has_just_begun_or_only_trained_has_a_report(attacked, tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/recipe.yaml").write_text("name: begun\n")
    assert write_report([tmp_path / "begun"]).stat().st_size > 4e6
    alone = tmp_path / "alone"
    alone.mkdir()
    rows = (attacked / "train/metrics.jsonl").read_text()
    (alone / "metrics.jsonl").write_text(rows + '{"kind": "skip", "step": 3, "reason": "spike"}\n{"kind": "tra')
    (alone / "checkpoints").mkdir()
    run = RunFolder(alone)
    assert [row["step"] for row in run.records("train")] == [1, 2, 3, 4]
    assert blocks(run, learning.events)["Events of training"].rows == [[3, "skip", "reason spike"]]
    assert ">spike<" not in write_report([alone]).read_text()
    with pytest.raises(RecipeError, match="not a run folder"):
        write_report([tmp_path])


def test_training_shows_memory_in_gigabytes_and_in_context_learning_where_it_was_scored(attacked, tmp_path):
    rows = [json.loads(line) for line in (attacked / "train/metrics.jsonl").read_text().splitlines()]
    assert "In-context learning" not in blocks(RunFolder(attacked), learning.in_context_learning)
    for row in rows:
        row.update({"in_context": -0.25 * row["step"]} if row["kind"] == "eval" else {})
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "log.jsonl").write_text(json.dumps({"kind": "speed", "step": 1, "memory": 3 * 10**9}) + "\n")
    found = blocks(RunFolder(tmp_path), learning.in_context_learning, learning.step_curves)
    assert found["In-context learning"].table.rows == [[2, -0.5], [4, -1.0]]
    assert found["Memory"].table.rows[0] == [1, 3.0]


def test_compared_runs_show_where_their_recipes_differ(attacked, tmp_path):
    other = tmp_path / "attacked"
    other.mkdir()
    (other / "recipe.yaml").write_text((attacked / "recipe.yaml").read_text().replace("verify: 0.6", "verify: 0.9"))
    runs = [RunFolder(attacked), RunFolder(other)]
    (table,) = write.recipe_differences(runs)
    assert table.rows == [["dedup.verify", "0.6", "0.9"]]
    assert table.columns[1:] == write.unique_names(runs)
    assert len(set(write.unique_names(runs))) == 2


def test_samples_are_bounded_even_and_repeatable(tmp_path):
    rows = ROW_GROUPS * 3
    table = pa.table({"id": [f"{i}" for i in range(rows)], "value": list(range(rows))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    sample = read_sample(tmp_path, ["value", "absent"])
    assert sample.column("value") == list(range(0, rows, 3))
    assert sample.scale == 3
    assert not sample.complete
    assert sample.column("absent") == [None] * ROW_GROUPS
    assert [row["id"] for row in find_rows(tmp_path, "value", {3, 4, 6}, ["id"], 1)] == ["3", "6"]


def test_the_report_of_a_large_run_stays_under_8_mb(tmp_path):
    """Long texts with many marks, hundreds of languages, sources and rules, 50,000 steps."""
    folder = tmp_path / "corpus/01-quality"
    text = "{ } <script> &&& " * 6000
    count = 1200
    columns = {
        "text": [f"{i} {text}" for i in range(count)],
        "id": [f"{i:032x}" for i in range(count)],
        "url": [f"https://example.com/{'long/' * 100}{i}" for i in range(count)],
        "path": ["p"] * count,
        "source": [f"source-{i % 300}" for i in range(count)],
        "language": [f"l{i % 200}" for i in range(count)],
        "words": [float(i) for i in range(count)],
    }
    rules = [f"rule_{i % 150}" for i in range(count)]
    extra = {"rule": rules, "value": [1.0] * count, "threshold": [0.5] * count, "detail": ["d" * 2000] * count}
    for side, more in (("data", {}), ("dropped", extra)):
        (folder / side).mkdir(parents=True)
        pq.write_table(pa.table(columns | more), folder / side / "00000.parquet", row_group_size=100)
    stats = {"documents_in": 2 * count, "documents_kept": count, "bytes_kept": 10**12}
    (folder / "stats.json").write_text(json.dumps(stats | {"dropped": dict.fromkeys(rules, 8)}))
    (tmp_path / "train").mkdir()
    with (tmp_path / "train/metrics.jsonl").open("w") as file:
        for step in range(1, 50_001):
            row = {"kind": "train", "step": step, "tokens": step, "loss": 1 / step, "lr": 0.1, "gradient_norm": 1.0}
            file.write(json.dumps(row | {"tokens_per_second": 1e5, "data_wait": 0.1}) + "\n")
    assert write_report([tmp_path]).stat().st_size < 8_000_000
