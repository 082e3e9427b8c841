"""What the sensors of a lift say, second by second.

Car vibration is the sum of what moves it: sway on the guide rails and the blow at each rail joint (side to side, front
to back), the acceleration of the ride, the rope as a spring, the turning motor, its gear or bearing (vertical), and the
sensor's own noise. Wear of guide shoes and motor bearing multiplies its part. Current follows load, direction,
acceleration and friction; temperatures follow the losses.

References
----------
ISO 18738-1:2012, ride quality of lifts: healthy cars stay within 0.1 to 0.2 m/s2 peak to peak sideways.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from flows.simulator.blocks import Blocks, Cells
from flows.simulator.draws import TABLE, WHITE, Tables, key_of, mix
from flows.simulator.motion import leaf_position, travel_kinematics
from flows.simulator.register import LiftParams
from flows.simulator.timetable import SLOT_S, Moves, Reports, Slot, Travels, rest_heat
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
_ACTIVITY_TAU_S = 9000.0
_COIL_TAU_S = 2400.0
_MOTOR_FRICTION_K = 40.0
_BRAKE_DRAG_K = 60.0


@kernel
def _cut(slot: int, p: LiftParams, r: Reports, until: NDArray[np.int64], out: NDArray[np.int64]) -> None:
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


def cut(slot: Slot, p: LiftParams, until: NDArray[np.int64]) -> NDArray[np.int64]:
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
    p: LiftParams,
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
    for a in range(len(p.site)):
        origin = slot * SLOT_S
        second = max(since[a] - origin, 0)
        stop = min(until[a] - origin, SLOT_S)
        report = r.first[a]
        last = r.first[a + 1]
        quiet = True
        for row in range(events.first[a], events.first[a + 1]):
            quiet = quiet and events.kind[row] != SILENCE
        while second < stop:
            while report < last and (r.end[report] <= second or not r.sampled[report]):
                report += 1
            active = continuous or (report < last and r.begin[report] <= second)
            flags = 0
            if (origin + second - p.phase_s[a]) % _HEARTBEAT_S == 0:
                flags |= _HEARTBEAT | _WARMTH
            if active:
                flags |= _ACTIVE
                if (origin + second - p.phase_s[a]) % _WARMTH_S == 0:
                    flags |= _WARMTH
                i = _last(t.start, t.first[a], t.first[a + 1], float(second))
                if second >= t.start[i] + 4.0 * t.rising[i] + 2.0 * t.constant[i] + t.cruise[i]:
                    flags |= _LANDING
            start_us = (origin + second) * 1_000_000 + p.offset_us[a]
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
                ahead = _HEARTBEAT_S - (origin + second - p.phase_s[a]) % _HEARTBEAT_S
                following = second + ahead
                if report < last:
                    following = min(following, r.begin[report])
                second = max(following, second + 1)
    return n


def list_lifts(
    slot: Slot, p: LiftParams, since: NDArray[np.int64], until: NDArray[np.int64], continuous: bool
) -> Cells:
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
    return 1.3 * share / (share + 0.3)


@kernel
def _ride(
    p: LiftParams,
    a: int,
    t: Travels,
    i: int,
    second: float,
    tables: Tables,
    w_motor: float,
    w_shoes: float,
    times: NDArray[np.float64],
    position: NDArray[np.float64],
    velocity: NDArray[np.float64],
    acceleration: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
) -> None:
    """Add to 100 samples of each axis what the ride does to the car."""
    since = second - t.start[i]
    for n in range(100):
        times[n] = since + 0.01 * n
    travel_kinematics(times, t.rising[i], t.constant[i], t.cruise[i], t.jerk[i], position, velocity, acceleration)
    # Each part of the vibration reads its noise table from an own place, and on without a gap from second to second.
    run = int(second - math.floor(t.start[i])) * 100
    key = t.key[i]
    mask = np.uint64(TABLE - 1)
    o1 = np.int64(mix(key + np.uint64(1)) & mask) + run
    o2 = np.int64(mix(key + np.uint64(2)) & mask) + run
    o3 = np.int64(mix(key + np.uint64(3)) & mask) + run
    o4 = np.int64(mix(key + np.uint64(4)) & mask) + run
    o5 = np.int64(mix(key + np.uint64(5)) & mask) + run
    o6 = np.int64(mix(key + np.uint64(6)) & mask) + run
    scale = 1.0 / p.speed_m_s[a]
    shoes = math.sqrt(1.0 + 9.0 * p.spread[a, 3] * w_shoes)
    sway_x = p.sway_x[a] * scale * shoes
    sway_y = p.sway_y[a] * scale * shoes
    rumble = p.rumble[a] * scale * math.sqrt(1.0 + 1.5 * w_shoes)
    hum = p.hum[a] * scale * math.sqrt(1.0 + 2.0 * w_motor)
    rattle = p.rattle[a] * scale * math.sqrt(1.0 + 9.0 * p.spread[a, 1] * w_motor)
    line = p.line[a] * scale
    sign = t.sign[i]
    turn = 2.0 * math.pi * p.line_hz[a] * scale
    for n in range(100):
        v = velocity[n]
        x[n] += v * (sway_x * tables.sway[o1 + n] + rumble * tables.rumble[o3 + n])
        y[n] += v * (sway_y * tables.sway[o2 + n] + rumble * tables.rumble[o4 + n])
        z[n] += sign * acceleration[n] + v * hum * tables.hum[o5 + n]
    for n in range(100):
        z[n] += velocity[n] * line * math.sin(turn * position[n])
    if w_motor > 0.01:
        # A worn bearing rattles in blows: once each time that a rolling element passes the worn spot.
        blows = p.defect_hz[a] * scale
        depth = 0.9 * w_motor
        for n in range(100):
            place = blows * position[n]
            blow = math.exp(-5.0 * (place - math.floor(place)))
            z[n] += velocity[n] * rattle * tables.rattle[o6 + n] * (1.0 - depth + depth * 3.17 * blow)
    else:
        for n in range(100):
            z[n] += velocity[n] * rattle * tables.rattle[o6 + n]
    if t.shake[i] > 0.0:
        # Somebody jumps in the car.
        jump = 2.0 * math.pi * 2.2
        for n in range(100):
            kick = max(0.0, math.sin(jump * times[n])) * t.shake[i] * (velocity[n] > 0.0)
            z[n] += kick
            x[n] += 0.4 * kick * tables.sway[o1 + n]
            y[n] += 0.4 * kick * tables.sway[o2 + n]
    _joints(p, a, t, i, shoes, times, position, velocity, x, y)
    _rope(p, a, t, i, times, z)


@kernel
def _joints(
    p: LiftParams,
    a: int,
    t: Travels,
    i: int,
    shoes: float,
    times: NDArray[np.float64],
    position: NDArray[np.float64],
    velocity: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> None:
    """Add the swing of the car after each rail joint that it passes at cruising speed."""
    ramp = 2.0 * t.rising[i] + t.constant[i]
    peak = t.jerk[i] * t.rising[i] * (t.rising[i] + t.constant[i])
    half = 0.5 * peak * ramp
    distance = 2.0 * half + peak * t.cruise[i]
    pitch = p.joint_m[a]
    low = t.from_m[i] if t.sign[i] > 0 else t.from_m[i] - distance
    first = int(math.ceil(low / pitch))
    for joint in range(first, int((low + distance) / pitch) + 1):
        ahead = abs(joint * pitch - t.from_m[i])
        if ahead < half or ahead > half + peak * t.cruise[i]:
            continue  # passed slowly: too soft to feel
        passed = ramp + (ahead - half) / peak
        if times[99] < passed or times[0] > passed + 2.0:
            continue
        blow = p.joint[a] * shoes * peak / p.speed_m_s[a]
        # Rails never meet alike: each joint has its own size and side.
        odd = float(key_of(a, joint, 7, 0) & np.uint64(255)) / 255.0
        omega = 2.0 * math.pi * p.joint_hz[a]
        for n in range(100):
            after = times[n] - passed
            if after > 0.0:
                swing = blow * math.exp(-0.15 * omega * after) * math.sin(omega * after)
                x[n] += swing * (0.3 + 0.7 * odd)
                y[n] += swing * (0.9 - 0.7 * odd)


@kernel
def _rope(p: LiftParams, a: int, t: Travels, i: int, times: NDArray[np.float64], z: NDArray[np.float64]) -> None:
    """Add the bounce of the car on its ropes after it starts and after it stops."""
    duration = 4.0 * t.rising[i] + 2.0 * t.constant[i] + t.cruise[i]
    omega = 2.0 * math.pi * p.rope_hz[a]
    for end in range(2):
        began = duration * end
        if times[99] < began or times[0] > began + 1.5:
            continue
        size = 0.12 * t.jerk[i] * t.rising[i] * t.sign[i]
        for n in range(100):
            after = times[n] - began
            if after > 0.0:
                z[n] += size * math.exp(-0.12 * omega * after) * math.sin(omega * after)


@kernel
def _current(p: LiftParams, a: int, t: Travels, i: int, since: float, acceleration: float) -> float:
    """Return the drive's current, `since` seconds after the start of a travel; at rest what the drive idles with."""
    duration = 4.0 * t.rising[i] + 2.0 * t.constant[i] + t.cruise[i]
    if since < 0.0 or since >= duration:
        return p.idle_a[a]
    torque = t.torque[i] + p.inertia[a] * acceleration / p.accel_m_s2[a]
    inrush = p.inrush[a] * math.exp(-since / 0.35)
    return p.rated_a[a] * (math.sqrt(p.magnetising[a] ** 2 + torque * torque) + inrush)


