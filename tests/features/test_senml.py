"""SenML against the examples of RFC 8428, resolved in the plainest way, and against what the RFC forbids."""

from __future__ import annotations

import json
import math
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.senml import LABELS, decode_senml, decode_senml_cbor
from features.signals import load_class
from features.telemetry import Decoded, count_readings

NOW_S = 1_767_571_200
NOW = [NOW_S * 1_000_000]
OW = "urn:dev:ow:10e2073a01080063"

# Sections 5.1.1 to 5.1.5, as the RFC prints them.
EXAMPLES: list[list[dict[str, Any]]] = [
    [{"n": OW, "u": "Cel", "v": 23.1}],
    [{"bn": OW + ":", "n": "voltage", "u": "V", "v": 120.1}, {"n": "current", "u": "A", "v": 1.2}],
    [
        {"bn": "urn:dev:ow:10e2073a0108006:", "bt": 1.276020076001e09, "bu": "A", "bver": 5,
         "n": "voltage", "u": "V", "v": 120.1},
        {"n": "current", "t": -5, "v": 1.2},
        {"n": "current", "t": -4, "v": 1.3},
        {"n": "current", "t": -3, "v": 1.4},
        {"n": "current", "t": -2, "v": 1.5},
        {"n": "current", "t": -1, "v": 1.6},
        {"n": "current", "v": 1.7},
    ],
    [
        {"bn": OW + "/", "bt": 1.320067464e09, "bu": "%RH", "n": "humidity", "v": 20},
        {"u": "lon", "n": "longitude", "v": 24.30621},
        {"u": "lat", "n": "latitude", "v": 60.07965},
        {"t": 60, "n": "humidity", "v": 20.3},
        {"u": "lon", "t": 60, "n": "longitude", "v": 24.30622},
        {"t": 120, "n": "humidity", "v": 20.7},
        {"u": "%EL", "t": 150, "n": "battery", "v": 98},
        {"t": 180, "n": "humidity", "v": 21.2},
    ],
    [{"bn": OW + ":", "n": "temp", "u": "Cel", "v": 23.1}, {"n": "open", "vb": False}],
    [
        {"bn": "2001:db8::2/", "bt": 1.320078429e09, "n": "temperature", "u": "Cel", "v": 25.2},
        {"n": "humidity", "u": "%RH", "v": 30},
        {"bn": "2001:db8::1/", "n": "temperature", "u": "Cel", "v": 12.3},
        {"n": "humidity", "u": "%RH", "v": 67},
    ],
    [
        {"bt": 1.320078429e09, "bu": "/", "n": "2001:db8::3/level", "v": 0.5},
        {"n": "2001:db8::4/level", "v": 0.5},
        {"n": "2001:db8::3/level", "t": 0.1, "v": 0},
        {"n": "2001:db8::4/level", "t": 0.1, "v": 0},
    ],
]  # fmt: skip

# Section 6: the third example as the RFC dumps it.
DUMP = bytes.fromhex(
    "87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b00106223614120050067766f6c74616765"
    "01615602fb405e066666666666a3006763757272656e74062402fb3ff3333333333333"
    "a3006763757272656e74062302fb3ff4cccccccccccda3006763757272656e74062202fb3ff6666666666666"
    "a3006763757272656e74062102f93e00a3006763757272656e74062002fb3ff999999999999a"
    "a3006763757272656e74060002fb3ffb333333333333"
)


def resolved(pack: list[dict[str, Any]], now_s: float) -> list[tuple[str, int, float]]:
    """Resolve a pack word by word of section 4.6: name, microseconds, value."""
    base: dict[str, Any] = {}
    found = []
    for record in pack:
        base |= {field: value for field, value in record.items() if field.startswith("b")}
        name = base.get("bn", "") + record.get("n", "")
        time = base.get("bt", 0) + record.get("t", 0)
        time = now_s + time if time < 2**28 else time
        value = [float(record[field]) for field in ("v", "vb") if field in record]
        if value or ("bv" in base and "s" not in record and ("n" in record or "t" in record)):
            value = [(value or [0.0])[0] + (base.get("bv", 0.0) if "vb" not in record else 0.0)]
        found += [(name, round(time * 1e6), one) for one in value]
        if "s" in record or ("bs" in base and (value or "n" in record or "t" in record)):
            found.append((name + "_sum", round(time * 1e6), record.get("s", 0.0) + base.get("bs", 0.0)))
    return found


def readings(decoded: Decoded) -> list[tuple[str, int, float]]:
    decoded.blocks.validate(full=True)
    found = []
    for block in decoded.blocks.to_pylist():
        start = round(block["start"].timestamp() * 1e6)
        for i, value in enumerate(block["values"]):
            found.append((f"{block['asset']}|{block['signal']}", start + i * block["period_us"], value))
    return sorted(found)


