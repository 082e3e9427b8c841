"""Statistics where arithmetic is hard: long series, large offsets, small spreads, constants, one sample, extremes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.signals import EquipmentClass, Signal

START_US = 1_700_006_400_000_000
EXAMPLES = settings().max_examples
DAY_S = 86_400.0
Machine = Callable[..., EquipmentClass]


def one_window(
    arrivals: ModuleType, equipment: EquipmentClass, signal: str, times: Any, values: Any, **how: Any
) -> Any:
    """Return the statistics of a series that lies in one window and arrives in order, in blocks of `longest`."""
    rng = np.random.default_rng(0)
    lateness_us = round(equipment.lateness_s * 1e6)
    blocks = arrivals.cut(rng, "a", signal, times, values, lateness_us, how.pop("longest", 100), missing=False)
    messages = (
        arrivals.arrange(rng, blocks, lateness_us, 200) if how.pop("shuffled", False) else arrivals.in_order(blocks)
    )
    outcome = arrivals.run(equipment, messages, **how)
    assert outcome.rejected.total() == 0
    return outcome


def statistics(outcome: Any, equipment: EquipmentClass, signal: str) -> list[float]:
    [(_, _, features)] = outcome.windows.values()
    place = 13 * equipment.signal_names.index(signal)
    found: list[float] = features[place : place + 13].tolist()
    return found


def agree(oracle: ModuleType, found: list[float], expected: dict[str, float], but: tuple[str, ...] = ()) -> None:
    for name, value in zip(oracle.STATISTICS, found, strict=True):
        if np.isnan(expected[name]):
            assert np.isnan(value), name
        elif name not in but:
            assert abs(value - expected[name]) <= oracle.tolerance(name, expected), (name, expected[name], value)


@pytest.mark.parametrize("longest", [1, 7, 100, 4000])
def test_a_gas_meter_at_a_billion(arrivals: ModuleType, oracle: ModuleType, machine: Machine, longest: int) -> None:
    """It rises by a litre a second: 1e9 m3 + 1e-3 m3; a double has 1.2e-7 there, and no more may be lost."""
    equipment = machine(window_s=600.0, lateness_s=600.0, idle_after_s=1200.0)
    times = START_US + np.arange(600) * 1_000_000
    values = 1e9 + np.arange(600) * 1e-3
    outcome = one_window(arrivals, equipment, "meter", times, values, longest=longest)
    agree(oracle, statistics(outcome, equipment, "meter"), oracle.statistics(times, values))


@pytest.mark.parametrize("longest", [1, 100])
def test_the_meter_in_the_longer_windows(
    arrivals: ModuleType, oracle: ModuleType, machine: Machine, longest: int
) -> None:
    equipment = machine(window_s=10.0, lateness_s=10.0)
    times = START_US + np.arange(7200) * 1_000_000
    values = 1e9 + np.arange(7200) * 1e-3
    outcome = one_window(arrivals, equipment, "meter", times, values, longest=longest)
    place = 13 * equipment.signal_names.index("meter")
    for length_s in equipment.horizons_s:
        for (length, _, start), (_, features) in outcome.horizons.items():
            if length == length_s:
                inside = (times >= start) & (times < start + length * 1e6)
                agree(oracle, features[place : place + 13].tolist(), oracle.statistics(times[inside], values[inside]))


@given(data=st.data())
def test_a_small_spread_on_a_large_offset(
    data: st.DataObject, arrivals: ModuleType, oracle: ModuleType, machine: Machine
) -> None:
    equipment = machine(window_s=60.0, lateness_s=60.0, idle_after_s=120.0)
    offset = data.draw(st.sampled_from([1e3, -1e6, 1e9, -1e9, 9.9e11]))
    spread = data.draw(st.sampled_from([1e-3, 1.0, 1e3]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n = data.draw(st.integers(2, 60))
    times = START_US + np.arange(n) * 1_000_000
    values = offset + spread * data.draw(
        st.sampled_from([rng.normal(0, 1, n), rng.integers(0, 2, n), rng.exponential(1, n)])
    )
    longest = data.draw(st.sampled_from([1, 10, 60]))
    outcome = one_window(arrivals, equipment, "meter", times, values, longest=longest, shuffled=True)
    agree(oracle, statistics(outcome, equipment, "meter"), oracle.statistics(times, values))


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_a_million_samples_in_one_window(
    arrivals: ModuleType, oracle: ModuleType, machine: Machine, offset: float
) -> None:
    rng = np.random.default_rng(7)
    equipment = machine(window_s=DAY_S, lateness_s=10.0, idle_after_s=2 * DAY_S)
    equipment.signals["fast"] = Signal(unit="1", range=(-1e9, 1e9), period_s=0.08, description="")
    times = START_US // 86_400_000_000 * 86_400_000_000 + np.arange(1_000_000) * 80_000
    values = rng.normal(offset, 1.0, len(times))
    blocks = [
        arrivals.Block("a", "fast", int(times[i]), 80_000, tuple(values[i : i + 126].tolist()))
        for i in range(0, len(times), 126)
    ]
    outcome = arrivals.run(equipment, [arrivals.Message("in", tuple(blocks))])
    agree(oracle, statistics(outcome, equipment, "fast"), oracle.statistics(times, values))


@pytest.mark.parametrize(
    "value",
    [
        0.0,
        -0.0,
        0.1,
        -7.3e-5,
        1e9 + 1 / 3,
        123456.789,
    ],
)
def test_a_constant_has_no_spread_whatever_its_value(
    arrivals: ModuleType, oracle: ModuleType, machine: Machine, value: float
) -> None:
    equipment = machine()
    times = START_US // 10_000_000 * 10_000_000 + np.arange(10) * 1_000_000
    for longest in (1, 3, 10):
        outcome = one_window(arrivals, equipment, "meter", times, np.full(10, value), longest=longest, shuffled=True)
        found = dict(zip(oracle.STATISTICS, statistics(outcome, equipment, "meter"), strict=True))
        assert found["std"] == found["peak_to_peak"] == 0.0
        assert found["min"] == found["max"] == found["first"] == found["last"] == value
        assert np.isnan(found["skewness"]) and np.isnan(found["kurtosis"])
        agree(oracle, list(found.values()), oracle.statistics(times, np.full(10, value)))


@given(st.floats(-1e12, 1e12), st.integers(0, 9_999_999))
def test_a_window_of_one_sample(
    arrivals: ModuleType, oracle: ModuleType, machine: Machine, value: float, at: int
) -> None:
    equipment = machine()
    times = np.array([START_US // 10_000_000 * 10_000_000 + at])
    if 0.0 < abs(value) < 1e-150:
        value = 0.0  # its square is less than a double can hold
    outcome = one_window(arrivals, equipment, "meter", times, np.array([value]))
    found = dict(zip(oracle.STATISTICS, statistics(outcome, equipment, "meter"), strict=True))
    agree(oracle, list(found.values()), oracle.statistics(times, np.array([value])))
    assert found["mean"] == found["min"] == value
    assert np.isnan(found["slope"])


@given(data=st.data())
@settings(max_examples=max(1, EXAMPLES // 3))
def test_duckdb_says_the_same(
    data: st.DataObject, arrivals: ModuleType, oracle: ModuleType, oracle_sql: ModuleType, machine: Machine
) -> None:
    equipment = machine(lateness_s=data.draw(st.sampled_from([0.0, 5.0, 20.0])))
    lateness_us = round(equipment.lateness_s * 1e6)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    blocks: list[Any] = []
    for asset in ("a", "b"):
        for signal, period_us in (("fast", 100_000), ("slow", 1_000_000)):
            kind = data.draw(st.sampled_from(["regular", "jitter", "holes", "bursts", "few"]))
            at = arrivals.times(rng, START_US, period_us, 60_000_000 // period_us, kind)
            values = arrivals.VALUES[data.draw(st.sampled_from(sorted(arrivals.VALUES)))](rng, len(at))
            blocks += arrivals.cut(rng, asset, signal, at, values, lateness_us, 40, 0.2)
    messages = arrivals.arrange(rng, blocks, lateness_us)
    outcome = arrivals.run(equipment, messages, shards=2)
    ranges = {name: signal.range for name, signal in equipment.signals.items()}
    accepted, _ = oracle.first_wins((oracle.Reading(*r) for r in arrivals.readings_of(messages)), ranges)
    for length_s, found in [(equipment.window_s, outcome.windows)] + [
        (length_s, {k[1:]: v for k, v in outcome.horizons.items() if k[0] == length_s})
        for length_s in equipment.horizons_s
    ]:
        expected = oracle_sql.windows(accepted, round(length_s * 1e6))
        for (asset, signal, start), statistics in expected.items():
            features = found[asset, start][-1]
            place = 13 * equipment.signal_names.index(signal)
            # SQL sums in double precision: it is the oracle up to 1e-9 of the spread and of the offset.
            scale = max(abs(statistics["min"]), abs(statistics["max"]), 1e-9)
            for name, value in zip(oracle.STATISTICS, features[place : place + 13].tolist(), strict=True):
                if np.isnan(statistics[name]):
                    assert np.isnan(value), (asset, signal, start, name)
                elif name in oracle.EXACT:
                    assert value == statistics[name], (asset, signal, start, name)
                else:
                    assert value == pytest.approx(statistics[name], rel=1e-7, abs=1e-9 * max(scale, 1.0)), (
                        signal,
                        start,
                        name,
                    )
        signals = sum(
            1 for _, _, features in ((0, 0, v[-1]) for v in found.values()) for n in features[0:52:13] if n > 0
        )
        assert signals == len(expected)
