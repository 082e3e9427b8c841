from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.boiler import KINDS

Sample = tuple[int, int, float]
"""Time in microseconds, role, value."""

T0 = 1_760_000_400_000_000
SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
HOLD = 5 * SECOND


def run(
    kind: str, samples: Iterable[Sample], window_s: float = 60.0, until_us: int = 0, **parameters: float
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


def windows(got: dict[str, NDArray[np.float64]], window_s: float) -> Iterable[tuple[int, int, int]]:
    width = round(window_s * SECOND)
    return ((i, T0 + i * width, T0 + (i + 1) * width) for i in range(len(next(iter(got.values())))))


def series(start_s: float, seconds: float, role: int, value: float, period_s: float = 1.0) -> list[Sample]:
    """Send the same value for a while."""
    return [(T0 + round((start_s + i * period_s) * SECOND), role, value) for i in range(round(seconds / period_s))]


@st.composite
def records(draw: st.DrawFn, roles: int, values: st.SearchStrategy[float], most: int = 60) -> list[Sample]:
    """Draw samples of several roles at their own instants, some together, with silences."""
    t, samples = T0, []
    for _ in range(draw(st.integers(1, most))):
        t += draw(st.sampled_from([300_000, SECOND, SECOND, SECOND, 5 * SECOND, 5 * SECOND + 1, 90 * SECOND]))
        for role in draw(st.sets(st.integers(0, roles - 1), min_size=1)):
            samples.append((t, role, draw(values)))
    return samples


def last_before(samples: list[Sample], role: int, place: int) -> Sample | None:
    """Return the newest sample of a role among those up to `place`, itself included."""
    return next((s for s in reversed(samples[: place + 1]) if s[1] == role), None)


# Burner.


@given(records(1, st.sampled_from([0.0, 0.01, 0.02, 0.5, 1.0])), st.sampled_from([10.0, 60.0, 1e4]))
@settings(max_examples=200, deadline=None)
def test_firings_are_those_of_the_whole_record(samples: list[Sample], window_s: float) -> None:
    got = run("burner", samples, window_s, short_s=20.0)
    t = np.array([s[0] for s in samples])
    on = np.array([s[2] for s in samples]) >= 0.02
    near = np.diff(t) <= HOLD
    rises = [i + 1 for i in range(len(t) - 1) if on[i + 1] and not on[i]]
    shorts = []
    for i in rises:
        fall = next((j for j in range(i, len(t)) if not on[j]), None)
        if fall is not None and near[i - 1 : fall].all() and t[fall] - t[i] < 20 * SECOND:
            shorts.append(int(t[fall]))
    for i, start, end in windows(got, window_s):
        inside = (t >= start) & (t < end)
        if not inside.any():
            assert all(math.isnan(values[i]) for values in got.values())
            continue
        assert got["starts"][i] == sum(start <= t[j] < end for j in rises)
        until = np.minimum(np.append(t[1:], end + HOLD), t + HOLD)
        on_us = np.clip(np.minimum(until, end) - np.maximum(t, start), 0, None)[on].sum()
        assert got["on_s"][i] == pytest.approx(on_us / SECOND, abs=1e-9)
        seen_h = (end - t[0]) / HOUR
        for name, events in {"starts_per_hour": t[rises], "short_cycles_per_hour": np.array(shorts)}.items():
            weights = np.exp((events[events < end] - end) / HOUR)
            rate = weights.sum() / (1 - math.exp(-seen_h)) if seen_h >= 1 / 6 else math.nan
            assert got[name][i] == pytest.approx(rate, rel=1e-9, nan_ok=True)


def test_a_burner_that_runs_through_is_on_for_the_whole_window() -> None:
    got = run("burner", series(0.0, 300.0, 0, 0.4))
    np.testing.assert_array_equal(got["on_s"], 60.0)
    np.testing.assert_array_equal(got["starts"], 0.0)


def test_six_short_firings_an_hour_are_six() -> None:
    hours = [s for i in range(48) for s in series(i * 600.0, 420.0, 0, 0.0) + series(i * 600.0 + 420.0, 180.0, 0, 1.0)]
    got = run("burner", hours, 600.0)
    assert got["starts_per_hour"][-1] == pytest.approx(6.0, rel=0.1)
    assert got["short_cycles_per_hour"][-1] == pytest.approx(6.0, rel=0.1)
    assert run("burner", hours, 600.0, short_s=120.0)["short_cycles_per_hour"][-1] == 0.0


# Ignition.


def start(at_s: float, attempts: int, succeeds: bool) -> list[Sample]:
    """Ignite: a spark of 3 s every 20 s; the flame comes with the last one, or the control locks out."""
    samples = []
    for s in range(240):
        number, second = divmod(s - 10, 20)
        spark = 0 <= number < attempts and second < 3
        flame = 12.0 if succeeds and s >= 10 + 20 * (attempts - 1) + 2 else 0.1
        samples.append((T0 + round((at_s + s) * SECOND), 0, float(spark)))
        samples.append((T0 + round((at_s + s) * SECOND), 1, flame if s < 230 else 0.1))
    return samples


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=5),
    st.sampled_from([7.0, 60.0, 240.0, 1e5]),
)
@settings(max_examples=60, deadline=None)
def test_attempts_are_counted_to_the_flame_or_to_lockout(starts: list[tuple[int, bool]], window_s: float) -> None:
    samples = [s for i, (n, succeeds) in enumerate(starts) for s in start(i * 240.0, n, succeeds)]
    got = run("ignition", samples, window_s)["attempts"]
    if window_s == 240.0:
        np.testing.assert_array_equal(got, [n for n, _ in starts])
    elif window_s == 1e5:
        assert got[0] == pytest.approx(np.mean([n for n, _ in starts]))
    else:
        np.testing.assert_array_equal(got[~np.isnan(got)], [n for n, _ in starts])


