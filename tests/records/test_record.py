"""Canonical text, identities, bits, and records that survive a round trip or say what is wrong."""

import base64
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.canonical import plain
from records.record import Record, canonical, cell_id, digest, pack_bits, unpack_bits

ROOT = Path(__file__).parents[2]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_canonical_text_reads_back_as_what_it_was_made_from(value):
    assert json.loads(canonical(value)) == plain(value)
    assert canonical(json.loads(canonical(value))) == canonical(value)


def test_canonical_text_is_exactly_this():
    value = {"b": [True, None, 1, 1.0, -0.0, 1e-7, 0.1], "a": {"é": (), "d": "x y"}}
    assert canonical(value) == r'{"a":{"d":"x y","\u00e9":[]},"b":[true,null,1,1.0,-0.0,1e-07,0.1]}'


def test_the_order_of_keys_does_not_count_and_that_of_lists_does():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_numbers_that_json_lacks_are_null(number, make_record):
    assert canonical({"x": [number]}) == '{"x":[null]}'
    record = make_record(curves={"train_loss": [1.0, number]}, metrics={"test_loss": number})
    assert record.curves == {"train_loss": [1.0, None]}
    assert record.metrics == {"test_loss": None}
    assert b"NaN" not in record.to_bytes() and b"Infinity" not in record.to_bytes()
    assert Record.from_bytes(record.to_bytes()) == record


@pytest.mark.parametrize("value", [{1, 2}, b"x", {1: 2}, object(), np.int64(1), np.zeros(2)])
def test_what_json_lacks_is_refused(value):
    with pytest.raises(ValueError, match="allowed"):
        canonical({"x": value})


def test_an_identity_is_the_same_in_every_process():
    value = {"z": 1, "a": {"y": [0.1, None], "b": "é"}}
    code = f"from records.record import digest; print(digest({value!r}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {digest(value)} == {"aaa1cbc5dc4d2bd4"}


def test_a_cell_is_a_trial_without_its_block(make_record):
    zero = make_record()
    one = make_record(configuration={**zero.configuration, "block": 1})
    other = make_record(configuration={**zero.configuration, "recipe": {"lr": 0.2}})
    assert zero.cell == one.cell != other.cell
    assert cell_id(zero.configuration) == zero.cell


@given(st.lists(st.booleans(), max_size=70))
def test_bits_are_packed_as_numpy_packs_them(bits):
    text = pack_bits(bits)
    assert unpack_bits(text, len(bits)) == bits
    packed = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    assert np.unpackbits(packed, count=len(bits)).astype(bool).tolist() == bits


@pytest.mark.parametrize(
    ("text", "n", "complaint"),
    [
        ("gYA=", 17, "2 bytes of bits; allowed for 17 bits: 3"),
        ("gYA=", 8, "2 bytes of bits; allowed for 8 bits: 1"),
        ("/w==", 7, "set behind the last of 7"),
        ("gY", 9, "no base64"),
        ("g*A=", 9, "no base64"),
    ],
)
def test_bits_that_are_not_n_are_refused(text, n, complaint):
    with pytest.raises(ValueError, match=complaint):
        unpack_bits(text, n)


def test_a_record_reads_back_equal(make_record):
    record = make_record(correct=pack_bits([True, False, True]))
    assert Record.from_bytes(record.to_bytes()) == record
    assert Record.from_bytes(record.to_bytes()).to_bytes() == record.to_bytes()


def test_times_alone_are_not_compared(make_record):
    record = make_record()
    assert make_record(times={"finished": 7.0}).compared() == record.compared()
    assert make_record(times={"finished": 7.0}).to_bytes() != record.to_bytes()
    for change in (
        {"trial": "t"},
        {"stratum": "s"},
        {"configuration": {"block": 1}},
        {"outcome": "diverged"},
        {"metrics": {"test_accuracy": 0.8750000000000001, "test_loss": 0.5}},
        {"curves": {}},
        {"costs": {"parameters_training": 11}},
        {"correct": None},
        {"environment": {}},
    ):
        assert make_record(**change).compared() != record.compared(), change


def test_a_record_cannot_be_changed(make_record):
    with pytest.raises(ValueError, match="frozen"):
        make_record().outcome = "diverged"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"outcome": "crashed"}, "Record: outcome: .*'finished' or 'diverged', got crashed"),
        ({"trial": "../up"}, "Record: trial: "),
        ({"stratum": ""}, "Record: stratum: "),
        ({"extra": 1}, "Record: extra: "),
        ({"times": {}}, "times.finished is None; allowed"),
        ({"times": {"finished": 1e300}}, "times.finished is 1e.300; allowed"),
        ({"times": {"finished": -1}}, "times.finished is -1; allowed"),
        ({"times": {"finished": 1, "started": "now"}}, "times.started is 'now'; allowed"),
        ({"metrics": {"test_accuracy": "good"}}, "Record: metrics.test_accuracy: .*got good"),
        ({"configuration": {"x": {1}}}, "cannot be recorded"),
        ({"schema_version": 2}, "schema version 2 is newer than 1"),
        ({"schema_version": 0}, "schema version 0 is unknown; allowed: 1"),
        ({"schema_version": "one"}, "schema version 'one' is unknown; allowed: 1"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(change, complaint, make_record):
    with pytest.raises(ValueError, match=complaint) as caught:
        make_record(**change)
    assert "\n" not in str(caught.value)


def test_a_newer_schema_is_named_before_its_fields_are_looked_at(make_record):
    newer = json.loads(make_record().to_bytes()) | {"schema_version": 2, "energy": 1}
    with pytest.raises(ValueError, match="^schema version 2 is newer than 1"):
        Record.from_bytes(json.dumps(newer).encode())


def test_bytes_cut_anywhere_are_an_error_in_one_line(make_record):
    content = make_record().to_bytes()
    for end in range(len(content) - 1):  # the last byte is the newline
        with pytest.raises(ValueError, match="cut short, or no JSON") as caught:
            Record.from_bytes(content[:end])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[]", b"1", b"null", b"\xff\xfe", b'{"a": NaN}', b""])
def test_bytes_that_are_no_object_are_an_error(content):
    with pytest.raises(ValueError, match="JSON"):
        Record.from_bytes(content)
