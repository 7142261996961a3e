"""`pretrain status` on runs that are done, killed, and at work; options that all commands share."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.status import read_status
from common.errors import RecipeError
from tests.cli.test_cli import ROOT, pretrain


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def wait_for(process, said):
    for line in process.stderr:
        if said in line:
            return
    raise AssertionError(f"never said {said!r}")


def test_status_beside_a_run_after_its_death_and_at_its_end(folder):
    with pytest.raises(RecipeError, match="not a run folder"):
        read_status(folder / "runs/small")
    process = started("run", "small.yaml", "--set", "train.steps=1000000", "--set", "train.checkpoint.every=1000000")
    wait_for(process, "train: step 2 ")
    found = read_status(folder / "runs/small")
    assert found["state"] == "running"
    assert found["process"].startswith(f"pid {process.pid} ")
    assert [stage["state"] for stage in found["stages"]] == ["done"] * 3
    assert found["training"]["state"] == "running"
    assert found["training"]["steps"] == 1_000_000
    assert found["training"]["step"] >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    found = read_status(folder / "runs/small")
    assert found["state"] == found["training"]["state"] == "stopped"
    assert "resumes from the first step" in pretrain("status", "runs/small")[0]


def test_status_of_a_corpus_at_work_and_interrupted(folder):
    for number in range(400):
        text = (folder / "texts/fox0.txt").read_text()
        (folder / f"texts/more{number}.txt").write_text(f"{text * 40} {number}")
    process = started("corpus", "small.yaml", "--to", "quality")
    wait_for(process, "quality: started")
    found = read_status(folder / "runs/small")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert found["state"] == "running"
    assert found["process"] == f"pid {process.pid} on {os.uname().nodename}"
    assert found["stages"][0]["documents_kept"] == 426
    assert found["stages"][1]["state"] == "building"
    assert found["stages"][2] == {"stage": "tokenize", "state": "to do"}
    assert found["training"] == {"state": "to do", "steps": 4}


def test_json_quiet_and_verbose(folder):
    out, err = pretrain("corpus", "small.yaml", "--to", "quality", "--json", "--quiet")
    assert err == ""
    assert json.loads(out)["stages"]["quality"]["dropped"] == {"gopher_min_words": 2}
    _, err = pretrain("corpus", "small.yaml", "--to", "quality", "--from", "quality", "-v")
    assert "quality:   gopher_min_words dropped 2" in err
    assert pretrain("corpus", "small.yaml", "--to", "nowhere", "--quiet", code=2)[1].startswith("--to: got 'nowhere'")
    out, err = pretrain("corpus", "small.yaml", "--to", "quality")
    assert "nothing changed" in err  # the options of one command are not those of the next
    assert "report: runs/small/report.html" in out
    stages = json.loads(pretrain("status", "runs/small", "--json")[0])["stages"]
    assert [stage["state"] for stage in stages] == ["done", "done", "to do"]


def test_the_shell_completes_commands():
    completing = {"_PRETRAIN_COMPLETE": "complete_bash", "COMP_WORDS": "pretrain sta", "COMP_CWORD": "1"}
    program = Path(sys.executable).parent / "pretrain"
    done = subprocess.run([program], env=os.environ | completing, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["status"]
