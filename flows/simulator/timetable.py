"""What the lifts of a house do in three hours: calls, travels, doors, and the heat that they leave.

Calls are a Poisson process whose rate follows the hour and the kind of day. A call is one report of the gateway: an
empty travel to the caller where the car is elsewhere, the doors, the travel, the doors again. A car that nobody has
called for five minutes goes back to the main landing. All of a slot is a function of the seed, the asset and the slot,
and of the temperatures at its beginning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from flows.simulator.doors import Moves, work_door
from flows.simulator.draws import exponential, key_of, mix, normal, poisson, uniform
from flows.simulator.motion import plan_travel
from flows.simulator.register import Rows
from flows.simulator.wear import MISUSE, Events, event_at, outage_end, wear_at
from flows.simulator.weather import day_kind, utc_offset_s

__all__ = ["ACTIVITY_TAU_S", "COIL_TAU_S", "SLOT_S", "Slot", "Travels", "plan_slot", "rest_heat"]

SLOT_S = 10_800
"""Seconds of a slot."""

# Calls an hour, over the local hours of a day, before and after noon.
_WORKING_DAY = (
    *(0.25, 0.12, 0.08, 0.06, 0.12, 0.6, 2.1, 4.6, 5.2, 3.1, 2.6, 3.1),
    *(4.1, 3.6, 3.1, 3.6, 5.6, 6.6, 7.0, 6.0, 4.4, 2.9, 1.7, 0.7),
)
_SATURDAY = (
    *(0.5, 0.3, 0.2, 0.12, 0.12, 0.3, 0.9, 1.9, 3.1, 4.4, 5.2, 5.3),
    *(4.7, 4.0, 4.4, 4.7, 4.9, 5.1, 5.3, 4.9, 4.2, 3.3, 2.3, 1.3),
)
_SUNDAY = (
    *(0.6, 0.4, 0.25, 0.15, 0.12, 0.2, 0.5, 1.1, 2.0, 3.2, 4.2, 4.5),
    *(4.4, 3.7, 3.6, 3.9, 4.3, 4.6, 4.8, 4.2, 3.2, 2.1, 1.3, 0.6),
)
_HOURLY = np.array([_WORKING_DAY, _SATURDAY, _SUNDAY])
_WEEKDAY = float(_HOURLY[0].sum())
_STREAM_SLOT = 1
_HOME_AFTER_S = 300.0
_QUIET_END_S = 100.0  # no report starts so late that it would cross the end of the slot
ACTIVITY_TAU_S = 9000.0
COIL_TAU_S = 2400.0


TRAVEL = np.dtype(
    [
        *((name, np.float64) for name in ("start", "rising", "constant", "cruise", "jerk", "sign", "from_m")),
        *((name, np.float64) for name in ("torque", "gain", "error_mm", "shake", "heat", "activity", "coil")),
        ("key", np.uint64),
    ]
)
"""One travel. Times are seconds of the asset's clock in the slot; `sign` is +1 upwards; `torque` is the share of the
rated torque at constant speed; `heat`, `activity`, `coil` are the thermal states when it starts, `gain` is where the
heat would end; `error_mm` is where it stops; `shake` is what somebody who jumps adds; `key` seeds its noise."""


class Travels(NamedTuple):
    """Travels of one slot; those of lift ``a`` are ``rows[first[a]:first[a + 1]]``, the first of them a car at rest."""

    first: NDArray[np.int64]
    rows: NDArray[Any]


class Reports(NamedTuple):
    """What the gateways record of one slot: whole seconds ``begin`` to ``end`` around each call."""

    first: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    travels: NDArray[np.int64]
    sampled: NDArray[np.bool_]


class Slot(NamedTuple):
    """A planned slot: its number since 1970, what moves, what is reported, and the thermal states at its end."""

    number: int
    travels: Travels
    moves: Moves
    reports: Reports
    events: Events
    thermal: NDArray[np.float64]
    thermal_after: NDArray[np.float64]


@kernel
def rest_heat(heat: float, gain: float, tau_s: float, moving_s: float, resting_s: float) -> float:
    """Return a first-order temperature rise after some time moving (towards `gain`) and some time at rest.

    Examples
    --------
    >>> round(rest_heat(0.0, 50.0, 1000.0, 1e9, 0.0), 6), round(rest_heat(50.0, 0.0, 1000.0, 0.0, 1e9), 6)
    (50.0, 0.0)
    """
    risen = gain + (heat - gain) * math.exp(-moving_s / tau_s)
    return risen * math.exp(-resting_s / tau_s)


@kernel
def _plan(
    seed: int,
    slot: int,
    rates: NDArray[np.float64],
    homeward: NDArray[np.float64],
    quota: float,
    p: Rows,
    events: Events,
    thermal: NDArray[np.float64],
    t: Travels,
    m: Moves,
    r: Reports,
    after: NDArray[np.float64],
) -> tuple[int, int, int]:
    """Plan a slot for every lift; return how many travels, moves and reports it has, though the arrays be shorter."""
    state = np.empty(1, np.uint64)
    calls = np.empty(4096)
    nt = nm = nr = 0
    for a in range(len(p)):
        state[0] = key_of(seed, a, _STREAM_SLOT, slot)
        t.first[a] = nt
        m.first[a] = nm
        r.first[a] = nr
        origin_us = slot * SLOT_S * 1_000_000 + p[a].offset_us
        heat, activity, coil = thermal[a, 0], thermal[a, 1], thermal[a, 2]
        clock = 0.0  # when the thermal states were last brought up to date
        if nt < len(t.rows):  # the car at rest
            t.rows[nt].start = -1.0
            t.rows[nt].rising = t.rows[nt].constant = t.rows[nt].cruise = 0.0
            t.rows[nt].jerk = 1.0
            t.rows[nt].sign = t.rows[nt].from_m = t.rows[nt].torque = t.rows[nt].gain = t.rows[nt].shake = 0.0
            t.rows[nt].error_mm = p[a].level_bias_mm + p[a].level_sigma_mm * normal(state)
            t.rows[nt].heat, t.rows[nt].activity, t.rows[nt].coil = heat, activity, coil
            t.rows[nt].key = state[0]
        nt += 1
        if nm < len(m.start):  # the door at rest
            m.start[nm] = -1.0
            m.duration[nm] = 0.5
            m.begin[nm] = m.end[nm] = 0.0
        nm += 1
        n_calls = 0
        for hour in range(len(rates)):
            for _ in range(min(poisson(state, p[a].calls_per_day * rates[hour]), 1000)):
                calls[n_calls] = (hour + uniform(state)) * 3600.0
                n_calls += 1
        calls[:n_calls].sort()
        floor = 0
        busy = 2.0
        credit = 0.5
        planned = n_calls
        call = 0
        first_report = nr
        while call <= planned:
            homing = False
            at = SLOT_S if call == planned else max(calls[call], busy)
            if floor != 0 and (at > busy + _HOME_AFTER_S or call == planned):
                homing = True
                at = min(busy + _HOME_AFTER_S, SLOT_S - 0.75 * _QUIET_END_S)
            elif call == planned:
                break
            else:
                call += 1
                if at > SLOT_S - 2.2 * _QUIET_END_S:
                    continue
            now_us = origin_us + int(at * 1e6)
            w_door = max(wear_at(events, a, 0, now_us), p[a].age[0])
            w_brake = max(wear_at(events, a, 2, now_us), p[a].age[2])
            misuse = event_at(events, a, MISUSE, now_us)
            spell = events.rows[misuse].detail if misuse >= 0 else -1
            span = p[a].spread[0]
            open_s = p[a].open_s * (1.0 + 0.8 * span * w_door) * (1.0 + 0.025 * normal(state))
            close_s = p[a].close_s * (1.0 + 0.74 * span * w_door) * (1.0 + 0.025 * normal(state))
            reopening = p[a].reopening + 0.12 * w_door * w_door
            stalling = 0.3 * w_door * w_door
            if spell == 0:
                reopening = 0.72
            # The main landing sees most calls: out in the morning, home in the evening.
            choice = uniform(state)
            hour = min(int(at // 3600.0), len(homeward) - 1)
            top = p[a].floors - 1
            there = 1 + min(int(uniform(state) * top), top - 1)
            other = 1 + min(int(uniform(state) * top), top - 1)
            if homing:
                source, target = floor, 0
            elif choice < 0.08 and there != other:
                source, target = there, other
            elif choice < 0.08 + 0.92 * homeward[hour]:
                source, target = 0, there
            else:
                source, target = there, 0
            kg = 72.0 * (1 + min(poisson(state, 0.45), 4)) + 12.0 * normal(state)
            if spell == 2:
                kg = p[a].rated_kg * (1.05 + 0.15 * uniform(state))
            nt0, nm0 = nt, nm
            saved_heat, saved_activity, saved_coil, saved_clock = heat, activity, coil, clock
            begin = at
            for leg in range(2):
                if leg == 0:
                    start_floor, goal, load = floor, source, 0.0
                else:
                    start_floor, goal, load = source, target, kg / p[a].rated_kg
                if homing:
                    if leg == 0:
                        continue
                    load = 0.0
                if leg == 1 and not homing:
                    hold = p[a].dwell_s * (0.6 + 0.5 * exponential(state))
                    nm, at = work_door(m, nm, at, open_s, close_s, min(hold, 15.0), reopening, stalling, state)
                    at += 0.7
                if start_floor == goal:
                    continue
                metres = abs(goal - start_floor) * p[a].storey_m
                sign = 1.0 if goal > start_floor else -1.0
                rising, constant, cruise, jerk = plan_travel(metres, p[a].speed_m_s, p[a].accel_m_s2, p[a].jerk_m_s3)
                duration = 4.0 * rising + 2.0 * constant + cruise
                w_motor = wear_at(events, a, 1, now_us)
                w_shoes = wear_at(events, a, 3, now_us)
                drag = p[a].friction * (1.0 + 0.25 * w_motor + 0.35 * w_shoes + 0.5 * w_brake)
                torque = 2.0 * (load - p[a].balance) * sign + drag
                accelerating = (4.0 * rising + 2.0 * constant) / duration
                share = p[a].magnetising ** 2 + torque * torque + accelerating * p[a].inertia ** 2
                heat = rest_heat(heat, 0.0, p[a].motor_tau_s, 0.0, at - clock)
                activity = rest_heat(activity, 0.0, ACTIVITY_TAU_S, 0.0, at - clock)
                coil = rest_heat(coil, 0.0, COIL_TAU_S, 0.0, at - clock)
                error = (
                    p[a].level_bias_mm
                    + p[a].level_sigma_mm * (1.0 + 0.5 * w_brake) * normal(state)
                    + sign * 15.0 * p[a].spread[2] * w_brake
                )
                if nt < len(t.rows):
                    t.rows[nt].start = at
                    t.rows[nt].rising, t.rows[nt].constant, t.rows[nt].cruise, t.rows[nt].jerk = (
                        rising,
                        constant,
                        cruise,
                        jerk,
                    )
                    t.rows[nt].sign = sign
                    t.rows[nt].from_m = start_floor * p[a].storey_m
                    t.rows[nt].torque = torque
                    t.rows[nt].gain = p[a].motor_k * share
                    t.rows[nt].error_mm = error
                    t.rows[nt].shake = 1.2 * events.rows[misuse].amount if spell == 1 and leg == 1 else 0.0
                    t.rows[nt].heat, t.rows[nt].activity, t.rows[nt].coil = heat, activity, coil
                    t.rows[nt].key = mix(state[0])
                nt += 1
                heat = rest_heat(heat, p[a].motor_k * share, p[a].motor_tau_s, duration, 0.0)
                activity = rest_heat(activity, 1.0, ACTIVITY_TAU_S, duration, 0.0)
                coil = rest_heat(coil, p[a].coil_k, COIL_TAU_S, duration, 0.0)
                clock = at + duration
                at += duration + 0.6
            if not homing:
                hold = p[a].dwell_s * (0.6 + 0.5 * exponential(state))
                nm, at = work_door(m, nm, at, open_s, close_s, min(hold, 15.0), reopening, stalling, state)
            ended_us = origin_us + int((at + 1.0) * 1e6)
            outage = outage_end(events, a, origin_us + int(begin * 1e6), ended_us)
            if outage >= 0 or at > SLOT_S - 3.0:
                # Out of service, or too long a misuse for the rest of the slot: this call is not answered.
                nt, nm = nt0, nm0
                heat, activity, coil, clock = saved_heat, saved_activity, saved_coil, saved_clock
                if outage >= 0:
                    floor = 0  # whoever repairs it leaves the car at the main landing
                    busy = min(max(busy, (outage - origin_us) * 1e-6), float(SLOT_S))
                    if call == planned and floor == 0:
                        break
                    continue
                if homing:
                    floor = 0
                continue
            floor = target
            if nr < len(r.begin):
                r.begin[nr] = math.floor(begin) - 1
                r.end[nr] = min(math.ceil(at) + 1, SLOT_S)
                if nr > first_report and r.begin[nr] < r.end[nr - 1]:
                    r.begin[nr] = r.end[nr - 1]
                r.travels[nr] = nt - nt0
                r.sampled[nr] = True
            nr += 1
            busy = at + 1.2
        total = nt - t.first[a] - 1
        if quota < total:
            share = quota / max(total, 1)
            for report in range(first_report, min(nr, len(r.begin))):
                credit += share * r.travels[report]
                r.sampled[report] = credit >= r.travels[report]
                if r.sampled[report]:
                    credit -= r.travels[report]
        rest = SLOT_S - clock
        after[a, 0] = rest_heat(heat, 0.0, p[a].motor_tau_s, 0.0, rest)
        after[a, 1] = rest_heat(activity, 0.0, ACTIVITY_TAU_S, 0.0, rest)
        after[a, 2] = rest_heat(coil, 0.0, COIL_TAU_S, 0.0, rest)
    count = len(p)
    t.first[count], m.first[count], r.first[count] = nt, nm, nr
    return nt, nm, nr


def _rates(slot: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the share of a day's calls in each hour of the slot, how many go up, and the slot's share of the day."""
    hours = np.arange(slot * SLOT_S // 3600, (slot + 1) * SLOT_S // 3600)
    rates, homeward = [], []
    for hour in hours:
        local = int(hour) + utc_offset_s(int(hour)) // 3600
        kind, busy = day_kind(local // 24)
        rates.append(busy * _HOURLY[kind, local % 24] / _WEEKDAY)
        homeward.append(0.5 - 0.28 * math.cos(math.pi * (local % 24 - 6) / 12.0))
    return np.array(rates), np.array(homeward), float(sum(rates))


def _day_share(slot: int) -> tuple[float, float]:
    """Return the shares of its UTC day's calls before and after a slot."""
    a_day = 86400 // SLOT_S
    shares = [_rates(slot - slot % a_day + i)[2] for i in range(a_day)]
    before = sum(shares[: slot % a_day])
    return before / sum(shares), (before + shares[slot % a_day]) / sum(shares)


def plan_slot(
    seed: int,
    number: int,
    p: Rows,
    events: Events,
    thermal: NDArray[np.float64],
    sampled_trips: int | None = None,
) -> Slot:
    """Plan one slot for all lifts.

    Parameters
    ----------
    seed
        Seed of the fleet.
    number
        Number of the slot since 1970, on the clock of each asset.
    p, events
        The lifts, and what happens to them in the slot.
    thermal
        Rise of the motor, activity and rise of the coil at the beginning, shape ``(lifts, 3)``.
    sampled_trips
        Largest number of travels a day and lift that the gateway records, or None for all.
    """
    rates, homeward, share = _rates(number)
    quota = math.inf
    if sampled_trips is not None:
        before, until = _day_share(number)
        quota = float(math.floor(sampled_trips * until + 1e-9) - math.floor(sampled_trips * before + 1e-9))
    n = len(p)
    travels = int(float(p["calls_per_day"].sum()) * share * 2.2) + 16 * n + 64
    moves, reports = 7 * travels, travels
    while True:
        t = Travels(np.empty(n + 1, np.int64), np.zeros(travels, TRAVEL))
        m = Moves(**_columns(Moves._fields, n, moves))
        whole = dict.fromkeys(("begin", "end", "travels"), np.int64)
        r = Reports(**_columns(Reports._fields, n, reports, **whole, sampled=np.bool_))
        after = np.empty((n, 3))
        needed = _plan(seed, number, rates, homeward, quota, p, events, thermal, t, m, r, after)
        if needed[0] <= travels and needed[1] <= moves and needed[2] <= reports:
            break
        travels, moves, reports = (max(a, b) for a, b in zip(needed, (travels, moves, reports), strict=True))
    t = Travels(t.first, t.rows[: needed[0]].copy())
    m = m._replace(**{name: getattr(m, name)[: needed[1]].copy() for name in Moves._fields[1:]})
    r = r._replace(**{name: getattr(r, name)[: needed[2]].copy() for name in Reports._fields[1:]})
    return Slot(number, t, m, r, events, thermal, after)


def _columns(names: Sequence[str], assets: int, rows: int, **types: type) -> dict[str, Any]:
    """Return empty columns: where each asset's rows begin, and the rows, of real numbers unless said otherwise."""
    columns: dict[str, Any] = {name: np.empty(rows, types.get(name, np.float64)) for name in names}
    return columns | {"first": np.empty(assets + 1, np.int64)}
