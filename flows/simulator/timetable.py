"""What the lifts of a house do in three hours: calls, travels, doors, and the heat that they leave.

Calls are a Poisson process whose rate follows the hour and the kind of day. A call is one report of the gateway: an
empty travel to the caller where the car is elsewhere, the doors, the travel, the doors again. A car that nobody has
called for five minutes goes back to the main landing. All of a slot is a function of the seed, the asset and the slot,
and of the temperatures at its beginning.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from flows.simulator.draws import exponential, key_of, mix, normal, poisson, uniform
from flows.simulator.motion import plan_travel
from flows.simulator.register import LiftParams
from flows.simulator.wear import MISUSE, Events, event_at, outage_end, wear_at
from flows.simulator.weather import day_kind, utc_offset_s

__all__ = ["SLOT_S", "Slot", "Travels", "plan_slot", "rest_heat"]

SLOT_S = 10_800
"""Seconds of a slot."""

_HOURLY = np.array(
    [
        [0.25, 0.12, 0.08, 0.06, 0.12, 0.6, 2.1, 4.6, 5.2, 3.1, 2.6, 3.1]
        + [4.1, 3.6, 3.1, 3.6, 5.6, 6.6, 7.0, 6.0, 4.4, 2.9, 1.7, 0.7],
        [0.5, 0.3, 0.2, 0.12, 0.12, 0.3, 0.9, 1.9, 3.1, 4.4, 5.2, 5.3]
        + [4.7, 4.0, 4.4, 4.7, 4.9, 5.1, 5.3, 4.9, 4.2, 3.3, 2.3, 1.3],
        [0.6, 0.4, 0.25, 0.15, 0.12, 0.2, 0.5, 1.1, 2.0, 3.2, 4.2, 4.5]
        + [4.4, 3.7, 3.6, 3.9, 4.3, 4.6, 4.8, 4.2, 3.2, 2.1, 1.3, 0.6],
    ]
)
_WEEKDAY = float(_HOURLY[0].sum())
_STREAM_SLOT = 1
_HOME_AFTER_S = 300.0
_QUIET_END_S = 100.0  # no report starts so late that it would cross the end of the slot
_ACTIVITY_TAU_S = 9000.0
_COIL_TAU_S = 2400.0


class Travels(NamedTuple):
    """Travels of one slot; those of lift ``a`` stand in ``first[a]:first[a + 1]``, the first of them a car at rest.

    Times are seconds of the asset's clock in the slot; `sign` is +1 upwards; `torque` is the share of the rated torque
    at constant speed; `heat`, `activity`, `coil` are the thermal states when it starts; `error_mm` is where it stops.
    """

    first: NDArray[np.int64]
    start: NDArray[np.float64]
    rising: NDArray[np.float64]
    constant: NDArray[np.float64]
    cruise: NDArray[np.float64]
    jerk: NDArray[np.float64]
    sign: NDArray[np.float64]
    from_m: NDArray[np.float64]
    torque: NDArray[np.float64]
    gain: NDArray[np.float64]
    error_mm: NDArray[np.float64]
    shake: NDArray[np.float64]
    heat: NDArray[np.float64]
    activity: NDArray[np.float64]
    coil: NDArray[np.float64]
    key: NDArray[np.uint64]


class Moves(NamedTuple):
    """Movements of the doors of one slot; those of lift ``a`` stand in ``first[a]:first[a + 1]``."""

    first: NDArray[np.int64]
    start: NDArray[np.float64]
    duration: NDArray[np.float64]
    begin: NDArray[np.float64]
    end: NDArray[np.float64]


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
def _door(
    moves: Moves,
    count: int,
    at: float,
    open_s: float,
    close_s: float,
    hold_s: float,
    reopening: float,
    stalling: float,
    state: NDArray[np.uint64],
) -> tuple[int, float]:
    """Write one working of the doors from `at` on; return the number of moves and when the doors are closed."""
    room = len(moves.start)
    hold = hold_s
    opened_from = 0.0
    for _ in range(24):
        share = 1.0 if opened_from == 0.0 else 0.25 + 0.75 * (1.0 - opened_from)
        if count < room:
            moves.start[count] = at
            moves.duration[count] = open_s * share
            moves.begin[count] = opened_from
            moves.end[count] = 1.0
        count += 1
        at += open_s * share + hold
        if uniform(state) < reopening:
            # Somebody stands in the light barrier: the leaf turns round on its way.
            back = 0.25 + 0.65 * uniform(state)
            share = 0.25 + 0.75 * (1.0 - back)
            if count < room:
                moves.start[count] = at
                moves.duration[count] = close_s * share
                moves.begin[count] = 1.0
                moves.end[count] = back
            count += 1
            at += close_s * share
            opened_from = back
            hold = 1.5 + exponential(state)
            continue
        if uniform(state) < stalling:
            # The leaf sticks on the sill and frees itself.
            stuck = 0.15 + 0.7 * uniform(state)
            pause = 0.2 + 0.5 * uniform(state)
            if count < room:
                moves.start[count] = at
                moves.duration[count] = close_s * (1.0 - stuck)
                moves.begin[count] = 1.0
                moves.end[count] = stuck
            count += 1
            at += close_s * (1.0 - stuck) + pause
            if count < room:
                moves.start[count] = at
                moves.duration[count] = close_s * stuck
                moves.begin[count] = stuck
                moves.end[count] = 0.0
            count += 1
            return count, at + close_s * stuck
        break
    if count < room:
        moves.start[count] = at
        moves.duration[count] = close_s
        moves.begin[count] = 1.0
        moves.end[count] = 0.0
    return count + 1, at + close_s


@kernel
def _plan(
    seed: int,
    slot: int,
    rates: NDArray[np.float64],
    homeward: NDArray[np.float64],
    quota: float,
    p: LiftParams,
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
    for a in range(len(p.site)):
        state[0] = key_of(seed, a, _STREAM_SLOT, slot)
        t.first[a] = nt
        m.first[a] = nm
        r.first[a] = nr
        origin_us = slot * SLOT_S * 1_000_000 + p.offset_us[a]
        heat, activity, coil = thermal[a, 0], thermal[a, 1], thermal[a, 2]
        clock = 0.0  # when the thermal states were last brought up to date
        if nt < len(t.start):  # the car at rest
            t.start[nt] = -1.0
            t.rising[nt] = t.constant[nt] = t.cruise[nt] = 0.0
            t.jerk[nt] = 1.0
            t.sign[nt] = t.from_m[nt] = t.torque[nt] = t.gain[nt] = t.shake[nt] = 0.0
            t.error_mm[nt] = p.level_bias_mm[a] + p.level_sigma_mm[a] * normal(state)
            t.heat[nt], t.activity[nt], t.coil[nt] = heat, activity, coil
            t.key[nt] = state[0]
        nt += 1
        if nm < len(m.start):  # the door at rest
            m.start[nm] = -1.0
            m.duration[nm] = 0.5
            m.begin[nm] = m.end[nm] = 0.0
        nm += 1
        n_calls = 0
        for hour in range(len(rates)):
            for _ in range(min(poisson(state, p.calls_per_day[a] * rates[hour]), 1000)):
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
            w_door = max(wear_at(events, a, 0, now_us), p.age[a, 0])
            w_brake = max(wear_at(events, a, 2, now_us), p.age[a, 2])
            misuse = event_at(events, a, MISUSE, now_us)
            spell = events.detail[misuse] if misuse >= 0 else -1
            span = p.spread[a, 0]
            open_s = p.open_s[a] * (1.0 + 0.8 * span * w_door) * (1.0 + 0.025 * normal(state))
            close_s = p.close_s[a] * (1.0 + 0.74 * span * w_door) * (1.0 + 0.025 * normal(state))
            reopening = p.reopening[a] + 0.12 * w_door * w_door
            stalling = 0.3 * w_door * w_door
            if spell == 0:
                reopening = 0.72
            # The main landing sees most calls: out in the morning, home in the evening.
            choice = uniform(state)
            hour = min(int(at // 3600.0), len(homeward) - 1)
            top = p.floors[a] - 1
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
                kg = p.rated_kg[a] * (1.05 + 0.15 * uniform(state))
            nt0, nm0 = nt, nm
            saved_heat, saved_activity, saved_coil, saved_clock = heat, activity, coil, clock
            begin = at
            for leg in range(2):
                if leg == 0:
                    start_floor, goal, load = floor, source, 0.0
                else:
                    start_floor, goal, load = source, target, kg / p.rated_kg[a]
                if homing:
                    if leg == 0:
                        continue
                    load = 0.0
                if leg == 1 and not homing:
                    hold = p.dwell_s[a] * (0.6 + 0.5 * exponential(state))
                    nm, at = _door(m, nm, at, open_s, close_s, min(hold, 15.0), reopening, stalling, state)
                    at += 0.7
                if start_floor == goal:
                    continue
                metres = abs(goal - start_floor) * p.storey_m[a]
                sign = 1.0 if goal > start_floor else -1.0
                rising, constant, cruise, jerk = plan_travel(metres, p.speed_m_s[a], p.accel_m_s2[a], p.jerk_m_s3[a])
                duration = 4.0 * rising + 2.0 * constant + cruise
                w_motor = wear_at(events, a, 1, now_us)
                w_shoes = wear_at(events, a, 3, now_us)
                drag = p.friction[a] * (1.0 + 0.25 * w_motor + 0.35 * w_shoes + 0.5 * w_brake)
                torque = 2.0 * (load - p.balance[a]) * sign + drag
                accelerating = (4.0 * rising + 2.0 * constant) / duration
                share = p.magnetising[a] ** 2 + torque * torque + accelerating * p.inertia[a] ** 2
                heat = rest_heat(heat, 0.0, p.motor_tau_s[a], 0.0, at - clock)
                activity = rest_heat(activity, 0.0, _ACTIVITY_TAU_S, 0.0, at - clock)
                coil = rest_heat(coil, 0.0, _COIL_TAU_S, 0.0, at - clock)
                error = (
                    p.level_bias_mm[a]
                    + p.level_sigma_mm[a] * (1.0 + 0.5 * w_brake) * normal(state)
                    + sign * 15.0 * p.spread[a, 2] * w_brake
                )
                if nt < len(t.start):
                    t.start[nt] = at
                    t.rising[nt], t.constant[nt], t.cruise[nt], t.jerk[nt] = rising, constant, cruise, jerk
                    t.sign[nt] = sign
                    t.from_m[nt] = start_floor * p.storey_m[a]
                    t.torque[nt] = torque
                    t.gain[nt] = p.motor_k[a] * share
                    t.error_mm[nt] = error
                    t.shake[nt] = 1.2 * events.amount[misuse] if spell == 1 and leg == 1 else 0.0
                    t.heat[nt], t.activity[nt], t.coil[nt] = heat, activity, coil
                    t.key[nt] = mix(state[0])
                nt += 1
                heat = rest_heat(heat, p.motor_k[a] * share, p.motor_tau_s[a], duration, 0.0)
                activity = rest_heat(activity, 1.0, _ACTIVITY_TAU_S, duration, 0.0)
                coil = rest_heat(coil, p.coil_k[a], _COIL_TAU_S, duration, 0.0)
                clock = at + duration
                at += duration + 0.6
            if not homing:
                hold = p.dwell_s[a] * (0.6 + 0.5 * exponential(state))
                nm, at = _door(m, nm, at, open_s, close_s, min(hold, 15.0), reopening, stalling, state)
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
                r.begin[nr] = int(math.floor(begin)) - 1
                r.end[nr] = min(int(math.ceil(at)) + 1, SLOT_S)
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
        after[a, 0] = rest_heat(heat, 0.0, p.motor_tau_s[a], 0.0, rest)
        after[a, 1] = rest_heat(activity, 0.0, _ACTIVITY_TAU_S, 0.0, rest)
        after[a, 2] = rest_heat(coil, 0.0, _COIL_TAU_S, 0.0, rest)
    count = len(p.site)
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
    p: LiftParams,
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
    n = len(p.site)
    travels = int(float(p.calls_per_day.sum()) * share * 2.2) + 16 * n + 64
    moves, reports = 7 * travels, travels
    while True:
        t = Travels(
            np.empty(n + 1, np.int64),
            *[np.empty(travels) for _ in range(14)],
            np.empty(travels, np.uint64),
        )
        m = Moves(np.empty(n + 1, np.int64), *[np.empty(moves) for _ in range(4)])
        r = Reports(
            np.empty(n + 1, np.int64),
            *[np.empty(reports, np.int64) for _ in range(3)],
            np.empty(reports, np.bool_),
        )
        after = np.empty((n, 3))
        needed = _plan(seed, number, rates, homeward, quota, p, events, thermal, t, m, r, after)
        if needed[0] <= travels and needed[1] <= moves and needed[2] <= reports:
            break
        travels, moves, reports = (max(a, b) for a, b in zip(needed, (travels, moves, reports), strict=True))
    t = Travels(t.first, *[column[: needed[0]].copy() for column in t[1:]])
    m = Moves(m.first, *[column[: needed[1]].copy() for column in m[1:]])
    r = Reports(r.first, *[column[: needed[2]].copy() for column in r[1:]])
    return Slot(number, t, m, r, events, thermal, after)
