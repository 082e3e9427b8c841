"""Blocks on the wire: Arrow in its variants, JSON lines in theirs, and bytes that are neither."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from features.signals import load_class
from features.telemetry import BLOCKS, Decoded, Reason, count_readings, new_blocks
from features.wire import decode_arrow, decode_jsonlines

START = 1_767_571_200_000_000


def blocks(*values: list[float]) -> pa.RecordBatch:
    n = len(values)
    offsets = np.concatenate(([0], np.cumsum([len(v) for v in values]))).astype(np.int32)
    period = np.array([10_000 if len(v) > 1 else 0 for v in values], np.int64)
    which = np.arange(n, dtype=np.int32) % 2
    start = START + np.arange(n) * 1_000_000
    return new_blocks(["a", "b"], ["x", "y"], which, which, start, period, offsets, np.concatenate(values))


def stream(table: pa.Table | pa.RecordBatch, file: bool = False) -> bytes:
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write(table)
    result: bytes = sink.getvalue().to_pybytes()
    return result


def arrow(payload: Any) -> Decoded:
    decoded = decode_arrow(payload, source="test")
    assert decoded.blocks.schema.equals(BLOCKS)
    decoded.blocks.validate(full=True)
    return decoded


def lines(*records: Any) -> Decoded:
    payload = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in records).encode()
    decoded = decode_jsonlines(payload, source="test")
    assert decoded.blocks.schema.equals(BLOCKS)
    decoded.blocks.validate(full=True)
    return decoded


def reasons(decoded: Decoded) -> dict[str, int]:
    found: dict[str, int] = {}
    for rejected in decoded.rejected:
        assert rejected.readings > 0
        found[rejected.reason.value] = found.get(rejected.reason.value, 0) + rejected.readings
    return found


GOOD = blocks([1.0, 2.0, math.nan], [5.0], [1.5, 2.5])


@pytest.mark.parametrize("file", [False, True])
def test_blocks_come_back_as_they_were_sent(file: bool) -> None:
    decoded = arrow(stream(GOOD, file))
    assert decoded.blocks.equals(GOOD) or str(decoded.blocks.to_pylist()) == str(GOOD.to_pylist())
    assert not decoded.rejected
    assert arrow(pa.py_buffer(stream(GOOD, file))).blocks.num_rows == 3
    assert arrow(GOOD).blocks is GOOD


def test_several_batches_with_names_of_their_own_become_one() -> None:
    other = new_blocks(["c"], ["x"], *(np.zeros(1, np.int32),) * 2, np.full(1, START), np.zeros(1, np.int64),
                       np.array([0, 1], np.int32), np.ones(1))  # fmt: skip
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, BLOCKS) as writer:
        writer.write_batch(GOOD)
        writer.write_batch(other)
    decoded = arrow(sink.getvalue())
    assert [b["asset"] for b in decoded.blocks.to_pylist()] == ["a", "b", "a", "c"]


def variant(**columns: Any) -> pa.Table:
    plain: dict[str, Any] = {
        "asset": ["a", "b"],
        "signal": ["x", "y"],
        "start": pa.array([START, START], pa.timestamp("us", "UTC")),
        "period_us": pa.array([10_000, 0]),
        "values": [[1.0, 2.0], [3.0]],
    }
    return pa.table({name: c for name, c in (plain | columns).items() if c is not None})


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"asset": pa.array(["a", "b"], pa.large_string())},
        {"asset": pa.array(["a", "b"]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))},
        {"start": pa.array([START * 1000] * 2, pa.timestamp("ns", "Europe/Paris"))},
        {"start": pa.array([START // 1000] * 2, pa.timestamp("ms", "UTC"))},
        {"start": ["2026-01-05T00:00:00Z"] * 2},
        {"start": None, "time": pa.array([START // 1_000_000] * 2)},
        {"period_us": pa.array([10_000, None], pa.int32())},
        {"period_us": pa.array([10_000, -3])},
        {"period_us": None, "period_s": [0.01, math.nan]},
        {"values": pa.array([[1, 2], [3]], pa.large_list(pa.int16()))},
        {"values": pa.array([[1, 2], [3]], pa.list_(pa.float32()))},
        {"quality": ["good", "good"]},
    ],
)
def test_what_means_the_same_is_taken_as_the_same(columns: dict[str, Any]) -> None:
    decoded = arrow(stream(variant(**columns)))
    assert not decoded.rejected
    assert decoded.blocks.to_pylist() == arrow(stream(variant())).blocks.to_pylist()
    assert decoded.blocks.column("period_us").to_pylist() == [10_000, 0]


def test_a_list_of_a_fixed_size_and_a_sample_that_is_null() -> None:
    values = pa.array([[1.0, None], [3.0, 4.0]], pa.list_(pa.float64(), 2))
    decoded = arrow(stream(variant(values=values, period_us=pa.array([5, 5]))))
    assert str([b["values"] for b in decoded.blocks.to_pylist()]) == "[[1.0, nan], [3.0, 4.0]]"
    assert count_readings(decoded.blocks) == 3


def test_one_reading_a_row() -> None:
    table = variant(period_us=None, values=None, value=["1.5", "much"])
    decoded = arrow(stream(table))
    assert [b["values"] for b in decoded.blocks.to_pylist()] == [[1.5]]
    assert reasons(decoded) == {"bad_value": 1}
    assert b'"value":"much"' in decoded.rejected[0].raw


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"asset": ["a", None]}, {"malformed": 1}),
        ({"signal": ["", "y"]}, {"malformed": 2}),
        ({"start": pa.array([None, START], pa.timestamp("us", "UTC"))}, {"bad_time": 2}),
        ({"start": pa.array([-5, START], pa.timestamp("us", "UTC"))}, {"bad_time": 2}),
        ({"start": pa.array([START, 2**62], pa.timestamp("us", "UTC"))}, {"bad_time": 1}),
        ({"start": pa.array([START, START], pa.timestamp("us"))}, {"naive_time": 3}),
        ({"period_us": pa.array([0, 0])}, {"bad_time": 2}),
        ({"period_us": pa.array([-1, 0])}, {"bad_time": 2}),
        ({"period_us": pa.array([2**62, 0])}, {"bad_time": 2}),
        ({"period_us": None}, {"bad_time": 2}),
        ({"values": pa.array([None, [3.0]], pa.list_(pa.float64()))}, {}),
        ({"values": ["1", "2"], "asset": None}, {"malformed": 2}),
        ({"values": [["x"], ["y"]]}, {"malformed": 1}),
    ],
)
def test_blocks_that_are_none_are_rejected_and_the_others_kept(
    columns: dict[str, Any], expected: dict[str, int]
) -> None:
    table = variant(**columns)
    decoded = arrow(stream(table))
    assert reasons(decoded) == expected
    if "malformed" not in expected and "values" not in columns:
        assert count_readings(decoded.blocks) + sum(expected.values()) == 3


def test_a_broken_batch_is_one_malformed_record() -> None:
    broken = pa.array([b"a", b"\xff"], pa.binary()).view(pa.utf8())
    decoded = arrow(pa.record_batch({"asset": broken, "signal": ["x", "y"], "time": [0, 1], "value": [1.0, 2.0]}))
    assert reasons(decoded) == {"malformed": 2}
    assert decoded.rejected[0].raw


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"ARROW1\0\0", b"\xff\xff\xff\xff"]))
def test_any_bytes_are_one_malformed_record(noise: bytes, magic: bytes) -> None:
    decoded = arrow(magic + noise)
    assert reasons(decoded) in ({"malformed": 1}, {})
    assert decoded.blocks.num_rows == 0


def test_a_damaged_stream_never_raises() -> None:
    draw = random.Random(5)
    for whole in (stream(GOOD), stream(GOOD, file=True)):
        for _ in range(1500):
            damaged = bytearray(whole)
            for _ in range(draw.randint(1, 4)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            decoded = arrow(bytes(damaged[: draw.choice([None, draw.randrange(len(damaged))])]))
            assert count_readings(decoded.blocks) >= 0


def test_lines_of_all_three_kinds() -> None:
    decoded = lines(
        {"asset": "a", "signal": "x", "time": "2026-01-05T00:00:00Z", "value": 1.5, "quality": "good"},
        {"asset": "a", "signal": "x", "start": START / 1e6, "period_s": 0.01, "values": [1, None, 2.5]},
        {"asset": "a", "signal": "x", "start": "2026-01-05T01:00:00+01:00", "period_us": 10_000, "values": [1, 2]},
        "",
        {"asset": "a", "time": START // 10**6, "x": 1, "y": None, "z": -2e300},
    )
    assert not decoded.rejected
    found = [
        (b["signal"], round(b["start"].timestamp() * 1e6), b["period_us"], str(b["values"]))
        for b in decoded.blocks.to_pylist()
    ]
    assert found == [
        ("x", START, 0, "[1.5]"),
        ("x", START, 10_000, "[1.0, nan, 2.5]"),
        ("x", START, 10_000, "[1.0, 2.0]"),
        ("x", START, 0, "[1.0]"),
        ("z", START, 0, "[-2e+300]"),
    ]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("{", {"malformed": 1}),
        ("[1]", {"malformed": 1}),
        ("7", {"malformed": 1}),
        ('{"asset": "\\ud800", "signal": "x", "time": 0, "value": 1}', {"malformed": 1}),
        ({"signal": "x", "time": 0, "value": 1}, {"malformed": 1}),
        ({"asset": "a", "time": 0, "value": 1}, {"malformed": 1}),
        ({"asset": "", "signal": "x", "time": 0, "value": 1}, {"malformed": 1}),
        ({"asset": "a", "signal": "x", "time": 0, "value": "much"}, {"bad_value": 1}),
        ({"asset": "a", "signal": "x", "time": 0, "value": [[]]}, {"bad_value": 1}),
        ({"asset": "a", "signal": "x", "start": 0, "period_s": 1, "values": [1, "x", None, 2]}, {"bad_value": 1}),
        ({"asset": "a", "time": 0, "x": "much", "y": 1}, {"bad_value": 1}),
        ({"asset": "a", "signal": "x", "value": 1}, {"bad_time": 1}),
        ({"asset": "a", "signal": "x", "time": "noon", "value": 1}, {"bad_time": 1}),
        ({"asset": "a", "signal": "x", "time": 1e300, "value": 1}, {"bad_time": 1}),
        ({"asset": "a", "signal": "x", "time": "2026-01-05T00:00:00", "value": 1}, {"naive_time": 1}),
        ({"asset": "a", "signal": "x", "start": 0, "values": [1, 2, None]}, {"bad_time": 2}),
        ({"asset": "a", "signal": "x", "start": 0, "period_us": 10**30, "values": [1, 2]}, {"bad_time": 2}),
        ({"asset": "a", "signal": "x", "start": 0, "period_s": -1, "values": [1, 2]}, {"bad_time": 2}),
    ],
)
def test_a_bad_line_is_rejected_and_its_neighbours_are_kept(record: Any, expected: dict[str, int]) -> None:
    good = {"asset": "a", "signal": "x", "time": 5, "value": 1.0}
    decoded = lines(good, record, good)
    assert reasons(decoded) == expected
    assert decoded.rejected[0].raw == (record if isinstance(record, str) else json.dumps(record)).encode()
    present = 0
    if isinstance(record, dict):
        cells = record.get("values", [record.get("value")] + [record.get(k) for k in "xy"])
        present = sum(isinstance(cell, int) for cell in cells) if set(expected) == {"bad_value"} else 0
    assert count_readings(decoded.blocks) == 2 + present


def test_lines_that_are_wrong_in_the_same_way_come_as_one() -> None:
    late = '{"asset": "a", "signal": "x", "time": "noon", "value": 1}'
    other = late.replace('"a"', '"b"')
    decoded = lines("{", late, "{", other, '{"asset": "a", "time": 0, "x": "much", "y": "more"}', late, "{")
    assert [(r.reason.value, r.readings, r.raw.decode(), r.asset, r.signal) for r in decoded.rejected] == [
        ("malformed", 3, "{\n{\n{", None, None),
        ("bad_value", 1, '{"asset": "a", "time": 0, "x": "much", "y": "more"}', "a", "x"),
        ("bad_value", 1, '{"asset": "a", "time": 0, "x": "much", "y": "more"}', "a", "y"),
        ("bad_time", 2, f"{late}\n{late}", "a", "x"),
        ("bad_time", 1, other, "b", "x"),
    ]


def test_more_names_than_bytes_to_keep_them_are_left_out() -> None:
    count = 5000
    decoded = lines(*({"asset": f"a{i}", "time": 0, "x": ""} for i in range(count)))
    assert reasons(decoded) == {"bad_value": count}
    assert len(decoded.rejected) <= 1001
    assert decoded.rejected[-1].asset is None
    assert sum(one.raw.count(b"\n") + 1 for one in decoded.rejected) == count


@pytest.mark.parametrize("count", [20, 30_000, 200_000])
def test_a_block_is_read_the_same_however_long_its_line(count: int) -> None:
    values: list[Any] = [1, 2.5, None, -7e-3] * (count // 4) + [10**400, 0.25]
    text = json.dumps({"asset": "a", "signal": "x", "start": 0, "period_s": 0.001, "values": values})
    decoded = lines(text)
    [block] = decoded.blocks.to_pylist()
    expected = [math.nan if v is None else math.inf if v == 10**400 else v for v in values]
    np.testing.assert_array_equal(block["values"], expected)
    assert not decoded.rejected
    wrong = lines(text.replace("2.5", '"much"', 3).replace("-0.007", "[7, 8]", 1))
    assert reasons(wrong) == {"bad_value": 4}
    assert wrong.rejected[0].raw.startswith(b'{"asset"')
    wrong = lines(text.replace("2.5", '"much"', 3))
    assert reasons(wrong) == {"bad_value": 3}
    assert count_readings(wrong.blocks) == count_readings(decoded.blocks) - 3


def test_the_repeated_hour_is_told_by_the_order_of_all_slices() -> None:
    """The first pass lasts until the time jumps back, even where that is in another slice of lines."""
    times = [f"2026-10-25T02:{m:02d}:{s:02d}" for _ in range(2) for m in range(60) for s in range(60)]
    records = [{"asset": "a", "signal": "x", "time": time, "value": 1.0} for time in times]
    payload = "\n".join(map(json.dumps, records)).encode()
    decoded = decode_jsonlines(payload, source="test", equipment=replace(load_class("lift"), time_zone="Europe/Paris"))
    start = decoded.blocks.column("start").view(pa.int64()).to_numpy()
    assert (np.diff(start) == 1_000_000).all() and len(start) == 7200


def test_a_class_gives_words_their_numbers_and_naive_times_their_zone() -> None:
    record = {"asset": "a", "signal": "controller_state", "time": "2026-07-05T02:00:00", "value": "inspection"}
    decoded = decode_jsonlines(json.dumps(record).encode(), source="test", equipment=load_class("lift"))
    [block] = decoded.blocks.to_pylist()
    assert (block["values"], block["start"].isoformat()) == ([2.0], "2026-07-05T00:00:00+00:00")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
KEYS = st.sampled_from(["asset", "signal", "time", "start", "value", "values", "period_us", "period_s", "flow"])
ROW = st.fixed_dictionaries({"asset": st.just("a"), "time": st.just(0)}, optional={"flow": VALUES})
RECORDS = st.dictionaries(KEYS, VALUES) | ROW


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        RECORDS | st.fixed_dictionaries({"asset": st.just("a"), "time": st.just(0)}, optional={"flow": VALUES}),
        max_size=4,
    )
)
def test_any_json_is_decoded_without_an_error(records: list[Any]) -> None:
    decoded = lines(*records)
    assert all(r.reason in set(Reason) for r in decoded.rejected)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_counted_line_by_line(noise: bytes) -> None:
    decoded = decode_jsonlines(noise, source="test")
    expected = sum(bool(line.strip()) for line in noise.split(b"\n"))
    assert count_readings(decoded.blocks) == 0
    assert sum(reasons(decoded).values()) == expected