def split(expected: list[tuple[str, int, float]]) -> list[tuple[str, int, float]]:
    found = []
    for name, time, value in expected:
        place = max(name.rfind("/"), name.rfind(":"))
        found.append((name[:place] + "|" + name[place + 1 :], time, value))
    return sorted(found)


def as_cbor(pack: list[dict[str, Any]]) -> bytes:
    return cbor2.dumps(
        [{LABELS.get(f, f): v for f, v in record.items()} if isinstance(record, dict) else record for record in pack]
    )


def senml(pack: Any, equipment: str | None = None) -> Decoded:
    """Decode a pack in both forms, which must say the same."""
    described = None if equipment is None else load_class(equipment)
    given = {"source": "test", "equipment": described, "times_us": NOW}
    text = decode_senml([json.dumps(pack).encode()], **given)
    binary = decode_senml_cbor([as_cbor(pack)], **given)
    assert readings(text) == readings(binary)
    assert reasons(text) == reasons(binary)
    return text


def reasons(decoded: Decoded) -> dict[str, int]:
    return {one.reason.value: one.readings for one in decoded.rejected}


@pytest.mark.parametrize("pack", EXAMPLES)
def test_the_examples_of_the_rfc(pack: list[dict[str, Any]]) -> None:
    decoded = senml(pack)
    assert not decoded.rejected
    assert readings(decoded) == split(resolved(pack, NOW_S))


def test_the_dump_of_section_6() -> None:
    decoded = decode_senml_cbor([DUMP], source="test", times_us=NOW)
    assert not decoded.rejected
    assert readings(decoded) == split(resolved(EXAMPLES[2], NOW_S))
    [_, current] = sorted(decoded.blocks.to_pylist(), key=lambda block: block["signal"] == "current")
    assert (current["period_us"], len(current["values"])) == (1_000_000, 6), "a run at an equal step is one block"


NUMBER = st.integers(-1000, 1000) | st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
RECORD = st.fixed_dictionaries(
    {},
    optional={
        "bn": st.sampled_from(["urn:dev:mac:0024befffe804ff1:", "b1/", "b2:"]),
        "bt": st.sampled_from([1.32e9, 1.4e9 + 0.5]),
        "bu": st.just("A"),
        "bv": NUMBER,
        "bs": NUMBER,
        "bver": st.just(10),
        "n": st.sampled_from(["flow", "supply", "x"]),
        "t": st.integers(0, 100) | st.sampled_from([0.25, 0.5]),
        "ut": st.just(60),
        "s": NUMBER,
        "unknown": st.none() | NUMBER,
    },
)
VALUE = st.fixed_dictionaries({}) | st.fixed_dictionaries({"v": NUMBER}) | st.fixed_dictionaries({"vb": st.booleans()})


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(RECORD, VALUE).map(lambda pair: pair[0] | pair[1]), min_size=1, max_size=8))
def test_any_pack_is_resolved_as_the_rfc_says(pack: list[dict[str, Any]]) -> None:
    pack[0].setdefault("bn", "b0:")
    for record in pack:
        record.setdefault("n", "flow")
        if not {"v", "vb", "s"} & set(record):
            record["v"] = 1.5
    decoded = senml(pack)
    expected = split(resolved(pack, NOW_S))
    assert not decoded.rejected
    found = readings(decoded)
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    np.testing.assert_allclose(sorted(one[2] for one in found), sorted(one[2] for one in expected), rtol=1e-12)


