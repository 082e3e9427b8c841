"""A boiler and its house, second by second: weather, control, burner, water, and what the sensors say of them.

The controller follows a heating curve with night setback and charges the hot-water tank first. The burner purges,
sparks (more than once when the electrode is worn), modulates, and rests between firings. Supply and return water,
flue, tank and building are first-order masses. The circuit's pressure follows the water's temperature against the gas
cushion of the expansion vessel.

References
----------
Recknagel, Sprenger: Taschenbuch für Heizung und Klimatechnik (heating curve, expansion vessel, affinity laws).
Incropera, DeWitt: Fundamentals of heat and mass transfer, 8.5 and 11.4 (approach of the flue gas at part load).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from flows.simulator.blocks import Blocks, Cells
from flows.simulator.draws import WHITE, Tables, key_of, mix
from flows.simulator.register import Rows
from flows.simulator.wear import MISUSE, SENSOR, SILENCE, Events, distort, event_at, state_at, wear_at

__all__ = ["BOILER_SIGNALS", "STATE_SIZE", "list_boilers", "new_boilers", "run_boilers"]

BOILER_SIGNALS = (
    "supply_temperature",
    "return_temperature",
    "flue_temperature",
    "outdoor_temperature",
    "water_pressure",
    "burner_modulation",
    "ignition",
    "flame_current",
    "pump_power",
    "flow",
    "controller_state",
)
"""Signals in the order of their codes."""

# What a boiler carries from second to second.
_SUPPLY, _RETURN, _FLUE, _ROOM, _TANK, _AIR_SLOW, _MODULATION, _INTEGRAL = range(8)
_PHASE, _IN_PHASE, _ATTEMPT, _CHARGING, _HEATING, _PUMP, _FLAME, _LIT_S = range(8, 16)
STATE_SIZE = 16

_OFF, _PURGE, _SPARK, _WAIT, _ON = range(5)  # phases of the burner
_MIN_OFF_S, _MIN_ON_S, _PURGE_S, _SPARK_S, _WAIT_S, _AFTER_RUN_S = 180.0, 150.0, 15.0, 4.0, 12.0, 300.0
_ATTEMPTS = 5.0
_WATER = 1.163  # kWh per m3 and K
_FLAME_K = 1500.0  # flame above water
_HEARTBEAT_S = 60
_STREAM_MINUTE = 3
_STREAM_SPARK = 4
_STREAM_DRAW = 5
_SIGNALS = 10

# Hot water over the local hours of a day, as shares of the day.
_BEFORE_NOON = (0.5, 0.3, 0.2, 0.2, 0.4, 1.5, 5.0, 8.5, 7.0, 5.0, 4.0, 4.0)
_AFTER_NOON = (4.5, 4.0, 3.0, 3.0, 3.5, 5.0, 7.5, 9.0, 8.5, 7.0, 4.0, 1.5)
_DRAWS = np.array(_BEFORE_NOON + _AFTER_NOON) / sum(_BEFORE_NOON + _AFTER_NOON)
_KWH_A_HOUSEHOLD = 4.6  # hot water a day


def new_boilers(p: Rows, air: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the states of boilers at rest; `air` is the outdoor temperature of each site."""
    state = np.zeros((len(p), STATE_SIZE))
    outdoor = air[p["site"]] if len(p) else np.empty(0)
    state[:, _SUPPLY], state[:, _RETURN], state[:, _FLUE] = 42.0, 36.0, 40.0
    state[:, _ROOM] = np.maximum(20.5, outdoor)
    state[:, _TANK] = 56.0
    state[:, _AIR_SLOW] = outdoor
    state[:, _HEATING] = outdoor < 16.0
    state[:, _IN_PHASE] = 1e4
    return state


