"""`pretrain ablate`: variants, shared stages, and a run of all of it."""

import json

import pytest

from cli.ablate import list_variants, split_values
from common.errors import RecipeError
from tests.cli.test_cli import pretrain


def test_values_are_split_outside_brackets():
    assert split_values("gopher,c4") == ["gopher", "c4"]
    assert split_values("[a, b],{c: [1, 2], d: 2},e") == ["[a, b]", "{c: [1, 2], d: 2}", "e"]


def test_variants_are_all_combinations_of_valid_recipes(folder):
    found = list_variants(
        folder / "small.yaml", [], ["quality.presets=gopher,c4,[gopher,c4]", "tokenize.sequence_length=32,64"]
    )
    assert [variant.loaded.recipe.quality.presets for variant in found[::2]] == [["gopher"], ["c4"], ["gopher", "c4"]]
    assert found[1].name == "quality.presets=gopher tokenize.sequence_length=64"
    with pytest.raises(RecipeError, match="unknown key"):
        list_variants(folder / "small.yaml", [], ["quality.preset=gopher,c4"])
    with pytest.raises(RecipeError, match="FIELD=A,B"):
        list_variants(folder / "small.yaml", [], ["seed=1"])


def test_an_ablation_shares_stages_and_compares_on_the_same_text(folder):
    river = {"text": "The river rises in a bog above the village. " * 5, "source": "river", "language": "en"}
    bread = {"text": "Auf den ersten Blick geschieht nichts. " * 5, "source": "bread", "language": "de"}
    (folder / "clean.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (river, bread)))
    arguments = ["ablate", "small.yaml", "--vary", "tokenize.sequence_length=32,48", "--held-out", "clean.jsonl"]
    out, err = pretrain(*arguments, "--json")
    found = json.loads(out)
    assert err.count("quality: 24 of 26 documents kept") == 1
    assert err.count("quality: nothing changed") == 1  # linked from the first variant
    assert [len(each["bits_per_byte"]) for each in found["variants"]] == [2, 2]
    assert found["held_out_bytes"] == 415
    assert [(part["kind"], part["part"]) for part in found["parts"]] == [
        ("source", "bread"),
        ("source", "river"),
        ("language", "de"),
        ("language", "en"),
    ]
    for each in found["variants"]:
        assert 4 < each["mean"] < 16  # four steps: about log2(300) bits a token of one to three bytes
        assert each["bits_per_byte"][0] != each["bits_per_byte"][1]
    place = folder / "runs/small-ablation"
    assert json.loads((place / "ablation.json").read_text()) == found
    assert "Bits per byte on the held-out text" in (place / "report.html").read_text()
    assert "known after the second seed" in err
    out, err = pretrain(*arguments, "--difference", "0.001")  # everything stands already
    assert "up to 2 seeds a variant tell differences from" in err
    assert "0.001 needs" in err or "0.001 would need" in err
    assert "tokenize.sequence_length=48" in out
    assert f"{found['variants'][0]['mean']:.4f}" in out
    message = pretrain("ablate", "small.yaml", "--vary", "seed=1,2", "--held-out", "none", code=2)[1]
    assert "--held-out: no file at none" in message
