"""Many small messages at once: every wire brings the same blocks, and a broken message harms nobody."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import cbor2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import cbor_blocks
from features.cbor_blocks import TYPED
from features.encode import encode
from features.signals import load_class
from features.telemetry import BLOCKS, Decoded, count_readings, new_blocks
from features.wire import MessageWire, content_wire, decode

START = 1_767_571_200_000_000
WIRES: tuple[MessageWire, ...] = ("arrow", "json", "senml", "senml-cbor", "cbor")


def rows(decoded: Decoded) -> list[tuple[str, str, int, int, str]]:
    assert decoded.blocks.schema.equals(BLOCKS)
    decoded.blocks.validate(full=True)
    found = []
    for block in decoded.blocks.to_pylist():
        start = round(block["start"].timestamp() * 1e6)
        found.append((block["asset"], block["signal"], start, block["period_us"], str(block["values"])))
    return sorted(found)


def reasons(decoded: Decoded) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in decoded.rejected:
        assert one.readings > 0
        found[one.reason.value] = found.get(one.reason.value, 0) + one.readings
    return found


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    """Blocks of a few assets, at most one of a signal, asset and second, with full 64-bit floats."""
    keys = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), unique=True, min_size=1))
    sample = st.floats(-1e12, 1e12, allow_nan=False)
    values = [draw(st.lists(sample, min_size=1, max_size=6)) for _ in keys]
    length = np.array([len(v) for v in values])
    period = np.array([draw(st.sampled_from([1000, 10_000, 333_333])) if n > 1 else 0 for n in length])
    shift = np.array([draw(st.sampled_from([0, 1, 250_000, 999_999])) for _ in keys])
    return new_blocks(
        ["l1", "urn:dev:mac:0024befffe804ff1", "b/2"], ["x", "brake_wear", "z"],
        *(np.array([key[i] for key in keys], np.int32) for i in (0, 1)),
        START + np.array([key[2] for key in keys]) * 1_000_000 + shift, period,
        np.concatenate(([0], np.cumsum(length))).astype(np.int32), np.concatenate(values),
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(batches(), st.sampled_from(WIRES))
def test_what_is_encoded_comes_back(batch: pa.RecordBatch, wire: MessageWire) -> None:
    payloads = encode(wire, batch)
    decoded = decode(wire, payloads, source="test")
    assert not decoded.rejected
    assert rows(decoded) == rows(Decoded(batch))
    seconds = batch.column("start").cast(pa.timestamp("s", "UTC"), safe=False).to_pylist()
    assert len(payloads) == len(set(zip(batch.column("asset").to_pylist(), seconds, strict=True)))


@pytest.mark.parametrize("wire", WIRES)
def test_a_broken_message_harms_nobody(wire: MessageWire) -> None:
    one = np.zeros(1, np.int32)
    batch = new_blocks(["l1"], ["x"], one, one, np.full(1, START), np.full(1, 10_000), np.array([0, 2], np.int32),
                       np.array([1.5, 2.5]))  # fmt: skip
    [good] = encode(wire, batch)
    broken = [b"", b"\xff", good[:-1], good[1:], b"\x00" * 50]
    decoded = decode(wire, [good, *broken, good], source="test")
    assert rows(decoded) == 2 * rows(Decoded(batch))
    assert [one.raw for one in decoded.rejected] == broken
    assert reasons(decoded) == {"malformed": len(broken)}


@pytest.mark.parametrize("wire", WIRES)
def test_no_message_is_no_reading(wire: MessageWire) -> None:
    decoded = decode(wire, [], source="test")
    assert rows(decoded) == []
    assert not decoded.rejected


GOOD: dict[str, Any] = {"asset": "l1", "start": 0, "period_s": 1, "signals": {"x": [1.5, None], "y": [2]}}


def both(record: Any, equipment: str | None = None) -> Decoded:
    """Decode an object as JSON and as CBOR, which must say the same, among sound neighbours."""
    described = None if equipment is None else load_class(equipment)
    raws: list[tuple[MessageWire, bytes, bytes]] = [
        ("json", json.dumps(GOOD).encode(), json.dumps(record).encode()),
        ("cbor", cbor2.dumps(GOOD), cbor2.dumps(record)),
    ]
    found = []
    for wire, good, raw in raws:
        decoded = decode(wire, [good, raw, good], source="test", equipment=described)
        assert all(one.raw == raw for one in decoded.rejected)
        found.append(decoded)
    assert rows(found[0]) == rows(found[1])
    assert reasons(found[0]) == reasons(found[1])
    return found[1]


@pytest.mark.parametrize(
    ("record", "readings", "expected"),
    [
        ({"asset": "a", "signal": "x", "start": 5, "values": [1]}, 1, {}),
        ({"asset": "a", "signal": "x", "start": "1970-01-01T01:00:05+01:00", "values": [1]}, 1, {}),
        ({"asset": "a", "signal": "x", "start": 5.5, "period_us": 7, "values": [1, None, 2.5], "more": [[{}]]}, 2, {}),
        ([GOOD, GOOD], 4, {}),
        ([GOOD, 7, GOOD], 4, {"malformed": 1}),
        ({**GOOD, "signals": {"x": {"start": 7, "period_us": 5, "values": [1, 2]}, "y": {"values": [1]}}}, 3, {}),
        ({**GOOD, "signals": {"x": [1, "much"], "y": [2]}}, 2, {"bad_value": 1}),
        ({**GOOD, "signals": {"x": 1.5}}, 1, {}),
        ({**GOOD, "signals": {"": [1]}}, 0, {"malformed": 1}),
        ({**GOOD, "signals": {}}, 0, {"malformed": 1}),
        ({**GOOD, "signals": {"x": []}}, 0, {"malformed": 1}),
        ({**GOOD, "signals": {"x": [None]}}, 0, {"malformed": 1}),
        ({**GOOD, "values": [1]}, 0, {"malformed": 1}),
        ({**GOOD, "asset": ""}, 0, {"malformed": 2}),
        ({**GOOD, "asset": None}, 0, {"malformed": 2}),
        ({**GOOD, "start": None}, 0, {"bad_time": 2}),
        ({**GOOD, "start": -5}, 0, {"bad_time": 2}),
        ({**GOOD, "start": 1e300}, 0, {"bad_time": 2}),
        ({**GOOD, "start": "noon"}, 0, {"bad_time": 2}),
        ({**GOOD, "start": "2026-01-05T00:00:00"}, 0, {"naive_time": 2}),
        ({**GOOD, "period_s": 0, "signals": {"x": [1, 2], "y": [1]}}, 1, {"bad_time": 2}),
        ({**GOOD, "period_s": 1e300, "signals": {"x": [1, 2]}}, 0, {"bad_time": 2}),
        ({**GOOD, "period_s": "1", "signals": {"x": [1, 2]}}, 0, {"bad_time": 2}),
        ({**GOOD, "signals": {"x": [1e300, 10**18, -1, True]}}, 4, {}),
        ({**GOOD, "signals": {"x": [[1]], "y": {}}}, 0, {"bad_value": 1}),
        ({"signal": "x", "start": 0, "values": [1, 2]}, 0, {"malformed": 2}),
        ({"asset": "a", "start": 0, "values": [1]}, 0, {"malformed": 1}),
        ({"asset": "a", "signal": "x", "start": 0}, 0, {"malformed": 1}),
        (7, 0, {"malformed": 1}),
        ([], 0, {"malformed": 1}),
        (None, 0, {"malformed": 1}),
    ],
)
def test_exactly_what_is_wrong_is_rejected(record: Any, readings: int, expected: dict[str, int]) -> None:
    decoded = both(record)
    assert reasons(decoded) == expected
    assert count_readings(decoded.blocks) - 4 == readings


def test_a_class_gives_words_their_numbers_and_naive_times_their_zone() -> None:
    decoded = both(
        {"asset": "a", "start": "2026-07-05T02:00:00", "signals": {"controller_state": ["inspection"]}}, "lift"
    )
    assert ("a", "controller_state", 1_783_209_600_000_000, 0, "[2.0]") in rows(decoded)


@pytest.mark.parametrize("tag", sorted(TYPED))
def test_every_typed_array_is_read_by_the_scanner_as_numpy_reads_it(tag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(payload: bytes) -> None:
        raise AssertionError("the scanner knows this message")

    monkeypatch.setattr(cbor_blocks, "load", forbidden)
    data = np.random.default_rng(tag).integers(0, 256, 80, np.uint8).tobytes()
    with np.errstate(invalid="ignore"):
        expected = np.frombuffer(data, TYPED[tag]).astype(np.float64)
    payload = cbor2.dumps({**GOOD, "signals": {"x": cbor2.CBORTag(tag, data)}})
    decoded = decode("cbor", [payload], source="test")
    values = decoded.blocks.column("values").values.to_numpy()
    np.testing.assert_array_equal(values, expected)


def test_halves_of_all_kinds() -> None:
    bits = np.arange(65_536, dtype="<u2").tobytes()
    decoded = decode("cbor", [cbor2.dumps({**GOOD, "signals": {"x": cbor2.CBORTag(84, bits)}})], source="test")
    with np.errstate(invalid="ignore"):
        expected = np.frombuffer(bits, "<f2").astype(np.float64)
    np.testing.assert_array_equal(decoded.blocks.column("values").values.to_numpy(), expected)


@pytest.mark.parametrize(
    "values",
    [
        cbor2.CBORTag(86, b"1234567"), cbor2.CBORTag(83, b"\0" * 16), cbor2.CBORTag(76, b"\0"),
        cbor2.CBORTag(86, "12345678"), cbor2.CBORTag(86, [1.0]), b"\0" * 8,
    ],
)  # fmt: skip
def test_what_is_no_typed_array_is_rejected(values: Any) -> None:
    payload = cbor2.dumps({**GOOD, "signals": {"x": values, "y": [1]}})
    decoded = decode("cbor", [payload], source="test")
    assert count_readings(decoded.blocks) == 1
    assert sum(reasons(decoded).values()) == 1


def test_the_patient_reader_and_the_scanner_agree() -> None:
    typed = cbor2.CBORTag(85, np.array([1.5, math.nan, 2.5], "<f4").tobytes())
    record = {"start": 1.5, "signals": {"x": typed, "y": {"period_us": 3, "values": typed}, "z": [1, None]}}
    record |= {"asset": "a", "period_s": 2}
    known = cbor2.dumps(record)
    slow = cbor2.dumps(record, indefinite_containers=True)
    found = [decode("cbor", [payload], source="test") for payload in (known, slow)]
    assert rows(found[0]) == rows(found[1])
    assert count_readings(found[0].blocks) == 5


@pytest.mark.parametrize(
    "start", [cbor2.CBORTag(1, 5), cbor2.CBORTag(1, 5.0), cbor2.CBORTag(0, "1970-01-01T00:00:05Z")]
)
def test_a_time_may_be_tagged(start: Any) -> None:
    decoded = decode("cbor", [cbor2.dumps({**GOOD, "start": start})], source="test")
    assert [row[2] for row in rows(decoded)] == [5_000_000] * 2


def test_a_whole_number_of_64_bits() -> None:
    payload = cbor2.dumps({**GOOD, "signals": {"x": [2**64 - 1, -(2**64), 2**63, -(2**63)]}})
    [row] = rows(decode("cbor", [payload], source="test"))
    assert row[4] == str([2.0**64, -(2.0**64), 2.0**63, -(2.0**63)])


def test_names_that_are_no_text() -> None:
    payload = cbor2.dumps({**GOOD, "asset": "aaaa"}).replace(b"aaaa", struct.pack("4B", 0x61, 0xED, 0xA0, 0x80))
    assert reasons(decode("cbor", [payload], source="test")) == {"malformed": 2}


@pytest.mark.parametrize(
    ("header", "wire"),
    [
        ("application/senml+json", "senml"), ("application/senml+cbor", "senml-cbor"),
        ("application/vnd.apache.arrow.stream", "arrow"), ("application/json; charset=utf-8", "json"),
        ("Application/CBOR ", "cbor"), ("text/html", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_a_content_type_names_a_wire(header: str | None, wire: str | None) -> None:
    assert content_wire(header) == wire
