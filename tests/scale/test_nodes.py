"""Two nodes on loopback, a torchrun each and one rendezvous: a killed process restarts the job from its checkpoint."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from tests.trainer.conftest import small_run
from tests.trainer.corpus import prose_shards
from tests.trainer.test_parallel import ROOT, rows, torchrun
from trainer.config import TrainConfig

STEPS = 60
LAST = Path("checkpoints") / f"step-{STEPS:08d}" / "model.safetensors"


def start_node(port: int, config: TrainConfig, shards: Path, output: Path) -> subprocess.Popen[bytes]:
    """One node's torchrun; what it says goes to nodes.log."""
    recipe = output.parent / "recipe.yaml"
    recipe.write_text(json.dumps({"train": config.model_dump(mode="json")}))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3"]
    meeting = [f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-backend=c10d", "--rdzv-id=test", "--local-addr=127.0.0.1"]
    train = ["-m", "cli.main", "train", str(recipe), "--shards", str(shards), "--output", str(output)]
    with (output.parent / "nodes.log").open("ab") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen([*launch, *meeting, *train], env=environment, stdout=log, stderr=log)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.long
def test_a_killed_process_on_one_of_two_nodes_costs_no_step(tmp_path: Path) -> None:
    shards = prose_shards(tmp_path / "shards")
    config = small_run(steps=STEPS, log_every=1, checkpoint={"every": 5, "keep_last": 2})
    (tmp_path / "whole").mkdir()
    assert torchrun(config, shards, tmp_path / "whole" / "train").returncode == 0

    output, port = tmp_path / "train", free_port()
    nodes = [start_node(port, config, shards, output) for _ in range(2)]
    try:
        kill_when_past(12, output, nodes)
        codes = [node.wait(timeout=240) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    log = (tmp_path / "nodes.log").read_text()
    assert codes == [0, 0], log[-3000:]
    assert "exitcode: -9" in log
    steps = [row["step"] for row in rows(output) if row["kind"] == "train"]
    assert steps == list(range(1, STEPS + 1))
    expected = load_file(tmp_path / "whole" / "train" / LAST)
    found = load_file(output / LAST)
    assert all(found[name].equal(expected[name]) for name in expected)


def kill_when_past(step: int, output: Path, nodes: list[subprocess.Popen[bytes]]) -> None:
    """SIGKILL the second node's training process once the log has that step."""
    metrics = output / "metrics.jsonl"
    while True:
        assert all(node.poll() is None for node in nodes), "a node ended before it could be killed"
        lines = metrics.read_text().splitlines() if metrics.is_file() else []
        if any(json.loads(line).get("step", 0) >= step for line in lines if line.endswith("}")):
            break
        time.sleep(0.02)
    for worker in psutil.Process(nodes[1].pid).children(recursive=True):
        if "cli.main" in worker.cmdline():
            worker.kill()
