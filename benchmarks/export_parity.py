"""Whether exported models are the model: formats x checks, on a run's checkpoint.

    python benchmarks/export_parity.py [RUN] [--quick]

Exports RUN (default runs/demo) as a Hugging Face folder and as GGUF in every type, loads them with `transformers` and
llama.cpp (llama-cpp-python; rows are left out where it is not installed), and compares with our own model: logits
over up to 1,000 tokens in several languages, token ids of data/prose in 21 languages, greedy continuations,
perplexity. `--quick` takes fewer texts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from trainer.export.gguf import TYPES, export_gguf
from trainer.export.hf import export_hf
from trainer.generate import Sampling, stream_tokens
from trainer.trained import load_model, load_trained

PROSE = {path.stem: path.read_text("utf-8") for path in sorted(Path("data/prose").glob("*.txt"))}
PROMPTS = ("This function returns", "Die Stadt", "The module provides", "1999 ")
WRITTEN = 32


class Ours:
    """The model, its tokens and what it makes of them."""

    def __init__(self, train_dir: Path, texts: list[str]) -> None:
        self.trained = load_trained(train_dir)
        self.model, _ = load_model(train_dir)
        self.model.compute_dtype = torch.float32
        length = min(1000, self.model.config.context)
        self.ids = {name: self.encode(PROSE[name])[:length] for name in texts}
        self.logits = {name: self.run(ids) for name, ids in self.ids.items()}
        greedy = Sampling(temperature=0, max_tokens=WRITTEN)
        self.written: dict[str, list[int]] = {prompt: [] for prompt in PROMPTS}
        prompts = [self.encode(prompt) for prompt in PROMPTS]
        for row, token, _ in stream_tokens(self.model, prompts, greedy, self.trained.eos_id):
            if token is not None:
                self.written[PROMPTS[row]].append(token)

    def encode(self, text: str) -> list[int]:
        return self.trained.tokenizer.encode(text, add_special_tokens=False).ids

    @torch.no_grad()
    def run(self, ids: list[int]) -> torch.Tensor:
        return self.model(torch.tensor([ids]))[0]


def compare(ours: Ours, logits, encode, write) -> dict[str, float | bool]:
    """The checks, given another program's logits, encoder and greedy continuation."""
    theirs = {name: logits(ids) for name, ids in ours.ids.items()}
    shift = sum(
        float(F.cross_entropy(theirs[n][:-1], t) - F.cross_entropy(ours.logits[n][:-1], t))
        for n, t in ((name, torch.tensor(ids[1:])) for name, ids in ours.ids.items())
    )
    return {
        "logits": max(float((theirs[name] - ours.logits[name]).abs().max()) for name in theirs),
        "ids": all(encode(text) == ours.encode(text) for text in PROSE.values()),
        "greedy": all(write(prompt) == ours.written[prompt] for prompt in PROMPTS),
        "perplexity": abs(math.exp(shift / len(theirs)) - 1),
    }


def check_hf(ours: Ours, folder: Path) -> dict[str, float | bool]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = export_hf(ours.trained, folder / "hf")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(place).eval(), AutoTokenizer.from_pretrained(place)

    @torch.no_grad()
    def logits(ids):
        return model(torch.tensor([ids])).logits[0]

    def write(prompt):
        inputs = tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=WRITTEN, do_sample=False, temperature=None)[0]
        found = output[inputs.input_ids.shape[1] :].tolist()
        return found[:-1] if found[-1] == ours.trained.eos_id else found

    return compare(ours, logits, lambda text: tokenizer(text).input_ids, write)


def check_gguf(ours: Ours, folder: Path, dtype: str) -> dict[str, float | bool]:
    import llama_cpp

    file = export_gguf(ours.trained, folder / f"{dtype}/model.gguf", dtype=dtype)
    cache = llama_cpp.GGML_TYPE_F32 if dtype == "f32" else llama_cpp.GGML_TYPE_F16
    context = ours.model.config.context
    llama = llama_cpp.Llama(
        str(file), n_ctx=context, n_batch=context, logits_all=True, type_k=cache, type_v=cache, verbose=False
    )

    def logits(ids):
        llama.reset()
        llama.eval(ids)
        return torch.from_numpy(np.array(llama.scores[: len(ids)]))

    def write(prompt):
        llama.reset()
        found: list[int] = []
        for token in llama.generate(ours.encode(prompt), temp=0.0, top_k=1, repeat_penalty=1.0):
            if token == ours.trained.eos_id or len(found) == WRITTEN:
                break
            found.append(token)
        return found

    checks = compare(ours, logits, lambda text: llama.tokenize(text.encode(), add_bos=True, special=False), write)
    llama.close()
    return checks


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/demo"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    ours = Ours(options.run / "train", ["en", "ja"] if options.quick else ["ar", "de", "en", "hi", "ja", "ru", "zh"])
    rows: dict[str, dict[str, float | bool]] = {}
    with tempfile.TemporaryDirectory() as folder:
        rows["hf f32"] = check_hf(ours, Path(folder))
        if importlib.util.find_spec("llama_cpp"):
            rows |= {f"gguf {dtype}": check_gguf(ours, Path(folder), dtype) for dtype in TYPES}
        else:
            print("llama-cpp-python is not installed: GGUF is not checked")
    print(f"{options.run}, step {ours.trained.step}: {'Qwen3' if ours.trained.shape.qk_norm else 'Llama'}")
    print(f"{'':10}  {'logits, max':>11}  {'ids':>5}  {'greedy':>6}  {'perplexity':>10}")
    for name, row in rows.items():
        print(f"{name:10}  {row['logits']:11.1e}  {row['ids']!s:>5}  {row['greedy']!s:>6}  {row['perplexity']:10.4%}")
    bars = {"hf_logits": {"value": rows["hf f32"]["logits"], "bar": 1e-4, "holds": rows["hf f32"]["logits"] <= 1e-4}}
    for name, row in rows.items():
        bars[f"{name} ids"] = {"value": row["ids"], "bar": True, "holds": bool(row["ids"])}
        if name in ("hf f32", "gguf f32", "gguf f16"):
            bars[f"{name} greedy"] = {"value": row["greedy"], "bar": True, "holds": bool(row["greedy"])}
    if "gguf q8_0" in rows:
        value = rows["gguf q8_0"]["perplexity"]
        bars["gguf q8_0 perplexity"] = {"value": value, "bar": 0.005, "holds": value <= 0.005}
    print(json.dumps({"name": "export_parity", "bars": bars}))
    return 0 if all(bar["holds"] for bar in bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
