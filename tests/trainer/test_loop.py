"""Training learns, resumes bit for bit after any interruption, and refuses to resume what does not belong to it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.errors import Interrupted, TrainerError
from tests.trainer.conftest import SMALL, Crash, Recorder, small_run
from tests.trainer.corpus import PROSE, VOCABULARY, copy_shards, prose_shards, write_manifest, write_mds, write_shards
from trainer.config import ModelConfig
from trainer.generate import Sampling, generate
from trainer.loop import train
from trainer.model import Transformer


def rows(output: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, in which nothing comes from a clock or an interruption."""
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def hashes(output: Path) -> dict[str, str]:
    """SHA-256 of every checkpoint's weights and optimizer state."""
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((output / "checkpoints").rglob("*"))
        if path.suffix == ".safetensors" and path.parent.suffix != ".unused"
    }


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One uninterrupted run of each precision."""
    outputs = {}
    for precision in ("fp32", "bf16"):
        outputs[precision] = tmp_path_factory.mktemp(precision)
        train(small_run(precision=precision), shards, outputs[precision])
    return outputs


def test_the_loss_falls(shards: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    config = small_run(steps=60, global_batch_tokens=512, micro_batch=16, optimizer={"lr": 0.01, "muon_lr": 0.01})
    result = train(config, shards, tmp_path, recorder)
    losses = [row["loss"] for row in recorder.rows]
    assert losses[0] == pytest.approx(5.4, abs=0.2)  # log(257) at the start
    assert losses[-1] < 3.0  # the byte frequencies of the text alone have an entropy of 3.1 nats
    assert result.loss == losses[-1]
    assert result.validation is not None
    assert result.validation["loss"] < 3.2
    assert result.validation["streams"]["first"]["bits_per_byte"] == pytest.approx(result.validation["bits_per_byte"])


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_both_optimizers_and_schedules_learn(shards: Path, tmp_path: Path, name: str) -> None:
    config = small_run(
        steps=30, optimizer={"name": name, "lr": 0.01, "muon_lr": 0.01}, schedule={"name": "cosine", "warmup": 3}
    )
    result = train(config, shards, tmp_path)
    assert result.loss < 4.0


def test_what_a_run_leaves_and_says(undisturbed: dict[str, Path], shards: Path) -> None:
    output = undisturbed["fp32"]
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == ["step-00000008", "step-00000012"]
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if row["kind"] == "speed"] == [3, 6, 9, 12]
    assert [(row["kind"], row["step"]) for row in rows(output)] == [
        ("train", 3),
        ("eval", 5),
        ("train", 6),
        ("train", 9),
        ("eval", 10),
        ("train", 12),
        ("eval", 12),
    ]
    assert [row["tokens"] for row in rows(output) if row["kind"] == "train"] == [768, 1536, 2304, 3072]
    rates = [row["lr"] for row in rows(output) if row["kind"] == "train"]
    assert rates == pytest.approx([3e-3, 3e-3, 3e-3, 3e-4])  # as the optimizer applied them
    assert (output / "tokenizer.json").read_bytes() == (shards / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("die_at", [3, 6, 12])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    undisturbed: dict[str, Path], shards: Path, tmp_path: Path, precision: str, die_at: int
) -> None:
    """Crashes before the first checkpoint, between two (a log window open), and at the last step before its own."""
    config = small_run(precision=precision)
    with pytest.raises(Crash):
        train(config, shards, tmp_path, Recorder(die_at))
    torch.rand(7)  # another process would have another generator
    recorder = Recorder()
    result = train(config, shards, tmp_path, recorder)
    assert recorder.resumes == ([] if die_at == 3 else [die_at // 4 * 4 if die_at < 12 else 8])
    assert recorder.warnings == []
    assert hashes(tmp_path) == hashes(undisturbed[precision])
    assert rows(tmp_path) == rows(undisturbed[precision])
    assert result.step == 12


def test_a_compiled_mixed_bf16_run_resumes_across_the_end_of_its_epochs(shards: Path, tmp_path: Path) -> None:
    """Twelve steps of 24 sequences are several epochs of both streams; samples are made in between, uncompiled."""
    shape = SMALL | {"layers": 1}
    config = small_run(compile=True, precision="bf16", global_batch_tokens=768, model=shape, prompts=["The "])
    train(config, shards, tmp_path / "whole")
    for step in (6, 9):
        with pytest.raises(Crash):
            train(config, shards, tmp_path / "cut", Recorder(die_at=step))
    train(config, shards, tmp_path / "cut")
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert (tmp_path / "cut/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.trainer.conftest import small_run
from common.observe import Observer
from trainer.loop import train

class Kill(Observer):
    def checkpointed(self, step, path):
        if step == 8:
            os.kill(os.getpid(), signal.SIGKILL)

train(small_run(precision="bf16"), Path(sys.argv[1]), Path(sys.argv[2]), Kill())
"""


