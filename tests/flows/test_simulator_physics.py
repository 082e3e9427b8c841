"""What the simulated machines do is what machines do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.simulator.fleet import Fault, Fleet, FleetPlan
from flows.simulator.register import boiler_params, lift_params
from flows.simulator.weather import outdoor_celsius

T0_US = 1_767_600_000_000_000  # Monday 2026-01-05 08:00 UTC
JULY_US = T0_US + 185 * 86_400_000_000
HOUR_US = 3_600_000_000


def values_of(plan: FleetPlan, hours: float) -> dict[tuple[str, str], tuple[NDArray[np.int64], NDArray[np.float64]]]:
    found: dict[tuple[str, str], Any] = {}
    for batch in Fleet(plan).stream(plan.start_us + int(hours * HOUR_US)):
        ends = batch.column("values").offsets.to_numpy()
        length = np.diff(ends)
        period = batch.column("period_us").to_numpy()
        step = np.arange(ends[-1]) - np.repeat(ends[:-1], length)
        times = np.repeat(batch.column("start").cast("int64").to_numpy(), length) + np.repeat(period, length) * step
        values = batch.column("values").values.to_numpy()
        assets, signals = batch.column("asset").dictionary.to_pylist(), batch.column("signal").dictionary.to_pylist()
        key = np.repeat(
            batch.column("asset").indices.to_numpy() * 100 + batch.column("signal").indices.to_numpy(), length
        )
        for k in np.unique(key):
            at = key == k
            parts = found.setdefault((assets[k // 100], signals[k % 100]), ([], []))
            parts[0].append(times[at])
            parts[1].append(values[at])
    return {k: (np.concatenate(t), np.concatenate(v)) for k, (t, v) in found.items()}


@pytest.fixture(scope="module")
def lift_day() -> Any:
    return values_of(FleetPlan(lifts=2, boilers=0, start_us=T0_US, mode="continuous"), 6.0)


@pytest.fixture(scope="module")
def boiler_days() -> Any:
    return values_of(FleetPlan(lifts=0, boilers=2, start_us=T0_US), 72.0)


def power(samples: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return the power of each second of 100 Hz samples in a band."""
    spectrum = np.abs(np.fft.rfft(samples.reshape(-1, 100) * np.hanning(100), axis=1)) ** 2
    hz = np.fft.rfftfreq(100, 0.01)
    total: NDArray[np.float64] = spectrum[:, (hz >= low) & (hz < high)].sum(axis=1)
    return total


def test_speed_adds_up_to_whole_storeys(lift_day: Any) -> None:
    storey = lift_params(0, 2).storey_m
    for lift in range(2):
        speed = lift_day[f"lift-000{lift + 1}", "car_speed"][1]
        moving = np.abs(speed) > 0.0
        starts = np.flatnonzero(moving[1:] & ~moving[:-1])
        ends = np.flatnonzero(~moving[1:] & moving[:-1]) + 1
        metres = np.array([speed[a:b].sum() * 0.1 for a, b in zip(starts, ends[ends > starts[0]], strict=False)])
        assert len(metres) > 20
        storeys = metres / storey[lift]
        assert np.abs(storeys - np.round(storeys)).max() < 0.05
        assert (np.abs(np.round(storeys)) >= 1).all()
        assert metres.min() < 0 < metres.max()


def test_vertical_acceleration_is_the_derivative_of_speed(lift_day: Any) -> None:
    speed = lift_day["lift-0001", "car_speed"][1].reshape(-1, 10)[:, 0]
    vertical = lift_day["lift-0001", "vibration_z"][1].reshape(-1, 100).mean(axis=1)[:-1]
    change = np.diff(speed)
    assert np.corrcoef(change, vertical)[0, 1] > 0.95
    assert np.abs(lift_day["lift-0001", "vibration_z"][1]).max() < 3.0


def test_a_car_at_rest_is_quiet_and_a_moving_one_is_within_a_comfortable_ride(lift_day: Any) -> None:
    speed = np.abs(lift_day["lift-0001", "car_speed"][1]).reshape(-1, 10)
    sideways = lift_day["lift-0001", "vibration_x"][1].reshape(-1, 100).std(axis=1)
    still, moving = speed.max(axis=1) == 0.0, speed.min(axis=1) > 0.5
    assert np.median(sideways[still]) < 0.015
    assert 0.02 < np.median(sideways[moving]) < 0.12


def test_an_empty_car_costs_more_current_down_than_up(lift_day: Any) -> None:
    """The counterweight balances a half load, so the nearly empty car must be pulled down."""
    speed, current = lift_day["lift-0001", "car_speed"][1], lift_day["lift-0001", "motor_current"][1]
    fast = np.abs(speed) > 0.97 * np.abs(speed).max()
    assert current[fast & (speed < 0)].mean() > 1.15 * current[fast & (speed > 0)].mean()
    assert current[np.abs(speed) == 0.0].max() < 0.2 * current[fast].mean()


