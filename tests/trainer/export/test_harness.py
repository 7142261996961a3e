"""lm-evaluation-harness on an exported model, with a task defined in a local YAML file; skipped where not installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.export.harness import run_tasks
from trainer.trained import Trained

TASK = """\
task: river
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""


@pytest.mark.filterwarnings("ignore")  # the harness's own
@pytest.mark.parametrize("source", ["llama"], indirect=True)
def test_a_local_task_runs_through_the_exported_model(trained: Trained, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (docs/run-it-yourself.md says how)")
    rows = [{"question": "The river", "choices": [" rises", " sings"], "answer": n % 2} for n in range(4)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "river.yaml").write_text(TASK.format(data=tmp_path / "data.jsonl"))
    results = run_tasks(trained, [str(tmp_path / "river.yaml")])
    assert results["river"]["acc,none"] == 0.5  # the same question with either answer
