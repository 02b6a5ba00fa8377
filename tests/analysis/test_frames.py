"""From records to frames: which record belongs where, and that no block mixes strata."""

import pytest

from analysis import frames as module
from analysis.frames import study_frames
from analysis.summary import compare, summarise
from records.store import Store

ELSEWHERE = {"torch": "2.14.1", "device": "cpu", "threads": 2}


def test_a_row_a_trial_in_the_order_of_the_plan(frames_of):
    frames = frames_of({"plain": [0.8, 0.7], "gated-1": [0.9, None]})
    rows = frames.cells[["label", "block", "outcome", "test_accuracy"]].fillna(-1)
    assert rows.values.tolist() == [
        ["plain", 0, "finished", 0.8],
        ["plain", 1, "finished", 0.7],
        ["gated-1", 0, "finished", 0.9],
        ["gated-1", 1, "diverged", -1],
    ]
    assert frames.cells["parameters_training"].tolist() == [19_562, 19_562, 23_910, 23_910]
    assert [r.trial for r in frames.records] == frames.cells["trial"].tolist()
    assert frames.blocks == [0, 1]


def test_a_row_a_point_of_a_curve(frames_of):
    frames = frames_of({"plain": [0.8], "gated-1": [None]})
    counts = frames.curves.groupby(["label", "measure"])["epoch"].agg(["min", "max"])
    assert counts.loc[("plain", "validation_accuracy")].tolist() == [1, 8]
    assert counts.loc[("gated-1", "train_loss")].tolist() == [1, 2]
    lost = frames.curves.query("label == 'gated-1' and measure == 'train_loss' and epoch == 2")
    assert lost["value"].isna().all(), "NaN was null in the record"


def test_an_empty_store_is_a_study_without_trials(frames_of):
    frames = frames_of({"plain": [], "gated-1": []})
    assert frames.blocks == [] and frames.cells.empty and frames.curves.empty
    assert [s.num_trials for s in summarise(frames)] == [0, 0]


def test_records_of_other_studies_are_not_its(frames_of, tmp_path, made):
    frames_of({"plain": [0.8]}, name="another")
    frames = frames_of({"plain": [0.7]})
    assert frames.cells["test_accuracy"].tolist() == [0.7]


def test_arms_of_one_configuration_share_their_trials(tmp_path, made):
    plan = made.make_results(tmp_path, {"plain": [0.8, 0.7]})
    twins = plan.model_copy(
        update={"arms": {"plain": plan.arms["plain"], "twin": plan.arms["plain"]}}
    )
    frames = study_frames(twins, Store(tmp_path))
    assert frames.cells["label"].tolist() == ["plain", "plain", "twin", "twin"]
    assert compare(frames, "twin", "plain").estimate.mean == 0


@pytest.fixture
def two_strata(tmp_path, made):
    """Block 0 whole here and in part elsewhere, block 1 the other way round."""
    plan, store = made.make_plan(("plain", "gated-1")), Store(tmp_path)
    for label, block, accuracy, environment in [
        ("plain", 0, 0.8, made.ENVIRONMENT),
        ("gated-1", 0, 0.9, made.ENVIRONMENT),
        ("gated-1", 0, 0.5, ELSEWHERE),
        ("plain", 1, 0.6, ELSEWHERE),
        ("gated-1", 1, 0.7, ELSEWHERE),
        ("plain", 1, 0.1, made.ENVIRONMENT),
    ]:
        store.publish(made.make_record(plan, label, block, accuracy, environment=environment))
    return plan, store


def mixed_blocks(frames) -> list[int]:
    strata = frames.cells.groupby("block")["stratum"].nunique()
    return strata[strata > 1].index.tolist()


def test_a_block_never_mixes_strata(two_strata):
    frames = study_frames(*two_strata)
    assert mixed_blocks(frames) == []
    assert frames.by_block("plain", "test_accuracy").to_dict() == {0: 0.8, 1: 0.6}
    assert frames.by_block("gated-1", "test_accuracy").to_dict() == {0: 0.9, 1: 0.7}
    assert sorted(r.metrics["test_accuracy"] for r in frames.strays) == [0.1, 0.5]
    assert compare(frames, "gated-1", "plain").estimate.mean == pytest.approx(0.1)


class EveryStratum:
    """Equal to each: the defect of a block that takes what it finds."""

    def __eq__(self, other):
        return True

    __hash__ = None


def test_a_planted_mixing_of_strata_is_caught(two_strata, monkeypatch):
    monkeypatch.setattr(module, "owner", lambda records: EveryStratum())
    frames = study_frames(*two_strata)
    assert mixed_blocks(frames) == [0, 1], "the test above could not have caught it"
    with pytest.raises(ValueError, match="appear twice"):
        compare(frames, "gated-1", "plain")


def test_a_tie_of_strata_goes_to_the_one_that_was_run_later(tmp_path, made):
    plan, store = made.make_plan(("plain", "gated-1")), Store(tmp_path)
    for environment, finished in ((ELSEWHERE, 50.0), (made.ENVIRONMENT, 40.0)):
        store.publish(
            made.make_record(plan, "plain", 0, 0.5, environment=environment, finished=finished)
        )
    frames = study_frames(plan, store)
    assert [r.environment for r in frames.records] == [ELSEWHERE]


def test_a_trial_that_was_repeated_with_other_bytes_is_disputed(tmp_path, made):
    plan, store = made.make_results(tmp_path, {"plain": [0.8], "gated-1": [0.7]}), Store(tmp_path)
    with pytest.raises(ValueError, match="differs"):
        store.publish(made.make_record(plan, "plain", 0, 0.81))
    assert study_frames(plan, store).disputed == (plan.trial_id("plain", 0),)


def test_a_broken_record_is_named(frames_of, tmp_path):
    frames_of({"plain": [0.8]})
    [path] = Store(tmp_path).paths()
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(ValueError, match="cut short") as caught:
        study_frames(Store(tmp_path).plans()[0], Store(tmp_path))
    assert str(path) in str(caught.value)