def test_sigkill_in_another_process(undisturbed: dict[str, Path], shards: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    code = [sys.executable, "-c", KILLED, str(shards), str(tmp_path)]
    killed = subprocess.run(
        code, cwd=root, env=os.environ | {"PYTHONHASHSEED": "5", "OMP_NUM_THREADS": "1"}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "checkpoints" / "step-00000008").is_dir()
    train(small_run(precision="bf16"), shards, tmp_path)
    assert hashes(tmp_path) == hashes(undisturbed["bf16"])
    assert rows(tmp_path) == rows(undisturbed["bf16"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_stops(
    undisturbed: dict[str, Path], shards: Path, tmp_path: Path, number: signal.Signals
) -> None:
    class Signal(Recorder):
        def step(self, record: dict[str, Any]) -> None:
            super().step(record)
            if record["step"] == 3:
                os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped:
        train(small_run(), shards, tmp_path, Signal())
    assert (stopped.value.signal, stopped.value.step) == (number, 3)
    assert stopped.value.path == tmp_path / "checkpoints" / "step-00000003"
    assert signal.getsignal(number) is handler
    train(small_run(), shards, tmp_path)
    assert hashes(tmp_path) == hashes(undisturbed["fp32"])
    assert rows(tmp_path) == rows(undisturbed["fp32"])


def test_a_damaged_newest_checkpoint_costs_steps_not_the_result(
    undisturbed: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(Crash):
        train(small_run(), shards, tmp_path, Recorder(die_at=9))
    weights = tmp_path / "checkpoints" / "step-00000008" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    recorder = Recorder()
    train(small_run(), shards, tmp_path, recorder)
    assert recorder.resumes == [4]
    assert len(recorder.warnings) == 1
    assert "step-00000008 is damaged" in recorder.warnings[0]
    assert "step-00000008 is damaged" in (tmp_path / "log.jsonl").read_text()
    assert hashes(tmp_path) == hashes(undisturbed["fp32"])
    assert rows(tmp_path) == rows(undisturbed["fp32"])


def test_a_finished_run_called_again_does_nothing(shards: Path, tmp_path: Path) -> None:
    config = small_run(prompts=["The ", ""])
    first = train(config, shards, tmp_path)
    assert [sample["prompt"] for sample in first.samples] == ["The ", ""]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix}  # without .lock
    recorder = Recorder()
    assert train(config, shards, tmp_path, recorder) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix} == files
    assert recorder.info == []
    (tmp_path / "result.json").unlink()  # killed between the last checkpoint and this file
    assert train(config, shards, tmp_path) == first


def test_samples_are_written_at_every_evaluation_and_repeated_after_a_crash(shards: Path, tmp_path: Path) -> None:
    config = small_run(prompts=["The ", ""])
    whole = train(config, shards, tmp_path / "whole")
    with pytest.raises(Crash):
        train(config, shards, tmp_path / "cut", Recorder(die_at=9))
    assert train(config, shards, tmp_path / "cut").samples == whole.samples
    written = [row for row in rows(tmp_path / "whole") if row["kind"] == "samples"]
    assert [row["step"] for row in written] == [5, 10, 12]
    assert [sample["prompt"] for sample in written[0]["samples"]] == ["The ", ""]
    assert written[-1]["samples"] == whole.samples
    assert len({row["samples"][0]["text"] for row in written}) == 3
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    loaded = generate(tmp_path / "whole", ["The "], Sampling(max_tokens=64, top_k=50, seed=config.seed))
    assert loaded[0].text == whole.samples[0]["text"]


def test_a_prompt_without_room_is_told_before_the_first_step(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="a prompt has 40 tokens; the model's context of 32 leaves no room"):
        train(small_run(prompts=["x" * 40]), shards, tmp_path)
    assert not (tmp_path / "metrics.jsonl").read_bytes()


def test_a_run_can_be_lengthened_and_says_that_it_changed(shards: Path, tmp_path: Path) -> None:
    train(small_run(), shards, tmp_path)
    recorder = Recorder()
    result = train(small_run(steps=14, optimizer={"lr": 1e-3}), shards, tmp_path, recorder)
    assert result.step == 14
    assert recorder.resumes == [12]
    (warning,) = recorder.warnings
    assert "steps: checkpoint 12, now 14" in warning
    assert "optimizer.lr: checkpoint 0.003, now 0.001" in warning


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 2}, "seed: checkpoint 1, now 2"),
        ({"global_batch_tokens": 512}, "global_batch_tokens: checkpoint 256, now 512"),
        ({"model": SMALL | {"layers": 3}}, "model.layers: checkpoint 2, now 3"),
        ({"model": SMALL | {"vocab_size": 300}}, "model.vocab_size: checkpoint 257, now 300"),
        ({"optimizer": {"name": "adamw"}}, "optimizer.name: checkpoint 'muon', now 'adamw'"),
    ],
)
def test_other_settings_are_refused(
    undisturbed: dict[str, Path], shards: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainerError) as refused:
        train(small_run(**fields), shards, undisturbed["fp32"])
    assert message in str(refused.value)
    assert "train into another output folder" in str(refused.value)
    override = "train.checkpoint.accept=[" in str(refused.value)
    assert override == (message.partition(":")[0] in ("seed", "global_batch_tokens"))


