"""Byte-level BPE: train one, load any `tokenizer.json`, encode batches to numpy arrays."""

from pipeline.tokenizer.encoder import EOS, Encoder, load
from pipeline.tokenizer.train import train

__all__ = ["EOS", "Encoder", "load", "train"]
