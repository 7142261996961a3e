"""Exported models against the model itself: every format, every check, on a run's checkpoint.

    python benchmarks/export_parity.py [RUN] [--quick]

Exports RUN (default runs/demo) as a Hugging Face folder and as GGUF in every type, loads them with `transformers` and
llama.cpp (llama-cpp-python; rows are left out where it is not installed), and compares with our own model: logits
over up to 1,000 tokens in several languages, token ids of data/prose in 21 languages, greedy continuations,
perplexity. `--quick` takes fewer texts.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from bars import ROOT, Bar, at_least, at_most, finish, options, show_machine, table

from trainer.export.gguf import TYPES, export_gguf
from trainer.export.hf import export_hf
from trainer.generate import Sampling, stream_tokens
from trainer.trained import load_model, load_trained

PROSE = {path.stem: path.read_text("utf-8") for path in sorted((ROOT / "data/prose").glob("*.txt"))}
PROMPTS = ("This function returns", "Die Stadt", "The module provides", "1999 ")
WRITTEN = 32


class Ours:
    """The model, its token ids of the texts, its logits and its greedy continuations."""

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
        for row, token, _ in stream_tokens(self.model, prompts, greedy, self.trained.special.eos):
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

    exported = export_hf(ours.trained, folder / "hf")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(exported).eval(), AutoTokenizer.from_pretrained(exported)

    @torch.no_grad()
    def logits(ids):
        return model(torch.tensor([ids])).logits[0]

    def write(prompt):
        inputs = tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=WRITTEN, do_sample=False, temperature=None)[0]
        written = output[inputs.input_ids.shape[1] :].tolist()
        return written[:-1] if written[-1] == ours.trained.special.end else written

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
        written: list[int] = []
        for token in llama.generate(ours.encode(prompt), temp=0.0, top_k=1, repeat_penalty=1.0):
            if token == ours.trained.special.end or len(written) == WRITTEN:
                break
            written.append(token)
        return written

    checks = compare(ours, logits, lambda text: llama.tokenize(text.encode(), add_bos=True, special=False), write)
    llama.close()
    return checks


def main() -> int:
    parser = options(__doc__, "fewer texts")
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/demo"))
    arguments = parser.parse_args()
    show_machine("torch", "transformers", "llama-cpp-python")
    ours = Ours(
        arguments.run / "train", ["en", "ja"] if arguments.quick else ["ar", "de", "en", "hi", "ja", "ru", "zh"]
    )
    rows: dict[str, dict[str, float | bool]] = {}
    with tempfile.TemporaryDirectory() as folder:
        rows["hf f32"] = check_hf(ours, Path(folder))
        if importlib.util.find_spec("llama_cpp"):
            rows |= {f"gguf {dtype}": check_gguf(ours, Path(folder), dtype) for dtype in TYPES}
        else:
            print("llama-cpp-python is not installed: GGUF is not checked")
    print(f"{arguments.run}, step {ours.trained.step}: {'Qwen3' if ours.trained.shape.qk_norm else 'Llama'}")
    row = table("", {"logits, max": ".1e", "ids": "", "greedy": "", "perplexity": ".4%"})
    for name, checks in rows.items():
        row(name, checks["logits"], str(checks["ids"]), str(checks["greedy"]), checks["perplexity"])
    bars: dict[str, Bar] = {"hf_logits": at_most(rows["hf f32"]["logits"], 1e-4)}
    for name, checks in rows.items():
        bars[f"{name} ids"] = at_least(checks["ids"], 1)
        if name in ("hf f32", "gguf f32", "gguf f16"):
            bars[f"{name} greedy"] = at_least(checks["greedy"], 1)
    if "gguf q8_0" in rows:
        bars["gguf q8_0 perplexity"] = at_most(rows["gguf q8_0"]["perplexity"], 0.005)
    return finish("export_parity", bars)


if __name__ == "__main__":
    sys.exit(main())
