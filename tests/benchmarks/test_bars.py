"""The last line of a benchmark: its bars, its exit code, and values that are no measurement."""

import json
import math

import pytest

from benchmarks.bars import at_least, at_most, finish, processor, table


def test_bars_decide_the_exit_code(capsys):
    assert finish("x", {"speed": at_least(2.00004, 2), "memory": at_most(3, 4)}, pages=7) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "x",
        "pages": 7,
        "bars": {
            "speed": {"value": 2.0, "bar": 2, "holds": True},
            "memory": {"value": 3.0, "bar": 4, "holds": True},
        },
    }
    assert finish("x", {"speed": at_least(1.99999, 2)}) == 1  # before rounding


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_no_result(capsys, value):
    assert finish("x", {"speed": at_least(value, 2)}) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "x: `speed` is" in printed.err


def test_columns_line_up(capsys):
    row = table("reader", {"records/s": ".1f", "note": ""}, width=8)
    row("ours", 12.34, "quick")
    assert capsys.readouterr().out == "reader    records/s       note\nours           12.3      quick\n"
    assert "cores" in processor()
