"""Held-out scores during a training: loss, bits per byte, in-context learning; per stream, per language, over all.

The definitions are those of `trainer.score`. Languages are those of documents.parquet. The first
`batches * micro_batch` samples of each stream are used, always the same ones; costs forward passes only.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from trainer.model import Transformer
from trainer.score import Sums, Tally, score, stream_batches
from trainer.shards import Shards

Scores = dict[str, Any]


def evaluate(
    model: Transformer, shards: Shards, *, micro_batch: int, batches: int, document_mask: bool
) -> Scores | None:
    """Scores {"loss": nats per token, "bits_per_byte", "in_context", "tokens"}, over all and, in the same form, under
    "streams" and "languages" by name; "languages" without "in_context".

    `bits_per_byte` is absent without token_bytes.npy, `in_context` where no document is long enough (550 tokens),
    `languages` without documents.parquet. None where nothing is held out.
    """
    if not shards.validation:
        return None
    known = _languages(shards)
    overall = Tally(model.config.context)
    streams: Scores = {}
    languages: dict[str, Sums] = {}
    for number, stream in enumerate(shards.validation):
        limit = batches * micro_batch
        tally = score(model, stream_batches(shards, number, masked=document_mask, micro_batch=micro_batch, limit=limit))
        streams[stream.name] = _row(tally)
        for document, sums in tally.documents.items():
            if (language := known.get((stream.name, document))) is not None:
                total = languages.setdefault(language, Sums())
                total += sums
        overall += tally
    scores = _row(overall) | {"streams": streams}
    if languages:
        scores["languages"] = {name: sums.scores() for name, sums in sorted(languages.items()) if sums.tokens}
    return scores


def _row(tally: Tally) -> Scores:
    gain = tally.gain()
    return tally.total().scores() | ({} if gain is None else {"in_context": gain})


def _languages(shards: Shards) -> dict[tuple[str, str], str]:
    """Language of each held-out document, by stream and id."""
    path = shards.folder / "documents.parquet"
    if not path.is_file() or importlib.util.find_spec("pyarrow") is None:  # the trainer alone does without it
        return {}
    from pyarrow import parquet

    columns = ["id", "stream", "language"]
    rows = parquet.read_table(path, columns=columns, filters=[("split", "=", "validation")]).to_pylist()
    return {(row["stream"], row["id"]): row["language"] or "unknown" for row in rows}
