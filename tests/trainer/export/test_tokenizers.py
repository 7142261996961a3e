"""Eight kinds of tokenizer through import, training, generation and exports, compared with transformers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from common.errors import TrainerError
from tests.trainer.conftest import small_run
from tests.trainer.corpus import write_mds
from tests.trainer.export.conftest import LANGUAGES, ODD, hf_model
from trainer.export.gguf import export_gguf
from trainer.export.gguf_tokenizer import vocabulary_of
from trainer.export.hf import export_hf, import_hf
from trainer.generate import Sampling, encode_prompts, generate, stream_tokens
from trainer.loop import train
from trainer.score import text_batches
from trainer.trained import Trained, load_checkpoint, load_model, load_trained
from trainer.vocabulary import Special, drawable

TEXTS = [LANGUAGES["en"][:2000], LANGUAGES["de"][:1000]]
PROMPTS = ["The river", "It's 1999, and", "a  b "]
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
Kind = tuple[Tokenizer, dict[str, Any]]  # and what the folder's JSON files say beside it


def byte_level(special: tuple[str, ...] = ("<|endoftext|>",)) -> Tokenizer:
    codec = Tokenizer(models.BPE())
    codec.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    codec.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    codec.train_from_iterator(TEXTS, trainer)
    return codec


def begun(codec: Tokenizer, name: str, *steps: Any) -> Tokenizer:
    template = processors.TemplateProcessing(single=f"{name} $A", special_tokens=[(name, codec.token_to_id(name))])
    codec.post_processor = processors.Sequence([*steps, template]) if steps else template
    return codec


def plain() -> Kind:
    return byte_level(), {"eos": 0}


def bos_and_stops() -> Kind:
    codec = begun(byte_level(("<|bos|>", "<|end|>", "<|stop|>", "<|pad|>")), "<|bos|>")
    names = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>", "chat_template": TEMPLATE}
    return codec, {"bos": 0, "eos": [1, 2], "pad": 3, "tokenizer": names, "top_p": 0.9}


def llama3() -> Kind:
    codec = byte_level(("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"))
    level = processors.ByteLevel(trim_offsets=False)
    return begun(codec, "<|begin_of_text|>", level), {
        "bos": 0,
        "eos": [1, 2],
        "tokenizer": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    }


def cut_and_padded() -> Kind:
    codec = byte_level()
    codec.enable_truncation(2)
    codec.enable_padding(length=16, pad_id=0)
    return codec, {"eos": 0}


def holes() -> Kind:
    spec = json.loads(byte_level().to_str())
    spec["model"]["vocab"]["<|late|>"] = 390
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": 390, "content": "<|late|>"})
    return Tokenizer.from_str(json.dumps(spec)), {"eos": 0}


def padded_vocabulary() -> Kind:
    return byte_level(("<unk>", "</s>")), {"eos": 1, "vocab_size": 2048}


def sentencepiece() -> Kind:
    """Llama 2's: BOS first, also by the class in transformers 4, and a decoder that strips the first space."""
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    names = ["<unk>", "<s>", "</s>"]
    words.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=names, show_progress=False))
    old = json.loads(words.to_str())
    vocabulary = old["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    codec = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    codec.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    codec.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    spec = json.loads(codec.to_str())
    spec["model"] |= {"vocab": vocabulary, "merges": every_merge(vocabulary, old["model"]["merges"])}
    spec["added_tokens"] = old["added_tokens"]
    names = {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return begun(Tokenizer.from_str(json.dumps(spec)), "<s>"), {"bos": 1, "eos": 2, "tokenizer": names}


def every_merge(vocabulary: dict[str, int], merges: list[list[str]]) -> list[tuple[str, str]]:
    """All pairs that make a token, sorted by token, as `transformers` writes them of a SentencePiece model."""
    pairs = [
        (token[:cut], token[cut:])
        for token in dict.fromkeys("".join(merge) for merge in merges)
        for cut in range(1, len(token))
    ]
    return [pair for pair in pairs if all(part in vocabulary for part in pair)]


def unigram() -> Kind:
    codec = Tokenizer(models.Unigram())
    codec.pre_tokenizer, codec.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    names = ["<unk>", "<s>", "</s>"]
    codec.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=200, special_tokens=names, unk_token="<unk>", show_progress=False)
    )
    return begun(codec, "<s>"), {"bos": 1, "eos": 2}


KINDS = [plain, bos_and_stops, llama3, cut_and_padded, holes, padded_vocabulary, sentencepiece, unigram]