@pytest.mark.parametrize(
    ("pack", "expected"),
    [
        ([], {"malformed": 1}),
        ({}, {"malformed": 1}),
        ([{"bn": "b1:", "bt": 1.4e9}], {"malformed": 1}),
        ([{"n": "b1:x", "v": 1, "bver": 11}], {"malformed": 1}),
        ([{"n": "b1:x", "v": 1, "bver": 9}, {"n": "b1:x", "v": 1, "bver": 10}], {"malformed": 2}),
        ([{"n": "b1:x", "v": 1}, {"n": "b1:x", "v": 1, "must_": 0}, {"n": "b1:x", "v": 1}], {"malformed": 3}),
        ([{"n": "b1:x", "v": 1, "may": 0}, 7], {"malformed": 1}),
        ([{"n": "b1:x"}], {"malformed": 1}),
        ([{"n": "b1:x", "v": 1, "vb": True}], {"malformed": 1}),
        ([{"n": "nothing", "v": 1}], {"malformed": 1}),
        ([{"n": ":x", "v": 1}], {"malformed": 1}),
        ([{"n": "b1:", "v": 1}], {"malformed": 1}),
        ([{"n": "b 1:x", "v": 1}], {"malformed": 1}),
        ([{"n": 7, "v": 1}], {"malformed": 1}),
        ([{"bn": 7, "v": 1}], {"malformed": 1}),
        ([{"n": "b1:x", "v": "1"}], {"bad_value": 1}),
        ([{"n": "b1:x", "v": True}], {"bad_value": 1}),
        ([{"n": "b1:x", "vb": 1}], {"bad_value": 1}),
        ([{"n": "b1:x", "vs": "open"}], {"bad_value": 1}),
        ([{"n": "b1:x", "vd": "aGk"}], {"bad_value": 1}),
        ([{"n": "b1:x", "v": 1, "t": "noon"}], {"bad_time": 1}),
        ([{"n": "b1:x", "v": 1, "t": 1e300}], {"bad_time": 1}),
        ([{"n": "b1:x", "v": 1, "t": -1e300}], {"bad_time": 1}),
    ],
)
def test_what_the_rfc_forbids_is_rejected(pack: Any, expected: dict[str, int]) -> None:
    good = json.dumps([{"n": "b1:x", "v": 5, "t": 1.4e9}]).encode()
    raw = json.dumps(pack).encode()
    decoded = decode_senml([good, raw, good], source="test", times_us=NOW * 3)
    assert reasons(decoded) == expected
    assert {one.raw for one in decoded.rejected} == {raw}
    assert count_readings(decoded.blocks) == 2 + (expected == {"malformed": 1} and "may" in str(pack))
    if isinstance(pack, list) and "vd" not in str(pack):
        senml(pack)


def test_a_relative_time_needs_an_arrival() -> None:
    pack = json.dumps([{"n": "b1:x", "v": 1, "t": -2}, {"n": "b1:x", "v": 1, "t": 2**28}]).encode()
    decoded = decode_senml([pack, pack], source="test", times_us=[NOW[0], NOW[0] + 1])
    assert [time for _, time, _ in readings(decoded)] == [2**28 * 10**6] * 2 + [NOW[0] - 2_000_000, NOW[0] - 1_999_999]
    assert reasons(decode_senml([pack], source="test")) == {"bad_time": 1}


def test_a_class_gives_words_their_numbers_and_knows_its_units() -> None:
    pack = [
        {"bn": "l1:", "bt": 1.4e9, "n": "controller_state", "vs": "inspection"},
        {"n": "controller_state", "vs": "dancing"},
        {"n": "motor_current", "u": "A", "v": 3},
        {"n": "motor_current", "u": "V", "v": 3},
        {"n": "door_position", "u": "/", "v": 1},
        {"n": "weather", "u": "lx", "v": 1},
    ]
    decoded = senml(pack, "lift")
    assert reasons(decoded) == {"bad_value": 2}
    assert [value for _, _, value in readings(decoded)] == [2.0, 1.0, 3.0, 1.0]
    plain = [record for record in pack if "v" in record]
    plain[0] = {"bn": "l1:", "bt": 1.4e9} | plain[0]
    assert reasons(senml(plain, "lift")) == {"bad_value": 1}


def test_numbers_that_only_cbor_has() -> None:
    fraction, bigfloat = cbor2.CBORTag(4, [-1, 235]), cbor2.CBORTag(5, [-1, 3])
    half, huge = np.float16(1.5), 2**70
    values = [fraction, bigfloat, float(half), huge, 7]
    pack = [{-2: "b1:", -3: cbor2.CBORTag(4, [-1, 14000000005]), 0: f"x{i}", 2: v} for i, v in enumerate(values)]
    payload = cbor2.dumps(pack)
    decoded = decode_senml_cbor([payload, payload[:-1]], source="test")
    assert [value for _, _, value in readings(decoded)] == [23.5, 1.5, 1.5, 2.0**70, 7.0]
    assert {time for _, time, _ in readings(decoded)} == {1_400_000_000_500_000}
    assert reasons(decoded) == {"malformed": 1}


def test_a_missing_number_of_cbor_is_no_reading() -> None:
    decoded = decode_senml_cbor([cbor2.dumps([{0: "b1:x", 2: math.nan}])], source="test", times_us=NOW)
    assert decoded.blocks.num_rows == 0
    assert reasons(decoded) == {"malformed": 1}


def test_a_large_pack_is_read_record_by_record_to_the_same_result() -> None:
    pack = [{"bn": "b1:", "bt": 1.4e9}] + [{"n": "x", "t": i, "v": i, "ut": 1} for i in range(5000)] + [7]
    text = json.dumps(pack).encode()
    assert len(text) > 65_536
    decoded = decode_senml([text, text + b"]", text[:-1], text.replace(b", 7", b" 7")], source="test")
    assert decoded.blocks.num_rows == 1
    assert count_readings(decoded.blocks) == 5000
    assert [one.readings for one in decoded.rejected] == [1, 1, 1, 1]
