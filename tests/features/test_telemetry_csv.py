"""Wide tables: what is good becomes blocks, what is not is counted, and nothing else happens."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from features.runs import blocks_of_columns
from features.signals import Detection, EquipmentClass, Layout, Signal
from features.telemetry import BLOCKS, Decoded, Reason, TelemetryError, count_readings
from features.wide import decode_wide_table
from features.wide_csv import check_header, decode_wide_csv

NOON = int(datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp() * 1e6)


def machine(zone: str | None = None, separator: str = ",", bands: bool = False) -> EquipmentClass:
    signals = {
        "flow": Signal(unit="1", range=(-1e9, 1e9), period_s=1.0, description="", columns=("Volume Flow",)),
        "speed": Signal(
            unit="1", range=(-9, 9), period_s=0.01, description="", bands_hz=((1.0, 5.0),) if bands else ()
        ),
        "door": Signal(unit="1", range=(0, 2), period_s=1.0, description="", codes={"closed": 0.0, "open": 1.0}),
    }
    return EquipmentClass(
        name="machine",
        description="",
        window_s=10.0,
        lateness_s=5.0,
        signals=signals,
        detection=Detection(features=("flow.mean",)),
        idle_after_s=60.0,
        silent_after_s=600.0,
        time_zone=zone,
        table=Layout(separator=separator, ignore=("anomaly",)),
    )


def decode(text: str | bytes, equipment: EquipmentClass | None = None) -> Decoded:
    payload = text.encode() if isinstance(text, str) else text
    decoded = decode_wide_csv(payload, equipment or machine(), asset="m1", source="test")
    decoded.blocks.validate(full=True)
    assert decoded.blocks.schema.equals(BLOCKS)
    return decoded


def samples(decoded: Decoded) -> list[tuple[str, str, int, float]]:
    return sorted(
        (b["asset"], b["signal"], round((b["start"].timestamp() * 1e6 - NOON) + i * b["period_us"]), value)
        for b in decoded.blocks.to_pylist()
        for i, value in enumerate(b["values"])
    )


def reasons(decoded: Decoded) -> dict[str, int]:
    found: dict[str, int] = {}
    for rejected in decoded.rejected:
        assert rejected.readings > 0
        assert rejected.raw or rejected.reason is Reason.MALFORMED
        assert rejected.detail
        found[rejected.reason.value] = found.get(rejected.reason.value, 0) + rejected.readings
    return found


def test_rows_become_blocks_of_equal_steps_in_the_order_of_their_start() -> None:
    rows = "".join(f"2026-01-05T12:00:{s:02d}Z,{s}.5,{s % 2}\n" for s in range(12))
    decoded = decode("time,flow,door\n" + rows)
    assert not decoded.rejected
    blocks = decoded.blocks.to_pylist()
    assert [(b["signal"], b["start"].second, len(b["values"]), b["period_us"]) for b in blocks] == [
        ("flow", 0, 10, 1_000_000),
        ("door", 0, 10, 1_000_000),
        ("flow", 10, 2, 1_000_000),
        ("door", 10, 2, 1_000_000),
    ]


def test_no_block_is_longer_than_a_window_and_bands_are_cut_to_spectra() -> None:
    equipment = machine(bands=True)
    time = NOON + np.arange(2500) * 10_000
    blocks = blocks_of_columns(
        equipment, ["m1"], np.zeros(2500, np.int32), time, np.arange(2500), [("speed", np.ones(2500))]
    )
    assert {len(b["values"]) for b in blocks.to_pylist()} == {100}
    plain = blocks_of_columns(
        machine(), ["m1"], np.zeros(2500, np.int32), time, np.arange(2500), [("speed", np.ones(2500))]
    )
    assert [len(b["values"]) for b in plain.to_pylist()] == [1000, 1000, 500]


def test_a_missing_cell_is_no_reading_and_cuts_the_run() -> None:
    decoded = decode(
        "time,flow\n" + "".join(f"{NOON // 10**6 + s},{'' if s == 2 else 'NaN' if s == 5 else s}\n" for s in range(7))
    )
    assert not decoded.rejected
    assert [b["values"] for b in decoded.blocks.to_pylist()] == [[0, 1], [3, 4], [6]]


def test_assets_may_alternate_and_their_names_are_trimmed() -> None:
    decoded = decode(
        "time,asset,flow\n" + "".join(f"{NOON // 10**6 + s},{a},{s}\n" for s in range(3) for a in ("a", " b "))
    )
    assert [(b["asset"], b["values"]) for b in decoded.blocks.to_pylist()] == [("a", [0, 1, 2]), ("b", [0, 1, 2])]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", "no header of a table|none of the columns"),
        (b"a,b,c", "none of the columns of the class 'machine'"),
        (b"flow,door", "no time column 'time'"),
        (b"time,weather", "none of the columns of the class 'machine'"),
        (b"time,flow,flow", "'flow' stands twice"),
        (b"time,time,flow", "'time' stands twice"),
        (b"time,flow,Volume Flow", "both the signal 'flow'"),
        (b"\x93\x8f\x00\xff,1", "no header of a table"),
        (b"time,fl\x00ow", "no header of a table"),
        (b'"time,flow', "no header of a table"),
    ],
)
def test_a_wrong_header_is_refused_in_one_sentence(header: bytes, expected: str) -> None:
    with pytest.raises(TelemetryError, match=expected) as caught:
        check_header(header, machine())
    assert "\n" not in str(caught.value)
    decoded = decode(header + b"\n2026-01-05T12:00:00Z,1,2\n2026-01-05T12:00:01Z,1,2\n")
    assert reasons(decoded) == {"malformed": 2}


@pytest.mark.parametrize(
    "header", [b"time,flow", b"\xef\xbb\xbftime,flow\r", b'"time", "flow"', b"time,Volume Flow,anomaly"]
)
def test_a_good_header_may_be_written_in_several_ways(header: bytes) -> None:
    check_header(header, machine())


def test_each_fault_is_rejected_with_its_reason_and_its_line() -> None:
    text = (
        "time,asset,flow,door,weather\n"
        "2026-01-05T12:00:00Z,a,1.0,open,rain\n"  # an unknown column beside known ones
        "2026-01-05T12:00:01Z,a,much,closed,\n"  # text in a number
        "2026-01-05 12:00:02,a,2.0,open,\n"  # a time without zone
        "yesterday,a,3.0,open,\n"
        ",a,3.0,,\n"
        "2026-01-05T12:00:04Z,,4.0,,\n"  # no asset
        "2026-01-05T12:00:05Z,a,5.0\n"  # too few fields
        "2026-01-05T12:00:06Z,a,6.0,open,,,\n"  # too many
        "2026-01-05T12:00:07Z,a,7.0,ajar,\n"  # a word without number
        "\n"
        "2026-01-05T12:00:08Z,a,8.0,2,\n"
    )
    decoded = decode(text)
    assert reasons(decoded) == {
        "unknown_signal": 1,
        "bad_value": 2,
        "naive_time": 2,
        "bad_time": 3,
        "unknown_asset": 1,
        "malformed": 2,
    }
    assert [s for s in samples(decoded) if s[1] == "flow"] == [
        ("a", "flow", 0, 1.0),
        ("a", "flow", 7_000_000, 7.0),
        ("a", "flow", 8_000_000, 8.0),
    ]
    by_reason = {r.reason: r for r in decoded.rejected}
    assert by_reason[Reason.NAIVE_TIME].raw == b"2026-01-05 12:00:02,a,2.0,open,"
    assert by_reason[Reason.UNKNOWN_SIGNAL].raw == b"time,weather\n2026-01-05T12:00:00Z,rain"
    assert by_reason[Reason.UNKNOWN_SIGNAL].signal == "weather"
    much = next(r for r in decoded.rejected if r.signal == "flow" and r.reason is Reason.BAD_VALUE)
    assert (much.raw, much.asset, much.start_us) == (b"2026-01-05T12:00:01Z,a,much,closed,", "a", NOON + 1_000_000)
    assert "much" in much.detail


def test_broken_utf8_is_a_malformed_row_and_not_in_a_column_that_nobody_reads() -> None:
    good = b"time,flow,anomaly\n2026-01-05T12:00:00Z,1,\xff\n2026-01-05T12:00:01Z,x,\xff\n"
    assert reasons(decode(good)) == {"bad_value": 1}
    bad = b"time,flow,weather\n2026-01-05T12:00:00Z,1,\xff\n2026-01-05T12:00:01Z,2,\n"
    decoded = decode(bad)
    assert reasons(decoded) == {"malformed": 1}
    assert decoded.rejected[0].raw == b"2026-01-05T12:00:00Z,1,\xff"
    assert count_readings(decoded.blocks) == 1


def test_quotes_and_line_ends_of_any_kind() -> None:
    text = 'time;flow;weather\r\n"2026-01-05T12:00:00Z";"1.5";"a ""b""; c"\r\n\r\n2026-01-05T12:00:01Z;1.6;'
    decoded = decode(text, machine(separator=";"))
    assert reasons(decoded) == {"unknown_signal": 1}
    assert [s[3] for s in samples(decoded)] == [1.5, 1.6]
    # A quote that never closes takes its own line only.
    decoded = decode('time,flow\n2026-01-05T12:00:00Z,"1\n2026-01-05T12:00:01Z,2\n2026-01-05T12:00:02Z,3\n')
    assert [s[3] for s in samples(decoded)][-2:] == [2.0, 3.0]
    # A lone carriage return is no line end.
    decoded = decode("time,flow\n2026-01-05T12:00:00Z,1\r2026-01-05T12:00:01Z,2\n2026-01-05T12:00:02Z,3\n")
    assert reasons(decoded) == {"malformed": 1}


def test_lines_that_are_wrong_in_the_same_way_come_as_one_and_cost_no_more_than_their_bytes() -> None:
    bad = "too,many,fields,for,a,row\n" * 3 + "few\n" + "\r\r\n\r\n\n" + "too,many,fields,for,a,row\r\n"
    row = f"{NOON // 10**6},much,1\r\n"
    decoded = decode(f"time,flow,door\n{bad}{row}few\n{row}")
    found = [(r.reason.value, r.readings, r.raw) for r in decoded.rejected]
    row = row.removesuffix("\r\n")
    assert found == [
        ("malformed", 4, b"\n".join([b"too,many,fields,for,a,row"] * 4)),
        ("malformed", 2, b"few\nfew"),
        ("bad_value", 2, f"{row}\n{row}".encode()),
    ]
    assert reasons(decode("time,flow\n" + "x\n" * 300_000)) == {"malformed": 300_000}


def test_rows_that_are_wrong_in_many_columns_are_kept_a_few_times_only() -> None:
    names = [f"s{i}" for i in range(20)]
    signal = Signal(unit="1", range=(0, 1), period_s=1.0, description="")
    equipment = replace(machine(), signals={name: signal for name in names})
    line = ",".join([str(NOON // 10**6), *["x"] * 20])
    payload = ("\n".join([",".join(["time", *names])] + [line] * 1000)).encode()
    decoded = decode_wide_csv(payload, equipment, asset="m1", source="test")
    assert reasons(decoded) == {"bad_value": 20_000}
    assert decoded.rejected[0].signal == "s0" and decoded.rejected[-1].signal is None
    assert sum(len(one.raw) for one in decoded.rejected) <= 5 * len(payload)


def test_infinity_is_passed_on_to_be_out_of_range() -> None:
    assert [s[3] for s in samples(decode(f"time,flow\n{NOON // 10**6},-inf\n"))] == [-math.inf]


TIMES = st.sampled_from(
    [
        "2026-01-05T12:00:00Z",
        "2026-01-05 13:00:00.25+01:00",
        "1767614400",
        "",
        "noon",
        "2026-01-05 12:00",
        "2026-02-30T00:00Z",
    ]
)
NUMBERS = st.sampled_from(
    ["", "1", "-2.5", "1e3", " 7 ", "nan", "inf", "+4", "1;5", "x", "0x1p3", "NULL", "1_000", "\u0663", "5.", "open"]
)
ASSETS = st.sampled_from(["a", "b", ""])
ROWS = st.lists(st.tuples(TIMES, ASSETS, NUMBERS, NUMBERS, st.sampled_from(["", "rain", "NaN"])), max_size=12)


@settings(max_examples=300, deadline=None)
@given(ROWS)
@example([("2026-01-05T12:00:00Z", "a", "x", "y", "rain")])
def test_readings_in_are_readings_in_blocks_and_rejected(rows: list[tuple[str, ...]]) -> None:
    lines = [",".join(row) for row in rows]
    decoded = decode("\n".join(["time,asset,flow,door,weather", *lines]))
    cells = sum(cell.strip().lower() not in ("", "nan") for row in rows for cell in row[2:4])
    cells += sum(row[4] != "" for row in rows)
    assert count_readings(decoded.blocks) + sum(reasons(decoded).values()) == cells


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_a_bad_line_changes_nothing_for_the_others(rows: list[tuple[str, ...]]) -> None:
    """The fast path and the slow path read the same."""
    lines = [",".join(row) for row in rows]
    header = "time,asset,flow,door,weather"
    alone = decode("\n".join([header, *lines]))
    beside = decode("\n".join([header, *lines, "too,few"]))
    assert alone.blocks.to_pylist() == beside.blocks.to_pylist() or str(samples(alone)) == str(samples(beside))
    assert reasons(beside).get("malformed", 0) == reasons(alone).get("malformed", 0) + 1
    each = [sample for line in lines for sample in samples(decode(f"{header}\n{line}"))]
    assert str(sorted(each)) == str(samples(alone))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_decoded_without_an_error(noise: bytes, headed: bool) -> None:
    decoded = decode((b"time,flow,door,weather\n" if headed else b"") + noise)
    assert count_readings(decoded.blocks) >= 0
    reasons(decoded)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=30, unique=True).map(sorted), st.integers(0, 30))
def test_where_a_table_is_cut_changes_no_sample(steps: list[int], cut: int) -> None:
    lines = [f"{NOON / 1e6 + step / 10:.1f},{step},{'open' if step % 3 else ''}" for step in steps]
    whole = decode("\n".join(["time,flow,door", *lines]))
    parts = [decode("\n".join(["time,flow,door", *some])) for some in (lines[:cut], lines[cut:])]
    assert samples(whole) == sorted(sample for part in parts for sample in samples(part))


def test_a_table_of_arrow_columns_of_many_types() -> None:
    times = pa.array(np.arange(3) * 1_000_000_000 + NOON * 1000, pa.timestamp("ns", "Europe/Paris"))
    batch = pa.record_batch(
        {
            "time": times,
            "asset": pa.array([7, 7, 8]),
            "flow": pa.array([1, None, 3], pa.int16()),
            "door": pa.array(["open", "closed", "ajar"]).dictionary_encode(),
            "speed": pa.array([[1.0], None, None], pa.list_(pa.float64())),
            "weather": pa.array([math.nan, 1.0, None]),
            "anomaly": pa.array([1, 1, 1]),
        }
    )
    decoded = decode_wide_table(batch, machine(), asset="m1", source="test")
    assert samples(decoded) == [
        ("7", "door", 0, 1.0),
        ("7", "door", 1_000_000, 0.0),
        ("7", "flow", 0, 1.0),
        ("8", "flow", 2_000_000, 3.0),
    ]
    assert reasons(decoded) == {"bad_value": 2, "unknown_signal": 1}
    ajar = next(r for r in decoded.rejected if r.signal == "door")
    assert b'"door":"ajar"' in ajar.raw


def test_a_table_with_broken_text_or_a_wrong_header_is_counted() -> None:
    broken = pa.array([b"open", b"\xff"], pa.binary()).view(pa.utf8())
    batch = pa.record_batch({"time": pa.array([NOON // 10**6] * 2), "door": broken})
    decoded = decode_wide_table(batch, machine(), asset="m1", source="test")
    assert reasons(decoded) == {"bad_value": 1}
    assert count_readings(decoded.blocks) == 1
    other = decode_wide_table(pa.record_batch({"x": [1, 2]}), machine(), asset="m1", source="test")
    assert reasons(other) == {"malformed": 2}
