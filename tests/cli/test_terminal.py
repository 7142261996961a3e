"""What the views draw: numbers for people, tables, bars on a terminal and lines in a pipe."""

import io

import pytest
from rich.console import Console

from cli.terminal import (
    CorpusView,
    TrainingView,
    clean,
    duration,
    funnel_table,
    megabytes,
    messages,
    printable,
    remaining,
    truth_table,
)
from common.observe import Progress

STATS = {
    "extract": {
        "documents_in": 1000,
        "documents_kept": 800,
        "bytes_kept": 5_000_000,
        "dropped": {"empty_text": 150, "media_type": 30, "too_large": 15, "http_status": 5},
    },
    "tokenize": {
        "documents_in": 800,
        "documents_kept": 800,
        "bytes_kept": 5_000_000,
        "dropped": {},
        "tokens": 1_234_567,
    },
}


def console(*, terminal, width=120):
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None, highlight=False)


def drawn(renderable):
    screen = console(terminal=False)
    screen.print(renderable)
    return [line.split() for line in screen.file.getvalue().splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (7830, "2 h 10 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_sizes_and_time_left():
    assert [megabytes(size) for size in (1_500, 2_340_000, 1_234_000_000)] == ["0.002 MB", "2.3 MB", "1,234 MB"]
    assert remaining(10, 0.25) == "30 s left"
    assert remaining(10, 0.0) == remaining(10, 1.0) == ""


def test_other_peoples_text_cannot_drive_the_terminal():
    assert clean("a\x1b[31m \n b\x00\u200e") == "a[31m b"
    assert clean("abcdef", 4) == "abc…"
    assert printable("one\n\ttwo\x07\x9b") == "one\n\ttwo"


def test_funnel_adds_up_and_names_the_rules_that_drop_most():
    rows = drawn(funnel_table(STATS, {"extract": 12.0}))
    assert rows[2] == [
        *("extract", "1,000", "800", "200", "80.0", "5.0", "MB", "12", "s"),
        *("empty_text", "150,", "media_type", "30,", "too_large", "15"),
    ]
    assert rows[3] == ["tokenize", "800", "800", "0", "100.0", "5.0", "MB", "unchanged"]
    assert rows[4] == ["all", "1,000", "800", "200", "80.0", "5.0", "MB", "12", "s", "1,234,567", "tokens"]


def test_truth_table():
    rows = drawn(truth_table({"dedup": {"precision": 0.5, "recall": 1.0, "cases": 42.0}}))
    assert rows[-1] == ["dedup", "0.500", "1.000", "42"]


def test_a_pipe_gets_one_line_at_the_start_and_one_at_the_end():
    screen = console(terminal=False, width=20)
    with CorpusView(screen) as view:
        view.stage_started("extract", 3)
        view.stage_progress("extract", Progress(500, 1_000_000, 0.5, 2.0))
        view.stage_finished("extract", STATS["extract"], 4.0)
        view.stage_skipped("tokenize", STATS["tokenize"])
    assert screen.file.getvalue().splitlines() == [
        "extract: started (3 tasks)",
        "extract: 800 of 1,000 documents kept (80.0 %), 5.0 MB, 4.0 s",
        "tokenize: nothing changed, 800 of 800 documents kept (100.0 %)",
    ]
    assert list(view.stats) == ["extract", "tokenize"]
    assert view.seconds == {"extract": 4.0}


def test_a_terminal_gets_rates_of_the_pass_and_no_bar_is_left_after_an_error():
    screen = console(terminal=True)

    def stop_half_way():
        with CorpusView(screen) as view:
            view.stage_started("dedup", 1)
            view.stage_progress("dedup", Progress(500, 1_000_000, 0.5, 2.0))
            view._bars.refresh()
            first = screen.file.getvalue()
            view.stage_progress("dedup", Progress(100, 1_000_000, 0.2, 11.0))  # a second pass began at 11 s
            view.stage_progress("dedup", Progress(300, 3_000_000, 0.6, 12.0))
            view._bars.refresh()
            assert "250 documents/s  0.5 MB/s  2.0 s left" in first
            assert "300 documents/s  3.0 MB/s  0.7 s left" in screen.file.getvalue()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    screen.print("the next line")
    assert screen.file.getvalue().endswith("the next line\n")
    assert "\x1b[?25h" in screen.file.getvalue()  # the cursor is visible again


def test_training_in_a_pipe_shows_loss_rate_and_time_left():
    screen = console(terminal=False)
    with TrainingView(screen) as view:
        view.training_started(
            {
                "parameters": 7_300_000,
                "steps": 300,
                "step": 100,
                "step_tokens": 2048,
                "optimizer": "muon",
                "precision": "fp32",
                "device": "cpu",
                "streams": {"train": {"web": {"samples": 9, "tokens": 900, "weight": 1.0}}, "validation": {}},
            }
        )
        view.resumed(100)
        view.step({"step": 200, "loss": 4.5, "lr": 3e-3, "tokens_per_second": 2048.0})
        view.evaluated({"step": 200, "loss": 5.25, "bits_per_byte": 1.5})
        view.evaluated({"step": 300, "loss": 5.25})
    assert screen.file.getvalue().splitlines() == [
        "train: 7.3 M parameters, 300 steps of 2,048 tokens, muon, fp32 on cpu",
        "train: trains on web (9 samples, 900 tokens)",
        "train: holds out nothing",
        "train: resumes after step 100",
        "train: step 200 of 300  loss 4.500  lr 3.0e-03  2,048 tokens/s  1 min 40 s left",
        "train: step 200  validation loss 5.250, 1.500 bits per byte",
        "train: step 300  validation loss 5.250",
    ]


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not messages().no_color
    monkeypatch.setenv("NO_COLOR", "1")
    assert messages().no_color
