"""`pretrain ablate`: variants, shared stages, verdicts that the spread allows, and a run of all of it."""

import json

import pytest

from cli.ablate import list_variants, split_values, verdicts
from common.errors import RecipeError
from tests.cli.test_cli import pretrain


def row(name, *scores):
    mean = sum(scores) / len(scores)
    spread = (sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)) ** 0.5 if len(scores) > 1 else None
    return {"variant": name, "bits_per_byte": list(scores), "mean": mean, "spread": spread}


def test_a_verdict_needs_a_difference_beyond_the_spread():
    clear = verdicts([row("a", 2.50, 2.51), row("b", 2.30, 2.31)])
    unclear = verdicts([row("a", 2.5, 2.6), row("b", 2.4, 2.5)])
    assert clear[0]["better"] == "b"
    assert clear[0]["difference"] == pytest.approx(0.2)
    # Pooled: spread 0.00707 each, error 0.00707, t(0.975, 2) = 4.3027.
    assert clear[0]["interval"] == pytest.approx(4.3027 * 0.0070711, rel=1e-3)
    assert clear[0]["says"].startswith("b is better than a by 0.2000 ± 0.0304")
    assert unclear[0]["better"] is None
    assert "allows no verdict" in unclear[0]["says"]
    assert verdicts([row("a", 1.0), row("b", 2.0)])[0]["better"] is None
    assert len(verdicts([row(name, 1.0, 1.1) for name in "abcd"])) == 6


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
    (folder / "clean.jsonl").write_text(json.dumps({"text": "The river rises in a bog above the village. " * 5}) + "\n")
    arguments = ["ablate", "small.yaml", "--vary", "tokenize.sequence_length=32,48", "--held-out", "clean.jsonl"]
    out, err = pretrain(*arguments, "--json")
    found = json.loads(out)
    assert err.count("quality: 24 of 26 documents kept") == 1
    assert err.count("quality: nothing changed") == 1  # linked from the first variant
    assert [len(each["bits_per_byte"]) for each in found["variants"]] == [2, 2]
    assert found["held_out_bytes"] == 220
    for each in found["variants"]:
        assert 4 < each["mean"] < 16  # four steps: about log2(300) bits a token of one to three bytes
        assert each["bits_per_byte"][0] != each["bits_per_byte"][1]
    place = folder / "runs/small-ablation"
    assert json.loads((place / "ablation.json").read_text()) == found
    assert "Bits per byte on the held-out text" in (place / "report.html").read_text()
    out, _ = pretrain(*arguments)  # everything stands already
    assert "tokenize.sequence_length=48" in out
    assert f"{found['variants'][0]['mean']:.4f}" in out
    message = pretrain("ablate", "small.yaml", "--vary", "seed=1,2", "--held-out", "none", code=2)[1]
    assert "--held-out: no file at none" in message
