"""The claims as a reader sees them: each is there, once, with what is known."""

import pytest

from analysis.frames import study_frames
from records.claim import Claim, Contrast
from records.store import Store
from reports.claims import claim_views, summary_line


def claim(name: str, **changes) -> Claim:
    fields = {
        "name": name,
        "wording": "it is better",
        "direction": "greater",
        "contrasts": [Contrast(arm="gated-2", against="plain")],
        "margin": 0.003,
    }
    return Claim(**{**fields, **changes})


def views(tmp_path, plan):
    found = claim_views({"stem": study_frames(plan, Store(tmp_path))}, {})
    return {view.name: view for view in found}


def test_all_claims_are_listed_with_how_to_get_data(made, tmp_path):
    plan = made.make_results(tmp_path, made.realistic(2), claims=[claim("C5"), claim("mine")])
    found = views(tmp_path, plan)
    assert list(found) == ["C1", "C2", "C3", "C4", "C5", "C6", "D1", "D2", "mine"]
    assert found["C1"].judged == ()
    assert found["C1"].command == "python -m ablations run scattering --preset reference"
    assert found["C3"].command.startswith("python -m benchmark")
    [judged] = found["C5"].judged
    assert judged.word == "no verdict" and judged.short.startswith(
        "2 of 10 blocks (4 of 20 trials)"
    )


def test_only_blocks_that_the_look_needs_are_counted(made, tmp_path):
    plan = made.make_plan(("plain", "gated-2"), claims=[claim("C5")])
    store = Store(tmp_path)
    for label in plan.arms:
        for block in range(1, 13):  # block 0 is not there
            store.publish(made.make_record(plan, label, block, 0.8))
    assert views(tmp_path, plan)["C5"].judged[0].short.startswith("9 of 10 blocks (18 of 20")


@pytest.mark.parametrize(
    ("changes", "word", "tone"),
    [
        ({}, "supported", "yes"),
        ({"direction": "less"}, "contradicted", "no"),
        ({"margin": 0.1, "contrasts": [Contrast(arm="linear-2", against="plain")]}, None, None),
        ({"direction": "trend"}, "in words", "same"),
        ({"combine": "parts"}, "in parts", "open"),
    ],
)
def test_a_verdict_has_its_word_its_tone_and_its_number(changes, word, tone, made, tmp_path):
    plan = made.make_results(tmp_path, made.realistic(10), claims=[claim("C5", **changes)])
    found = views(tmp_path, plan)
    [judged] = found["C5"].judged
    assert judged.word == (word or judged.word) and judged.tone == (tone or judged.tone)
    assert judged.sign and " points (" in judged.short and judged.table.rows
    assert judged.declared.startswith("Declared before the run: 1 contrast in test accuracy")
    assert summary_line(list(found.values())).startswith("1 of 8 claims have a verdict. C5: ")
