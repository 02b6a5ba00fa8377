"""What differences are made of, and what more blocks would find."""

import csv
import io

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from analysis.frames import study_frames
from analysis.noise_tables import contrast_noise, design_table, noise_table, prospect
from analysis.summary import whole_blocks
from records.claim import Claim, Contrast
from records.store import Store


def claim(**changes) -> Claim:
    fields = {
        "name": "C9",
        "wording": "?",
        "direction": "greater",
        "margin": 0.003,
        "contrasts": [
            Contrast(arm="gated-2", against="gated-1"),
            Contrast(arm="gated-2", against="wide-2"),
        ],
    }
    return Claim(**{**fields, **changes})


def numbers(table, contrast):
    arm, _, against = contrast.partition(" - ")
    rows = csv.DictReader(io.StringIO(table.to_csv()))
    return next(row for row in rows if (row["arm"], row["against"]) == (arm, against))


def test_each_arm_is_set_beside_the_baseline(frames_of, made):
    values = made.realistic(8)
    table = noise_table(frames_of(values))
    assert [row["contrast"] for row in table.rows] == [f"{x} - plain" for x in list(values)[1:]]
    found = numbers(table, "linear-2 - plain")
    differences = 100 * np.subtract(values["linear-2"], values["plain"])
    assert float(found["difference"]) == pytest.approx(differences.mean())
    assert float(found["spread"]) == pytest.approx(differences.std(ddof=1))
    wins = int((differences > 0).sum())
    low, high = proportion_confint(wins, 8, method="beta")
    assert (float(found["share_low"]), float(found["share_high"])) == pytest.approx((low, high))
    assert (found["wins"], found["ties"], found["blocks"]) == (str(wins), "0", "8")
    # Hedges' correction, by its usual approximation 1 - 3 / (4 df - 1).
    d = differences.mean() / differences.std(ddof=1) * (1 - 3 / (4 * 7 - 1))
    assert float(found["d"]) == pytest.approx(d, rel=5e-3)


def test_noise_of_seeds_and_test_set_are_apart(frames_of, made):
    """The made outcomes of an arm are right in its first examples, whatever the block."""
    frames = frames_of({"plain": [0.5, 0.6, 0.55], "gated-1": [0.7, 0.8, 0.75]})
    found = numbers(noise_table(frames), "gated-1 - plain")
    # 40 of 200 examples are won in every block; which, moves by the block.
    wins = np.zeros((3, 200))
    for block, (a, b) in enumerate([(100, 140), (120, 160), (110, 150)]):
        wins[block, a:b] = 1
    mean, by_example = wins.mean(), wins.mean(axis=0)
    squares = 3 * ((by_example - mean) ** 2).sum() / 199
    rest = ((wins - by_example) ** 2).sum() / (2 * 199)
    assert float(found["seed_noise"]) == 0, "all blocks gain the same"
    assert float(found["test_set_noise"]) == pytest.approx(
        100 * ((squares - rest) / 3 / 200) ** 0.5
    )
    width = stats.t.ppf(0.975, 2) * ((squares - rest) / 3 / 200) ** 0.5
    ends = [float(found[f"new_data_{end}"]) for end in ("low", "high")]
    assert ends == pytest.approx([100 * (0.2 - width), 100 * (0.2 + width)])


def test_where_outcomes_are_not_known_the_reason_is_told(frames_of, made):
    arms = {x: made.configuration(x, "x") for x in ("plain", "gated-1")}
    for configuration in arms.values():
        configuration["data"] = {"name": "digits"}
    table = noise_table(frames_of({"plain": [0.5, 0.6], "gated-1": [0.6, 0.8]}, arms=arms))
    assert table.rows[0]["seed"] == table.rows[0]["new"] == "-"
    assert any("data.num_test is None" in note for note in table.footnotes)


def test_what_the_declared_blocks_would_find_is_that_of_the_table_of_the_study(frames_of, made):
    frames = frames_of(made.realistic(4), claims=[claim()])
    [ten] = [row for row in design_table(frames).rows if row["blocks"] == "10"]
    [note] = [note for note in design_table(frames).footnotes if note.startswith("C9")]
    said = prospect(frames, claim())
    assert f"10 blocks tell {ten['C9']} points from zero" in said
    assert said.endswith(f"takes {note.split(' take ')[1]}")
    alone = prospect(frames, claim(combine="peers"))
    assert f"10 blocks tell {ten['one comparison']} points" in alone, "peers are beaten one by one"
    assert prospect(frames_of(made.realistic(1), name="one"), claim()) == ""


def test_another_measure_is_told_by_its_own_noise(frames_of, made):
    late = claim(measure="mean_validation_accuracy", margin=0)
    frames = frames_of(made.realistic(4), claims=[late])
    said = prospect(frames, late)
    assert "4 blocks" in said and said.endswith("four times in five.")
    assert said != prospect(frames, claim(margin=0))