def test_a_refused_field_can_be_accepted(shards: Path, tmp_path: Path) -> None:
    train(small_run(steps=8), shards, tmp_path)
    recorder = Recorder()
    train(small_run(seed=2, checkpoint={"every": 4, "accept": ["seed"]}), shards, tmp_path, recorder)
    assert recorder.resumes == [8]
    assert recorder.warnings[0] == "accepted on resuming: seed: checkpoint 1, now 2"


def test_other_shards_and_another_tokenizer_are_refused(
    undisturbed: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainerError, match=r"shards: checkpoint '[0-9a-f]{32}', now '[0-9a-f]{32}'") as refused:
        train(small_run(), prose_shards(tmp_path / "other", seed=2), undisturbed["fp32"])
    assert "tokenizer:" not in str(refused.value)
    folder = copy_shards(shards, tmp_path / "copy")
    assert train(small_run(), folder, undisturbed["fp32"]).step == 12  # the place does not matter, the bytes do
    manifest = json.loads((folder / "manifest.json").read_bytes()) | {"tokenizer_sha256": "0" * 64}
    write_manifest(folder, manifest)
    with pytest.raises(TrainerError, match=r"tokenizer: checkpoint '[0-9a-f]{64}', now '0{64}'"):
        train(small_run(), folder, undisturbed["fp32"])


def test_micro_batches_cut_the_work_and_nothing_else(shards: Path, tmp_path: Path) -> None:
    losses = []
    for micro_batch in (1, 3, 8):
        recorder = Recorder()
        config = small_run(micro_batch=micro_batch, log_every=1)
        train(config, shards, tmp_path / str(micro_batch), recorder)
        losses.append([row["loss"] for row in recorder.rows])
    assert losses[0] == pytest.approx(losses[2], abs=1e-4)
    assert losses[1] == pytest.approx(losses[2], abs=1e-4)


def test_golden_losses(shards: Path, tmp_path: Path) -> None:
    """Losses of the first steps; a refactor that changes them changes what every recipe learns."""
    golden = [
        5.54908, 5.52714, 5.48814, 5.44343, 5.37352, 5.24717, 5.19921, 5.11602, 5.03404, 4.89085,
        4.70425, 4.64184, 4.52326, 4.33337, 4.24356, 4.06880, 3.96300, 3.99042, 3.79113, 3.85247,
    ]  # fmt: skip
    recorder = Recorder()
    train(small_run(steps=20, log_every=1), shards, tmp_path, recorder)
    assert [row["loss"] for row in recorder.rows] == pytest.approx(golden, abs=2e-4)


