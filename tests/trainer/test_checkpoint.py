"""Checkpoints are whole or absent, verified when read, and the one before is used where the newest is damaged."""

from __future__ import annotations

import hashlib
import json
import resource
from pathlib import Path

import pytest
import torch

from common.errors import TrainerError
from trainer.checkpoint import Retention, Writer, find_newest, load_newest, set_aside


def save_step(folder: Path, step: int, keep_last: int = 3) -> Path:
    weights = {"a.weight": torch.full((2, 3), float(step)), "b": torch.arange(3.0)}
    state = {"step": step, "loss": 0.1 + step / 3}
    writer = Writer(folder, Retention(keep_last))
    writer.save(step, weights, {"momentum.b": -torch.arange(3.0)}, state)
    done = writer.collect()
    assert done is not None
    assert done[0] == step
    assert writer.collect() is None
    return done[1]


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    path = save_step(tmp_path, 7)
    assert path.name == "step-00000007"
    assert sorted(file.name for file in path.iterdir()) == [
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    found, warnings = load_newest(tmp_path)
    assert found is not None
    assert warnings == []
    assert (found.step, found.path, found.state) == (7, path, {"step": 7, "loss": 0.1 + 7 / 3})
    assert torch.equal(found.model["a.weight"], torch.full((2, 3), 7.0))
    assert torch.equal(found.optimizer["momentum.b"], -torch.arange(3.0))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 99_999_999, 100_000_000):
        save_step(tmp_path, step, keep_last=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-100000000", "step-99999999"]
    found, _ = load_newest(tmp_path)
    assert found is not None
    assert found.step == 100_000_000


def test_what_is_kept_for_good() -> None:
    steps = [100, 200, 250, 300, 350, 400, 410]
    assert Retention(2).dropped(steps) == [100, 200, 250, 300, 350]
    assert Retention(1, every=200).dropped(steps) == [100, 250, 300, 350]
    assert Retention(1, span=60).dropped(steps) == [100, 200, 250, 300, 400]  # 410 - 60 + 1: a rollback reaches 351
    assert Retention(2, span=60).dropped([100]) == []


def test_the_tensors_may_change_once_save_returns(tmp_path: Path) -> None:
    """And the copies are made into the same memory each time."""
    writer = Writer(tmp_path, Retention(5))
    weight = torch.zeros(1 << 18)
    places = set()
    for step in (1, 2, 3):
        weight.fill_(step)
        writer.save(step, {"w": weight}, {}, {"step": step})
        weight.fill_(-1)
        places |= {buffer.data_ptr() for buffer in writer._buffers.values()}
        writer.collect()
    assert len(places) == 1
    for step in (3, 2, 1):
        found, _ = load_newest(tmp_path)
        assert found is not None
        assert (found.step, found.model["w"].unique().tolist()) == (step, [step])
        flip(found.path / "state.json")


def test_checkpoints_that_are_not_accepted_are_passed_over_and_set_aside(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save_step(tmp_path, step)
    assert find_newest(tmp_path, lambda state: state["step"] < 10) == (tmp_path / "step-00000005", [])
    assert find_newest(tmp_path, lambda state: False) == (None, [])
    set_aside(tmp_path, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000005",
        "step-00000010.unused",
        "step-00000015.unused",
    ]


def test_a_pickle_is_refused_whatever_its_name_and_hash(tmp_path: Path) -> None:
    save_step(tmp_path, 5)
    path = save_step(tmp_path, 10)
    torch.save({"a.weight": torch.zeros(3)}, path / "model.safetensors")
    manifest = json.loads((path / "manifest.json").read_bytes())
    data = (path / "model.safetensors").read_bytes()
    manifest["files"]["model.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))
    found, (warning,) = load_newest(tmp_path)
    assert found is not None
    assert found.step == 5
    assert "a pickle is never loaded" in warning


def test_nothing_yet(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "checkpoints") == (None, [])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "flipped weight": lambda path: flip(path / "model.safetensors"),
    "flipped state": lambda path: flip(path / "state.json"),
    "truncated": lambda path: (path / "optimizer.safetensors").write_bytes(b"1234"),
    "lost file": lambda path: (path / "model.safetensors").unlink(),
    "lost manifest": lambda path: (path / "manifest.json").unlink(),
    "torn manifest": lambda path: (path / "manifest.json").write_text("{"),
    "short manifest": lambda path: (path / "manifest.json").write_text('{"files": {}}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_named_and_the_one_before_used(tmp_path: Path, damage: str) -> None:
    save_step(tmp_path, 5)
    newest = save_step(tmp_path, 10)
    DAMAGES[damage](newest)
    found, warnings = load_newest(tmp_path)
    assert found is not None
    assert found.step == 5
    assert len(warnings) == 1
    assert f"{newest} is damaged" in warnings[0]
    assert warnings[0].endswith("resuming from step-00000005")
    save_step(tmp_path, 10)  # training reaches it again
    again, warnings = load_newest(tmp_path)
    assert again is not None
    assert (again.step, warnings) == (10, [])


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    for step in (5, 10):
        flip(save_step(tmp_path, step) / "model.safetensors")
    with pytest.raises(
        TrainerError, match=r"step-00000010 is damaged.*step-00000005 is damaged.*No intact one is left"
    ):
        load_newest(tmp_path)


def test_a_kill_while_writing_or_deleting_leaves_the_one_before(tmp_path: Path) -> None:
    save_step(tmp_path, 5)
    save_step(tmp_path, 10)
    (tmp_path / "step-00000005").rename(tmp_path / ".step-00000005.deleted")
    partial = tmp_path / ".step-00000015.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"torn")
    found, warnings = load_newest(tmp_path)
    assert found is not None
    assert (found.step, warnings) == (10, [])
    save_step(tmp_path, 15)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]


def test_a_disk_that_refuses_leaves_what_was_there(tmp_path: Path) -> None:
    save_step(tmp_path, 5)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # no file may grow beyond 100 bytes
    try:
        with pytest.raises(TrainerError, match=r"step 10 could not be written.*Checkpoints there: step-00000005"):
            save_step(tmp_path, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    path = save_step(tmp_path, 5)
    for name in ("state.json", "manifest.json"):
        json.loads((path / name).read_bytes())
    for name in ("model.safetensors", "optimizer.safetensors"):
        data = (path / name).read_bytes()
        json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
