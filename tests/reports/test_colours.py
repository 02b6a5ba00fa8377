"""Colours of the page: contrast as WCAG 2.1 computes it, in light and in dark."""

import re
from itertools import product
from pathlib import Path

import pytest

from analysis.drawing import PALETTE, SOFT
from reports.drawings import light_colours

CSS = (Path(__file__).parents[2] / "reports" / "page.css").read_text()
TEXT = ("ink", "soft", "accent", "care", "yes", "no", "same", "open", "none")
DRAWN = tuple(f"p{index}" for index in range(1, len(PALETTE)))
CURVES = tuple(f"s{index}" for index in range(8))


def schemes() -> dict[str, dict[str, str]]:
    """Colours by name; dark ones are those of light where dark does not say otherwise."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    light, dark = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block)) for block in blocks)
    return {"light": light, "dark": light | dark}


def contrast(one: str, other: str) -> float:
    """``(L1 + 0.05) / (L2 + 0.05)`` of the relative luminances, the lighter above."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_formula_gives_what_is_known():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme):
    colours = schemes()[scheme]
    for text, paper in product((*TEXT, *DRAWN), ("paper", "wash")):
        found = contrast(colours[text], colours[paper])
        assert found >= 4.5, f"{text} on {paper} in {scheme}: {found:.2f}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_curves_and_edges_can_be_seen(scheme):
    colours = schemes()[scheme]
    for drawn in (*CURVES, "edge", "accent"):
        found = contrast(colours[drawn], colours["paper"])
        assert found >= 3, f"{drawn} in {scheme}: {found:.2f}"


def test_drawings_are_given_away_in_the_colours_they_were_drawn_in():
    light = schemes()["light"]
    for name, colour in light_colours().items():
        if colour != SOFT:  # text of the page is a little darker than text of a figure
            assert light[name[2:]] == colour, name
