"""What was recorded in a stratum that was shown to equal another one is read as of that one."""

import pytest

from records.blocks import owner
from records.record import digest
from records.strata import Accepted

OLD, NEW, NEWEST = ({"threads": 1, "sources": source} for source in ("1", "2", "3"))


@pytest.fixture
def made(make_record):
    def make(block, environment, arm="plain", **changes):
        configuration = {"arm": arm, "block": block}
        return make_record(
            configuration=configuration, environment=environment,
            trial=digest(configuration), stratum=digest(environment), **changes,
        )  # fmt: skip

    return make


def accept(store, one, other):
    same = {"stratum": digest(other), "environment": other}
    store.save_stratum(digest(one), {"environment": one, "same_as": same})


def test_a_block_of_two_strata_is_one_once_they_are_shown_to_be_equal(store, made):
    before = made(0, NEW)
    for record in (before, made(0, NEW, "gated"), made(0, OLD, "wide")):
        store.publish(record)
    assert owner(store.records()) == digest(NEW)
    accept(store, NEW, OLD)
    found = list(store.records())
    assert {record.stratum for record in found} == {digest(OLD)}
    assert {digest(record.environment) for record in found} == {digest(OLD)}
    assert owner(found) == digest(OLD) and len(found) == 3
    [joined] = store.find(before.trial)
    assert joined == before.model_copy(update={"stratum": digest(OLD), "environment": OLD})
    assert list(store.published()) != found, "files stay as they were"
    assert store.get(before.trial, digest(NEW)) == before


def test_of_two_records_of_a_trial_the_one_of_the_old_stratum_counts(store, made):
    old, new = made(0, OLD, times={"finished": 1.0}), made(0, NEW, times={"finished": 2.0})
    for record in (old, new):
        store.publish(record)
    assert len(store.find(old.trial)) == len(list(store.records())) == 2
    accept(store, NEW, OLD)
    assert store.find(old.trial) == list(store.records()) == [old]
    assert sorted(r.times["finished"] for r in store.published()) == [1.0, 2.0]


def test_chains_are_followed_to_their_end(store, made):
    record = made(0, NEWEST)
    store.publish(record)
    accept(store, NEWEST, NEW)
    assert store.find(record.trial)[0].stratum == digest(NEW)
    accept(store, NEW, OLD)
    assert store.find(record.trial)[0].stratum == digest(OLD)
    assert store.accepted()[digest(NEWEST)].environment == OLD


def test_a_circle_ends(store, made):
    accept(store, NEW, OLD)
    accept(store, OLD, NEW)
    assert {key: value.stratum for key, value in store.accepted().items()} == {
        digest(NEW): digest(OLD),
        digest(OLD): digest(NEW),
    }


def test_conflicts_are_found_where_they_happened(store, made):
    record = made(0, NEW)
    store.publish(record)
    with pytest.raises(ValueError, match="differs"):
        store.publish(made(0, NEW, correct=None))
    accept(store, NEW, OLD)
    [joined] = store.find(record.trial)
    assert len(store.conflicts(joined)) == 1


@pytest.mark.parametrize(
    ("same", "complaint"),
    [
        ({"stratum": "s", "environment": OLD}, "stratum s is not the hash of its environment"),
        ({"stratum": "../s", "environment": OLD}, "stratum: .* should match pattern"),
        ({"stratum": digest(OLD)}, "environment: Field required"),
        ("s", "same_as is 's'; allowed: stratum and environment"),
    ],
)
def test_what_says_nothing_of_the_kind_is_named(same, complaint, store):
    store.save_stratum("new", {"same_as": same})
    with pytest.raises(ValueError, match=complaint) as caught:
        store.accepted()
    assert str(caught.value).startswith(f"{store.root / 'strata' / 'new.json'}: ")


def test_a_stratum_of_which_something_else_is_known_equals_none(store):
    store.save_stratum("new", {"environment": NEW})
    assert store.accepted() == {}
    assert Accepted.from_description(b"{}") is None