def test_divergence_stops_the_run_before_it_can_be_saved(shards: Path, tmp_path: Path) -> None:
    config = small_run(optimizer={"name": "adamw", "lr": 1e30, "clip": 0}, schedule={"warmup": 0})
    with pytest.raises(TrainerError, match=r"training diverged at or before step 3.*lower the learning rate"):
        train(config, shards, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_plain_mds_folder_trains(tmp_path: Path) -> None:
    data = PROSE.encode()
    rows = np.frombuffer(data[: len(data) // 33 * 33], np.uint8).reshape(-1, 33).astype(np.uint16)
    samples = [{"tokens": row} for row in rows]
    write_mds(tmp_path / "set", samples, {"tokens": "ndarray:uint16"}, compression="zstd")
    recorder = Recorder()
    result = train(small_run(prompts=["x"]), tmp_path / "set", tmp_path / "out", recorder)
    assert result.loss < 4.7
    assert (result.validation, result.samples) == (None, [])
    assert len(recorder.warnings) == 2
    assert "no doc_lengths column" in recorder.warnings[0]
    assert "no tokenizer.json" in recorder.warnings[1]
    again = train(small_run(prompts=["x"]), tmp_path / "set", tmp_path / "out")
    assert again == result


def test_weights_of_streams_decide_what_is_read(shards: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_run(steps=1), shards, tmp_path, recorder)
    (info,) = recorder.info
    assert {name: stream["weight"] for name, stream in info["streams"]["train"].items()} == {
        "first": 1.0,
        "second": 2.0,
    }
    assert list(info["streams"]["validation"]) == ["first"]
    assert info["step_tokens"] == 256
    assert info["parameters"] > 2 * VOCABULARY * SMALL["width"]


def test_unusable_settings_are_explained(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="global_batch_tokens is 20, less than one sequence of 32"):
        train(small_run(global_batch_tokens=20), shards, tmp_path)
    with pytest.raises(TrainerError, match=r"model.vocab_size is 100, but the shards use 257"):
        train(small_run(model=SMALL | {"vocab_size": 100}), shards, tmp_path)
    with pytest.raises(TrainerError, match="`heads` \\(4\\) must be a multiple of `kv_heads` \\(3\\)"):
        train(small_run(model=SMALL | {"kv_heads": 3}), shards, tmp_path)


def test_an_output_that_cannot_be_written_is_explained(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainerError, match=r"file.*the same command resumes"):
        train(small_run(), shards, tmp_path / "file" / "out")


def test_a_stream_of_padding_alone_trains_on_nothing(tmp_path: Path) -> None:
    """One-byte documents in a long sequence: almost all padding, still a finite loss."""
    folder = write_shards(tmp_path / "shards", {"train/a": (["x"], 1.0)}, length=32)
    result = train(small_run(steps=2), folder, tmp_path / "out")
    assert result.loss == pytest.approx(5.5, abs=0.2)


def test_a_ramp_begins_with_small_batches_and_reads_on_where_they_end(shards: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_run(batch_ramp=8, log_every=1), shards, tmp_path, recorder)
    tokens = [row["tokens"] for row in recorder.rows]
    assert tokens[:9] == [32 * total for total in (1, 3, 6, 10, 15, 21, 28, 36, 44)]
    assert tokens[-1] == 32 * (36 + 4 * 8)


def test_recomputing_does_not_change_the_losses(undisturbed: dict[str, Path], shards: Path, tmp_path: Path) -> None:
    train(small_run(recompute=True), shards, tmp_path)
    assert rows(tmp_path) == rows(undisturbed["fp32"])


def test_speed_memory_and_utilisation_are_logged_apart(shards: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(small_run(track=["tensorboard"]), shards, tmp_path, recorder)
    row = recorder.rows[-1]
    assert row["tokens_per_second"] > 0
    assert 0 < row["utilisation"] < 1
    assert 0 <= row["data_wait"] < 1
    assert row["memory"] > 50e6
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [3, 6, 9, 12]
    assert events.Scalars("train/loss")[-1].value == pytest.approx(row["loss"])
    assert [event.step for event in events.Scalars("validation/streams/first/loss")] == [5, 10, 12]


def test_a_missing_tracker_is_explained(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainerError, match="track: wandb needs the library `wandb`: pip install wandb"):
        train(small_run(track=["wandb"]), shards, tmp_path)


def test_an_average_of_the_weights_is_what_is_evaluated_and_published(shards: Path, tmp_path: Path) -> None:
    config = small_run(optimizer={"ema": 0.5, "lr": 3e-3, "muon_lr": 3e-3}, checkpoint={"every": 1, "keep_last": 12})
    plain, whole, resumed = tmp_path / "plain", tmp_path / "whole", tmp_path / "resumed"
    train(small_run(checkpoint={"every": 1, "keep_last": 12}), shards, plain)
    train(config, shards, whole)
    steps = sorted((plain / "checkpoints").glob("step-*"))
    weights = [load_file(step / "model.safetensors") for step in steps]
    first = Transformer(ModelConfig(**json.loads((steps[0] / "state.json").read_bytes())["model"]), seed=config.seed)
    average = {name: parameter.detach() for name, parameter in first.named_parameters()}
    for taken in weights:
        average = {name: tensor.lerp(taken[name], 0.5) for name, tensor in average.items()}
    published = load_file(whole / "checkpoints" / steps[-1].name / "model.safetensors")
    for name, tensor in average.items():
        torch.testing.assert_close(published[name], tensor)
    losses = [[row["loss"] for row in rows(output) if row["kind"] == "train"] for output in (plain, whole)]
    assert losses[0] == losses[1]
    with pytest.raises(Crash):
        train(config, shards, resumed, Recorder(die_at=9))
    train(config, shards, resumed)
    assert hashes(resumed) == hashes(whole)
    assert rows(resumed) == rows(whole)
