"""The losses of a run's documents: of an anomalous step always, of every step with `record_losses`.

    blame/step-NNNNNNNN.json       what `pretrain blame` tells of an anomalous step (trainer.pieces.account)
    losses/FIRST-LAST.parquet      a row a piece and epoch: step, and the fields of trainer.pieces.PieceLoss

The loss of each token leaves the forward pass anyway. The recorder keeps those of the steps since the last logged row
on the device; a thread turns them into rows while later steps compute. Rows are written with each checkpoint, and a run
that resumes drops those after it, so no step is missing or there twice. Costs: 4 bytes a token of `log_every` steps,
and one more read of their samples in the thread.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from common.errors import TrainerError
from common.files import atomic_file, write_json
from common.runfolder import ACCOUNT, LOSSES, Row
from trainer.dataset import Array
from trainer.parallel import World
from trainer.pieces import PieceLoss, account, piece_losses
from trainer.sampler import Sampler
from trainer.shards import Shards

Recorded = tuple[int, PieceLoss]  # step and piece


class Reached(Exception):
    """The step that was asked for is accounted for."""


class Recorder:
    """Keeps the losses of the tokens of recent steps; writes those of documents."""

    def __init__(self, output: Path, shards: Shards, sampler: Sampler, world: World, every_step: bool) -> None:
        """every_step: `train.record_losses`. Raises TrainerError where a library is missing."""
        if every_step and importlib.util.find_spec("pyarrow") is None:
            raise TrainerError("record_losses needs the library `pyarrow`, which writes parquet: pip install pyarrow")
        self.output, self.shards, self.sampler, self.world = output, shards, sampler, world
        self.every_step = every_step
        self.until: int | None = None  # raise Reached at this step, before its update, with its account
        self.recent: list[tuple[int, list[Tensor]]] = []  # since the last logged row
        self.reading: list[Future[list[Recorded]]] = []  # since the last checkpoint
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="record-losses")

    def resume(self, step: int) -> None:
        """Drop the rows after `step`, which come again."""
        for path in (self.output / LOSSES).glob("*-*.parquet"):
            if int(path.stem.partition("-")[2]) > step:
                path.unlink()

    def add(self, step: int, losses: Sequence[Tensor]) -> None:
        """Keep the losses of a step's micro-batches, each (rows, length)."""
        self.recent.append((step, list(losses)))
        if step == self.until:
            self.accuse(step, "asked for", losses)
            raise Reached

    def accuse(self, step: int, reason: str, losses: Sequence[Tensor]) -> list[Row]:
        """Write the account of an anomalous step; its documents, the most unusual first."""
        here = torch.cat(list(losses))
        rows = torch.zeros((self.world.size, *here.shape), device=here.device)
        rows[self.world.rank] = here
        whole = self.world.total(rows).flatten(0, 1).cpu().numpy()
        pieces = list(piece_losses(self.shards, self.sampler.draws(step - 1), whole))
        told = account(self.shards, step, reason, pieces)
        if self.world.main:
            write_json(self.output / ACCOUNT.format(step), told)
        documents: list[Row] = told["documents"]
        return documents

    def accuse_first(self, reason: str) -> None:
        """Write the account of the recent step at which losses stopped to be numbers.

        Where none of its losses is one, the step before had broken the weights.
        """
        finite = [torch.cat(losses).isfinite() for _, losses in self.recent]
        bad = [self.world.agree(not bool(each.all())) for each in finite]
        number = bad.index(True) if True in bad else len(bad) - 1  # else only the last gradients are not finite
        if number > 0 and bad[number] and not self.world.agree(bool(finite[number].any())):
            number -= 1
        if self.recent:
            step, losses = self.recent[number]
            self.accuse(step, reason, losses)

    def collect(self) -> None:
        """Hand recent losses to the thread, and forget them; call where the device has finished their steps."""
        if self.every_step:
            arrays = [(step, torch.cat(losses).cpu().numpy()) for step, losses in self.recent]
            self.reading.append(self.thread.submit(self._read, arrays))
        self.recent = []

    def write(self) -> None:
        """Write the rows since the last call."""
        if not self.every_step:
            return
        self.collect()
        mine = [row for part in self.reading for row in part.result()]
        self.reading = []
        rows = [row for each in self.world.gather(mine) for row in each]
        rows.sort(key=lambda row: row[0])
        if rows and self.world.main:
            _write_table(self.output / LOSSES / f"{rows[0][0]:08d}-{rows[-1][0]:08d}.parquet", rows)

    def close(self) -> None:
        self.thread.shutdown(cancel_futures=True)

    def _read(self, arrays: list[tuple[int, Array]]) -> list[Recorded]:
        if not arrays:
            return []
        rows: list[Recorded] = []
        first, last = arrays[0][0], arrays[-1][0]
        drawn = self.sampler.draws(first - 1, last - first + 1)  # at once: what numpy costs a call is most of it
        for step, losses in arrays:
            begin, end = (self.sampler.before(each) - self.sampler.before(first - 1) for each in (step - 1, step))
            mine = drawn[begin:end][self.world.rows(end - begin)]
            rows += [(step, piece) for piece in piece_losses(self.shards, mine, losses)]
        return rows


def _write_table(path: Path, rows: list[Recorded]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    types = {"document": pa.string(), "stream": pa.string(), "sample": pa.int64(), "loss": pa.float32()}
    columns = {"step": pa.array([step for step, _ in rows], pa.int32())}
    for field in fields(PieceLoss):
        values = [getattr(piece, field.name) for _, piece in rows]
        columns[field.name] = pa.array(values, types.get(field.name, pa.int32()))
    with atomic_file(path) as file:
        parquet.write_table(pa.table(columns), file, compression="zstd", use_dictionary=["stream"])
