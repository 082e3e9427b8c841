from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.lift import KINDS

Sample = tuple[int, int, float]
"""Time in microseconds, role, value."""

T0 = 1_760_000_000_000_000
SECOND = 1_000_000
HOUR = 3600 * SECOND


def run(
    kind: str, samples: Iterable[Sample], window_s: float = 10.0, until_us: int = 0, **parameters: float
) -> dict[str, NDArray[np.float64]]:
    """Give the samples window by window to the kernel, and return each output by window from T0 on."""
    k = KINDS[kind]
    width = round(window_s * SECOND)
    ordered = sorted(samples, key=lambda s: (s[0], s[1]))
    times = np.array([s[0] for s in ordered], np.int64)
    roles = np.array([s[1] for s in ordered], np.int8)
    values = np.array([s[2] for s in ordered], np.float64)
    chosen = np.array([parameters.get(name, default) for name, default in k.parameters])
    state = np.zeros(k.state_size)
    rows = []
    for start in range(T0, max(until_us, int(times[-1]) + 1), width):
        a, b = np.searchsorted(times, [start, start + width])
        out = np.full(len(k.outputs), -9.0)
        k.step(state, times[a:b], roles[a:b], values[a:b], start, start + width, chosen, out)
        rows.append(out)
    table = np.array(rows)
    return {output.name: table[:, column] for column, output in enumerate(k.outputs)}


def held(sequence: list[tuple[int, bool]], start: int, end: int, hold: int) -> float:
    """Seconds of [start, end) in which the last sample is true and younger than `hold`."""
    total = 0
    for (t, true), following in zip(sequence, [*sequence[1:], (end + hold, False)], strict=True):
        if true:
            total += max(0, min(following[0], t + hold, end) - max(t, start))
    return total / SECOND


def motion(speeds: list[tuple[int, float]], hold: int) -> list[bool]:
    """Say for each speed whether the car moves: from 0.05 m/s, and on until below half of it."""
    moving: list[bool] = []
    for i, (t, v) in enumerate(speeds):
        continues = i > 0 and moving[-1] and t - speeds[i - 1][0] <= hold
        moving.append(abs(v) >= (0.025 if continues else 0.05))
    return moving


def trips_by_hand(samples: list[Sample], hold: int) -> list[dict[str, float]]:
    """Cut the whole record into trips, with the record at hand at once."""
    speeds = [(t, v) for t, role, v in samples if role == 0]
    order = [i for i, s in enumerate(samples) if s[1] == 0]
    moving = motion(speeds, hold)
    near = [i > 0 and speeds[i][0] - speeds[i - 1][0] <= hold for i in range(len(speeds))]
    trips = []
    for i in range(1, len(speeds)):
        if not (moving[i] and not moving[i - 1] and near[i]):
            continue
        j = i
        while j + 1 < len(speeds) and moving[j + 1] and near[j + 1]:
            j += 1
        trip = {"start": speeds[i][0], "end": math.nan, "run": math.nan, "peak": math.nan}
        trips.append(trip)
        if j + 1 == len(speeds) or not near[j + 1]:
            continue
        trip["end"] = speeds[j + 1][0]
        reference, since = abs(speeds[i][1]), i
        for k in range(i + 1, j + 1):
            if abs(speeds[k][1]) > 1.05 * reference:
                reference, since = abs(speeds[k][1]), k
        run_currents = []
        for place in range(order[since], order[j + 1]):
            t, role, value = samples[place]
            last = max(k for k in range(len(order)) if order[k] <= place)
            if role == 1 and abs(speeds[last][1]) >= 0.95 * reference and t - speeds[last][0] <= hold:
                run_currents.append(value)
        if run_currents:
            trip["run"] = float(np.mean(run_currents))
        currents = [v for _, role, v in samples[order[i - 1] : order[j + 1]] if role == 1]
        if currents:
            trip["peak"] = max(currents)
    return trips