def test_a_start_with_a_silence_in_it_is_not_counted() -> None:
    whole = start(0.0, 3, True)
    assert np.nanmax(run("ignition", whole)["attempts"]) == 3
    broken = [s for s in whole if not 15 * SECOND <= s[0] - T0 < 25 * SECOND]
    assert np.isnan(run("ignition", broken)["attempts"]).all()
    late = [s for s in whole if s[0] - T0 >= 11 * SECOND]
    assert np.isnan(run("ignition", late)["attempts"]).all()
    without_flame = [s for s in start(0.0, 3, False) if s[1] == 0]
    assert np.isnan(run("ignition", without_flame)["attempts"]).all()


@given(records(2, st.sampled_from([0.0, 0.4, 1.0, 5.0])), st.sampled_from([10.0, 60.0]))
@settings(max_examples=100, deadline=None)
def test_flame_current_is_read_while_the_flame_has_stood(samples: list[Sample], window_s: float) -> None:
    got = run("ignition", samples, window_s)["flame_current_ua"]
    flames = [(t, v) for t, role, v in samples if role == 1]
    settled = []
    for i, (t, v) in enumerate(flames):
        since = i
        while since > 0 and flames[since - 1][1] >= 1.0 and flames[since][0] - flames[since - 1][0] <= HOLD:
            since -= 1
        if v >= 1.0 and t - flames[since][0] >= 10 * SECOND:
            settled.append((t, v))
    for i, first, end in windows({"": got}, window_s):
        inside = [v for t, v in settled if first <= t < end]
        assert got[i] == pytest.approx(np.mean(inside) if inside else math.nan, nan_ok=True)


# Difference.


@given(records(2, st.floats(-20.0, 90.0)), st.sampled_from([1.0, 10.0, 1e4]))
@settings(max_examples=150, deadline=None)
def test_the_difference_is_averaged_over_the_time_in_which_both_are_known(
    samples: list[Sample], window_s: float
) -> None:
    samples = sorted(samples, key=lambda s: (s[0], s[1]))
    got = run("difference", samples, window_s)["mean"]
    for i, start_us, end in windows({"": got}, window_s):
        edges = {start_us, end} | {s[0] for s in samples} | {s[0] + HOLD for s in samples}
        cuts = sorted(e for e in edges if start_us <= e <= end)
        area = time = 0.0
        for a, b in itertools.pairwise(cuts):
            known = [[s for s in samples if s[1] == role and s[0] <= a] for role in (0, 1)]
            if all(k and a < k[-1][0] + HOLD for k in known):
                area += (known[0][-1][2] - known[1][-1][2]) * (b - a)
                time += b - a
        both = {role for t, role, _ in samples if start_us <= t < end} == {0, 1}
        assert got[i] == pytest.approx(area / time if time and both else math.nan, abs=1e-9, nan_ok=True)


