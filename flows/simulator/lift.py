"""What the sensors of a lift say, second by second.

Car vibration is the sum of what moves it: sway on the guide rails and the blow at each rail joint (side to side, front
to back), the acceleration of the ride, the rope as a spring, the turning motor, its gear or bearing (vertical), and the
sensor's own noise. Wear of guide shoes and motor bearing multiplies its part. Current follows load, direction,
acceleration and friction; temperatures follow the losses.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from flows.simulator.blocks import Blocks, Cells
from flows.simulator.doors import Moves
from flows.simulator.draws import WHITE, Tables, key_of, mix
from flows.simulator.motion import leaf_position
from flows.simulator.register import Rows
from flows.simulator.ride import ride
from flows.simulator.timetable import ACTIVITY_TAU_S, COIL_TAU_S, SLOT_S, Reports, Slot, Travels, rest_heat
from flows.simulator.wear import SENSOR, SILENCE, Events, distort, event_at, state_at, wear_at

__all__ = ["LIFT_SIGNALS", "cut", "fill_lifts", "list_lifts"]

LIFT_SIGNALS = (
    "vibration_x",
    "vibration_y",
    "vibration_z",
    "motor_current",
    "car_speed",
    "door_position",
    "landing_offset",
    "motor_temperature",
    "brake_temperature",
    "controller_state",
)
"""Signals in the order of their codes."""

FLUSH_S = 30
"""A gateway's buffer: a report that takes longer is sent in parts, so that no window waits for it."""

_ACTIVE, _LANDING, _HEARTBEAT, _WARMTH = 1, 2, 4, 8
_HEARTBEAT_S = 60
_WARMTH_S = 10
_STREAM_CELL = 2
_MOTOR_FRICTION_K = 40.0
_BRAKE_DRAG_K = 60.0