@st.composite
def lift_records(draw: st.DrawFn) -> list[Sample]:
    """Draw a car that stands, runs, jitters and falls silent, with speed and current at their own instants."""
    t, samples, known = T0 + 1, [], set()
    for _ in range(draw(st.integers(1, 60))):
        t += draw(st.sampled_from([100_000, 100_000, 100_000, 500_000, 1_900_000, 2_000_000, 2_000_001, 30_000_000]))
        role = draw(st.sampled_from([0, 0, 1]))
        speed = st.sampled_from([0.0, 0.0, 0.03, -0.04, 0.06, 0.5, 0.97, 1.0, -1.0, 1.04, 1.06])
        samples.append((t, role, draw(speed if role == 0 else st.integers(0, 40).map(float))))
        if draw(st.booleans()) and (t, 1 - role) not in known:
            samples.append((t, 1, 7.0) if role == 0 else (t, 0, 0.5))
        known.add((t, role))
    return sorted(samples, key=lambda s: (s[0], s[1]))


@given(lift_records(), st.sampled_from([1.0, 3.0, 10.0, 1000.0]))
@settings(max_examples=200, deadline=None)
def test_trips_are_those_that_a_look_at_the_whole_record_finds(samples: list[Sample], window_s: float) -> None:
    hold, width = 2 * SECOND, round(window_s * SECOND)
    got = run("trips", samples, window_s)
    speeds = [(t, v) for t, role, v in samples if role == 0]
    flags = [(t, m) for (t, _), m in zip(speeds, motion(speeds, hold), strict=True)]
    trips = trips_by_hand(samples, hold)
    for i in range(len(got["count"])):
        start, end = T0 + i * width, T0 + (i + 1) * width
        if not any(start <= t < end for t, _ in speeds):
            assert all(math.isnan(got[name][i]) for name in got)
            continue
        ended = [trip for trip in trips if start <= trip["end"] < end]
        assert got["count"][i] == len(ended)
        assert got["moving_s"][i] == pytest.approx(held(flags, start, end, hold), abs=1e-9)
        for name, values in {
            "duration_s": [(trip["end"] - trip["start"]) / SECOND for trip in ended],
            "run_current_a": [trip["run"] for trip in ended if not math.isnan(trip["run"])],
            "start_current_a": [trip["peak"] for trip in ended if not math.isnan(trip["peak"])],
        }.items():
            expected = np.mean(values) if values else math.nan
            assert got[name][i] == pytest.approx(expected, rel=1e-12, nan_ok=True), name
        seen_h = (end - speeds[0][0]) / HOUR
        weights = [math.exp(-(end - trip["start"]) / HOUR) for trip in trips if trip["start"] < end]
        expected_rate = math.fsum(weights) / (1 - math.exp(-seen_h)) if seen_h >= 1 / 6 else math.nan
        assert got["starts_per_hour"][i] == pytest.approx(expected_rate, rel=1e-9, nan_ok=True)


