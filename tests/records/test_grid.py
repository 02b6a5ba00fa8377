"""Grids: every combination once, or an error that says what is wrong."""

import pytest

from records.grid import grid


def test_a_grid_of_three_factors():
    factors = {
        "a": {"0": ["w", "x", "y", "z"], "1": ["s", "t", "u", "v"]},
        "b": {"0": ["w", "x", "s", "t"], "1": ["y", "z", "u", "v"]},
        "c": {"0": ["w", "y", "s", "u"], "1": ["x", "z", "t", "v"]},
    }
    cells = grid(factors)
    assert len(cells) == 8 and cells["1", "0", "1"] == "t"
    assert grid({}) == {}


@pytest.mark.parametrize(
    ("factors", "complaint"),
    [
        ({"a": {"0": ["x"]}}, "factor 'a' has 1 levels; allowed: two or more"),
        ({"a": {"0": ["x"], "1": []}}, "factors: 1 has the arms"),
        ({"a": {"0": ["x", "y"], "1": ["z"]}}, r"factors: 0 has the arms \['x', 'y'\]"),
        (
            {"a": {"0": ["x", "y"], "1": ["z", "w"]}, "b": {"0": ["x", "z"], "1": ["y", "q", "w"]}},
            "factor 'b': level '1' lists q, w, y, the grid has w, y",
        ),
    ],
)
def test_what_is_no_grid_is_refused(factors, complaint):
    with pytest.raises(ValueError, match=complaint):
        grid(factors)
