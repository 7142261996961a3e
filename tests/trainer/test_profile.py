"""`--profile`: what it writes, and that it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer.conftest import Recorder, small_run
from trainer.loop import train
from trainer.profile import STEPS, part_of, union


def test_a_profile_says_where_the_time_goes_and_changes_no_result(shards: Path, tmp_path: Path) -> None:
    config = small_run(steps=8)
    train(config, shards, tmp_path / "plain")
    train(config, shards, tmp_path / "profiled", profile=True)
    for name in ("metrics.jsonl", "checkpoints/step-00000008/model.safetensors"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "profiled" / name).read_bytes()
    profile = json.loads((tmp_path / "profiled/profile.json").read_bytes())
    assert profile["steps"] == STEPS
    assert 0 < profile["busy"] <= profile["seconds"]
    assert 0 < profile["utilisation"] < 1
    assert 0 <= profile["data_wait"] < profile["seconds"]
    assert sum(kernel["seconds"] for kernel in profile["kernels"]) == pytest.approx(sum(profile["parts"].values()))
    assert sum(profile["parts"].values()) == pytest.approx(profile["busy"], rel=0.1)
    assert profile["parts"]["matrix products"] > 0
    assert profile["parts"]["optimizer and clipping"] > 0
    text = (tmp_path / "profiled/profile.txt").read_text()
    assert "matrix products" in text
    assert "idle" in text
    assert not (tmp_path / "plain/profile.txt").exists()


def test_a_run_that_is_too_short_writes_no_profile(shards: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    assert train(small_run(steps=5), shards, tmp_path, recorder, profile=True).step == 5
    assert recorder.warnings == ["profile: not written, since this call took fewer than 6 steps"]
    assert not (tmp_path / "profile.json").exists()


@pytest.mark.parametrize(
    ("kernel", "part"),
    [
        ("nvjet_sm90_tst_128x256_64x4_1x2_h_bz_coopA_NNT", "matrix products"),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel", "attention"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor", "optimizer and clipping"),
        ("triton_red_fused__to_copy_mul_sum_3", "compiled elementwise"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "communication"),
        ("aten::mm", "matrix products"),
        ("aten::bmm", "batched products (attention on a CPU, Muon)"),
        ("cpp_fused_mul_silu_2", "compiled elementwise"),
        ("aten::lerp_", "other"),
    ],
)  # fmt: skip
def test_kernels_belong_to_parts(kernel: str, part: str) -> None:
    assert part_of(kernel) == part


def test_the_busy_time_counts_overlapping_kernels_once() -> None:
    assert union([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4
    assert union([]) == 0