def trip(start_us: int, top: float = 1.0, run_s: float = 8.0, run_a: float = 12.0) -> list[Sample]:
    """Sample a trip at 10 Hz: 1 s at rest, 2 s up, run, 2 s down, 1 s at rest; twice the current while it starts."""
    samples: list[Sample] = []
    for i in range(round((run_s + 6.0) * 10)):
        s = i / 10
        speed = top * min(1.0, max(0.0, (s - 1.0) / 2))
        if s > 3 + run_s:
            speed = top * max(0.0, 1.0 - (s - 3 - run_s) / 2)
        current = 0.0 if speed == 0 else 2 * run_a if s < 2.9 else run_a if s <= 3 + run_s else 1.0
        samples += [(start_us + i * SECOND // 10, 0, speed), (start_us + i * SECOND // 10, 1, current)]
    return samples


@pytest.mark.parametrize("top", [0.63, -1.0, 2.5])
def test_run_current_is_the_current_at_constant_speed_whatever_the_windows(top: float) -> None:
    samples = trip(T0 + 3_300_000, top)
    for window_s in (1.0, 7.0, 10.0, 60.0):
        got = run("trips", samples, window_s)
        assert np.nansum(got["count"]) == 1
        assert np.nanmax(got["run_current_a"]) == pytest.approx(12.0, rel=0.03)
        assert np.nanmax(got["start_current_a"]) == 24.0
        assert np.nanmax(got["duration_s"]) == pytest.approx(12.0, abs=0.3)
        assert np.nansum(got["moving_s"]) == pytest.approx(12.0, abs=0.3)


def test_constant_speed_may_vary_by_five_percent_and_starts_anew_above() -> None:
    for faster, expected in ((1.04, (10 + 20 + 60) / 3), (1.06, (20 + 60) / 2)):
        speeds = [0.0, 1.0, faster, faster, 0.0]
        samples = [(T0 + i * 100_000, 0, v) for i, v in enumerate(speeds)]
        samples += [(T0 + i * 100_000 + 1, 1, a) for i, a in enumerate([0.0, 10.0, 20.0, 60.0, 0.0])]
        assert run("trips", samples)["run_current_a"][0] == pytest.approx(expected)


def test_a_gateway_that_falls_silent_under_way_leaves_no_trip() -> None:
    samples = trip(T0)
    broken = [s for s in samples if not T0 + 5 * SECOND < s[0] < T0 + 8 * SECOND]
    assert np.nansum(run("trips", broken)["count"]) == 0
    assert np.nansum(run("trips", broken + trip(T0 + 60 * SECOND))["count"]) == 1
    assert np.nansum(run("trips", samples[30:])["count"]) == 0


def test_the_rate_of_starts_is_unbiased_from_the_beginning_and_forgets_through_a_gap() -> None:
    samples = [(T0, 0, 0.0)] + [s for i in range(40) for s in trip(T0 + 300 * SECOND + i * 600 * SECOND)]
    rate = run("trips", samples, 600.0)["starts_per_hour"]
    np.testing.assert_allclose(rate[:40], 6.0, rtol=0.02)
    later = run("trips", [*samples, (samples[-1][0] + 2 * HOUR, 0, 0.0)], 600.0)["starts_per_hour"]
    assert later[-1] == pytest.approx(rate[-1] * math.exp(-2.0), rel=0.1)


# Doors.


def door(times: NDArray[np.int64], knots: list[tuple[float, float]]) -> list[Sample]:
    """Sample the door that moves on straight lines between `knots` of seconds and opening."""
    seconds = (times - T0) / SECOND
    positions = np.interp(seconds, [s for s, _ in knots], [p for _, p in knots])
    return [(int(t), 0, float(p)) for t, p in zip(times, positions, strict=True)]


@given(
    st.floats(1.0, 5.0),
    st.floats(1.0, 6.0),
    st.floats(1.0, 20.0),
    st.lists(st.floats(0.15, 0.8), max_size=3),
    st.integers(20_000, 200_000),
    st.integers(0, 199_999),
)
@settings(max_examples=100, deadline=None)
def test_doors_time_a_known_movement(
    opening_s: float, closing_s: float, dwell_s: float, turns: list[float], period_us: int, phase_us: int
) -> None:
    knots = [(0.0, 0.0), (2.0, 0.0), (2.0 + opening_s, 1.0), (2.0 + opening_s + dwell_s, 1.0)]
    for low in turns:
        # Closes to `low`, is stopped, opens again.
        at = knots[-1][0]
        knots += [(at + 2.0, low), (at + 2.5, low), (at + 4.5, 1.0), (at + 6.0, 1.0)]
    knots += [(knots[-1][0] + closing_s, 0.0), (knots[-1][0] + closing_s + 3.0, 0.0)]
    end = T0 + round(knots[-1][0] * SECOND)
    got = run("doors", door(np.arange(T0 + phase_us, end, period_us), knots))
    assert np.nansum(got["cycles"]) == 1
    # The crossing of 0.05 may lie in the same sampling interval as the start, which bends the line.
    tolerance = period_us / SECOND
    assert np.nanmax(got["opening_s"]) == pytest.approx(0.9 * opening_s, abs=tolerance)
    assert np.nanmax(got["reopenings"]) == len(turns)
    if turns:
        assert np.isnan(got["closing_s"]).all()
    else:
        assert np.nanmax(got["closing_s"]) == pytest.approx(0.9 * closing_s, abs=tolerance)


def test_door_times_are_finer_than_the_sampling() -> None:
    knots = [(0.0, 0.0), (1.0, 0.0), (3.03, 1.0), (8.0, 1.0), (10.57, 0.0), (12.0, 0.0)]
    got = run("doors", door(np.arange(T0, T0 + 12 * SECOND, 100_000), knots), 20.0)
    assert got["opening_s"][0] == pytest.approx(0.9 * 2.03, abs=0.005)
    assert got["closing_s"][0] == pytest.approx(0.9 * 2.57, abs=0.005)


def reversals(positions: list[float]) -> int:
    """Count the turns back by more than 0.1, each after a fall by more than 0.1 from the last top."""
    if len(positions) < 2:
        return 0
    for i in range(1, len(positions)):
        if positions[i] > min(positions[:i]) + 0.1:
            rest = positions[i:]
            for j in range(1, len(rest)):
                if rest[j] < max(rest[:j]) - 0.1:
                    return 1 + reversals(rest[j:])
            return 1
    return 0


@given(st.lists(st.sampled_from([0.0, 0.02, 0.05, 0.06, 0.2, 0.4, 0.45, 0.55, 0.7, 0.94, 0.95, 1.0]), min_size=1))
@settings(max_examples=300, deadline=None)
def test_door_cycles_are_those_that_a_pattern_finds(positions: list[float]) -> None:
    got = run("doors", [(T0 + i * 100_000, 0, p) for i, p in enumerate(positions)], 1000.0)
    zones = "".join("c" if p <= 0.05 else "o" if p >= 0.95 else "m" for p in positions)
    ends = [match.end() - 1 for match in re.finditer(r"(?<=o)m*c", zones)]
    assert got["cycles"][0] == len(ends)
    turns = []
    for end in ends:
        opened = zones[: end + 1].rfind("c", 0, end) + 1
        falls = [
            (match.start(1), match.end(1)) for match in re.finditer(r"(?<=o)(m+)(?=[oc])", zones[opened : end + 1])
        ]
        count = 0
        for a, b in falls:
            # What ends in closed ends the falls; what ends in open may have turned back by that step.
            reached = zones[opened + b]
            run_of = positions[opened + a : opened + b + (reached == "o")]
            count += reversals(run_of)
        turns.append(count)
    expected = np.mean(turns) if turns else math.nan
    assert got["reopenings"][0] == pytest.approx(expected, nan_ok=True)


def test_a_door_that_waits_open_through_a_silence_keeps_its_cycle_and_a_moving_one_does_not() -> None:
    opened = [(0.0, 0.0), (1.0, 0.0), (3.0, 1.0), (30.0, 1.0), (33.0, 0.0), (40.0, 0.0)]
    samples = door(np.arange(T0, T0 + 40 * SECOND, 100_000), opened)
    waiting = [s for s in samples if not T0 + 4 * SECOND < s[0] < T0 + 29 * SECOND]
    assert np.nanmax(run("doors", waiting, 60.0)["opening_s"]) == pytest.approx(1.8, abs=0.01)
    assert np.nanmax(run("doors", waiting, 60.0)["closing_s"]) == pytest.approx(2.7, abs=0.01)
    lost = [s for s in samples if not T0 + 30.5 * SECOND < s[0] < T0 + 34 * SECOND]
    assert run("doors", lost, 60.0)["cycles"][0] == 0


def test_a_door_that_trembles_while_it_reopens_reopens_once() -> None:
    positions = [0.0, 0.5, 1.0, 0.8, 0.4, 0.6, 0.55, 0.7, 0.62, 0.8, 0.4, 0.0]
    got = run("doors", [(T0 + i * 100_000, 0, p) for i, p in enumerate(positions)])
    assert got["reopenings"][0] == 1.0


def test_what_a_silence_hid_is_not_said_of_the_next_cycle() -> None:
    knots = [
        (0.0, 0.0),
        (1.0, 0.0),
        (3.0, 1.0),
        (5.0, 1.0),
        (8.0, 0.0),
        (10.0, 0.0),
        (15.0, 1.0),
        (20.0, 1.0),
        (23.0, 0.0),
    ]
    samples = door(np.arange(T0, T0 + 24 * SECOND, 100_000), knots)
    got = run("doors", [s for s in samples if not T0 + 6 * SECOND < s[0] < T0 + 16 * SECOND], 60.0)
    assert got["cycles"][0] == 1 and math.isnan(got["opening_s"][0])
    assert got["closing_s"][0] == pytest.approx(2.7, abs=0.01)


# Levelling.


@given(lift_records(), st.sampled_from([1.0, 10.0, 1000.0]))
@settings(max_examples=200, deadline=None)
def test_levelling_reads_the_first_offset_after_each_stop(samples: list[Sample], window_s: float) -> None:
    hold, within, width = 2 * SECOND, 5 * SECOND, round(window_s * SECOND)
    got = run("levelling", samples, window_s)
    order = [i for i, s in enumerate(samples) if s[1] == 0]
    moving = motion([(samples[i][0], samples[i][2]) for i in order], hold)
    errors = []
    for k in range(1, len(order)):
        t = samples[order[k]][0]
        if moving[k - 1] and not moving[k] and t - samples[order[k - 1]][0] <= hold:
            again = next((order[q] for q in range(k + 1, len(order)) if moving[q]), len(samples))
            offsets = [s for s in samples[order[k] : again] if s[1] == 1]
            if offsets and offsets[0][0] - t <= within:
                errors.append((offsets[0][0], abs(offsets[0][2])))
    for i in range(len(got["stops"])):
        start, end = T0 + i * width, T0 + (i + 1) * width
        inside = [e for t, e in errors if start <= t < end]
        roles = {role for t, role, _ in samples if start <= t < end}
        assert got["stops"][i] == pytest.approx(len(inside) if inside or roles == {0, 1} else math.nan, nan_ok=True)
        assert got["error_mm"][i] == pytest.approx(np.mean(inside) if inside else math.nan, nan_ok=True)


def test_relevelling_after_the_stop_does_not_hide_the_error() -> None:
    stop = T0 + 4 * SECOND
    samples = [(T0 + i * 100_000, 0, 0.5 if 10 <= i < 40 else 0.0) for i in range(100)]
    samples += [(stop + 300_000, 1, -14.0), (stop + 1_300_000, 1, -2.0)]
    got = run("levelling", samples)
    assert got["stops"][0] == 1 and got["error_mm"][0] == 14.0


# What holds for every kind.


@given(st.sampled_from(sorted(KINDS)), lift_records())
@settings(max_examples=60, deadline=None)
def test_counts_do_not_depend_on_where_windows_are_cut(kind: str, samples: list[Sample]) -> None:
    # A door's position lies between 0 and 1, and has one role.
    if kind == "doors":
        samples = [(t, 0, min(1.0, abs(v))) for t, role, v in samples if role == 0] or [(T0, 0, 0.0)]
    end = samples[-1][0] + 1
    name = {"trips": "count", "doors": "cycles", "levelling": "stops"}[kind]
    totals = {float(np.nansum(run(kind, samples, w, end)[name])) for w in (0.7, 10.0, 1e5)}
    assert len(totals) == 1


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_empty_window_knows_nothing_and_changes_nothing(kind: str) -> None:
    k = KINDS[kind]
    rng = np.random.default_rng(4)
    times = T0 + np.arange(60, dtype=np.int64) * 200_000
    roles = rng.integers(0, len(k.roles), 60).astype(np.int8)
    values = rng.random(60).astype(np.float32)
    parameters = np.array([default for _, default in k.parameters])
    state, out = np.zeros(k.state_size), np.empty(len(k.outputs))
    k.step(state, times, roles, values, T0, T0 + 12 * SECOND, parameters, out)
    wide, wide_out = np.zeros(k.state_size), np.empty(len(k.outputs))
    k.step(wide, times, roles, values.astype(np.float64), T0, T0 + 12 * SECOND, parameters, wide_out)
    np.testing.assert_array_equal(state, wide)
    np.testing.assert_array_equal(out, wide_out)
    before = state.copy()
    k.step(state, times[:0], roles[:0], values[:0], T0 + 12 * SECOND, T0 + 22 * SECOND, parameters, out)
    np.testing.assert_array_equal(state, before)
    assert np.isnan(out).all()