def test_two_blocks_have_no_interval_on_new_data(frames_of, made):
    table = noise_table(frames_of(made.realistic(2)))
    assert not {"new", "d"} & {column.key for column in table.columns}


def test_the_correlation_within_blocks_is_told(frames_of, made):
    [note] = [n for n in noise_table(frames_of(made.realistic(8))).footnotes if "Correlation" in n]
    values = np.array([made.realistic(8)[x] for x in made.ARMS]).T
    pairs = np.corrcoef(values.T)[np.triu_indices(7, 1)]
    assert abs(float(note.split(": ")[1].split()[0]) - pairs.mean()) < 0.1, (
        "about the mean of Pearson's"
    )
    assert "all pairs of the 7 arms" in note and "(8 blocks)" in note


def test_an_arm_that_diverged_is_left_out(frames_of, made):
    values = {**made.realistic(6), "gated-1": [0.8, None, 0.8, 0.8, 0.8, 0.8]}
    frames = frames_of(values)
    rows = [row["contrast"] for row in noise_table(frames).rows]
    assert "gated-1 - plain" not in rows and len(rows) == 5
    assert noise_table(frames_of({"plain": [0.8, None], "gated-1": [0.8, 0.9]}, name="b")) is None
    assert noise_table(frames_of({"plain": [0.8], "gated-1": [0.8]}, name="one")) is None


def test_a_claim_has_its_own_contrasts_up_to_its_look(frames_of, made):
    frames = frames_of(made.realistic(8), claims=[claim()])
    table = contrast_noise(frames, claim(), 6)
    assert [row["n"] for row in table.rows] == ["6", "6"]
    assert [row["contrast"] for row in table.rows] == ["gated-2 - gated-1", "gated-2 - wide-2"]
    late = claim(measure="epochs_to_target", target=0.9, direction="less")
    other = contrast_noise(frames, late, 6)
    assert "seed" not in [c.key for c in other.columns], "examples say nothing of epochs"
    assert other.columns[5].heading == "SD of differences, epochs"


def test_a_design_finds_what_its_blocks_can(frames_of, made):
    frames = frames_of(made.realistic(6), claims=[claim(), claim(name="peers", combine="peers")])
    table = design_table(frames)
    values = whole_blocks(frames).to_numpy()
    pairs = [values[:, i] - values[:, j] for i in range(7) for j in range(i)]
    spread = np.mean([p.var(ddof=1) for p in pairs]) ** 0.5
    for row in table.data:
        oracle = TTestPower().solve_power(nobs=row["blocks"], alpha=0.05, power=0.8)
        assert row["one comparison"] == pytest.approx(100 * spread * oracle, rel=1e-3)
        assert row["C9"] < row["all arms to the baseline"], "two contrasts ask less than six"
    assert [c.heading for c in table.columns][-2:] == ["C9, points", "peers, points"]
    [peers] = [note for note in table.footnotes if note.startswith("peers: ")]
    n = int(peers.split()[-2])
    assert TTestPower().power(0.003 / spread, n, 0.05) >= 0.8
    assert TTestPower().power(0.003 / spread, n - 1, 0.05) < 0.8


def test_without_two_whole_blocks_there_is_no_design(frames_of):
    assert design_table(frames_of({"plain": [0.8], "gated-1": [0.9]})) is None
    equal = {"plain": [0.8, 0.7], "gated-1": [0.9, 0.8]}
    assert design_table(frames_of(equal, name="equal")) is None, "there is no noise to plan by"


def test_what_another_stratum_gave_of_the_same_trials_is_told(tmp_path, made):
    """Here - there: +10, -30 and +20 points; a trial that only one of them has says nothing."""
    plan, store = made.make_plan(("plain", "gated-1")), Store(tmp_path)
    elsewhere = {**made.ENVIRONMENT, "probe": "other"}
    for label, block, accuracy, environment in [
        ("plain", 0, 0.6, made.ENVIRONMENT),
        ("gated-1", 0, 0.7, made.ENVIRONMENT),
        ("plain", 0, 0.5, elsewhere),
        ("plain", 1, 0.4, made.ENVIRONMENT),
        ("gated-1", 1, 0.9, made.ENVIRONMENT),
        ("plain", 1, 0.7, elsewhere),
        ("gated-1", 2, 0.8, made.ENVIRONMENT),
        ("plain", 2, 0.7, made.ENVIRONMENT),
        ("gated-1", 2, 0.6, elsewhere),
        ("plain", 3, 0.9, elsewhere),
    ]:
        store.publish(made.make_record(plan, label, block, accuracy, environment=environment))
    notes = " ".join(noise_table(study_frames(plan, store)).footnotes)
    spread = np.std([10, -30, 20], ddof=1)
    assert "were 3 of these trials" in notes
    assert f"by {spread:.2f} points (standard deviation), 0.00 in the mean" in notes


def test_of_one_stratum_nothing_is_said_of_rounding(frames_of, made):
    table = noise_table(frames_of(made.realistic(4)))
    assert "another stratum" not in " ".join(table.footnotes)
