"""The worked example of docs/statistics.md is what the code computes, and its words agree."""

import doctest
from pathlib import Path

import pytest
from scipy import stats

from analysis.quantiles import simultaneous

FAMILY = ((-1.0, 1.0, 0.0), (-1.0, 0.0, 1.0))
DOCS = Path(__file__).parents[2] / "docs" / "statistics.md"


def test_every_fragment_is_run():
    found = doctest.testfile(str(DOCS), module_relative=False)
    assert found.attempted > 20 and found.failed == 0


def test_what_is_said_by_hand_is_so():
    """The numbers of the text that no fragment computes, from scipy."""
    spread, pooled = 0.8**0.5 / 6**0.5, (2 * 0.8 / 6) ** 0.5
    by_hand = {
        "2.571 x 0.894 / sqrt(6) = 0.94": stats.t.ppf(0.975, 5) * spread,
        "3.03 x 0.894 / sqrt(6) = 1.11": simultaneous(FAMILY, 0.95, 5) * spread,
        "2.57 sqrt(2 x 0.8 / 6) = 1.33": simultaneous(FAMILY, 0.95, 10) * pooled,
        "2.36 sqrt(2 x 0.8 / 6) = 1.22": stats.t.ppf(1 - 0.04 / 2, 10) * pooled,
        "1.67 to 4.33, p = 0.031": 3 - simultaneous(FAMILY, 0.95, 10) * pooled,
        "0.54 to 1": stats.binomtest(6, 6).proportion_ci(0.95).low,
    }
    text = DOCS.read_text()
    for words, value in by_hand.items():
        number = words.rpartition(" = ")[2] if "sqrt" in words else words
        assert words in text and float(number.split()[0]) == pytest.approx(value, abs=0.005), words
