"""Losses of documents: those of anomalous steps, and with `record_losses` what is never learnt and what is by heart.

A document's loss depends on when it was seen: a model that has learnt more finds everything easier. So losses are
compared with the median of their time, a fiftieth of the run. A document's excess is that of its last epoch, the mean
over its pieces. From a sample of the rows where there are many (`read_sample`).
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from cli.contents import read_sample, select_rows
from cli.report.page import Block, Table, sampled
from cli.terminal import clean
from common.files import read_json
from common.runfolder import ACCOUNT, LOSSES, Row, RunFolder

ANOMALIES, DOCUMENTS = 10, 10  # shown at most
TIMES = 50  # parts of the run within which losses are compared
LEAST = 32  # tokens of a document that is listed
_NAMED = ["address", "source", "language"]


def accounts(run: RunFolder) -> list[Path]:
    """The accounts of anomalous steps, by step."""
    return sorted(run.trained.glob(ACCOUNT.partition("{")[0] + "*"))


def anomalous_documents(run: RunFolder) -> list[Block]:
    """For each anomalous step, its most unusual documents."""
    blocks: list[Block] = []
    for path in accounts(run)[:ANOMALIES]:
        told = read_json(path)
        rows: list[list[Any]] = []
        for row in told["documents"][:DOCUMENTS]:
            rows.append([row["above"], row["loss"], row["targets"], clean(row["excerpt"] or "", 120)])
            rows[-1] += [row["url"] or row["id"], row["source"] or row["stream"], row["language"]]
        columns = ["above the median", "loss", "tokens", "begins with", *_NAMED]
        blocks.append(Table(f"Documents of step {told['step']:,}", columns, rows, note=clean(told["reason"], 300)))
    return blocks


def learnt_documents(run: RunFolder) -> list[Block]:
    """Loss by source and epoch; the documents that stay hardest, and those that are known by heart."""
    folder = run.trained / LOSSES
    if not any(folder.glob("*.parquet")):
        return []
    columns = ["step", "stream", "document", "epoch", "targets", "loss"]
    rows = read_sample(folder, columns)
    step, epoch, targets, loss = (rows.table[name].to_numpy() for name in ("step", "epoch", "targets", "loss"))
    streams, documents = rows.column("stream"), rows.column("document")
    excess = loss - _median_of_its_time(step, loss)
    note = sampled(rows.complete)
    by_source: list[list[Any]] = []
    for name in sorted(set(streams)):
        mine = np.array([stream == name for stream in streams])
        for number in np.unique(epoch[mine]).tolist():
            here = mine & (epoch == number)
            share = targets[here] / targets[here].sum()
            by_source.append([name, number + 1, int(targets[here].sum()), float(loss[here] @ share)])
            by_source[-1].append(float(excess[here] @ share))
    title = ["stream", "epoch", "tokens", "loss", "above the median of its time"]
    blocks: list[Block] = [Table("Loss by stream and epoch", title, by_source, note)]
    scores = _last_epochs(documents, epoch, targets, loss, excess)
    order = sorted(scores, key=lambda document: scores[document][0])
    named = _names(run, {*order[:DOCUMENTS], *order[-DOCUMENTS:]})
    for title_, chosen in (("Never learnt", order[: -DOCUMENTS - 1 : -1]), ("Learnt by heart", order[:DOCUMENTS])):
        listed = [[*scores[each], *named.get(each, [each, None, None])] for each in chosen]
        blocks.append(Table(title_, ["above the median of its time", "loss", "epoch", "tokens", *_NAMED], listed, note))
    return blocks


def _median_of_its_time(step: Any, loss: Any) -> Any:
    part = step * TIMES // (int(step.max()) + 1)
    medians = np.zeros(TIMES)
    for number in np.unique(part).tolist():
        medians[number] = np.median(loss[part == number])
    return medians[part]


def _last_epochs(documents: list[str | None], epoch: Any, targets: Any, loss: Any, excess: Any) -> dict[str, list[Any]]:
    """By document: [excess, loss, epoch, tokens] of the last epoch in which it was seen, over its pieces."""
    found: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, document in enumerate(documents):
        if document is not None:
            found[document][int(epoch[row])].append(row)
    scores: dict[str, list[Any]] = {}
    for document, epochs in found.items():
        last = max(epochs)
        rows = np.array(epochs[last])
        count = int(targets[rows].sum())
        if count >= LEAST:
            share = targets[rows] / count
            scores[document] = [float(excess[rows] @ share), float(loss[rows] @ share), last + 1, count]
    return scores


def _names(run: RunFolder, ids: set[str]) -> dict[str, list[Any]]:
    """Address, source and language of documents, where the shards have a table of them."""
    if not run.documents.is_file():
        return {}
    rows: list[Row] = select_rows(run.documents, "id", ids, ["id", "url", "source", "language"])
    return {row["id"]: [row["url"] or row["id"], row["source"], row["language"]] for row in rows}
