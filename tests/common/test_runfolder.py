"""The layout of a run folder: stages, building folders, the training folder, torn files."""

import json

import pytest

from common.errors import RecipeError
from common.runfolder import RunFolder, building_folder, pass_progress, stage_folder


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_stages_are_listed_in_order_and_those_under_way_apart(tmp_path):
    for number, stage in enumerate(("extract", "quality", "tokenize"), 1):
        write(stage_folder(tmp_path, number, stage) / "stats.json", json.dumps({"stage": stage}))
    run = RunFolder(tmp_path)
    assert list(run.stages) == ["extract", "quality", "tokenize"]
    assert list(run.text_stages) == ["extract", "quality"]
    assert run.stages["tokenize"].stats == {"stage": "tokenize"}
    assert run.fingerprint is None
    building = building_folder(stage_folder(tmp_path, 2, "quality"), "abc")
    write(building / ".progress/measure-00000", "5 100 0.5")
    write(building / ".progress/measure-00001", "")  # being written
    write(building_folder(tmp_path / "shards", "def") / "stats.json", "{}")
    (tmp_path / "corpus/.01-extract.old").mkdir()
    assert RunFolder(tmp_path).building == {"quality": building, "tokenize": tmp_path / ".shards.def"}
    assert pass_progress(building) == {"pass": "measure", "tasks_finished": 0, "documents_read": 5}
    assert pass_progress(tmp_path) == {}


def test_the_training_folder_is_train_or_the_folder_itself(tmp_path):
    run = RunFolder(tmp_path)
    assert run.trained == run.train
    write(tmp_path / "metrics.jsonl", '{"kind": "train", "step": 2, "loss": 1}\n{"kind": "tra')
    write(
        tmp_path / "log.jsonl", '{"kind": "speed", "step": 2, "tokens_per_second": 9}\n{"kind": "speed", "step": 4}\n'
    )
    assert run.trained == tmp_path
    assert run.records("train") == [{"kind": "train", "step": 2, "loss": 1, "tokens_per_second": 9}]
    run.train.mkdir()
    assert run.trained == run.train


def test_an_earlier_training_is_kept_under_the_first_free_number(tmp_path):
    run = RunFolder(tmp_path)
    assert run.set_training_aside() is None
    for number in (1, 2):
        run.train.mkdir()
        assert run.set_training_aside() == tmp_path / f"train.{number}"


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="not a run folder"):
        RunFolder.open(tmp_path)
    write(tmp_path / "recipe.yaml", "")
    assert RunFolder.open(tmp_path).stages == {}