@kernel
def _cut(slot: int, p: Rows, r: Reports, until: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    for a in range(len(out)):
        second = until[a] - slot * SLOT_S
        out[a] = until[a]
        if second < 0 or second > SLOT_S:
            continue
        for i in range(r.first[a], r.first[a + 1]):
            if r.begin[i] < second < r.end[i] and r.sampled[i]:
                whole = (second - r.begin[i]) // FLUSH_S * FLUSH_S
                out[a] = slot * SLOT_S + r.begin[i] + whole
                break
            if r.begin[i] >= second:
                break


def cut(slot: Slot, p: Rows, until: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return up to which second of its clock each lift has sent, when its clock says `until` within the slot."""
    out = np.empty(len(until), np.int64)
    _cut(slot.number, p, slot.reports, until, out)
    return out


@kernel
def _last(start: NDArray[np.float64], low: int, high: int, second: float) -> int:
    """Return the last index in ``low:high`` that starts at or before the second; the first starts before any."""
    while high - low > 1:
        middle = (low + high) // 2
        if start[middle] <= second:
            low = middle
        else:
            high = middle
    return low


@kernel
def _list(
    slot: int,
    p: Rows,
    t: Travels,
    r: Reports,
    events: Events,
    since: NDArray[np.int64],
    until: NDArray[np.int64],
    continuous: bool,
    cells: Cells,
) -> int:
    room = len(cells.asset)
    n = 0
    for a in range(len(p)):
        origin = slot * SLOT_S
        second = max(since[a] - origin, 0)
        stop = min(until[a] - origin, SLOT_S)
        report = r.first[a]
        last = r.first[a + 1]
        quiet = True
        for row in range(events.first[a], events.first[a + 1]):
            quiet = quiet and events.rows[row].kind != SILENCE
        while second < stop:
            while report < last and (r.end[report] <= second or not r.sampled[report]):
                report += 1
            active = continuous or (report < last and r.begin[report] <= second)
            flags = 0
            if (origin + second - p[a].phase_s) % _HEARTBEAT_S == 0:
                flags |= _HEARTBEAT | _WARMTH
            if active:
                flags |= _ACTIVE
                if (origin + second - p[a].phase_s) % _WARMTH_S == 0:
                    flags |= _WARMTH
                i = _last(t.rows["start"], t.first[a], t.first[a + 1], float(second))
                if second >= t.rows[i].start + 4.0 * t.rows[i].rising + 2.0 * t.rows[i].constant + t.rows[i].cruise:
                    flags |= _LANDING
            start_us = (origin + second) * 1_000_000 + p[a].offset_us
            if flags != 0 and (quiet or event_at(events, a, SILENCE, start_us) < 0):
                if n < room:
                    cells.asset[n] = a
                    cells.second[n] = second
                    cells.start_us[n] = start_us
                    cells.flags[n] = flags
                    slow = (flags >> 1 & 1) + (flags >> 2 & 1) + 2 * (flags >> 3 & 1)
                    cells.blocks[n] = slow + 6 * (flags & 1)
                    cells.values[n] = slow + 330 * (flags & 1)
                n += 1
            if active:
                second += 1
            else:
                # Nothing but heartbeats until the next report.
                ahead = _HEARTBEAT_S - (origin + second - p[a].phase_s) % _HEARTBEAT_S
                following = second + ahead
                if report < last:
                    following = min(following, r.begin[report])
                second = max(following, second + 1)
    return n


def list_lifts(slot: Slot, p: Rows, since: NDArray[np.int64], until: NDArray[np.int64], continuous: bool) -> Cells:
    """List the cells of a slot that lie between two seconds of each lift's clock."""
    room = int(np.clip(until - since, 0, SLOT_S).sum()) // (1 if continuous else 10) + 64 + 2 * len(since)
    while True:
        cells = Cells(*[np.empty(room, np.int64) for _ in range(6)])
        n = _list(slot.number, p, slot.travels, slot.reports, slot.events, since, until, continuous, cells)
        if n <= room:
            return Cells(*[column[:n] for column in cells])
        room = n


@kernel
def _busy(activity: float, duty: float) -> float:
    """Return how warm rubbing parts are, 1 at the usual activity; it saturates, as warm parts lose more heat."""
    share = activity / duty
    warm: float = 1.3 * share / (share + 0.3)
    return warm


@kernel
def _current(p: Rows, a: int, t: Travels, i: int, since: float, acceleration: float) -> float:
    """Return the drive's current, `since` seconds after the start of a travel; at rest what the drive idles with."""
    duration = 4.0 * t.rows[i].rising + 2.0 * t.rows[i].constant + t.rows[i].cruise
    if since < 0.0 or since >= duration:
        idle: float = p[a].idle_a
        return idle
    torque = t.rows[i].torque + p[a].inertia * acceleration / p[a].accel_m_s2
    inrush = p[a].inrush * math.exp(-since / 0.35)
    drawn: float = p[a].rated_a * (math.sqrt(p[a].magnetising ** 2 + torque * torque) + inrush)
    return drawn


@kernel
def _warmth(
    p: Rows,
    a: int,
    t: Travels,
    second: float,
    ambient: float,
    w_motor: float,
    w_brake: float,
) -> tuple[float, float]:
    """Return the temperatures of the motor and of the brake."""
    i = _last(t.rows["start"], t.first[a], t.first[a + 1], second)
    duration = 4.0 * t.rows[i].rising + 2.0 * t.rows[i].constant + t.rows[i].cruise
    since = second - max(t.rows[i].start, 0.0)
    moving = min(since, duration)
    resting = since - moving
    heat = rest_heat(t.rows[i].heat, t.rows[i].gain, p[a].motor_tau_s, moving, resting)
    activity = rest_heat(t.rows[i].activity, 1.0, ACTIVITY_TAU_S, moving, resting)
    coil = rest_heat(t.rows[i].coil, p[a].coil_k, COIL_TAU_S, moving, resting)
    rubbing = _busy(activity, p[a].duty)
    room = p[a].room_c + 0.25 * ambient
    motor = room + 2.0 + heat + _MOTOR_FRICTION_K * p[a].spread[1] * w_motor * rubbing
    brake = room + 1.0 + coil + _BRAKE_DRAG_K * p[a].spread[2] * w_brake * rubbing
    return motor, brake


@kernel
def _fill(
    seed: int,
    slot: int,
    p: Rows,
    t: Travels,
    m: Moves,
    events: Events,
    ambient: NDArray[np.float64],
    tables: Tables,
    bounds: NDArray[np.float64],
    cells: Cells,
    at_block: NDArray[np.int64],
    at_value: NDArray[np.int64],
    out: Blocks,
) -> None:
    x = np.empty(100)
    y = np.empty(100)
    z = np.empty(100)
    times = np.empty(100)
    position = np.empty(100)
    velocity = np.empty(100)
    acceleration = np.empty(100)
    mask = np.uint64(WHITE - 1)
    brake = 0.0
    counts = np.array([100, 100, 100, 10, 10, 10, 1, 1, 1, 1])
    for c in range(len(cells.asset)):
        a = cells.asset[c]
        second = float(cells.second[c])
        start_us = cells.start_us[c]
        flags = cells.flags[c]
        key = key_of(seed, a, _STREAM_CELL, slot * SLOT_S + cells.second[c])
        w_motor = max(wear_at(events, a, 1, start_us), p[a].age[1])
        b = at_block[c]
        v = at_value[c]
        sensor = event_at(events, a, SENSOR, start_us)
        for code in range(10):
            flag = _ACTIVE
            if code == 6:
                flag = _LANDING
            elif code == 9:
                flag = _HEARTBEAT
            elif code > 6:
                flag = _WARMTH
            if flags & flag == 0:
                continue
            out.asset[b] = a
            out.signal[b] = code
            out.start_us[b] = start_us
            out.period_us[b] = 10_000 if code < 3 else (100_000 if code < 6 else 0)
            out.offset[b] = v
            here = out.values[v : v + counts[code]]
            noise = np.int64(mix(key + np.uint64(code)) & mask)
            if code == 0:
                w_shoes = max(wear_at(events, a, 3, start_us), p[a].age[3])
                i = _last(t.rows["start"], t.first[a], t.first[a + 1], second + 0.99)
                duration = 4.0 * t.rows[i].rising + 2.0 * t.rows[i].constant + t.rows[i].cruise
                sigma = p[a].noise
                noise_y = np.int64(mix(key + np.uint64(21)) & mask)
                noise_z = np.int64(mix(key + np.uint64(22)) & mask)
                for n in range(100):
                    x[n] = sigma * tables.white[noise + n]
                    y[n] = sigma * tables.white[noise_y + n]
                    z[n] = sigma * tables.white[noise_z + n]
                if second < t.rows[i].start + duration + 1.5 and duration > 0.0:
                    ride(
                        p, a, t, i, second, tables, w_motor, w_shoes,
                        times, position, velocity, acceleration, x, y, z,
                    )  # fmt: skip
                else:
                    velocity[:] = 0.0
                    acceleration[:] = 0.0
                here[:] = x
            elif code == 1:
                here[:] = y
            elif code == 2:
                here[:] = z
            elif code == 3:
                i = _last(t.rows["start"], t.first[a], t.first[a + 1], second + 0.99)
                for n in range(10):
                    drawn = _current(p, a, t, i, second + 0.1 * n - t.rows[i].start, acceleration[10 * n])
                    here[n] = max(0.0, drawn * (1.0 + 0.012 * tables.white[noise + n]))
            elif code == 4:
                i = _last(t.rows["start"], t.first[a], t.first[a + 1], second + 0.99)
                for n in range(10):
                    here[n] = t.rows[i].sign * velocity[10 * n] * (1.0 + 0.002 * tables.white[noise + n])
            elif code == 5:
                i = _last(m.start, m.first[a], m.first[a + 1], second)
                for n in range(10):
                    at = second + 0.1 * n
                    while i + 1 < m.first[a + 1] and m.start[i + 1] <= at:
                        i += 1
                    gone = leaf_position((at - m.start[i]) / m.duration[i])
                    here[n] = m.begin[i] + (m.end[i] - m.begin[i]) * gone + 0.002 * tables.white[noise + n]
            elif code == 6:
                i = _last(t.rows["start"], t.first[a], t.first[a + 1], second)
                here[0] = t.rows[i].error_mm + 0.25 * tables.white[noise]
            elif code == 7:
                hour = (second + p[a].offset_us * 1e-6) / 3600.0
                left = min(int(hour), ambient.shape[1] - 2)
                air = ambient[p[a].site, left]
                air += (hour - left) * (ambient[p[a].site, left + 1] - air)
                w_brake = max(wear_at(events, a, 2, start_us), p[a].age[2])
                motor, brake = _warmth(p, a, t, second, air, w_motor, w_brake)
                here[0] = motor + 0.08 * tables.white[noise]
            elif code == 8:
                here[0] = brake + 0.08 * tables.white[noise]
            else:
                here[0] = float(state_at(events, a, start_us))
            if sensor >= 0 and events.rows[sensor].mode == code:
                draw = float(mix(key + np.uint64(40)) >> np.uint64(11)) * (1.0 / 9007199254740992.0)
                distort(events, sensor, start_us, draw, bounds[code, 0], bounds[code, 1], here)
            b += 1
            v += counts[code]


def fill_lifts(
    seed: int,
    slot: Slot,
    p: Rows,
    ambient: NDArray[np.float64],
    tables: Tables,
    bounds: NDArray[np.float64],
    cells: Cells,
    place: tuple[NDArray[np.int64], NDArray[np.int64]],
    out: Blocks,
) -> None:
    """Write the cells of a slot to their places.

    Parameters
    ----------
    ambient
        Outdoor temperature at the full hours of the slot, shape ``(sites, 4)``.
    bounds
        Plausible range of each signal, shape ``(10, 2)``.
    """
    _fill(seed, slot.number, p, slot.travels, slot.moves, slot.events, ambient, tables, bounds, cells, *place, out)