def test_doors_move_between_closed_and_open_only_while_the_car_stands(lift_day: Any) -> None:
    position, speed = lift_day["lift-0001", "door_position"][1], lift_day["lift-0001", "car_speed"][1]
    assert -0.02 < position.min() < 0.01 and 0.99 < position.max() < 1.02
    assert position[np.abs(speed) > 0.02].max() < 0.05
    assert np.abs(np.diff(position)).max() < 0.12


def test_temperatures_stay_between_the_room_and_what_a_motor_bears(lift_day: Any) -> None:
    for asset in ("lift-0001", "lift-0002"):
        for signal in ("motor_temperature", "brake_temperature"):
            celsius = lift_day[asset, signal][1]
            assert celsius.min() > 8.0 and celsius.max() < 60.0
            assert np.abs(np.diff(celsius)).max() < 2.5
        assert np.ptp(lift_day[asset, "motor_temperature"][1]) > 1.0


@pytest.mark.parametrize(
    ("mode", "signal", "band", "least"),
    [
        ("motor_bearing", "vibration_z", (31.0, 49.0), 4.0),
        ("guide_shoes", "vibration_x", (1.0, 5.0), 4.0),
        ("guide_shoes", "vibration_y", (1.0, 5.0), 4.0),
    ],
)
def test_vibration_grows_with_wear(mode: str, signal: str, band: tuple[float, float], least: float) -> None:
    start = T0_US
    fault = Fault("lift-0001", mode, start + 1, start + 30 * HOUR_US)
    found = values_of(FleetPlan(lifts=1, boilers=0, start_us=start, faults=(fault,)), 30.0)
    times, samples = found["lift-0001", signal]
    speed = np.abs(found["lift-0001", "car_speed"][1]).reshape(-1, 10).min(axis=1)
    fast = speed > 0.85
    loud = power(samples, *band)
    hours = (times.reshape(-1, 100)[:, 0] - start) / HOUR_US
    early, late = loud[fast & (hours < 4)].mean(), loud[fast & (hours > 27)].mean()
    assert least < late / early < 14.0


def test_a_worn_door_is_slow_and_a_worn_brake_stops_unlevel_and_hot() -> None:
    faults = (
        Fault("lift-0001", "door_operator", T0_US + 1, T0_US + 30 * HOUR_US),
        Fault("lift-0002", "brake", T0_US + 1, T0_US + 30 * HOUR_US),
    )
    found = values_of(FleetPlan(lifts=2, boilers=0, start_us=T0_US, faults=faults), 30.0)
    times, position = found["lift-0001", "door_position"]
    hours = (times - T0_US) / HOUR_US
    steep = np.abs(np.diff(position, prepend=0.0))
    assert np.quantile(steep[(hours < 4) & (steep > 0.02)], 0.9) > 1.4 * np.quantile(
        steep[(hours > 28) & (steep > 0.02)], 0.9
    )
    times, offset = found["lift-0002", "landing_offset"]
    hours = (times - T0_US) / HOUR_US
    assert np.abs(offset[hours > 28]).mean() > np.abs(offset[hours < 4]).mean() + 8.0
    assert found["lift-0002", "brake_temperature"][1].max() > 55.0