@kernel
def _list(
    p: Rows,
    events: Events,
    since: NDArray[np.int64],
    until: NDArray[np.int64],
    step: int,
    cells: Cells,
) -> int:
    n = 0
    for a in range(len(p)):
        quiet = True
        for row in range(events.first[a], events.first[a + 1]):
            quiet = quiet and events.rows[row].kind != SILENCE
        for second in range(since[a], until[a], step):
            start_us = second * 1_000_000 + p[a].offset_us
            cells.asset[n] = a
            cells.second[n] = second
            cells.start_us[n] = start_us
            if not quiet and event_at(events, a, SILENCE, start_us) >= 0:
                cells.flags[n] = cells.blocks[n] = cells.values[n] = 0
            else:
                beat = int((second - p[a].phase_s) % _HEARTBEAT_S == 0)
                cells.flags[n] = 1 + beat
                cells.blocks[n] = _SIGNALS + beat
                cells.values[n] = _SIGNALS * step + beat
            n += 1
    return n


def list_boilers(p: Rows, events: Events, since: NDArray[np.int64], until: NDArray[np.int64], step: int) -> Cells:
    """List the cells of `step` seconds that lie between two seconds of each boiler's clock, the empty ones too."""
    count = int(((until - since) // step).sum())
    cells = Cells(*[np.empty(count, np.int64) for _ in range(6)])
    _list(p, events, since, until, step, cells)
    return cells


@kernel
def _expansion(celsius: float) -> float:
    """Return by how much water has expanded since 4 Cel, as a ratio."""
    above = celsius - 4.0
    return 4.4e-6 * above * above


@kernel
def _pressure(p: Rows, a: int, celsius: float, wear: float, vessel: bool, time_us: int) -> float:
    """Return the pressure of the circuit: what was filled, what was lost, and the gas cushion of the vessel."""
    days = time_us / 86_400_000_000.0
    year = days / 365.25 - p[a].refill_day / 365.25
    since_refill = year - math.floor(year)
    cold = p[a].fill_bar - p[a].loss_bar_year * since_refill - 0.9 * p[a].spread[3] * wear
    cushion = p[a].vessel * (1.0 - 0.45 * wear if vessel else 1.0)
    swollen = _expansion(celsius) - _expansion(20.0)
    squeezed: float = (cold + 1.013) * cushion / max(cushion - swollen, 0.2 * cushion)
    return squeezed - 1.013


@kernel
def _second(
    seed: int,
    p: Rows,
    a: int,
    s: NDArray[np.float64],
    second: int,
    air: float,
    hour: float,
    draw_kw: float,
    locked: bool,
    throttle: float,
    w_spark: float,
    w_foul: float,
    w_pump: float,
    seized: bool,
    out: NDArray[np.float64],
) -> None:
    """Advance one boiler by one second; `out` gets modulation, spark, pump power and flow."""
    nominal = p[a].nominal_kw
    # Control: what is asked for.
    s[_AIR_SLOW] += (air - s[_AIR_SLOW]) / 10_800.0
    if s[_AIR_SLOW] < 15.5:
        s[_HEATING] = 1.0
    elif s[_AIR_SLOW] > 16.5:
        s[_HEATING] = 0.0
    if s[_TANK] < 51.0:
        s[_CHARGING] = 1.0
    elif s[_TANK] > 58.0:
        s[_CHARGING] = 0.0
    night = hour < 5.0 or hour >= 22.5
    wanted = p[a].curve_base_c + p[a].curve_slope * (20.0 - s[_AIR_SLOW]) - (p[a].setback_k if night else 0.0)
    charging = s[_CHARGING] > 0.5
    setpoint = 72.0 if charging else min(max(wanted, 26.0), 75.0)
    demand = (charging or s[_HEATING] > 0.5) and not locked
    # Burner: purge, spark, flame.
    gap = setpoint - s[_SUPPLY]
    s[_IN_PHASE] += 1.0
    phase = int(s[_PHASE])
    following = phase
    spark = 0.0
    if phase == _OFF:
        s[_MODULATION] = 0.0
        if demand and gap > p[a].hysteresis_k and s[_IN_PHASE] > _MIN_OFF_S:
            following = _PURGE
            s[_ATTEMPT] = 0.0
    elif phase == _PURGE:
        if s[_IN_PHASE] > _PURGE_S:
            following = _SPARK
    elif phase == _SPARK:
        spark = 1.0
        if s[_IN_PHASE] >= _SPARK_S:
            s[_ATTEMPT] += 1.0
            luck = float(key_of(seed, a, _STREAM_SPARK, second) >> np.uint64(11)) * (1.0 / 9007199254740992.0)
            odds = p[a].ignition / (1.0 + 3.0 * p[a].spread[0] * w_spark)
            if luck < odds:
                following = _ON
                s[_MODULATION] = max(p[a].lowest, 0.35)
                s[_INTEGRAL] = s[_MODULATION]
            else:
                # After the last attempt the controller waits for minutes before it begins again.
                following = _WAIT if s[_ATTEMPT] < _ATTEMPTS else _OFF
    elif phase == _WAIT:
        if s[_IN_PHASE] > _WAIT_S:
            following = _SPARK
    else:
        s[_INTEGRAL] = min(max(s[_INTEGRAL] + 2.5e-4 * gap, p[a].lowest), 1.0)
        asked = min(max(s[_INTEGRAL] + 0.05 * gap, p[a].lowest), 1.0)
        s[_MODULATION] += min(max(asked - s[_MODULATION], -0.01), 0.01)
        hot = gap < -p[a].hysteresis_k or s[_SUPPLY] > 88.0
        if (hot or not demand) and s[_IN_PHASE] > _MIN_ON_S:
            following = _OFF
    if locked and phase != _OFF:
        following = _OFF
    if following != phase:
        s[_PHASE] = following
        s[_IN_PHASE] = 0.0
    firing = following == _ON
    if not firing:
        s[_MODULATION] = 0.0
    s[_LIT_S] = s[_LIT_S] + 1.0 if firing else 0.0
    # Circulation: the pump runs on for a while after the last demand, unless it is out of service.
    s[_PUMP] = _AFTER_RUN_S if demand else max(0.0, s[_PUMP] - 1.0)
    valves = min(max(1.0 - 0.45 * (s[_ROOM] - 20.6), 0.35), 1.0)
    if s[_HEATING] < 0.5:
        valves = 0.5
    turning = s[_PUMP] > 0.0 and not seized
    flow = power = 0.0
    if turning:
        opening = (0.6 + 0.4 * valves) * throttle
        flow = p[a].flow_m3_h * opening * (1.0 - 0.17 * w_pump)
        hydraulic = 0.35 + 0.65 * opening**1.2
        power = p[a].pump_w * hydraulic * (1.0 + 0.5 * p[a].spread[2] * w_pump)
    else:
        power = 2.5
    # Water and house.
    carried = flow * _WATER * (s[_SUPPLY] - s[_RETURN])
    mean = 0.5 * (s[_SUPPLY] + s[_RETURN])
    to_rooms = p[a].radiator_kw_k * max(0.0, mean - s[_ROOM]) * valves * (1.0 if turning else 0.05)
    if s[_HEATING] < 0.5:
        to_rooms *= 0.02
    elif charging:
        to_rooms *= 0.25  # hot water first
    to_tank = p[a].coil_kw_k * (s[_SUPPLY] - s[_TANK]) if charging and turning else 0.0
    burnt = nominal * s[_MODULATION] * (0.985 - 0.03 * w_foul)
    s[_SUPPLY] += (burnt - carried - 0.004 * nominal * (s[_SUPPLY] - 20.0) / 50.0) / p[a].body_kj_k
    s[_RETURN] += (carried - to_rooms - to_tank - 0.006 * nominal * (mean - 20.0) / 50.0) / p[a].loop_kj_k
    s[_TANK] += (to_tank - draw_kw - 0.0006 * p[a].households * (s[_TANK] - 20.0)) / p[a].tank_kj_k
    gains = 0.35 * p[a].households
    s[_ROOM] += (to_rooms + gains - p[a].loss_kw_k * (s[_ROOM] - air)) / p[a].building_kj_k
    # Flue gas and flame.
    if firing:
        # Gas enters a flame's temperature above the water; heat transfer grows with flow to the 0.8.
        fouled = p[a].approach_k * (1.0 + 2.0 * p[a].spread[1] * w_foul)
        approach = _FLAME_K * math.exp(-math.log(_FLAME_K / fouled) * s[_MODULATION] ** -0.2)
        s[_FLUE] += (s[_RETURN] + approach - s[_FLUE]) / 35.0
        flame = p[a].flame_ua * (0.9 + 0.1 * s[_MODULATION]) * (1.0 - 0.6 * min(1.2, p[a].spread[0]) * w_spark)
        s[_FLAME] += (flame - s[_FLAME]) / 2.0
    else:
        s[_FLUE] += (0.7 * s[_SUPPLY] + 0.3 * 20.0 - s[_FLUE]) / 600.0
        s[_FLAME] = 0.0
    out[0] = s[_MODULATION]
    out[1] = spark
    out[2] = power
    out[3] = flow


@kernel
def _run(
    seed: int,
    p: Rows,
    state: NDArray[np.float64],
    events: Events,
    first_hour: int,
    ambient: NDArray[np.float64],
    local: NDArray[np.int64],
    tables: Tables,
    bounds: NDArray[np.float64],
    code0: int,
    code_state: int,
    asset0: int,
    step: int,
    cells: Cells,
    at_block: NDArray[np.int64],
    at_value: NDArray[np.int64],
    out: Blocks,
) -> None:
    said = np.empty((_SIGNALS, step))
    part = np.empty(4)
    one = np.empty(1)
    noise = np.empty(_SIGNALS, np.int64)
    mask = np.uint64(WHITE - 1)
    minute = a = -1
    air = hour = draw_kw = w_spark = w_foul = w_pump = w_water = 0.0
    throttle = 1.0
    locked = seized = vessel = False
    for c in range(len(cells.asset)):
        fresh = cells.asset[c] != a
        a = cells.asset[c]
        s = state[a]
        for k in range(step):
            second = cells.second[c] + k
            now_us = second * 1_000_000 + p[a].offset_us
            if fresh or second // 60 != minute:
                # What changes slowly is looked up once a minute, at the minute's beginning.
                fresh = False
                minute = second // 60
                minute_us = minute * 60_000_000 + p[a].offset_us
                left = min(max(minute // 60 - first_hour, 0), ambient.shape[1] - 2)
                air = ambient[p[a].site, left]
                air += (minute % 60) / 60.0 * (ambient[p[a].site, left + 1] - air)
                hour = ((minute * 60 + local[left]) % 86400) / 3600.0
                key = key_of(seed, a, _STREAM_MINUTE, minute)
                for code in range(_SIGNALS):
                    noise[code] = np.int64(mix(key + np.uint64(code)) & mask)
                state_code = state_at(events, a, minute_us)
                locked = state_code != 0
                w_spark = max(wear_at(events, a, 0, minute_us), p[a].age[0])
                w_foul = max(wear_at(events, a, 1, minute_us), p[a].age[1])
                w_pump = max(wear_at(events, a, 2, minute_us), p[a].age[2])
                w_water = max(wear_at(events, a, 3, minute_us), p[a].age[3])
                seized = locked and w_pump >= 1.0
                vessel = False
                for row in range(events.first[a], events.first[a + 1]):
                    vessel = vessel or (
                        events.rows[row].mode == 3 and events.rows[row].kind == 0 and events.rows[row].detail == 1
                    )
                spell = event_at(events, a, MISUSE, minute_us)
                throttle = 0.55 if spell >= 0 and events.rows[spell].detail == 1 else 1.0
                # Taps open and close: a new draw every five minutes.
                luck = float(key_of(seed, a, _STREAM_DRAW, minute // 5) >> np.uint64(11)) / 9007199254740992.0
                draw_kw = p[a].households * _KWH_A_HOUSEHOLD * _DRAWS[int(hour)] * (0.25 - 0.75 * math.log(1.0 - luck))
                if spell >= 0 and events.rows[spell].detail == 0:
                    draw_kw += 0.5 * p[a].nominal_kw * events.rows[spell].amount
            _second(seed, p, a, s, second, air, hour, draw_kw, locked, throttle, w_spark, w_foul, w_pump, seized, part)
            n = second - minute * 60
            mean = 0.5 * (s[_SUPPLY] + s[_RETURN])
            said[0, k] = s[_SUPPLY] + 0.05 * tables.white[noise[0] + n]
            said[1, k] = s[_RETURN] + 0.05 * tables.white[noise[1] + n]
            said[2, k] = s[_FLUE] + 0.12 * tables.white[noise[2] + n]
            said[3, k] = air + p[a].air_bias_k + 0.04 * tables.white[noise[3] + n]
            said[4, k] = _pressure(p, a, mean, w_water, vessel, now_us) + 0.003 * tables.white[noise[4] + n]
            said[5, k] = part[0]
            said[6, k] = part[1]
            said[7, k] = abs(s[_FLAME] * (1.0 + 0.02 * tables.white[noise[7] + n]) + 0.02 * tables.white[noise[6] + n])
            said[8, k] = part[2] * (1.0 + 0.006 * tables.white[noise[8] + n])
            said[9, k] = part[3] * (1.0 + 0.006 * tables.white[noise[9] + n])
        if cells.flags[c] == 0:
            continue
        b = at_block[c]
        v = at_value[c]
        start_us = cells.start_us[c]
        sensor = event_at(events, a, SENSOR, start_us)
        for code in range(_SIGNALS):
            here = out.values[v : v + step]
            here[:] = said[code]
            if sensor >= 0 and events.rows[sensor].mode == code:
                luck = float(key_of(seed, a, 6, cells.second[c]) >> np.uint64(11)) / 9007199254740992.0
                distort(events, sensor, start_us, luck, bounds[code, 0], bounds[code, 1], here)
            out.asset[b] = asset0 + a
            out.signal[b] = code0 + code
            out.start_us[b] = start_us
            out.period_us[b] = 1_000_000 if step > 1 else 0
            out.offset[b] = v
            b += 1
            v += step
        if cells.flags[c] == 2:
            one[0] = float(state_at(events, a, start_us))
            out.values[v] = one[0]
            out.asset[b] = asset0 + a
            out.signal[b] = code_state
            out.start_us[b] = start_us
            out.period_us[b] = 0
            out.offset[b] = v


def run_boilers(
    seed: int,
    p: Rows,
    state: NDArray[np.float64],
    events: Events,
    weather: tuple[int, NDArray[np.float64], NDArray[np.int64]],
    tables: Tables,
    bounds: NDArray[np.float64],
    codes: tuple[int, int, int],
    step: int,
    cells: Cells,
    place: tuple[NDArray[np.int64], NDArray[np.int64]],
    out: Blocks,
) -> None:
    """Advance the boilers through their cells, which must follow each other, and write what they report.

    Parameters
    ----------
    state
        Shape ``(boilers, STATE_SIZE)``, changed in place.
    weather
        A first hour, the outdoor temperatures from it on, shape ``(sites, hours)``, and the wall clock's lead on UTC.
    bounds
        Plausible range of each signal, shape ``(11, 2)``.
    codes
        Code of the first signal, of `controller_state`, and index of the first boiler in the batch.
    """
    _run(seed, p, state, events, *weather, tables, bounds, *codes, step, cells, *place, out)