def write_folder(folder: Path, kind: Callable[[], Kind]) -> Tokenizer:
    codec, says = kind()
    size = says.get("vocab_size", max(codec.get_vocab().values()) + 1)
    ids = {f"{name}_token_id": says.get(name) for name in ("bos", "eos", "pad")}
    hf_model("llama", vocab_size=size, num_hidden_layers=1, **ids).save_pretrained(folder)
    codec.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | says.get("tokenizer", {})))
    generation = {name: value for name, value in ids.items() if value is not None} | {"do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation | {"top_p": says.get("top_p", 0.8)}))
    return codec


def continued(folder: Path, prompt: str) -> str:
    """Greedy, by transformers: the text of all tokens after that of the prompt."""
    model, codec = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    unused = sorted(set(range(model.config.vocab_size)) - set(codec.get_vocab().values())) or None  # never drawn here
    ids = torch.tensor([codec(prompt).input_ids])
    settings: dict[str, Any] = {
        "do_sample": False,
        "temperature": None,
        "top_p": None,
        "pad_token_id": 0,
        "suppress_tokens": unused,
    }
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, **settings)[0]
    before = codec.decode(ids[0], skip_special_tokens=True)
    return codec.decode(output, skip_special_tokens=True)[len(before) :]


def described(folder: Path) -> dict[str, Any]:
    """What transformers takes from a folder."""
    codec, shape = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    generation = GenerationConfig.from_pretrained(folder)
    return {
        "ids": [codec(prompt).input_ids for prompt in PROMPTS],
        "tokens": (codec.bos_token, codec.eos_token, codec.pad_token) if codec.bos_token else None,
        "config": (shape.bos_token_id, shape.eos_token_id, shape.pad_token_id),
        "generation": (generation.eos_token_id, generation.top_p),
        "template": codec.chat_template,
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_kind_of_tokenizer_everywhere(tmp_path: Path, kind: Callable[[], Kind]) -> None:
    source = tmp_path / "source"
    write_folder(source, kind)
    import_hf(source, tmp_path / "train")
    trained = load_trained(tmp_path / "train")
    expected = described(source)

    ids = encode_prompts(PROMPTS, trained.tokenizer, trained.special, 1024)
    assert ids == [
        row[-len(ours) :] if kind is cut_and_padded else row for row, ours in zip(expected["ids"], ids, strict=True)
    ]

    pieces = [""] * len(PROMPTS)

    def on_text(row: int, piece: str) -> None:
        pieces[row] += piece

    ours = generate(tmp_path / "train", PROMPTS, Sampling(12, temperature=0), on_text=on_text)
    assert pieces == [each.text for each in ours]
    assert pieces == [continued(source, prompt) for prompt in PROMPTS]

    exported = export_hf(trained, tmp_path / "hf")
    found = described(exported)
    assert {name: found[name] for name in found if expected[name]} == {
        name: each for name, each in expected.items() if each
    }
    assert pieces[:1] == [continued(exported, PROMPTS[0])]

    (batch,) = text_batches([("a", TEXTS[0][:200])], trained.tokenizer, trained.special, 1024, masked=True)
    assert batch.tokens[0, 0] == (trained.special.prefix or trained.special.eos)[0]
    assert batch.documents is not None
    assert bool(batch.documents[0, 0]) == bool(trained.special.prefix)

    trained_on(tmp_path, source, trained)
    into_gguf(tmp_path, trained)


def trained_on(folder: Path, source: Path, imported: Trained) -> None:
    """The same tokenizer beside plain shards: the run knows the same special tokens, and so does its export."""
    tokens = [number for text in TEXTS for number in imported.tokenizer.encode(text).ids]
    samples = [{"tokens": np.array(tokens[start : start + 33], np.uint32)} for start in range(0, len(tokens) - 33, 33)]
    write_mds(folder / "shards/web", samples, {"tokens": "ndarray:uint32"})
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (folder / "shards" / name).write_bytes((source / name).read_bytes())
    train(small_run(steps=1, prompts=["The"]), folder / "shards", folder / "run")
    own = load_trained(folder / "run")
    assert (own.special.bos, own.special.eos, own.special.prefix) == (
        imported.special.bos, imported.special.eos, imported.special.prefix
    )  # fmt: skip
    assert described(export_hf(own, folder / "own"))["ids"] == described(folder / "hf")["ids"]


def into_gguf(folder: Path, trained: Trained) -> None:
    if not isinstance(trained.tokenizer.model, models.BPE):
        with pytest.raises(TrainerError, match=r"llama.cpp has no such tokenizer"):
            export_gguf(trained, folder / "gguf/model.gguf")
        return
    file = export_gguf(trained, folder / "gguf/model.gguf", dtype="f32")
    reader = gguf.GGUFReader(file)
    fields = {name.removeprefix("tokenizer."): field.contents() for name, field in reader.fields.items()}
    special = trained.special
    assert fields["ggml.add_bos_token"] == bool(special.prefix)
    assert fields["ggml.bos_token_id"] == (special.eos[0] if special.bos is None else special.bos)
    stops = [fields.get(f"ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    assert [stop for stop in stops if stop is not None] == list(special.eos)
    assert fields.get("chat_template") == special.files.get("tokenizer_config", {}).get("chat_template")
    lines = file.with_name("Modelfile").read_text().splitlines()
    assert [line for line in lines if "stop" in line] == [
        f'PARAMETER stop "{trained.text_of(end)}"' for end in special.eos
    ]
    assert any("TEMPLATE" in line for line in lines) == ("chat_template" not in fields)


@pytest.mark.parametrize("kind", KINDS[:-1], ids=lambda kind: kind.__name__)
def test_llama_cpp_reads_and_continues_alike(tmp_path: Path, kind: Callable[[], Kind]) -> None:
    """Ids of texts and of greedy continuations; rows that no token has are barred there, as they are here."""
    write_folder(tmp_path / "source", kind)
    import_hf(tmp_path / "source", tmp_path / "train")
    trained = load_trained(tmp_path / "train")
    ask = llama_cpp(export_gguf(trained, tmp_path / "model.gguf", dtype="f32"))
    texts = [*PROMPTS, *TEXTS, ODD, " two  spaces ", "\n\n\t", *LANGUAGES.values()]
    for text, ids in zip(texts, encode_prompts(texts, trained.tokenizer, trained.special, 10**6), strict=True):
        assert ask("/tokenize", content=text, add_special=True, parse_special=False)["tokens"] == ids, text[:40]
    unused = sorted(set(range(trained.shape.vocab_size)) - set(trained.tokenizer.get_vocab().values()))
    model, allowed = load_model(tmp_path / "train")[0], drawable(trained.tokenizer, trained.shape.vocab_size)
    for prompt, ids in zip(PROMPTS, encode_prompts(PROMPTS, trained.tokenizer, trained.special, 256), strict=True):
        drawn = stream_tokens(model, [ids], Sampling(12, temperature=0), trained.special.eos, allowed)
        greedy = {"n_predict": 12, "samplers": ["temperature"], "temperature": 0, "cache_prompt": False}
        bias = [[row, False] for row in unused]
        found = ask("/completion", prompt=prompt, logit_bias=bias, return_tokens=True, **greedy)
        written = [token for token in found["tokens"] if token not in trained.special.eos]  # it lists the stop too
        assert written == [token for _, token, _ in drawn if token is not None]
    found = ask("/apply-template", messages=[{"role": "user", "content": "Hi"}])["prompt"]
    assert found.endswith("Hi") == ("chat_template" in trained.special.files.get("tokenizer_config", {}))


def llama_cpp(file: Path) -> Callable[..., Any]:
    """llama.cpp's own server on a file, as a function of path and fields; skipped where xllamacpp is not installed."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed (docs/run-it-yourself.md)")
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.n_gpu_layers, settings.port = str(file), 256, 0, 0
    settings.warmup, settings.cpuparams.n_threads, settings.n_parallel = False, 1, 1
    server = xllamacpp.Server(settings)

    def ask(path: str, **fields: Any) -> Any:
        body, kind = json.dumps(fields).encode(), {"Content-Type": "application/json"}
        with urlopen(Request(server.listening_address + path, body, kind)) as answer:
            return json.load(answer)

    return ask


def test_merges_that_scores_cannot_say_are_refused() -> None:
    spec = json.loads(sentencepiece()[0].to_str())
    assert vocabulary_of(spec).model == "llama"
    assert vocabulary_of(spec).space
    made = Counter("".join(merge) for merge in spec["model"]["merges"])
    several = next(merge for merge in spec["model"]["merges"] if made["".join(merge)] > 1)
    changes: dict[str, Callable[[dict[str, Any]], Any]] = {
        "its merges lack": lambda model: model["merges"].remove(several),
        "not sorted by the token": lambda model: model["merges"].sort(key=lambda merge: merge == several),
        "without a token <0x0A>": lambda model: model["vocab"].pop("<0x0A>"),
        "BPE with `ignore_merges`": lambda model: model.update(ignore_merges=True),
    }
    for message, change in changes.items():
        changed = json.loads(json.dumps(spec))
        change(changed["model"])
        with pytest.raises(TrainerError, match=message):
            vocabulary_of(changed)
    with pytest.raises(TrainerError, match="a normalizer that writes spaces"):
        vocabulary_of(spec | {"normalizer": None})


def test_rows_without_a_token_are_never_drawn(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", padded_vocabulary)
    import_hf(tmp_path / "source", tmp_path / "train")
    (completion,) = generate(tmp_path / "train", ["The"], Sampling(200, temperature=3.0))
    trained = load_trained(tmp_path / "train")
    assert len(trained.tokenizer.encode(completion.text).ids) > completion.tokens / 2
    assert completion.tokens == 200 or completion.finish == "eos"


def test_the_recipes_bos_goes_into_every_export(tmp_path: Path) -> None:
    """A tokenizer that adds nothing, shards that say `bos`: prompts, scores and exports begin with it."""
    codec = byte_level(("<|endoftext|>", "<|bos|>"))
    (tmp_path / "shards").mkdir()
    codec.save(str(tmp_path / "shards/tokenizer.json"))
    rows = [{"tokens": np.arange(1, 34, dtype=np.uint16)}] * 8
    write_mds(tmp_path / "shards/web", rows, {"tokens": "ndarray:uint16"})
    train(small_run(steps=1, data={"bos": "<|bos|>"}), tmp_path / "shards", tmp_path / "run")
    trained = load_trained(tmp_path / "run")
    assert trained.special == Special(1, (0,), None, (1,), {})
    assert encode_prompts(["", "The"], trained.tokenizer, trained.special, 99)[0] == [1]
    found = described(export_hf(trained, tmp_path / "hf"))
    assert [ids[0] for ids in found["ids"]] == [1, 1, 1]
    assert (found["config"][:2], found["tokens"][:2]) == ((1, 0), ("<|bos|>", "<|endoftext|>"))
    fields = gguf.GGUFReader(export_gguf(trained, tmp_path / "model.gguf")).fields
    assert [fields[f"tokenizer.ggml.{name}"].contents() for name in ("add_bos_token", "bos_token_id")] == [True, 1]


def test_without_an_end_token_gguf_is_refused_and_an_option_names_it(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    byte_level(("<|fin|>",)).save(str(tmp_path / "shards/tokenizer.json"))
    write_mds(tmp_path / "shards/web", [{"tokens": np.arange(33, dtype=np.uint16)}] * 8, {"tokens": "ndarray:uint16"})
    train(small_run(steps=1), tmp_path / "shards", tmp_path / "run")
    with pytest.raises(TrainerError, match="no end-of-document token that is known; name it with `--eos TOKEN`"):
        export_gguf(load_trained(tmp_path / "run"), tmp_path / "model.gguf")
    trained = load_trained(tmp_path / "run", eos="<|fin|>")
    assert (
        gguf.GGUFReader(export_gguf(trained, tmp_path / "model.gguf")).fields["tokenizer.ggml.eos_token_id"].contents()
        == 0
    )
    with pytest.raises(TrainerError, match=r"--eos: the tokenizer has no token '<\|nothing\|>'"):
        load_trained(tmp_path / "run", eos="<|nothing|>")


def test_the_best_checkpoint_is_kept_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([5.0, 2.0, 3.0, 2.5, 4.0, 6.0])
    monkeypatch.setattr("trainer.loop.evaluate", lambda *_, **__: {"loss": next(losses), "tokens": 9, "streams": {}})
    write_mds(tmp_path / "web", [{"tokens": np.arange(33, dtype=np.uint16)}] * 8, {"tokens": "ndarray:uint16"})
    evaluation = {"every": 2, "batches": 1}
    train(small_run(checkpoint={"every": 2, "keep_last": 2}, evaluation=evaluation), tmp_path / "web", tmp_path / "run")
    assert sorted(int(path.name[5:]) for path in (tmp_path / "run/checkpoints").iterdir()) == [4, 10, 12]
    assert [load_checkpoint(tmp_path / "run", step)[0].step for step in ("best", "last", None, 10, "10")] == [
        4,
        12,
        12,
        10,
        10,
    ]
    with pytest.raises(TrainerError, match="--step: got 'newest'; expected a number, `best` or `last`"):
        load_checkpoint(tmp_path / "run", "newest")
