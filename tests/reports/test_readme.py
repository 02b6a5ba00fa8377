"""What README.md says of results is what the records and the simulation say."""

import re
from pathlib import Path

import pytest

from analysis.agenda import AGENDA
from analysis.simulation import committed
from records.store import Store
from reports.readme import filled
from reports.render import Report, render

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report(made, tmp_path_factory) -> Report:
    root = tmp_path_factory.mktemp("results")
    made.make_results(root, made.realistic(6), looks=[6])
    return render(Store(root))


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_every_text_has_its_place_in_the_readme(report):
    readme = (ROOT / "README.md").read_text()
    assert re.findall(r"<!-- results: ([\w-]+) -->", readme) == [
        "picture", "claims", "errors", "recorded",
    ]  # fmt: skip
    assert readme.count("<!-- end of results -->") == 4
    assert set(report.readme) == {"picture", "claims", "errors", "recorded"}


def test_texts_are_filled_in_and_nothing_else_is_touched(report):
    readme = "a\n<!-- results: claims -->\nold\n<!-- end of results -->\nb\n"
    made = filled(readme, report.readme)
    assert made.startswith("a\n<!-- results: claims -->\n| claim |") and made.endswith("-->\nb\n")
    assert filled(made, report.readme) == made
    with pytest.raises(ValueError, match="README.md names the results 'clams'"):
        filled(readme.replace("claims", "clams"), report.readme)


def test_the_claims_have_verdict_number_and_what_would_judge_them(report):
    lines = report.readme["claims"].splitlines()
    assert len(lines) == 2 + len(AGENDA)
    [d1] = [line for line in lines if line.startswith("| D1 |")]
    assert "| in words | depth, reference, fashion_mnist: 6 blocks; from gated-1 to" in d1
    assert d1.endswith(
        "*What it does not show:* All depths have one rate and one length of "
        "training; deeper chains may want others. |"
    )
    [c1] = [line for line in lines if line.startswith("| C1 |")]
    assert c1.endswith("| not run | `python -m ablations run scattering --preset reference` |")


def test_the_picture_says_what_it_is_of(report):
    text = one_line(report.readme["picture"])
    assert "(reports/figures/depth.reference.fashion_mnist.costs.png)" in text
    assert "`depth` on fashion_mnist, preset reference, 7 arms, 6 blocks, 42 trials." in text
    assert "figures/depth.reference.fashion_mnist.costs.png" in report.files


def test_few_blocks_are_said_to_decide_nothing(made, tmp_path):
    made.make_results(tmp_path, {"plain": [0.8, 0.7], "gated-1": [0.9, 0.8]})
    text = one_line(render(Store(tmp_path)).readme["picture"])
    assert "2 blocks cannot decide anything." in text


def test_errors_are_the_worst_of_the_simulated_ones(report):
    rates = committed().rows.values()
    text = one_line(report.readme["errors"])
    assert f"hold in {100 * min(r.coverage for r in rates):.1f} % or more" in text
    worst = max(max(r.one_side, r.either_side) for r in rates)
    assert f"called equivalent in {100 * worst:.1f} % or fewer" in text
    assert f"in {len(rates)} cases" in text
