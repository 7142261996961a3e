"""Recipes that are wrong, and what is said about them; overrides; the resolved recipe."""

from pathlib import Path

import pytest

from common.errors import RecipeError
from recipes.load import check_paths, load_recipe, load_training, resolved_yaml, training_config

RECIPES = sorted(Path("recipes").glob("*.yaml"))
GOOD = """\
name: small
sources:
  - name: web
    type: text
    paths: ["*.txt"]
quality:
  presets: [gopher]
train:
  steps: 10
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(GOOD)
    return path


def complaints(path, text=None, overrides=()):
    """Messages about a recipe, without the folder."""
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return [message.replace(f"{path.parent}/", "") for message in caught.value.messages]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_loads_and_states_what_it_takes(path):
    recipe = load_recipe(path).recipe
    assert recipe.name == path.stem
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for said in ("command", "hardware", "time", "result"):
        assert any(line.startswith(f"#   {said} ") for line in header), said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("train:", "trian:"), "small.yaml:8: trian: unknown key, allowed: name, seed,"),
        (("train:", "trian:"), "did you mean `train`?"),
        (("  steps", "  stpes"), "small.yaml:9: train.stpes: unknown key"),
        (("  steps", "  stpes"), "did you mean `steps`?"),
        (("quality:\n  presets: [gopher]", "steps: 4"), "steps: unknown key"),
        (("quality:\n  presets: [gopher]", "steps: 4"), "did you mean `train.steps`?"),
        (("10", "ten"), "small.yaml:9: train.steps: got 'ten', allowed: a whole number"),
        (("10", "0"), "small.yaml:9: train.steps: got 0, allowed: above 0"),
        (("10", "1.5"), "small.yaml:9: train.steps: got 1.5, allowed: a whole number"),
        (("10", ""), "train.steps: got nothing, allowed: a whole number; remove the key to keep its default"),
        (("text", "txt"), "small.yaml:4: sources.0.type: got 'txt', allowed: warc, html, text,"),
        (("text", "txt"), "did you mean `text`?"),
        (('["*.txt"]', "a.txt"), "small.yaml:5: sources.0.paths: got 'a.txt', allowed: a list"),
        (('["*.txt"]', "[]"), "small.yaml:5: sources.0.paths: got [], allowed: at least 1 item"),
        (('    paths: ["*.txt"]\n', ""), "small.yaml:3: sources.0.paths: missing"),
        (("name: small", "name: a b"), "small.yaml:1: name: got 'a b', allowed: letters a to z, digits"),
        (("[gopher]", "[gofer]"), "small.yaml:7: quality.presets.0: got 'gofer', allowed: gopher, c4, fineweb"),
        (
            ("[gopher]", "[gopher]\n  rules: {gopher_min_words: lots}"),
            "small.yaml:8: quality.rules.gopher_min_words: got 'lots', allowed: a number or true or false or a mapping",
        ),
        (
            ("[gopher]", "[gopher]\n  rules: {gopher_min_words: {treshold: 3}}"),
            "small.yaml:8: quality.rules.gopher_min_words.treshold: unknown key, allowed: threshold, enabled",
        ),
        (
            ("[gopher]", "[gopher]\n  rules: {gopher_minwords: 3}"),
            "small.yaml:8: quality.rules.gopher_minwords: no quality rule is called `gopher_minwords`",
        ),
        (
            ("[gopher]", "[gopher]\n  languages:\n    de: {c4_sentences: 3}"),
            "small.yaml:9: quality.languages.de.c4_sentences: `c4_sentences` belongs to a preset",
        ),
        (
            ("quality:", "dedup: {threshold: 0.7}\nquality:"),
            "small.yaml:6: dedup.threshold: unknown key; it is called `dedup.candidates_at` now",
        ),
        (("quality:", "stages: [extract, langage]\nquality:"), "stages.1: got 'langage', allowed: extract, language"),
        (("quality:", "stages: [extract, langage]\nquality:"), "did you mean `language`?"),
        (("quality:", "stages: [extract, {use: mine.py}]\nquality:"), "stages.1.use: got 'mine.py', allowed: FILE.py:"),
        (("quality:", "stages: [extract]\nquality:"), "small.yaml:9: train: `train` needs shards"),
        (("quality:", "stages: [language]\nquality:"), "small.yaml:6: stages: `stages` must begin with"),
        (("quality:", "name: again\nquality:"), "small.yaml:6: name: given twice (first at small.yaml:1)"),
        (("steps", "steps: 3\n  steps"), "small.yaml:10: train.steps: given twice (first at small.yaml:9)"),
        (("[gopher]", "[gopher"), "small.yaml:8: not valid YAML"),
        (("  presets", "\tpresets"), "small.yaml:7: not valid YAML"),
        (("10", "!!python/object/apply:os.getcwd []"), "small.yaml:9: not valid YAML"),
        (("10", "&loop [*loop]"), "an alias within its own anchor"),
        (("10", "2024-01-01"), "small.yaml:9: train.steps: got '2024-01-01', allowed: a whole number"),
    ],
)
def test_one_mistake_is_named_with_line_field_value_and_what_is_allowed(recipe, change, message):
    assert change[0] in GOOD
    messages = complaints(recipe, GOOD.replace(*change, 1))
    assert any(message in line for line in messages), messages


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(recipe):
    text = GOOD.replace("10", "-1").replace("type: text", "type: txt").replace("presets", "preset")
    assert [line.split(": ")[:2] for line in complaints(recipe, text)] == [
        ["small.yaml:4", "sources.0.type"],
        ["small.yaml:7", "quality.preset"],
        ["small.yaml:9", "train.steps"],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "small.yaml:1: the recipe is empty"),
        ("# only a comment\n", "small.yaml:1: the recipe is empty"),
        ("- a\n", "small.yaml:1: got list, allowed: `key: value` lines"),
        ("name: \x00\n", "small.yaml: not text"),
    ],
)
def test_a_file_that_is_no_recipe(recipe, text, message):
    assert complaints(recipe, text)[0].startswith(message)


def test_a_file_that_is_not_utf8(recipe):
    recipe.write_bytes(b"name: caf\xe9\n")
    assert complaints(recipe)[0].startswith("small.yaml: not UTF-8 text")


def test_a_recipe_that_is_not_there_names_its_neighbours(recipe):
    assert complaints(recipe.with_name("smal.yaml")) == ["smal.yaml: no such recipe; did you mean `small.yaml`?"]
    assert "is a folder" in complaints(recipe.parent)[0]


def test_words_are_read_as_yaml_1_2(recipe):
    recipe.write_text(GOOD + "  optimizer: {lr: 3e-3}\nlanguage: {keep: [no, on]}\n")
    loaded = load_recipe(recipe, ["tokenize.sequence_length=1_024"]).recipe
    assert loaded.language.keep == ["no", "on"]
    assert loaded.train is not None
    assert loaded.train.optimizer.lr == 0.003
    assert loaded.tokenize.sequence_length == 1024


def test_overrides_reach_every_depth(recipe):
    loaded = load_recipe(
        recipe,
        [
            "train.steps=7",
            "sources.0.limit=3",
            "quality.rules.gopher_min_words={threshold: 20}",
            "quality.languages.ja.gopher_min_words=false",
            "language.keep=[en, de]",
        ],
    ).recipe
    assert loaded.train is not None
    assert loaded.train.steps == 7
    assert loaded.sources[0].limit == 3
    assert loaded.quality.rules["gopher_min_words"].threshold == 20
    assert loaded.quality.languages == {"ja": {"gopher_min_words": False}}
    assert loaded.language.keep == ["en", "de"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stpes=3", "--set train.stpes=3: train.stpes: unknown key"),
        ("train.steps=x", "--set train.steps=x: train.steps: got 'x', allowed: a whole number"),
        ("train.steps", "--set train.steps: expected FIELD=VALUE"),
        ("=3", "--set =3: expected FIELD=VALUE"),
        ("train..steps=3", "--set train..steps=3: expected FIELD=VALUE"),
        ("sources.1.limit=3", "--set sources.1.limit=3: got index `1` into the list `sources`, allowed: 0 to 0"),
        ("sources.web.limit=3", "got index `web` into the list `sources`"),
        ("name.x=3", "--set name.x=3: `name` is 'small', which has no field `x`"),
        ("train.prompts=[a", "--set train.prompts=[a:1: not valid YAML"),
        ("train={steps: 0}", "--set train={steps: 0}: train.steps: got 0, allowed: above 0"),
    ],
)
def test_a_bad_override_is_named_as_given(recipe, override, message):
    messages = complaints(recipe, overrides=[override])
    assert any(message in line for line in messages), messages


def test_missing_files_are_all_named(recipe):
    recipe.write_text(
        GOOD
        + "truth: truth.jsonl\nextract: {blocklist: [a.txt]}\nlanguage: {model: gone/lid.bin}\n"
        + "tokenize: {tokenizer: {path: tokenizer.json}}\n"
    )
    (recipe.parent / "a.txt").touch()
    with pytest.raises(RecipeError) as caught:
        check_paths(load_recipe(recipe, ["sources.0.paths=['*.txt', 'nowhere/*.txt', 's3://bucket/*']"]))
    folder = recipe.parent
    assert caught.value.messages == [
        f"--set sources.0.paths=['*.txt', 'nowhere/*.txt', 's3://bucket/*']: sources.0.paths.1: "
        f"got '{folder}/nowhere/*.txt', but there is no folder '{folder}/nowhere'",
        f"{recipe}:12: language.model: got '{folder}/gone/lid.bin', but there is no folder '{folder}/gone'",
        f"{recipe}:13: tokenize.tokenizer.path: got '{folder}/tokenizer.json', which does not exist",
        f"{recipe}:10: truth: got '{folder}/truth.jsonl', which does not exist",
    ]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_resolved_recipe_holds_in_its_new_folder(path, tmp_path):
    loaded = load_recipe(path)
    folder = tmp_path / "runs" / "x"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(resolved_yaml(loaded, folder))
    again = load_recipe(folder / "recipe.yaml")
    assert resolved_yaml(again, folder) == resolved_yaml(loaded, folder)
    assert again.recipe.model_dump(exclude={"sources", "truth"}) == loaded.recipe.model_dump(
        exclude={"sources", "truth"}
    )
    for before, after in zip(loaded.recipe.sources, again.recipe.sources, strict=True):
        for old, new in zip(before.paths, after.paths, strict=True):
            assert ("://" in old and old == new) or (path.parent / old).resolve() == (folder / new).resolve()


def test_weights_to_start_from_are_relative_to_the_recipe(recipe):
    loaded = load_recipe(recipe, ["train.initial=models/start", "sources.0.paths=['*.yaml']"])
    assert Path(training_config(loaded).initial) == recipe.parent / "models/start"
    with pytest.raises(RecipeError, match=r"train\.initial: got .*there is no folder"):
        check_paths(loaded)
    (recipe.parent / "models/start").mkdir(parents=True)
    check_paths(loaded)
    folder = recipe.parent / "runs/x"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(resolved_yaml(loaded, folder))
    again = Path(training_config(load_recipe(folder / "recipe.yaml")).initial)
    assert again.resolve() == recipe.parent / "models/start"
    assert training_config(load_training(recipe, ["train.initial=/else"])).initial == "/else"


def test_training_alone_needs_no_corpus(tmp_path, recipe):
    assert load_training(None, ["train.steps=5"]).recipe.train.steps == 5
    assert load_training(recipe).recipe.train.steps == 10
    alone = tmp_path / "alone.yaml"
    alone.write_text("name: mine\ntrain: {steps: 6}\n")
    assert load_training(alone).run == Path("runs/mine")
    with pytest.raises(RecipeError, match=r"train\.stpes: unknown key"):
        load_training(None, ["train.stpes=5"])
    with pytest.raises(RecipeError, match="train: missing"):
        load_training(recipe, ["train=null"])
