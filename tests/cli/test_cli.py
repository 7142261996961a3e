"""The command line: exit codes, messages on the right stream, a run from text files to a model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import commands
from cli.commands import app
from recipes.schema import Recipe
from tests.cli.conftest import RECIPE

ROOT = Path(__file__).parent.parent.parent
COMMANDS = [
    *("run", "corpus", "train", "check", "schema", "harvest", "inspect", "generate"),
    *("report", "status", "ablate", "mix", "plan"),
    *("trace", "blame", "forget", "eval", "export", "verify", "import"),
]


def pretrain(*arguments, code=0):
    """Run the command in this process and return (stdout, stderr)."""
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    out = pretrain(command, "--help")[0]
    assert f"Example: pretrain {command} " in out
    assert "--json" in out


def test_help_lists_every_command_and_no_other():
    assert sorted(command.name or command.callback.__name__ for command in app.registered_commands) == sorted(COMMANDS)


def test_schema_is_the_recipes_json_schema():
    schema = json.loads(pretrain("schema")[0])
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False


def test_check_says_what_the_recipe_would_do(folder):
    out, err = pretrain("check", "small.yaml", "--set", "train.steps=9")
    assert out.startswith("small.yaml: valid; extract > quality > tokenize; trains `tiny` for 9 steps")
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "small.yaml", "--set", "train.stpes=9"], "did you mean `steps`?"),
        (["check", "smal.yaml"], "smal.yaml: no such recipe; did you mean `small.yaml`?"),
        (["check", "small.yaml", "--set", "truth=t.jsonl"], "truth: got 't.jsonl', which does not exist"),
        (["run", "small.yaml", "--set", "sources.0.paths=[x/*]"], "there is no folder 'x'"),
        (["run", "small.yaml", "--from", "qualty"], "--from: got 'qualty', allowed: extract, quality, tokenize, train"),
        (["run", "small.yaml", "--from", "train", "--to", "extract"], "--from train comes after --to extract"),
        (["corpus", "small.yaml", "--to", "train"], "--to: got 'train', allowed: extract, quality, tokenize"),
        (["train"], "give a recipe file or `--shards DIR`"),
        (["train", "small.yaml"], "build them with `pretrain corpus small.yaml`"),
        (["train", "small.yaml", "--set", "train=null"], "this recipe describes no training run"),
        (["inspect", "runs/none", "--stage", "quality"], "runs/none: not a run folder"),
        (["inspect", "runs/none"], "Missing option '--stage'"),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_bad_usage_exits_2_with_a_message_and_writes_nothing(folder, arguments, message):
    out, err = pretrain(*arguments, code=2)
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("command", ["run", "corpus"])
def test_several_processes_build_no_corpus(folder, monkeypatch, command):
    monkeypatch.setenv("WORLD_SIZE", "8")
    message = pretrain(command, "small.yaml", code=2)[1]
    assert "a corpus is built by one process" in message
    assert "torchrun --nproc-per-node N --no-python pretrain train small.yaml" in message


def test_failed_work_exits_1(folder):
    message = pretrain("train", "--shards", str(folder / "texts"), code=1)[1]
    assert str(folder / "texts") in message
    (folder / "runs").write_text("a file where the run folder should be")
    assert pretrain("run", "small.yaml", code=1)[1].splitlines() == [
        "runs/small: Not a directory",
        "The run folder is runs/small.",
    ]
    assert "no checkpoint" in pretrain("generate", "texts", "--prompt", "x", code=1)[1]


def test_a_run_ends_in_a_model_and_a_second_one_does_nothing(folder):
    out, err = pretrain("run", "small.yaml")
    assert "quality: 24 of 26 documents kept" in err
    assert "gopher_min_words 2" in out
    assert "4 steps, 256 tokens; training loss" in out
    assert "The river" in out
    metrics = (folder / "runs/small/train/metrics.jsonl").read_bytes()

    out, err = pretrain("run", "small.yaml")
    assert err.splitlines() == [
        "extract: nothing changed, 26 of 26 documents kept (100.0 %)",
        "quality: nothing changed, 24 of 26 documents kept (92.3 %)",
        "tokenize: nothing changed, 24 of 24 documents kept (100.0 %)",
    ]
    assert "4 steps, 256 tokens; training loss" in out
    assert (folder / "runs/small/train/metrics.jsonl").read_bytes() == metrics

    out, _ = pretrain("inspect", "runs/small", "--stage", "quality", "--dropped", "--limit", "1")
    assert "quality: 2 of 26 documents dropped" in out
    assert "gopher_min_words: 2" in out
    assert "value 6, threshold 50" in out
    assert "Far too short to keep, a." in out
    assert "short to keep, b" not in out
    assert "\x1b" not in out
    assert "quality: 24 of 26 documents kept" in pretrain("inspect", "runs/small", "--stage", "quality")[0]
    message = pretrain("inspect", "runs/small", "--stage", "qualty", code=2)[1]
    assert "did you mean `quality`?" in message

    first = pretrain("generate", "runs/small", "--prompt", "The river", "--tokens", "8")[0]
    assert first.startswith("The river")
    assert pretrain("generate", "runs/small", "--prompt", "The river", "--tokens", "8")[0] == first

    # Shards alone are enough to train on, with or without a recipe; the same settings give the same model.
    section = RECIPE[RECIPE.index("train:") :]
    (folder / "alone.yaml").write_text(section)
    pretrain("train", "alone.yaml", "--shards", "runs/small/shards", "--output", "alone")
    assert (folder / "alone/metrics.jsonl").read_text().splitlines()[-1] == metrics.decode().splitlines()[-1]
    err = pretrain("train", "--shards", "runs/small/shards", code=1)[1]  # beside the shards stands another model
    assert "cannot resume runs/small/train/checkpoints" in err
    assert "give another `--output`" in err

    # The kept recipe, from where it is kept, describes the same run.
    assert pretrain("check", "runs/small/recipe.yaml")[0].endswith("run folder runs/small\n")

    # A finished model of an earlier corpus is kept aside; one of other settings is refused, with the way out.
    _, err = pretrain("run", "small.yaml", "--set", "seed=2")
    assert "extract: nothing changed" in err
    assert "the earlier training run is kept in runs/small/train.1" in err
    err = pretrain("run", "small.yaml", "--set", "seed=2", "--set", "train.seed=2", code=1)[1]
    assert "seed: checkpoint 1, now 2" in err
    assert "pretrain run small.yaml --from train" in err
    _, err = pretrain("run", "small.yaml", "--set", "seed=2", "--set", "train.seed=2", "--from", "train")
    assert "the earlier training run is kept in runs/small/train.2" in err
    assert (folder / "runs/small/train.1/metrics.jsonl").read_bytes() == metrics


def test_results_go_to_stdout_and_progress_to_stderr_without_colour_codes(folder):
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "corpus", "small.yaml", "--to", "quality"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"},
    )
    assert "gopher_min_words 2" in done.stdout
    assert done.stderr.splitlines()[0] == "extract: started (1 task)"
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on(folder, number, code):
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "run", "small.yaml", "--from", "extract", "--set", "train.steps=100000"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    with process.stderr as lines:
        for line in lines:
            if "train: step 2 " in line:
                break
        process.send_signal(number)
        rest = lines.read()
    assert process.wait() == code
    assert "the same command resumes from runs/small/train/checkpoints/step-" in rest
    assert "Leave out `--from extract` then" in rest
    assert "Traceback" not in rest


def test_an_error_that_a_stop_brought_about_is_told_as_the_stop():
    error = ConnectionResetError()  # workers that were to be stopped had ended already
    error.__context__ = commands.Terminated()
    assert isinstance(commands._stop_behind(error), commands.Terminated)
    assert commands._stop_behind(OSError(28, "No space left on device")) is None
