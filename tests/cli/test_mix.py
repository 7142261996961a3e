"""`pretrain mix`: what it refuses, what limits a share, and what a proposal means in a recipe (tests/test_tutorials.py
runs all of it)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from cli.mix import Study, recipe_lines
from common.errors import RecipeError
from common.runfolder import RunFolder
from pipeline.config import TokenizeConfig
from pipeline.tokenize.stage import mixture
from tests.cli.test_cli import pretrain
from trainer.config import TrainConfig

SIZES = {"train/good": 100, "train/part": 400, "train/noise": 500, "validation/good": 10, "train/empty": 0}


def study(tokens: int = 1000, targets: tuple[str, ...] = (), sizes: dict[str, int] = SIZES) -> Study:
    manifest = {"sequence_length": 10, "streams": {name: {"samples": size} for name, size in sizes.items()}}
    return Study(RunFolder(Path("runs/x")), manifest, TrainConfig(), tokens, list(targets))


def test_a_proposal_is_a_factor_on_each_streams_natural_share_and_the_recipe_takes_it() -> None:
    mixed = study()
    assert mixed.streams == ["good", "noise", "part"]
    weights = mixed.weights(np.array([0.5, 0.0, 0.5]))
    assert weights == {"good": 5.0, "noise": 0.0, "part": 1.25}
    settings = yaml.safe_load(recipe_lines({"proposal": {"weights": weights}}))["tokenize"]
    natural = {f"train/{name}": 1.0 for name in mixed.streams}
    phases = mixture(TokenizeConfig.model_validate(settings), natural)
    assert phases[-1] == {"start": 0.0, "weights": {f"train/{name}": weight for name, weight in weights.items()}}


def test_no_stream_may_be_read_more_than_four_times() -> None:
    assert study(8_000).limits.tolist() == [0.5, 1.0, 1.0]  # of 1,000, 5,000 and 4,000 tokens
    with pytest.raises(RecipeError, match="--tokens 50000: 4 epochs of all streams are 40000 tokens"):
        study(50_000)


def test_what_cannot_be_chosen_is_refused() -> None:
    with pytest.raises(RecipeError, match="--target part: no such held-out stream; there are: good"):
        study(targets=("part",))
    with pytest.raises(RecipeError, match="one training stream"):
        study(sizes={"train/good": 100, "validation/good": 10})
    with pytest.raises(RecipeError, match="nothing is held out"):
        study(sizes={"train/good": 100, "train/part": 10})


def test_shards_come_first(folder: Path) -> None:
    message = pretrain("mix", "small.yaml", code=2)[1]
    assert "no shards yet; build them with `pretrain corpus small.yaml`" in message
