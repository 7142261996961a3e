"""Hugging Face folders: `transformers` computes what we compute and reads and writes the same tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import TrainerError
from pipeline.build import build_corpus
from pipeline.config import CorpusConfig
from tests.trainer.conftest import Recorder, small_run
from tests.trainer.corpus import write_mds
from tests.trainer.export.conftest import LANGUAGES, ODD, write_hf
from trainer.config import TrainConfig
from trainer.export.hf import export_hf, import_hf
from trainer.generate import Sampling, generate
from trainer.loop import train
from trainer.shards import open_shards
from trainer.trained import Trained, load_model, load_trained


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_hf(trained, tmp_path_factory.mktemp("export") / "hf", card="# A model\n")


def test_logits_equal_ours_over_a_thousand_tokens(train_dir: Path, exported: Path) -> None:
    model, _ = load_model(train_dir)
    theirs = AutoModelForCausalLM.from_pretrained(exported).eval()
    codec = Tokenizer.from_file(str(train_dir / "tokenizer.json"))
    for language in ("en", "ja", "ar"):
        ids = torch.tensor([(codec.encode(LANGUAGES[language]).ids * 9)[:1000]])
        assert ids.shape == (1, 1000)
        with torch.no_grad():
            difference = (theirs(ids).logits - model(ids)).abs().max()
        assert difference < 1e-4
        assert model(ids).std() > 0.5


def test_token_ids_equal_ours(train_dir: Path, exported: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(exported)
    codec = Tokenizer.from_file(str(train_dir / "tokenizer.json"))
    for text in [*LANGUAGES.values(), ODD]:
        ids = codec.encode(text, add_special_tokens=False).ids
        assert theirs(text).input_ids == ids
        assert theirs.decode(ids) == text
    assert theirs.eos_token == "<|endoftext|>"


def test_greedy_continuations_equal_ours(train_dir: Path, exported: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(exported)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    prompts = ["The river", "Die Stadt", "その", "1999 "]
    ours = generate(train_dir, prompts, Sampling(temperature=0, max_tokens=24))
    for prompt, completion in zip(prompts, ours, strict=True):
        inputs = tokenizer(prompt, return_tensors="pt")
        output = theirs.generate(**inputs, max_new_tokens=24, do_sample=False, temperature=None)
        assert tokenizer.decode(output[0], skip_special_tokens=True) == prompt + completion.text


def test_a_large_model_is_cut_into_pieces_that_load(trained: Trained, exported: Path, tmp_path: Path) -> None:
    folder = export_hf(trained, tmp_path / "cut", shard_bytes=200_000)
    index = json.loads((folder / "model.safetensors.index.json").read_bytes())
    assert len(set(index["weight_map"].values())) > 2
    whole = AutoModelForCausalLM.from_pretrained(exported).state_dict()
    for name, tensor in AutoModelForCausalLM.from_pretrained(folder).state_dict().items():
        assert torch.equal(tensor, whole[name])


def test_the_folder_holds_what_it_should_and_is_replaced_as_a_whole(trained: Trained, tmp_path: Path) -> None:
    folder = export_hf(trained, tmp_path / "hf", card="first")
    (folder / "leftover").write_text("x")
    export_hf(trained, folder, card="second", dtype="bf16")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (folder / "README.md").read_text() == "second"
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_bytes())["torch_dtype"] == "bfloat16"
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_what_cannot_be_exported_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="dtype is 'q4'; a Hugging Face folder takes f32, f16, bf16"):
        export_hf(trained, tmp_path / "hf", dtype="q4")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("precious")
    with pytest.raises(TrainerError, match="is no exported model"):
        export_hf(trained, tmp_path / "mine")
    assert (tmp_path / "mine/file").read_text() == "precious"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_import_and_export_give_the_same_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    source = write_hf(tmp_path / "source", "llama", dtype=dtype, tie_word_embeddings=True)
    import_hf(source, tmp_path / "train")
    trained = load_trained(tmp_path / "train")
    folder = export_hf(trained, tmp_path / "hf", dtype=trained.state["imported"]["dtype"])
    for name in ("model.safetensors", "tokenizer.json"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    before, after = (json.loads((path / "config.json").read_bytes()) for path in (source, folder))
    shared = before.keys() & after.keys() - {"initializer_range"}  # decides nothing once weights are there
    assert len(shared) > 15
    assert {key: before[key] for key in shared} == {key: after[key] for key in shared}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model_type", "gpt2", "model_type is 'gpt2'; this imports llama, mistral, qwen2, qwen3"),
        ("rope_scaling", {"rope_type": "yarn", "factor": 8.0}, "rope_scaling is of type 'yarn'"),
        ("rope_parameters", {"rope_type": "yarn", "factor": 8.0, "rope_theta": 1e4}, "rope_scaling is of type 'yarn'"),
        ("attention_bias", True, "attention_bias is True"),
        ("hidden_act", "gelu", "hidden_act is 'gelu'"),
        ("vocab_size", 900, "has ids up to 1479, but config.json says vocab_size 900"),
        ("num_hidden_layers", 4, "the weights do not fit config.json"),
        ("num_key_value_heads", 3, "`heads` .4. must be a multiple of `kv_heads` .3."),
    ],
)
def test_what_would_become_another_model_is_refused(
    tmp_path: Path, source: Path, field: str, value: object, message: str
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_bytes())
    config.pop("rope_parameters", None)  # transformers 5 writes them, earlier ones rope_theta and rope_scaling
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(TrainerError, match=message):
        import_hf(folder, tmp_path / "train")
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize(
    "scaling",
    [
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        {"rope_type": "linear", "factor": 4.0},
    ],
    ids=lambda scaling: scaling["rope_type"],
)
def test_stretched_positions_survive_import_and_export(tmp_path: Path, scaling: dict[str, Any]) -> None:
    source = write_hf(tmp_path / "source", "llama", rope_theta=10_000.0, rope_scaling=dict(scaling))
    import_hf(source, tmp_path / "train")
    place = export_hf(load_trained(tmp_path / "train"), tmp_path / "hf")
    assert json.loads((place / "config.json").read_bytes())["rope_scaling"] == scaling
    theirs, (ours, _) = AutoModelForCausalLM.from_pretrained(place).eval(), load_model(tmp_path / "train")
    copy = shutil.copytree(place, tmp_path / "plain")
    config = json.loads((copy / "config.json").read_bytes())
    (copy / "config.json").write_text(json.dumps(config | {"rope_scaling": None}))
    plain = AutoModelForCausalLM.from_pretrained(copy).eval()
    codec = Tokenizer.from_file(str(place / "tokenizer.json"))
    ids = torch.tensor([(codec.encode(LANGUAGES["en"]).ids * 9)[:1000]])
    with torch.no_grad():
        found, expected = ours(ids), theirs(ids).logits
        assert (expected - found).abs().max() < 1e-4
        assert (plain(ids).logits - found).abs().max() > 0.1  # the stretching matters here


@pytest.mark.parametrize("source", ["llama"], indirect=True)
def test_training_starts_at_the_imported_models_loss(source: Path, train_dir: Path, tmp_path: Path) -> None:
    recipe = {
        "name": "more",
        "sources": [{"name": "a", "type": "text", "paths": [str(tmp_path / "*.txt")]}],
        "stages": ["extract", "tokenize"],
        "tokenize": {"tokenizer": {"path": str(source / "tokenizer.json")}, "sequence_length": 64, "validation": 0.0},
        "executor": {"workers": 1},
    }
    (tmp_path / "a.txt").write_text(LANGUAGES["en"])
    build_corpus(CorpusConfig(**recipe), tmp_path / "run", tmp_path)
    shards = open_shards(tmp_path / "run/shards", tmp_path / "cache")
    rows = np.array([[0, index] for index in range(len(shards.train[0].data))])
    samples = shards.read(shards.train, rows)
    with torch.no_grad():
        logits = load_model(train_dir)[0](torch.from_numpy(samples.tokens))
    expected = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(samples.targets).flatten())

    def training(steps: int, initial: Path) -> TrainConfig:  # one step is one epoch
        return small_run(model={}, steps=steps, global_batch_tokens=64 * len(rows), log_every=1, initial=str(initial))

    seen = Recorder()
    train(training(1, train_dir), tmp_path / "run/shards", tmp_path / "train", seen)
    before, after = load_trained(train_dir), load_trained(tmp_path / "train")
    assert after.shape == before.shape.model_copy(update={"context": 64})
    assert seen.rows[0]["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert any(not torch.equal(tensor, before.weights[name]) for name, tensor in after.weights.items())
    with pytest.raises(TrainerError, match=r"initial: checkpoint '.*the run started from other weights"):
        train(training(2, tmp_path / "train"), tmp_path / "run/shards", tmp_path / "train")


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("change", ["bare", "null", "empty", "inv_freq", "inv_freq of the model", "mistral", "qwen2"])
def test_what_is_out_there_is_imported(tmp_path: Path, source: Path, change: str, shards: int) -> None:
    config = json.loads((source / "config.json").read_bytes())
    weights = load_file(source / "model.safetensors")
    layer = "model.layers.0.self_attn"
    if config["model_type"] == "qwen3" and change in ("mistral", "qwen2"):
        pytest.skip("the weights are those of another family")
    config |= {
        "null": {"architectures": None}, "empty": {"architectures": []},
        "mistral": {"model_type": "mistral", "sliding_window": None}, "qwen2": {"model_type": "qwen2"},
    }.get(change, {})  # fmt: skip
    weights |= {
        "inv_freq": {f"{layer}.rotary_emb.inv_freq": torch.ones(8)},
        "inv_freq of the model": {"model.rotary_emb.inv_freq": torch.ones(8)},
        "qwen2": {f"{layer}.q_proj.bias": torch.zeros(4)},
    }.get(change, {})  # fmt: skip
    if change == "bare":
        del config["architectures"]
    folder = tmp_path / "source"
    folder.mkdir()
    save_torch_state_dict(weights, folder, max_shard_size=sum(t.nbytes for t in weights.values()) // shards + 1)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    import_hf(folder, tmp_path / "train")
    expected = load_file(source / "model.safetensors")
    for name, tensor in load_trained(tmp_path / "train").weights.items():
        assert torch.equal(tensor, expected[name if name.startswith("lm_head") else f"model.{name}"])


def test_a_refused_import_leaves_nothing(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((source / "config.json").read_bytes())
    weights = load_file(source / "model.safetensors")
    for number, (fields, biases, message) in enumerate(
        [
            (
                {"model_type": "mistral", "sliding_window": 512},
                {},
                "sliding_window is 512, less than the context of 1024",
            ),
            ({"layer_types": ["full_attention", "sliding_attention"]}, {}, "layer_types has 'sliding_attention'"),
            ({}, {"model.layers.0.self_attn.q_proj.bias": torch.ones(4)}, r"the weights have biases \(model.layers.0"),
            ({"quantization_config": {"bits": 4}}, {}, "quantization_config is"),
        ]
    ):
        folder = tmp_path / f"source{number}"
        folder.mkdir()
        save_torch_state_dict(weights | biases, folder)
        (folder / "config.json").write_text(json.dumps(config | fields))
        (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
        with pytest.raises(TrainerError, match=message):
            import_hf(folder, tmp_path / "train")
        assert not (tmp_path / "train").exists()
    monkeypatch.setattr("trainer.export.hf.Writer.collect", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        import_hf(source, tmp_path / "train")
    assert not (tmp_path / "train").exists()


def test_a_given_model_is_trained_as_the_recipe_says_or_not_at_all(tmp_path: Path, source: Path) -> None:
    import_hf(source, tmp_path / "given")
    codec = Tokenizer.from_file(str(source / "tokenizer.json"))
    ids = codec.encode(LANGUAGES["en"]).ids
    samples = [{"tokens": np.array(ids[start : start + 33], np.uint16)} for start in range(0, 33 * 8, 33)]
    write_mds(tmp_path / "shards/web", samples, {"tokens": "ndarray:uint16"})
    codec.save(str(tmp_path / "shards/tokenizer.json"))
    (tmp_path / "shards/tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())

    def run(**model: Any) -> TrainConfig:
        return small_run(steps=1, initial=str(tmp_path / "given"), model=model)

    scaling = {"type": "linear", "factor": 2.0}
    train(run(rope_scaling=scaling, rope_base=777.0, layers=3), tmp_path / "shards", tmp_path / "out")
    shape = load_trained(tmp_path / "out").shape
    assert (shape.rope_base, shape.context, shape.layers) == (777.0, 32, 3)
    assert shape.rope_scaling is not None
    assert shape.rope_scaling.factor == 2.0
    for field, value in {"layers": 5, "tied": not shape.tied, "vocab_size": 2048, "width": 32}.items():
        with pytest.raises(TrainerError, match=f"train.initial: model.{field} is {value}, the given model's"):
            train(run(**{field: value}), tmp_path / "shards", tmp_path / "other")
    with pytest.raises(ValueError, match="`preset` and `initial` exclude each other"):
        TrainConfig(initial="x", preset="124m")
