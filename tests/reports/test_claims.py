"""The claims as a reader sees them: each is there, once, with what is known."""

import pytest

from analysis.agenda import all_verdicts
from analysis.frames import study_frames
from analysis.verdicts import verdicts
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
    frames = study_frames(plan, Store(tmp_path))
    found = claim_views(all_verdicts(verdicts(frames), {}), {"stem": frames})
    return {view.name: view for view in found}


def test_all_claims_are_listed_with_how_to_get_data(made, tmp_path):
    plan = made.make_results(tmp_path, made.realistic(2), claims=[claim("C5"), claim("mine")])
    found = views(tmp_path, plan)
    assert list(found) == [
        "C1",
        "C1.own",
        "C2",
        "C3",
        "C4",
        "C5",
        "C6",
        "D1",
        "D2",
        "D3",
        "D4",
        "mine",
    ]
    assert found["C1"].judged == ()
    assert found["C1"].command == "python -m ablations run scattering --preset reference"
    assert found["C3"].command.startswith("python -m benchmark")
    [judged] = found["C5"].judged
    assert judged.word == "no verdict" and judged.short.startswith(
        "2 of 10 blocks (4 of 20 trials of the 2 arms that it compares)"
    )


def test_only_blocks_that_the_look_needs_are_counted(made, tmp_path):
    plan = made.make_plan(("plain", "gated-2"), claims=[claim("C5")])
    store = Store(tmp_path)
    for label in plan.arms:
        for block in range(1, 13):  # block 0 is not there
            store.publish(made.make_record(plan, label, block, 0.8))
    assert views(tmp_path, plan)["C5"].judged[0].short.startswith("9 of 10 blocks (18 of 20")


def test_a_claim_that_leads_to_a_target_counts_the_blocks_of_the_baseline_too(made, tmp_path):
    """No contrast names plain; without its two missing blocks there is no target."""
    late = claim(
        "C5",
        measure="epochs_to_target",
        target=0.9,
        direction="less",
        contrasts=[Contrast(arm="gated-2", against="gated-1")],
    )
    accuracies = {"plain": [0.8] * 3, "gated-1": [0.8] * 5, "gated-2": [0.9] * 5}
    plan = made.make_results(tmp_path, accuracies, claims=[late])
    assert views(tmp_path, plan)["C5"].judged[0].short.startswith("3 of 10 blocks (13 of 30")


@pytest.mark.parametrize(
    ("changes", "word", "tone"),
    [
        ({}, "supported", "yes"),
        ({"direction": "less"}, "contradicted", "no"),
        ({"contrasts": [Contrast(arm="linear-2", against="plain")]}, "contradicted", "no"),
        ({"contrasts": [Contrast(arm="gated-1", against="plain")]}, "equivalent", "same"),
        ({"direction": "trend"}, "in words", "same"),
        ({"combine": "parts"}, "in parts", "open"),
    ],
)
def test_a_verdict_has_its_word_its_tone_and_its_number(changes, word, tone, made, tmp_path):
    values = made.realistic(10)
    if word == "equivalent":  # a tenth of a point to either side of plain, in turn
        values["gated-1"] = [x + 0.001 * (-1) ** i for i, x in enumerate(values["plain"])]
    plan = made.make_results(tmp_path, values, claims=[claim("C5", **changes)])
    found = views(tmp_path, plan)
    [judged] = found["C5"].judged
    assert (judged.word, judged.tone) == (word, tone)
    assert judged.sign and judged.table.rows and judged.noise.rows
    assert [name for name, _ in judged.tables] == ["stem.claim-C5", "stem.claim-C5.noise"]
    assert judged.short.startswith("10 blocks; ") and " points (" in judged.short
    assert judged.declared.startswith("Declared before the run: 1 contrast in test accuracy")
    assert summary_line(list(found.values())).startswith(f"1 of 11 claims are answered. C5: {word}")


def test_studies_that_do_not_agree_are_not_made_one(made, tmp_path):
    """What says most would have hidden that the other says the opposite."""
    studies = {}
    for name, direction in (("one", "greater"), ("other", "less")):
        claims = [claim("C5", direction=direction)]
        plan = made.make_results(tmp_path / name, made.realistic(10), claims=claims, name=name)
        studies[name] = study_frames(plan, Store(tmp_path / name))
    entries = all_verdicts([v for frames in studies.values() for v in verdicts(frames)], {})
    line = summary_line(claim_views(entries, studies))
    assert line.startswith("1 of 11 claims are answered. C5: supported and contradicted; ")


def test_of_two_data_sets_the_one_that_decides_is_not_chosen(made, tmp_path):
    """5 % is of each: the better of two alone would err in 10 %."""
    studies = {}
    for name, shift in (("fashion_mnist", 0.0), ("digits", 0.02)):
        values = made.realistic(10)
        values["gated-2"] = [x - shift for x in values["gated-2"]]
        whole = made.make_plan(tuple(values))
        arms = {
            label: {**arm, "data": {**arm["data"], "name": name}}
            for label, arm in whole.arms.items()
        }
        root = tmp_path / name
        plan = made.make_results(root, values, claims=[claim("C5")], arms=arms)
        studies[name] = study_frames(plan, Store(root))
    said = [v for frames in studies.values() for v in verdicts(frames)]
    assert [(v.dataset, v.word) for v in said] == [
        ("fashion_mnist", "supported"),
        ("digits", "inconclusive"),
    ]
    assert "C5 is inconclusive on digits, at 10 blocks: " in said[1].sentence
    line = summary_line(claim_views(all_verdicts(said, {}), studies))
    assert "C5: supported (fashion_mnist) and inconclusive (digits); " in line


def test_several_contrasts_are_counted(made, tmp_path):
    contrasts = [Contrast(arm="gated-2", against=x) for x in ("plain", "gated-1", "gated-3")]
    plan = made.make_results(
        tmp_path, made.realistic(10), claims=[claim("C6", contrasts=contrasts)]
    )
    [judged] = views(tmp_path, plan)["C6"].judged
    assert judged.short.startswith("10 blocks; 2 supported, 1 inconclusive of 3; differences ")
    order = claim("D2", contrasts=contrasts, direction="different")
    plan = made.make_results(tmp_path / "d", made.realistic(10), claims=[order], name="d")
    [judged] = views(tmp_path / "d", plan)["D2"].judged
    assert judged.short == (
        "10 blocks; greater: gated-2 than plain, gated-2 than gated-1; 1 of 3 not told apart"
    )
