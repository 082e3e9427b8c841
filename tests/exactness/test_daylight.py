"""Nights on which the clocks change: naive times of a table become the windows of the seconds that really passed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.signals import load_class
from features.wire import decode_wide_csv
from flows.cutting import Cutter
from flows.files import pieces

BOILER = load_class("boiler")
PARIS = ZoneInfo("Europe/Paris")
SPRING, AUTUMN = datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)
EXAMPLES = settings().max_examples
FLOW = 13 * BOILER.signal_names.index("flow")


def local(us: int) -> str:
    """Return what the clock on the wall shows."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    return moment.astimezone(PARIS).strftime("%Y-%m-%d %H:%M:%S")


def read(path: Path, arrivals: ModuleType, chunk: int) -> list[Any]:
    """Read a table in pieces as the flow does, and return the messages."""
    messages = []
    for piece in pieces(path, BOILER, Cutter.of(BOILER), chunk=chunk):
        assert piece.wire == "csv"
        decoded = decode_wide_csv(piece.payload, BOILER, asset="a", source="in")
        assert decoded.rejected == []
        blocks = [
            arrivals.Block(
                b["asset"], b["signal"], round(b["start"].timestamp() * 1e6), b["period_us"], tuple(b["values"])
            )
            for b in decoded.blocks.to_pylist()
        ]
        messages.append(arrivals.Message("in", tuple(blocks)))
    return messages


@given(data=st.data())
@settings(max_examples=max(1, EXAMPLES // 3), suppress_health_check=list(HealthCheck))
def test_a_table_of_local_times_over_both_nights(
    data: st.DataObject, arrivals: ModuleType, oracle: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> None:
    night = data.draw(st.sampled_from([SPRING, AUTUMN]))
    period_s = data.draw(st.sampled_from([13, 60, 300, 900]), label="period")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    before_s = data.draw(st.integers(3700, 4 * 3600), label="seconds before")
    begin_us = round(night.timestamp() - before_s) * 1_000_000
    times = begin_us + np.arange((before_s + 2 * 3600) // period_s) * period_s * 1_000_000
    assets = data.draw(st.sampled_from([["a"], ["a", "b", "c"]]))
    missing = data.draw(st.sampled_from([0.0, 0.1]), label="rows missing")
    rows, readings = [], []
    for at in times.tolist():
        for asset in assets:
            if rng.random() >= missing:
                value = round(float(rng.uniform(0, 5)), 3)
                rows.append(f"{local(at)},{asset},{value}")
                readings.append(oracle.Reading(asset, "flow", at, value))
    path = tmp_path_factory.mktemp("night") / "table.csv"
    path.write_text("\n".join(["time,asset,flow", *rows]) + "\n")
    chunk = data.draw(st.sampled_from([200, 5000, 1_000_000]), label="chunk")
    outcome = arrivals.run(BOILER, read(path, arrivals, chunk))
    assert not outcome.rejected
    expected = oracle.windows(readings, 60_000_000)
    assert {key: n for key, (n, _, _) in outcome.windows.items()} == {key: w.samples for key, w in expected.items()}
    for key, (_, _, features) in outcome.windows.items():
        for name in oracle.EXACT:
            assert features[FLOW + oracle.STATISTICS.index(name)] == expected[key].signals["flow"][name]


def test_an_hour_that_does_not_exist_is_a_bad_time(arrivals: ModuleType) -> None:
    table = b"time,flow\n2026-03-29 01:59:59,1\n2026-03-29 02:00:00,2\n2026-03-29 02:59:59,3\n2026-03-29 03:00:00,4\n"
    decoded = decode_wide_csv(table, BOILER, asset="a", source="in")
    assert [(r.reason, r.readings) for r in decoded.rejected] == [("bad_time", 2)]
    starts = [(b["start"], b["period_us"], b["values"]) for b in decoded.blocks.to_pylist()]
    assert starts == [(SPRING - timedelta(seconds=1), 0, [1.0]), (SPRING, 0, [4.0])] or starts == [
        (SPRING - timedelta(seconds=1), 1_000_000, [1.0, 4.0])
    ]


def test_both_passes_of_the_hour_keep_their_own_windows(arrivals: ModuleType, tmp_path: Path) -> None:
    times = [round(AUTUMN.timestamp() + s) * 1_000_000 for s in range(-7200, 7200, 60)]
    path = tmp_path / "night.csv"
    path.write_text("time,flow\n" + "".join(f"{local(at)},{k / 2}\n" for k, at in enumerate(times)))
    outcome = arrivals.run(BOILER, read(path, arrivals, 300))
    assert [start for _, start in sorted(outcome.windows)] == times
    assert [features[FLOW + 1] for _, (_, _, features) in sorted(outcome.windows.items())] == [
        k / 2 for k in range(240)
    ]
