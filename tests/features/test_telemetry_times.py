"""Event times: every way to write one, and the two nights on which the clocks are changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.times import read_times

PARIS = "Europe/Paris"


def read(cells: Sequence[str | None], zone: str | None = PARIS) -> list[str | None]:
    times = read_times(pa.array(cells, pa.utf8()), zone)
    return [
        None if bad or naive else (datetime(1970, 1, 1) + timedelta(microseconds=us)).isoformat()
        for us, bad, naive in zip(times.us.tolist(), times.bad, times.naive, strict=True)
    ]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2026-01-05T12:00:00Z", "2026-01-05T12:00:00"),
        ("2026-01-05t12:00:00.5z", "2026-01-05T12:00:00.500000"),
        ("2026-01-05 12:00:00.123456789Z", "2026-01-05T12:00:00.123456"),
        ("2026-01-05 12:00:00 +0130", "2026-01-05T10:30:00"),
        ("2026-01-05 12:00:00-05", "2026-01-05T17:00:00"),
        (" 2026-01-05 12:00 ", "2026-01-05T11:00:00"),
        ("2026-01-05", "2026-01-04T23:00:00"),
        ("1767614400.25", "2026-01-05T12:00:00.250000"),
        ("0", "1970-01-01T00:00:00"),
        ("1767614400000", None),
        ("-1", None),
        ("2026-02-30T00:00:00Z", None),
        ("2026-01-05T24:00:01Z", None),
        ("05/01/2026 12:00", None),
        ("", None),
        (None, None),
    ],
)
def test_a_cell_is_read_alone_and_beside_others(cell: str | None, expected: str | None) -> None:
    assert read([cell]) == [expected]
    assert read(["2026-01-05T12:00:00Z", cell, "x"]) == ["2026-01-05T12:00:00", expected, None]


def test_a_time_without_zone_needs_a_class_with_one() -> None:
    times = read_times(pa.array(["2026-01-05 12:00:00", "2026-01-05T12:00:00Z"]))
    assert times.naive.tolist() == [True, False]
    assert not times.bad.any()


@pytest.mark.parametrize(
    ("column", "seconds"),
    [
        (pa.array([1.5]), 1.5),
        (pa.array([7], pa.int32()), 7),
        (pa.array([1_500], pa.timestamp("ms", "UTC")), 1.5),
        (pa.array([1_500_000_000], pa.timestamp("ns", PARIS)), 1.5),
        (pa.array([1], pa.date32()), 86_400 - 3600),
        (pa.array(["1970-01-01T00:00:02Z"], pa.large_string()).dictionary_encode(), 2),
    ],
)
def test_columns_of_any_type(column: pa.Array, seconds: float) -> None:
    assert read_times(column, PARIS).us.tolist() == [seconds * 1e6]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([True]),
        pa.array([[1]]),
        pa.array([None]),
        pa.array([float("inf")]),
        pa.array([2**62], pa.timestamp("s")),
    ],
)
def test_what_is_no_time_is_bad(column: pa.Array) -> None:
    assert read_times(column, PARIS).bad.tolist() == [True] or read_times(column, PARIS).us[0] > 0


def night(step_min: int, zone: str = PARIS) -> tuple[list[str], list[str]]:
    """Local and universal times over the night of 25 October 2026."""
    begin = datetime(2026, 10, 24, 22, tzinfo=UTC)
    moments = [begin + timedelta(minutes=step_min * i) for i in range(6 * 60 // step_min)]
    local = [m.astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat(" ") for m in moments]
    return local, [m.replace(tzinfo=None).isoformat() for m in moments]


@pytest.mark.parametrize("step_min", [1, 10, 30, 60])
def test_the_repeated_hour_is_told_by_its_order(step_min: int) -> None:
    local, universal = night(step_min)
    assert read(local) == universal


def test_two_assets_of_one_table_have_each_their_own_order() -> None:
    local, universal = night(10)
    group = np.arange(2 * len(local), dtype=np.int32) % 2
    times = read_times(pa.array([t for t in local for _ in range(2)]), PARIS, group)
    both = [t for t in universal for _ in range(2)]
    assert [(datetime(1970, 1, 1) + timedelta(microseconds=us)).isoformat() for us in times.us.tolist()] == both


def test_rows_that_begin_inside_the_repeated_hour_and_run_past_it_are_of_the_second_pass() -> None:
    assert read(["2026-10-25 02:40", "2026-10-25 02:50", "2026-10-25 03:00"])[0] == "2026-10-25T01:40:00"
    assert read(["2026-10-25 01:50", "2026-10-25 02:40", "2026-10-25 02:50"])[1] == "2026-10-25T00:40:00"


def test_a_row_out_of_order_does_not_end_the_first_pass() -> None:
    cells: list[str | None] = [f"2026-10-25 02:30:{s:02d}" for s in (1, 2, 4, 3, 5)]
    assert [t[11:] for t in read(cells) if t] == ["00:30:01", "00:30:02", "00:30:04", "00:30:03", "00:30:05"]


def test_the_skipped_hour_does_not_exist() -> None:
    assert read(["2026-03-29 01:59:59", "2026-03-29 02:00:00", "2026-03-29 02:59:59", "2026-03-29 03:00:00"]) == [
        "2026-03-29T00:59:59",
        None,
        None,
        "2026-03-29T01:00:00",
    ]


@settings(max_examples=100, deadline=None)
@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)),
    st.sampled_from(
        ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC", "Africa/Casablanca"]
    ),
)
def test_local_times_agree_with_the_calendar(moment: datetime, name: str) -> None:
    zone = ZoneInfo(name)
    aware = moment.replace(tzinfo=UTC).astimezone(zone)
    expected = (aware.replace(fold=0) if aware.fold else aware).astimezone(UTC)
    assert read([aware.replace(tzinfo=None).isoformat()], name) == [expected.replace(tzinfo=None).isoformat()]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=30) | st.none(), max_size=8))
def test_any_text_is_read_without_an_error(cells: list[str | None]) -> None:
    read([c if c is None or c.isprintable() else c.encode(errors="replace").decode() for c in cells])
