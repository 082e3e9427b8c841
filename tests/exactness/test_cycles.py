"""Working cycles: whatever the order of arrival, each window says what a look back over the whole series says."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.signals import EquipmentClass, load_class

START_US = 1_700_000_000_000_000
SECOND = 1_000_000
EXAMPLES = settings().max_examples
LIFT, BOILER = load_class("lift"), load_class("boiler")
Series = dict[str, tuple[Any, Any]]


def thinned(draw: Any, rng: Any, at: Any, values: Any) -> tuple[Any, Any]:
    """Take samples away: none, some here and there, or whole stretches, and move the others a little."""
    keep = np.ones(len(at), np.bool_)
    kind = draw(st.sampled_from(["all", "some", "stretches", "jitter"]))
    if kind == "some":
        keep = rng.random(len(at)) < 0.85
    elif kind == "stretches":
        keep = np.repeat(rng.random(len(at) // 40 + 1) < 0.8, 40)[: len(at)]
    elif kind == "jitter":
        at = at + rng.integers(0, max(1, int(at[1] - at[0]) // 3), len(at)) if len(at) > 1 else at
    return at[keep], values[keep]


def path(rng: Any, n: int, low: float, high: float, slowest: int, fastest: int = 1) -> Any:
    """Return a way that rests at one end, goes to the other, sometimes turns on the way, and rests there."""
    values: list[float] = []
    now = low
    while len(values) < n:
        goal = float(rng.choice([low, high, rng.uniform(low, high)], p=[0.4, 0.4, 0.2]))
        steps = int(rng.integers(fastest, slowest))
        values += np.linspace(now, goal, steps + 1)[1:].tolist() + [goal] * int(rng.integers(0, 30))
        now = goal
    return np.array(values[:n])


def lift(draw: Any, rng: Any, seconds: int, begin_us: int) -> Series:
    at = begin_us + np.arange(seconds * 10, dtype=np.int64) * 100_000
    slow = begin_us + np.arange(seconds, dtype=np.int64) * SECOND
    speed = path(rng, len(at), 0.0, 1.0, 25) * rng.choice([-1.0, 1.0]) + rng.normal(0, 0.004, len(at))
    return {
        "car_speed": thinned(draw, rng, at, speed),
        "motor_current": thinned(
            draw, rng, at + draw(st.sampled_from([0, 37_000])), 5.0 + 8 * np.abs(speed) + rng.random(len(at))
        ),
        "door_position": thinned(draw, rng, at, np.clip(path(rng, len(at), 0.0, 1.0, 30), -0.1, 1.1)),
        "landing_offset": thinned(draw, rng, slow, rng.normal(0, 5, len(slow))),
        "motor_temperature": (slow[::10], rng.normal(40, 1, len(slow[::10]))),
    }


def boiler(draw: Any, rng: Any, seconds: int, begin_us: int) -> Series:
    at = begin_us + np.arange(seconds, dtype=np.int64) * SECOND
    n = len(at)
    fires = np.repeat(rng.random(n // 30 + 1) < 0.6, 30)[:n] if draw(st.booleans()) else np.arange(n) % 400 > 60
    spark = (rng.random(n) < 0.1) | np.roll(np.diff(fires, prepend=False) & fires, 2)
    supply = 60.0 + rng.normal(0, 0.2, n).cumsum() * 0.3
    return {
        "burner_modulation": thinned(draw, rng, at, np.where(fires, rng.uniform(0.2, 1.0, n), 0.0)),
        "ignition": thinned(draw, rng, at, spark.astype(np.float64)),
        "flame_current": thinned(
            draw, rng, at + draw(st.sampled_from([0, 250_000])), np.where(fires, rng.uniform(0.5, 9, n), 0.0)
        ),
        "supply_temperature": thinned(draw, rng, at, supply),
        "return_temperature": thinned(
            draw, rng, at + draw(st.sampled_from([0, 499_999])), supply - rng.uniform(5, 15, n)
        ),
        "flue_temperature": thinned(draw, rng, at, 80.0 + rng.normal(0, 2, n)),
        "outdoor_temperature": (at[:: draw(st.sampled_from([1, 60, 900]))], None),
        "water_pressure": thinned(draw, rng, at, 1.5 + rng.normal(0, 0.01, n)),
        "pump_power": thinned(draw, rng, at, np.where(rng.random(n) < 0.8, rng.uniform(20, 60, n), 1.0)),
        "flow": thinned(draw, rng, at, rng.uniform(0, 2, n)),
    }


def held(series: Series, signal: str) -> list[tuple[int, float]]:
    """Return samples as a queue holds them: with seven digits."""
    at, values = series.get(signal, ((), ()))
    return [(int(t), float(np.float32(v))) for t, v in zip(at, values, strict=True)]


def expected(
    oracles: Any, name: str, series: Series, windows: list[tuple[int, int]]
) -> dict[str, list[dict[str, float]]]:
    """Return what the oracle says of each cycle in each window."""
    h = {signal: held(series, signal) for signal in (LIFT if name == "lift" else BOILER).signals}
    if name == "lift":
        return {
            "trips": oracles.trips(h["car_speed"], h["motor_current"], windows),
            "doors": oracles.doors(h["door_position"], windows),
            "levelling": oracles.levelling(h["car_speed"], h["landing_offset"], windows),
        }
    return {
        "burner": oracles.burner(h["burner_modulation"], windows),
        "ignitions": oracles.ignition(h["ignition"], h["flame_current"], windows),
        "spread": oracles.difference(h["supply_temperature"], h["return_temperature"], windows),
        "flue": oracles.flue(
            h["burner_modulation"], h["outdoor_temperature"], h["return_temperature"], h["flue_temperature"], windows
        ),
        "circuit": oracles.pressure(h["supply_temperature"], h["water_pressure"], windows),
        "circulation": oracles.circulation(h["pump_power"], h["flow"], windows),
    }


def compare(equipment: EquipmentClass, outcome: Any, said: dict[str, list[dict[str, float]]], windows: Any) -> None:
    for number, (start, _) in enumerate(windows):
        _, _, features = outcome.windows["a", start]
        for cycle, results in said.items():
            for output, value in results[number].items():
                name = f"{cycle}.{output}"
                found = float(features[equipment.feature_index[name]])
                where = (name, (start - windows[0][0]) / 1e6, value, found)
                assert np.isnan(found) == np.isnan(value), where
                # Door times hang on microseconds since 1970, of which a double resolves a quarter.
                absolute = 2e-6 if name in ("doors.opening_s", "doors.closing_s") else 1e-9
                if not np.isnan(value):
                    assert found == pytest.approx(value, rel=1e-7 if cycle == "circuit" else 1e-9, abs=absolute), where


def arrive(draw: Any, rng: Any, arrivals: ModuleType, equipment: EquipmentClass, series: Series) -> list[Any]:
    """Let the series arrive in any order within the lateness, or all at once."""
    lateness_us = round(equipment.lateness_s * 1e6)
    blocks: list[Any] = []
    longest = draw(st.sampled_from([1, 30, 400]), label="longest block")
    for signal, (at, values) in series.items():
        blocks += arrivals.cut(rng, "a", signal, at, values, lateness_us, longest, draw(st.sampled_from([0.0, 0.2])))
    if draw(st.booleans(), label="all at once"):
        messages: list[Any] = arrivals.in_order(blocks)
    else:
        messages = arrivals.arrange(
            rng,
            blocks,
            lateness_us,
            draw(st.sampled_from([1, 30, 300])),
            shuffled=draw(st.booleans(), label="shuffled"),
        )
    return messages


def check(
    draw: Any, arrivals: ModuleType, oracles: ModuleType, equipment: EquipmentClass, make: Any, seconds: int
) -> None:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    begin_us = draw(
        st.sampled_from([START_US, START_US + 3_456_789, START_US // 60_000_000 * 60_000_000]), label="begin"
    )
    series = make(draw, rng, seconds, begin_us)
    if "outdoor_temperature" in series:
        at = series["outdoor_temperature"][0]
        series["outdoor_temperature"] = at, rng.normal(5, 1, len(at))
    messages = arrive(draw, rng, arrivals, equipment, series)
    often = draw(st.sampled_from([0.0, 0.1]), label="restarts")
    outcome = arrivals.run(equipment, messages, restart=lambda _: rng.random() < often, pickled=draw(st.booleans()))
    assert set(outcome.rejected) <= {"duplicate"}
    window_us = round(equipment.window_s * 1e6)
    windows = [(start, start + window_us) for _, start in sorted(outcome.windows)]
    compare(equipment, outcome, expected(oracles, equipment.name, series, windows), windows)


@given(data=st.data())
@settings(max_examples=max(1, EXAMPLES // 2))
def test_cycles_of_a_lift(data: st.DataObject, arrivals: ModuleType, oracle_lift: ModuleType) -> None:
    check(data.draw, arrivals, oracle_lift, LIFT, lift, data.draw(st.sampled_from([5, 45, 150, 800])))


@given(data=st.data())
@settings(max_examples=max(1, EXAMPLES // 2))
def test_cycles_of_a_boiler(data: st.DataObject, arrivals: ModuleType, oracle_boiler: ModuleType) -> None:
    check(data.draw, arrivals, oracle_boiler, BOILER, boiler, data.draw(st.sampled_from([50, 700, 1500])))


def test_pressure_over_days_with_a_leak_and_a_refill(arrivals: ModuleType, oracle_boiler: ModuleType) -> None:
    rng = np.random.default_rng(3)
    begin_us = START_US // 60_000_000 * 60_000_000 + 7 * SECOND
    at = begin_us + np.arange(3 * 1440, dtype=np.int64) * 60 * SECOND
    day = (at - at[0]) / 8.64e10
    water = 55.0 + 8.0 * np.sin(2 * np.pi * day) + rng.normal(0, 0.5, len(at))
    bar = 1.8 - 0.1 * day + 0.013 * (water - 50.0) + rng.normal(0, 0.003, len(at)) + 0.3 * (day > 2.2)
    series: Series = {"supply_temperature": (at + 400_000, water), "water_pressure": (at + 500_000, bar)}
    blocks = [b for s, (t, v) in series.items() for b in arrivals.cut(rng, "a", s, t, v, 30 * SECOND, 1)]
    outcome = arrivals.run(BOILER, arrivals.arrange(rng, blocks, 20 * SECOND, 500), restart=lambda n: n % 5 == 0)
    windows = [(start, start + 60 * SECOND) for _, start in sorted(outcome.windows)]
    said = expected(oracle_boiler, "boiler", series, windows)
    known = [one["bar_per_day"] for one in said["circuit"] if one["bar_per_day"] == one["bar_per_day"]]
    assert len(known) > 2000
    assert -0.12 < known[-1] < -0.05
    compare(BOILER, outcome, {"circuit": said["circuit"]}, windows)