def test_the_difference_of_two_signals_with_their_own_rates() -> None:
    samples = series(0.0, 60.0, 0, 70.0) + series(0.4, 60.0, 1, 50.0, 2.5)
    assert run("difference", samples)["mean"][0] == pytest.approx(20.0)


# Flue.


def test_siegert_gives_the_textbook_loss() -> None:
    # 180 Cel flue gas, 20 Cel air, 4 % oxygen, natural gas: 160 (0.66 / 17 + 0.009) = 7.65 %.
    samples = series(0.0, 300.0, 0, 1.0) + series(0.0, 300.0, 1, 20.0) + series(0.0, 300.0, 2, 60.0)
    got = run("flue_loss", samples + series(0.0, 300.0, 3, 180.0))
    assert np.isnan(got["loss_ratio"][:2]).all()
    np.testing.assert_allclose(got["loss_ratio"][2:], 0.0765, atol=5e-5)
    np.testing.assert_allclose(got["approach_k"][2:], 120.0)


@given(records(4, st.sampled_from([0.0, 0.2, 0.9, 20.0, 45.0]), 100), st.sampled_from([1.0, 0.7]))
@settings(max_examples=150, deadline=None)
def test_flue_is_judged_at_each_settled_sample(samples: list[Sample], exponent: float) -> None:
    samples = sorted(samples, key=lambda s: (s[0], s[1]))
    got = run("flue_loss", samples, settled_s=6.0, load_exponent=exponent)
    burner = [(t, v) for t, role, v in samples if role == 0]
    judged = []
    for place, (t, role, flue) in enumerate(samples):
        past = [b for b in burner if b[0] <= t]
        if role != 3 or not past or past[-1][1] < 0.02 or t - past[-1][0] > HOLD:
            continue
        since = len(past) - 1
        while since > 0 and past[since - 1][1] >= 0.02 and past[since][0] - past[since - 1][0] <= HOLD:
            since -= 1
        if t - past[since][0] < 6 * SECOND:
            continue
        air, water = last_before(samples, 1, place), last_before(samples, 2, place)
        judged.append(
            (
                t,
                (flue - air[2]) * (0.66 / 17.0 + 0.009) / 100.0 if air and t - air[0] <= HOUR else math.nan,
                flue - water[2] if water and t - water[0] <= HOLD else math.nan,
                past[-1][1] ** exponent,
            )
        )
    for i, start_us, end in windows(got, 60.0):
        inside = np.array([j[1:] for j in judged if start_us <= j[0] < end]).reshape(-1, 3)
        losses = inside[~np.isnan(inside[:, 0]), 0]
        expected = losses.mean() if len(losses) else math.nan
        assert got["loss_ratio"][i] == pytest.approx(expected, abs=1e-12, nan_ok=True)
        near = inside[~np.isnan(inside[:, 1])]
        known = len(near) > 0 and any(s[1] == 2 and start_us <= s[0] < end for s in samples)
        expected = near[:, 1].sum() / near[:, 2].sum() if known else math.nan
        assert got["approach_k"][i] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_the_approach_hardly_depends_on_the_output() -> None:
    # What the documentation claims of exponent 1: within 15 % of the exchanger's law from a fifth of output upwards.
    approaches = []
    for output in (0.2, 0.35, 0.5, 0.75, 1.0):
        above = 1500.0 * math.exp(-math.log(100.0) * output**-0.2)
        samples = series(0.0, 180.0, 0, output) + series(0.0, 180.0, 2, 40.0) + series(0.0, 180.0, 3, 40.0 + above)
        approaches.append(run("flue_loss", samples)["approach_k"][2])
    assert approaches[-1] == pytest.approx(15.0)
    np.testing.assert_allclose(approaches, 15.0, rtol=0.15)


# Pressure.


