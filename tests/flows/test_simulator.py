"""The simulated fleet as a stream: the same from a seed however it is cut, in order, in range, true to its truth."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from features.signals import load_class
from features.telemetry import BLOCKS
from features.windows import ShardBatch, ShardWindows
from flows.simulator.boiler import BOILER_SIGNALS
from flows.simulator.fleet import Fault, Fleet, FleetPlan, Truth
from flows.simulator.lift import LIFT_SIGNALS
from flows.simulator.truth import MODES, History

T0_US = 1_767_600_000_000_000  # Monday 2026-01-05 08:00 UTC
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
Series = dict[tuple[str, str], tuple[NDArray[np.int64], NDArray[np.float64]]]


def series(batches: list[pa.RecordBatch]) -> Series:
    """Gather the times and values of each signal of each asset."""
    found: dict[tuple[str, str], Any] = defaultdict(lambda: ([], []))
    for batch in batches:
        values = batch.column("values").values.to_numpy()
        ends = batch.column("values").offsets.to_numpy()
        rows = zip(
            batch.column("asset").to_pylist(),
            batch.column("signal").to_pylist(),
            batch.column("start").cast(pa.int64()).to_pylist(),
            batch.column("period_us").to_pylist(),
            ends[:-1],
            ends[1:],
            strict=True,
        )
        for asset, signal, start, period, low, high in rows:
            times, parts = found[asset, signal]
            times.append(start + period * np.arange(high - low))
            parts.append(values[low:high])
    return {key: (np.concatenate(times), np.concatenate(parts)) for key, (times, parts) in found.items()}


def run(plan: FleetPlan, hours: float, readings: int = 400_000) -> Series:
    return series(list(Fleet(plan).stream(plan.start_us + int(hours * HOUR_US), readings)))


def assert_same(one: Series, other: Series) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert np.array_equal(one[key][0], other[key][0]), key
        assert np.array_equal(one[key][1], other[key][1]), key


BUSY: dict[str, Any] = {"faults": "natural", "rate_scale": 150.0, "wear_scale": 0.05}


@pytest.mark.parametrize("mode", ["burst", "continuous"])
def test_the_same_readings_come_however_the_time_is_cut(mode: Any) -> None:
    hours = 7.0 if mode == "burst" else 0.6
    plan = FleetPlan(lifts=4, boilers=3, start_us=T0_US + 123_457, seed=5, mode=mode, **BUSY)
    whole = series([Fleet(plan).step(plan.start_us + int(hours * HOUR_US))])
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.integers(plan.start_us, plan.start_us + int(hours * HOUR_US), 150)).tolist()
    fleet = Fleet(plan)
    pieces = series([fleet.step(cut) for cut in [*cuts, plan.start_us + int(hours * HOUR_US)]])
    assert_same(whole, pieces)


def test_a_seed_decides_everything() -> None:
    plan = FleetPlan(lifts=2, boilers=2, start_us=T0_US, seed=1)
    assert_same(run(plan, 1.0), run(plan, 1.0))
    other = run(FleetPlan(lifts=2, boilers=2, start_us=T0_US, seed=2), 1.0)
    one = run(plan, 1.0)
    assert not np.array_equal(one["lift-0001", "motor_current"][1][:100], other["lift-0001", "motor_current"][1][:100])


def test_a_larger_fleet_begins_with_the_same_assets() -> None:
    small = run(FleetPlan(lifts=2, boilers=1, start_us=T0_US, **BUSY), 2.0)
    large = run(FleetPlan(lifts=5, boilers=4, start_us=T0_US, **BUSY), 2.0)
    assert_same(small, {key: large[key] for key in small})


@pytest.mark.parametrize("mode", ["burst", "continuous"])
def test_a_fleet_resumes_where_its_state_was_taken(mode: Any) -> None:
    plan = FleetPlan(lifts=3, boilers=2, start_us=T0_US, mode=mode, **BUSY)
    middle, end = T0_US + 4 * HOUR_US + 17_345_678, T0_US + int(4.2 * HOUR_US)
    fleet = Fleet(plan)
    for _ in fleet.stream(middle):
        pass
    state = fleet.state()
    resumed = Fleet(plan)
    resumed.load(state)
    assert_same(series([fleet.step(end)]), series([resumed.step(end)]))


def test_a_state_of_another_version_or_fleet_is_refused() -> None:
    fleet = Fleet(FleetPlan(lifts=1, boilers=0, start_us=T0_US))
    with pytest.raises(ValueError, match="has version 0"):
        fleet.load(fleet.state() | {"version": 0})
    with pytest.raises(ValueError, match="another size"):
        Fleet(FleetPlan(lifts=2, boilers=0, start_us=T0_US)).load(fleet.state())


@pytest.mark.parametrize("mode", ["burst", "continuous"])
def test_blocks_come_in_the_order_of_time_within_each_asset(mode: Any) -> None:
    plan = FleetPlan(lifts=5, boilers=3, start_us=T0_US, mode=mode, **BUSY)
    fleet = Fleet(plan)
    newest: dict[str, int] = {}
    for minute in range(1, 90 if mode == "burst" else 8):
        batch = fleet.step(T0_US + minute * 60_000_000)
        starts = batch.column("start").cast(pa.int64()).to_numpy()
        assert (np.diff(starts) >= 0).all()
        lengths = np.diff(batch.column("values").offsets.to_numpy())
        periods = batch.column("period_us").to_numpy()
        assert ((lengths > 1) == (periods > 0)).all()
        span = starts + periods * (lengths - 1)
        assert (span < T0_US + minute * 60_000_000).all()
        for asset, start, last in zip(batch.column("asset").to_pylist(), starts, span, strict=True):
            late_us = newest.get(asset, 0) - start
            lateness = 10_000_000 if asset.startswith("lift") else 30_000_000
            assert late_us < lateness
            newest[asset] = max(newest.get(asset, 0), int(last))


@pytest.mark.parametrize("equipment", ["lift", "boiler"])
def test_every_reading_is_accepted_by_the_windows_of_its_class(equipment: str) -> None:
    lifts = 6 if equipment == "lift" else 0
    plan = FleetPlan(lifts=lifts, boilers=6 - lifts, start_us=T0_US, **BUSY)
    shard = ShardWindows(load_class(equipment))
    sent = accepted = clock = 0
    fleet = Fleet(plan)
    for until in range(T0_US, T0_US + 10 * HOUR_US, 30_000_000):  # as a live run would see it
        batch = fleet.step(until)
        if not batch.num_rows:
            continue
        starts = batch.column("start").cast(pa.int64()).to_numpy()
        clocks = np.maximum(np.maximum.accumulate(starts), clock)
        clock = int(clocks[-1])
        ends = batch.column("values").offsets.to_numpy().astype(np.int64)
        asset, signal = batch.column("asset"), batch.column("signal")
        step = shard.push(
            ShardBatch(
                assets=asset.dictionary.to_pylist(),
                signals=signal.dictionary.to_pylist(),
                asset=asset.indices.to_numpy(),
                signal=signal.indices.to_numpy(),
                start=starts,
                period=batch.column("period_us").to_numpy(),
                first=ends[:-1],
                count=np.diff(ends),
                clock=clocks,
                values=batch.column("values").values.to_numpy(),
                source="simulator",
            )
        )
        assert not step.rejected, step.rejected[0]
        accepted += step.accepted + shard.tick("simulator", clock).accepted
        sent += int(ends[-1])
    assert accepted == sent > 1_000_000


def test_values_lie_in_the_plausible_range_whatever_happens() -> None:
    assert load_class("lift").signal_names == LIFT_SIGNALS
    assert load_class("boiler").signal_names == BOILER_SIGNALS
    found = run(FleetPlan(lifts=8, boilers=8, start_us=T0_US, **BUSY), 12.0)
    for (asset, signal), (_, values) in found.items():
        low, high = load_class(asset.partition("-")[0]).signals[signal].range
        assert np.isfinite(values).all(), (asset, signal)
        assert low <= values.min() and values.max() <= high, (asset, signal)


def test_a_batch_has_the_one_form_of_telemetry_and_about_the_size_asked_for() -> None:
    fleet = Fleet(FleetPlan(lifts=40, boilers=20, start_us=T0_US))
    batches = list(fleet.stream(T0_US + 2 * HOUR_US, readings=200_000))
    assert all(batch.schema == BLOCKS for batch in batches)
    sizes = [len(batch.column("values").values) for batch in batches]
    assert max(sizes) < 300_000
    assert sum(sizes) / len(sizes) > 100_000
    for batch in batches[:3]:
        batch.validate(full=True)


def test_an_asset_without_trips_still_sends_a_heartbeat_each_minute() -> None:
    found = run(FleetPlan(lifts=2, boilers=2, start_us=T0_US), 26.0)
    for asset in ("lift-0001", "lift-0002", "boiler-0001", "boiler-0002"):
        times, values = found[asset, "controller_state"]
        assert set(np.diff(times).tolist()) == {60_000_000}
        assert not values.any()


def test_a_gateway_records_no_more_trips_a_day_than_it_may() -> None:
    def trips(sampled: int | None) -> list[int]:
        plan = FleetPlan(lifts=3, boilers=0, start_us=T0_US - 8 * HOUR_US, sampled_trips=sampled)
        found = run(plan, 24.0)
        counts = []
        for asset in ("lift-0001", "lift-0002", "lift-0003"):
            moving = np.abs(found[asset, "car_speed"][1]) > 0.05
            counts.append(int((moving[1:] & ~moving[:-1]).sum()))
        return counts

    assert all(12 <= count <= 20 for count in trips(20))
    assert all(80 <= count <= 280 for count in trips(None))


def test_the_controller_says_what_the_truth_says() -> None:
    fault = Fault("lift-0001", "door_operator", T0_US + 2 * HOUR_US, T0_US + 6 * HOUR_US)
    boiler = Fault("boiler-0001", "ignition_electrode", T0_US + 2 * HOUR_US, T0_US + 6 * HOUR_US)
    plan = FleetPlan(lifts=2, boilers=1, start_us=T0_US, faults=(fault, boiler), days=1.0)
    truth = Fleet(plan).truth
    assert [(t.asset, t.kind, t.failure_mode) for t in truth] == [
        ("boiler-0001", "wear", "ignition_electrode"),
        ("lift-0001", "wear", "door_operator"),
    ]
    found = run(plan, 24.0)
    for event in truth:
        assert event.breakdown_us == T0_US + 6 * HOUR_US
        times, state = found[event.asset, "controller_state"]
        down = (times >= event.breakdown_us) & (times < event.end_us)
        assert set(state[down].tolist()) == {1.0, 2.0}
        assert (np.diff(state[down]) >= 0).all()
        assert not state[~down].any()
    times, speed = found["lift-0001", "car_speed"]
    assert not speed[(times >= fault.breakdown_us) & (times < truth[1].end_us)].any()
    assert not found["lift-0002", "controller_state"][1].any()
    times, modulation = found["boiler-0001", "burner_modulation"]
    late = T0_US + 6 * HOUR_US + 120_000_000
    assert not modulation[(times >= late) & (times < truth[0].end_us)].any()


def test_nothing_comes_while_the_gateway_is_silent_and_only_the_wrong_sensor_is_wrong() -> None:
    plan = FleetPlan(lifts=3, boilers=1, start_us=T0_US, faults="demo", days=2.0)
    truth = {t.kind: t for t in Fleet(plan).truth if t.kind in ("silence", "sensor")}
    found = run(plan, 48.0)
    silent = truth["silence"]
    for (asset, _), (times, _) in found.items():
        inside = (times >= silent.onset_us + 1_000_000) & (times < silent.end_us)
        assert inside.any() == (asset != silent.asset)
    wrong = truth["sensor"]
    signal, kind = wrong.detail.split()
    assert kind == "offset"
    times, values = found[wrong.asset, signal]
    before = values[(times > wrong.onset_us - 5 * 60_000_000) & (times < wrong.onset_us)].mean()
    after = values[(times > wrong.onset_us) & (times < wrong.onset_us + 5 * 60_000_000)].mean()
    assert after - before > 15.0


def test_a_demo_breaks_a_lift_door_and_a_circulator_within_four_days_and_goes_on() -> None:
    fleet = Fleet(FleetPlan(lifts=6, boilers=4, start_us=T0_US, faults="demo"))
    known = fleet.truth
    first = [t for t in known if t.onset_us < T0_US + 5 * DAY_US]
    assert Counter((t.kind, t.failure_mode) for t in first) == {
        ("wear", "door_operator"): 1,
        ("wear", "circulator_bearing"): 1,
        ("silence", ""): 1,
        ("sensor", ""): 1,
    }
    for t in first:
        if t.breakdown_us is not None:
            assert 2.0 <= (t.breakdown_us - T0_US) / DAY_US <= 4.0
            assert 1.5 <= (t.breakdown_us - t.onset_us) / DAY_US <= 3.0
    assert len({t.asset for t in first}) == 4
    assert any(t.onset_us > T0_US + 20 * DAY_US for t in known)


@pytest.mark.parametrize("equipment", ["lift", "boiler"])
def test_natural_rates_are_those_of_the_field(equipment: str) -> None:
    n, years = 3000, 2
    ids = [f"{equipment}-{i:04d}" for i in range(n)]
    signals = load_class(equipment).signal_names
    history = History(0, equipment, ids, signals, 0, int(years * 365.25 * DAY_US), "natural")
    truth = history.truth
    broken = [t for t in truth if t.breakdown_us is not None]
    assert 2.1 < len(broken) / n / years < 2.5
    kinds = Counter(t.kind for t in broken)
    assert 0.57 < kinds["wear"] / len(broken) < 0.63
    assert set(kinds) == {"wear", "sudden", "misuse"}
    days = np.array([(t.breakdown_us or 0) - t.onset_us for t in broken if t.kind == "wear"]) / DAY_US
    assert days.min() > 4.99 and days.max() < 40.01 and 12 < np.median(days) < 16
    assert {t.failure_mode for t in truth if t.kind == "wear"} == set(MODES[equipment])
    assert {t.kind for t in truth} == {"wear", "sudden", "misuse", "sensor", "silence"}
    assert all(t.breakdown_us in (None, t.onset_us) for t in truth if t.kind == "sudden")
    assert all(t.onset_us < t.end_us for t in truth)


def test_the_truth_of_an_endless_fleet_grows_and_never_changes() -> None:
    fleet = Fleet(FleetPlan(lifts=3, boilers=2, start_us=T0_US, sampled_trips=0, **BUSY))
    before: list[Truth] = fleet.truth
    for _ in fleet.stream(T0_US + 3 * DAY_US):
        pass
    horizon = T0_US + 30 * DAY_US
    assert [t for t in fleet.truth if t.onset_us < horizon] == [t for t in before if t.onset_us < horizon]


def test_without_faults_nothing_happens() -> None:
    assert Fleet(FleetPlan(lifts=3, boilers=3, start_us=T0_US)).truth == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lifts": -1}, "no fewer than 0"),
        ({"days": 0.0}, "longer than 0 days"),
        ({"rate_scale": 0.0}, "above 0"),
        ({"sampled_trips": -1}, "sampled_trips"),
        ({"faults": (Fault("lift-0009", "brake", 0, 1),)}, "no asset 'lift-0009'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FleetPlan(**{"lifts": 1, "boilers": 0, "start_us": T0_US} | wrong)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("lift-0001", "water_loss", 0, 1), "no wear process is called 'water_loss'"),
        (Fault("lift-0001", "brake", 1, 1), "before its breakdown"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(fault: Fault, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fleet(FleetPlan(lifts=1, boilers=0, start_us=T0_US, faults=(fault,)))
