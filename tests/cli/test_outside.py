"""What lies outside must not end or spoil the work: messages that nobody reads, rows that are no texts, signals."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest

from cli.commands import Messages
from cli.contents import read_texts
from cli.terminal import TrainingView, make_console, score_cells
from common.errors import RecipeError
from trainer.machine import STOP_SIGNALS, stop_signals
from trainer.score import Sums


def test_messages_go_silent_where_nobody_reads_them() -> None:
    for number in ("reader gone", "disk full"):
        read, write = os.pipe() if number == "reader gone" else (None, os.open("/dev/full", os.O_WRONLY))
        if read is not None:
            os.close(read)
        stream = Messages(io.TextIOWrapper(os.fdopen(write, "wb")))
        for _ in range(3):
            assert stream.write("a message\n") == 10
            stream.flush()
        stream.close()


def test_results_that_nobody_reads_raise_and_do_not_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", buffering=1)
    monkeypatch.setattr("sys.stdout", stream)
    with pytest.raises(BrokenPipeError):
        make_console(stderr=False).print("a result")
    os.dup2(os.open(os.devnull, os.O_WRONLY), write)
    stream.close()


@pytest.mark.parametrize(
    "row",
    [
        '{"text": null}', '{"text": 5}', '{"text": ["a"]}', '{"text": "a", "source": 5}', '["text"]', '"text"', "5",
        '{"text": "a", "language": {}, "lang": 3}', '{"source": "a"}', "{", '{"text": "\\ud800"}',
    ],
)  # fmt: skip
def test_a_row_that_is_no_text_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "good"}\n\n' + row + "\n")
    with pytest.raises(RecipeError, match=r"rows.jsonl:3: (expected a JSON object|a lone surrogate)"):
        list(read_texts(tmp_path / "rows.jsonl"))


def test_files_without_texts_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(RecipeError, match=r"empty.jsonl has no documents"):
        list(read_texts(tmp_path / "empty.jsonl"))
    (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(RecipeError, match=r"cut.jsonl.gz is not intact gzip"):
        list(read_texts(tmp_path / "cut.jsonl.gz"))


def test_no_loss_where_nothing_was_scored() -> None:
    assert Sums().scores() == {"tokens": 0}
    assert score_cells({"tokens": 0}) == ("-", "-", "0")
    console = make_console(stderr=True)
    console.file = io.StringIO()
    TrainingView(console).evaluated({"step": 1, "tokens": 0})
    assert "validation loss none" in console.file.getvalue()


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signals_that_stop(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_signals() as received:
        os.kill(os.getpid(), number)
        assert received[0] == number
        os.kill(os.getpid(), signal.SIGHUP)  # a closed terminal sends it twice
        os.kill(os.getpid(), signal.SIGUSR1)
        assert received[0] == number
    assert signal.getsignal(number) == before


def test_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signals() as received:
        os.kill(os.getpid(), signal.SIGHUP)
        assert received == []
    signal.signal(signal.SIGHUP, before)