def circuit(days: float, seed: int, leak: float = 0.0, slope: float = 0.012, period_s: float = 30.0) -> list[Sample]:
    """Simulate a heating programme of 20 K a day, some noise, and a leak in bar a day."""
    rng = np.random.default_rng(seed)
    t = T0 + (np.arange(0.0, days * 86400.0, period_s) * SECOND).astype(np.int64)
    day = (t - T0) / DAY
    water = 55.0 + 10.0 * np.sin(2 * np.pi * day) + rng.normal(0.0, 1.0, len(t))
    bar = 1.6 + slope * (water - 50.0) - leak * day + rng.normal(0.0, 0.01, len(t))
    both = [(int(a), 0, float(w)) for a, w in zip(t, water, strict=True)]
    return both + [(int(a), 1, float(p)) for a, p in zip(t, bar, strict=True)]


def bins_of(samples: list[Sample]) -> NDArray[np.float64]:
    """Mean day, temperature above 50 Cel and pressure of each ten minutes, by grouping."""
    water = {t: v for t, role, v in samples if role == 0}
    rows = np.array([(t, water[t] - 50.0, v) for t, role, v in samples if role == 1])
    group = (rows[:, 0] // (600 * SECOND)).astype(np.int64)
    rows[:, 0] /= DAY
    return np.array([rows[group == g].mean(axis=0) for g in np.unique(group)])


def least_squares(bins: NDArray[np.float64], prior: float) -> tuple[float, float]:
    """Solve slope and trend at once, with fading weights and the prior as one more observation."""
    weight = np.sqrt(np.exp((bins[:, 0] - bins[-1, 0]) / 2.0))
    design = np.column_stack([np.ones(len(bins)), bins[:, 1], bins[:, 0] - bins[-1, 0]]) * weight[:, None]
    design = np.vstack([design, [0.0, math.sqrt(324.0), 0.0]])
    seen = np.append(bins[:, 2] * weight, math.sqrt(324.0) * prior)
    _, slope, trend = np.linalg.lstsq(design, seen, rcond=None)[0]
    return float(slope), float(trend)


@pytest.mark.parametrize(("days", "leak"), [(1.6, 0.0), (2.0, 0.2), (5.0, 0.05)])
def test_slope_and_trend_are_those_of_weighted_least_squares(days: float, leak: float) -> None:
    samples = circuit(days, seed=1, leak=leak)
    got = run("pressure_decay", samples, 600.0)
    slope, trend = least_squares(bins_of(samples)[:-1], 0.01)
    assert got["bar_per_k"][-1] == pytest.approx(slope, rel=1e-6)
    assert got["bar_per_day"][-1] == pytest.approx(trend, rel=1e-5, abs=1e-8)
    last = [s for s in samples if s[0] >= T0 + (len(got["bar_per_k"]) - 1) * 600 * SECOND]
    corrected = np.mean([s[2] for s in last if s[1] == 1]) - slope * (np.mean([s[2] for s in last if s[1] == 0]) - 50)
    assert got["corrected_bar"][-1] == pytest.approx(corrected, rel=1e-6)


def test_nothing_is_said_of_the_trend_before_a_whole_daily_programme() -> None:
    got = run("pressure_decay", circuit(2.0, 2), 60.0)
    known = np.flatnonzero(~np.isnan(got["bar_per_day"]))
    assert 36 * 60 <= known[0] <= 36 * 60 + 20
    assert not np.isnan(got["corrected_bar"]).any()


@given(st.integers(0, 1000), st.floats(0.0, 0.3), st.floats(0.0, 0.03))
@settings(max_examples=10, deadline=None)
def test_a_leak_is_found_through_the_daily_heat(seed: int, leak: float, slope: float) -> None:
    got = run("pressure_decay", circuit(4.0, seed, leak, slope, 60.0), 3600.0)
    assert got["bar_per_day"][-1] == pytest.approx(-leak, abs=0.01)
    assert got["corrected_bar"][-1] == pytest.approx(1.6 - 4.0 * leak, abs=0.03)
    # The raw pressure swings by 20 K times the slope; what is left is the prior's share.
    steady = got["corrected_bar"][48:] + leak * (np.arange(48, 96) + 0.5) / 24.0
    assert np.ptp(steady) < 0.1 * 20.0 * abs(slope - 0.01) + 0.02


def test_a_refill_lifts_the_level_and_not_the_trend() -> None:
    refilled = [(t, r, v + 0.8 * (r == 1 and t > T0 + 3 * DAY)) for t, r, v in circuit(4.0, 3, leak=0.2)]
    got = run("pressure_decay", refilled, 3600.0)
    assert got["bar_per_day"][-1] == pytest.approx(-0.2, abs=0.03)
    assert got["corrected_bar"][-1] == pytest.approx(1.6 + 0.8 - 0.8, abs=0.04)


def test_pressure_without_a_recent_temperature_is_unknown() -> None:
    samples = series(0.0, 10.0, 0, 60.0) + series(0.0, 600.0, 1, 1.5)
    got = run("pressure_decay", samples)["corrected_bar"]
    assert got[0] == pytest.approx(1.5 - 0.01 * 10.0) and np.isnan(got[1:]).all()


# Circulation.


@given(records(2, st.sampled_from([0.0, 4.0, 6.0, 80.0])), st.sampled_from([10.0, 60.0, 1e4]))
@settings(max_examples=150, deadline=None)
def test_circulation_is_power_over_flow_while_running(samples: list[Sample], window_s: float) -> None:
    samples = sorted(samples, key=lambda s: (s[0], s[1]))
    got = run("circulation", samples, window_s)
    for i, start_us, end in windows(got, window_s):
        pairs = []
        for place, (t, role, flow) in enumerate(samples):
            power = last_before(samples, 0, place)
            if role == 1 and start_us <= t < end and power and t - power[0] <= HOLD and power[2] >= 5.0:
                pairs.append((power[2], flow))
        known = bool(pairs) and any(role == 0 and start_us <= t < end for t, role, _ in samples)
        power_mean, flow_mean = np.mean(pairs, axis=0) if known else (math.nan, math.nan)
        expected = power_mean / flow_mean if flow_mean > 0 else math.nan
        assert got["w_h_per_m3"][i] == pytest.approx(expected, nan_ok=True)
        assert got["flow_m3_h"][i] == pytest.approx(flow_mean, nan_ok=True)


# What holds for every kind.


@given(st.sampled_from(sorted(KINDS)), st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_carried_does_not_depend_on_where_windows_are_cut(kind: str, data: st.DataObject) -> None:
    k = KINDS[kind]
    samples = sorted(data.draw(records(len(k.roles), st.sampled_from([0.0, 0.5, 1.0, 30.0]))), key=lambda s: s[:2])
    times = np.array([s[0] for s in samples], np.int64)
    roles = np.array([s[1] for s in samples], np.int8)
    values = np.array([s[2] for s in samples])
    parameters = np.array([default for _, default in k.parameters])
    out = np.empty(len(k.outputs))
    states = []
    for width in (SECOND, 60 * SECOND, DAY):
        state = np.zeros(k.state_size)
        for start_us in range(T0, int(times[-1]) + 1, width):
            a, b = np.searchsorted(times, [start_us, start_us + width])
            k.step(state, times[a:b], roles[a:b], values[a:b], start_us, start_us + width, parameters, out)
        states.append(state)
    np.testing.assert_allclose(states[1], states[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(states[2], states[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_empty_window_knows_nothing_and_changes_nothing(kind: str) -> None:
    k = KINDS[kind]
    rng = np.random.default_rng(4)
    times = T0 + np.arange(60, dtype=np.int64) * SECOND
    roles = rng.integers(0, len(k.roles), 60).astype(np.int8)
    values = rng.random(60).astype(np.float32)
    parameters = np.array([default for _, default in k.parameters])
    state, out = np.zeros(k.state_size), np.empty(len(k.outputs))
    k.step(state, times, roles, values, T0, T0 + 60 * SECOND, parameters, out)
    wide, wide_out = np.zeros(k.state_size), np.empty(len(k.outputs))
    k.step(wide, times, roles, values.astype(np.float64), T0, T0 + 60 * SECOND, parameters, wide_out)
    np.testing.assert_array_equal(state, wide)
    np.testing.assert_array_equal(out, wide_out)
    before = state.copy()
    k.step(state, times[:0], roles[:0], values[:0], T0 + 60 * SECOND, T0 + 120 * SECOND, parameters, out)
    np.testing.assert_array_equal(state, before)
    assert np.isnan(out).all()