@kernel
def _warmth(
    p: LiftParams,
    a: int,
    t: Travels,
    second: float,
    ambient: float,
    w_motor: float,
    w_brake: float,
) -> tuple[float, float]:
    """Return the temperatures of the motor and of the brake."""
    i = _last(t.start, t.first[a], t.first[a + 1], second)
    duration = 4.0 * t.rising[i] + 2.0 * t.constant[i] + t.cruise[i]
    since = second - max(t.start[i], 0.0)
    moving = min(since, duration)
    resting = since - moving
    heat = rest_heat(t.heat[i], t.gain[i], p.motor_tau_s[a], moving, resting)
    activity = rest_heat(t.activity[i], 1.0, _ACTIVITY_TAU_S, moving, resting)
    coil = rest_heat(t.coil[i], p.coil_k[a], _COIL_TAU_S, moving, resting)
    rubbing = _busy(activity, p.duty[a])
    room = p.room_c[a] + 0.25 * ambient
    motor = room + 2.0 + heat + _MOTOR_FRICTION_K * p.spread[a, 1] * w_motor * rubbing
    brake = room + 1.0 + coil + _BRAKE_DRAG_K * p.spread[a, 2] * w_brake * rubbing
    return motor, brake


@kernel
def _fill(
    seed: int,
    slot: int,
    p: LiftParams,
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
        w_motor = max(wear_at(events, a, 1, start_us), p.age[a, 1])
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
                w_shoes = max(wear_at(events, a, 3, start_us), p.age[a, 3])
                i = _last(t.start, t.first[a], t.first[a + 1], second + 0.99)
                duration = 4.0 * t.rising[i] + 2.0 * t.constant[i] + t.cruise[i]
                sigma = p.noise[a]
                noise_y = np.int64(mix(key + np.uint64(21)) & mask)
                noise_z = np.int64(mix(key + np.uint64(22)) & mask)
                for n in range(100):
                    x[n] = sigma * tables.white[noise + n]
                    y[n] = sigma * tables.white[noise_y + n]
                    z[n] = sigma * tables.white[noise_z + n]
                if second < t.start[i] + duration + 1.5 and duration > 0.0:
                    _ride(
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
                i = _last(t.start, t.first[a], t.first[a + 1], second + 0.99)
                for n in range(10):
                    drawn = _current(p, a, t, i, second + 0.1 * n - t.start[i], acceleration[10 * n])
                    here[n] = max(0.0, drawn * (1.0 + 0.012 * tables.white[noise + n]))
            elif code == 4:
                i = _last(t.start, t.first[a], t.first[a + 1], second + 0.99)
                for n in range(10):
                    here[n] = t.sign[i] * velocity[10 * n] * (1.0 + 0.002 * tables.white[noise + n])
            elif code == 5:
                i = _last(m.start, m.first[a], m.first[a + 1], second)
                for n in range(10):
                    at = second + 0.1 * n
                    while i + 1 < m.first[a + 1] and m.start[i + 1] <= at:
                        i += 1
                    gone = leaf_position((at - m.start[i]) / m.duration[i])
                    here[n] = m.begin[i] + (m.end[i] - m.begin[i]) * gone + 0.002 * tables.white[noise + n]
            elif code == 6:
                i = _last(t.start, t.first[a], t.first[a + 1], second)
                here[0] = t.error_mm[i] + 0.25 * tables.white[noise]
            elif code == 7:
                hour = (second + p.offset_us[a] * 1e-6) / 3600.0
                left = min(int(hour), ambient.shape[1] - 2)
                air = ambient[p.site[a], left]
                air += (hour - left) * (ambient[p.site[a], left + 1] - air)
                w_brake = max(wear_at(events, a, 2, start_us), p.age[a, 2])
                motor, brake = _warmth(p, a, t, second, air, w_motor, w_brake)
                here[0] = motor + 0.08 * tables.white[noise]
            elif code == 8:
                here[0] = brake + 0.08 * tables.white[noise]
            else:
                here[0] = float(state_at(events, a, start_us))
            if sensor >= 0 and events.mode[sensor] == code:
                draw = float(mix(key + np.uint64(40)) >> np.uint64(11)) * (1.0 / 9007199254740992.0)
                distort(events, sensor, start_us, draw, bounds[code, 0], bounds[code, 1], here)
            b += 1
            v += counts[code]


def fill_lifts(
    seed: int,
    slot: Slot,
    p: LiftParams,
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