def test_winter_is_colder_than_summer_and_noon_warmer_than_night() -> None:
    year = outdoor_celsius(0, 1, T0_US // HOUR_US - 8, 24 * 365)[0].reshape(-1, 24)
    assert -18.0 < year.min() < 0.0 and 24.0 < year.max() < 42.0
    assert year[165:225].mean() > year[:40].mean() + 10.0
    assert year[:, 13].mean() > year[:, 4].mean() + 3.0
    assert np.abs(np.diff(year.ravel())).max() < 6.0


def test_the_burner_keeps_the_supply_near_what_is_asked_for(boiler_days: Any) -> None:
    p = boiler_params(0, 2)
    for i, boiler in enumerate(("boiler-0001", "boiler-0002")):
        supply, modulation = boiler_days[boiler, "supply_temperature"][1], boiler_days[boiler, "burner_modulation"][1]
        assert supply.min() > 20.0 and supply.max() < 90.0
        on = modulation > 0
        assert modulation[on].min() > 0.15 and modulation.max() <= 1.0
        firings = int((on[1:] & ~on[:-1]).sum())
        assert 10 < firings < 400
        # After a quarter of an hour of firing it is what the curve asks, or what the hot-water tank asks.
        times, air = boiler_days[boiler, "outdoor_temperature"]
        smooth = np.exp(-1.0 / 10_800.0)
        slow = air[0] - p.air_bias_k[i] + np.zeros(len(air))
        for k in range(1, len(air)):
            slow[k] = smooth * slow[k - 1] + (1.0 - smooth) * (air[k] - p.air_bias_k[i])
        asked = p.curve_base_c[i] + p.curve_slope[i] * (20.0 - slow)
        since = np.arange(len(on)) - np.maximum.accumulate(np.where(on, 0, np.arange(len(on))))
        hour = (times // HOUR_US + 1) % 24
        settled = (since > 900) & (hour >= 8) & (hour < 22) & (modulation < 0.99)
        assert settled.sum() > 3600
        off = np.minimum(np.abs(supply - asked), np.abs(supply - 72.0))[settled]
        assert np.median(off) < 3.0


def test_heat_goes_from_the_burner_through_supply_and_return(boiler_days: Any) -> None:
    supply, back = (boiler_days["boiler-0001", s][1] for s in ("supply_temperature", "return_temperature"))
    flow, modulation = (boiler_days["boiler-0001", s][1] for s in ("flow", "burner_modulation"))
    carried = (flow * 1.163 * (supply - back)).sum()
    burnt = (modulation * boiler_params(0, 2).nominal_kw[0]).sum()
    assert 0.9 < carried / burnt < 1.0


def test_cold_weather_makes_the_boiler_fire_more() -> None:
    winter = values_of(FleetPlan(lifts=0, boilers=2, start_us=T0_US), 24.0)
    summer = values_of(FleetPlan(lifts=0, boilers=2, start_us=JULY_US), 24.0)
    for boiler in ("boiler-0001", "boiler-0002"):
        assert winter[boiler, "burner_modulation"][1].mean() > 2.0 * summer[boiler, "burner_modulation"][1].mean()
        assert summer[boiler, "burner_modulation"][1].max() > 0.0  # hot water


def test_pressure_follows_the_temperature_of_the_water(boiler_days: Any) -> None:
    supply, back = (boiler_days["boiler-0001", s][1] for s in ("supply_temperature", "return_temperature"))
    pressure = boiler_days["boiler-0001", "water_pressure"][1]
    assert np.corrcoef(0.5 * (supply + back), pressure)[0, 1] > 0.95
    assert pressure.min() > 1.0 and pressure.max() < 4.0


def test_a_spark_comes_before_every_flame_and_no_flame_without_gas(boiler_days: Any) -> None:
    spark, flame = (boiler_days["boiler-0001", s][1] for s in ("ignition", "flame_current"))
    modulation = boiler_days["boiler-0001", "burner_modulation"][1]
    assert set(np.unique(spark)) == {0.0, 1.0}
    lit = np.flatnonzero((modulation[1:] > 0) & (modulation[:-1] == 0)) + 1
    assert all(spark[i - 4 : i + 1].any() for i in lit)
    assert flame[modulation == 0].max() < 0.5
    assert np.median(flame[modulation > 0]) > 5.0


@pytest.mark.parametrize("mode", ["ignition_electrode", "exchanger_fouling", "circulator_bearing", "water_loss"])
def test_wear_of_a_boiler_shows_where_it_should(mode: str) -> None:
    fault = Fault("boiler-0001", mode, T0_US + 1, T0_US + 40 * HOUR_US)
    plan = FleetPlan(lifts=0, boilers=1, start_us=T0_US, faults=(fault,))
    worn, new = values_of(plan, 40.0), values_of(FleetPlan(lifts=0, boilers=1, start_us=T0_US), 40.0)

    def late(run: Any, signal: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = run["boiler-0001", signal][1][-4 * 3600 :]
        return values

    on = (late(worn, "burner_modulation") > 0) & (late(new, "burner_modulation") > 0)
    if mode == "ignition_electrode":
        assert late(worn, "flame_current")[on].mean() < 0.65 * late(new, "flame_current")[on].mean()
    elif mode == "exchanger_fouling":
        approach = [(late(r, "flue_temperature") - late(r, "return_temperature"))[on].mean() for r in (worn, new)]
        assert 1.7 < approach[0] / approach[1] < 3.5
    elif mode == "circulator_bearing":
        work = [late(r, "pump_power").sum() / late(r, "flow").sum() for r in (worn, new)]
        assert 1.5 < work[0] / work[1] < 2.0
    else:
        assert -1.2 < (late(worn, "water_pressure") - late(new, "water_pressure")).mean() < -0.4


def test_misuse_is_felt_and_passes() -> None:
    plan = FleetPlan(lifts=12, boilers=0, start_us=T0_US, faults="natural", rate_scale=60.0, days=3.0)
    fleet = Fleet(plan)
    spells = {t.detail: t for t in fleet.truth if t.kind == "misuse" and t.end_us < plan.end_us}
    jumping = spells["jumping"]
    batches = list(fleet.stream(plan.end_us))
    loud, usual = 0.0, 0.0
    for batch in batches:
        times = batch.column("start").cast("int64").to_numpy()
        ends = batch.column("values").offsets.to_numpy()
        asset = batch.column("asset").indices.to_numpy() == int(jumping.asset[-4:]) - 1
        vertical = asset & (batch.column("signal").indices.to_numpy() == 2)
        for block in np.flatnonzero(vertical):
            samples = batch.column("values").values.to_numpy()[ends[block] : ends[block + 1]]
            if jumping.onset_us <= times[block] < jumping.end_us:
                loud = max(loud, float(np.std(samples)))
            elif times[block] < jumping.onset_us:
                usual = max(usual, float(np.std(samples)))
    assert loud > 1.3 * usual
