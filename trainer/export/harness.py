"""Tasks of EleutherAI's lm-evaluation-harness on an exported model. The harness is an optional extra (`eval`)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from common.errors import TrainerError
from trainer.export.hf import export_hf
from trainer.trained import Trained


def run_tasks(trained: Trained, tasks: list[str], *, limit: int | None = None) -> dict[str, Any]:
    """Results by task: {metric: value}, as the harness names them.

    tasks: names that the harness knows, or paths of YAML files that define one each; limit: documents of each task.
    The model is exported (f32) for the time of the call. Raises TrainerError where the harness is not installed or a
    task is unknown.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise TrainerError(
            f"--lm-eval needs lm-evaluation-harness (`{error.name}` is missing): uv pip install lm-eval"
        ) from None
    files = [Path(task) for task in tasks if task.endswith((".yaml", ".yml"))]
    names = [_task_name(Path(task)) if Path(task) in files else task for task in tasks]
    # The harness's own tasks are 14,000 files to look through, needless where each task is a file.
    folders = sorted({str(file.parent.resolve()) for file in files})
    manager = TaskManager(include_path=folders or None, include_defaults=len(files) < len(tasks))
    if unknown := [name for name in names if not manager.match_tasks([name])]:
        raise TrainerError(f"--lm-eval: no task is called {', '.join(unknown)}; `lm_eval ls tasks` lists them")
    with tempfile.TemporaryDirectory(prefix="pretrain-") as folder:
        exported = export_hf(trained, Path(folder) / "hf")
        results = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(exported), "dtype": "float32", "add_bos_token": bool(trained.special.prefix)},
            tasks=names,
            device="cpu",
            limit=limit,
            task_manager=manager,
            bootstrap_iters=0,
        )
    return {
        name: {metric: value for metric, value in scores.items() if isinstance(value, int | float)}
        for name, scores in results["results"].items()
    }


def _task_name(file: Path) -> str:
    if not file.is_file():
        raise TrainerError(f"--lm-eval: no task file at {file}")
    task = (yaml.load(file.read_bytes(), _Tags) or {}).get("task")
    if not isinstance(task, str):
        raise TrainerError(f"--lm-eval: {file} has no `task:` name")
    return task


class _Tags(yaml.SafeLoader):
    """Reads the harness's own tags (`!function`) as text: only the task's name is needed."""


_Tags.add_multi_constructor("!", lambda loader, suffix, node: str(node.value))
