"""What a ride does to the car: the vibration of one second of travel, at 100 Hz and on three axes.

References
----------
ISO 18738-1:2012, ride quality of lifts: healthy cars stay within 0.1 to 0.2 m/s2 peak to peak sideways.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from flows.simulator.draws import TABLE, Tables, key_of, mix
from flows.simulator.motion import travel_kinematics
from flows.simulator.register import Rows
from flows.simulator.timetable import Travels

__all__ = ["ride"]

_SWAY_POWER = _RATTLE_POWER = 11.0  # what wear adds to the power of these parts, in powers as new


@kernel
def ride(
    p: Rows,
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
    since = second - t.rows[i].start
    for n in range(100):
        times[n] = since + 0.01 * n
    travel_kinematics(
        times, t.rows[i].rising, t.rows[i].constant, t.rows[i].cruise, t.rows[i].jerk, position, velocity, acceleration
    )
    # Each part of the vibration reads its noise table from an own place, and on without a gap from second to second.
    run = int(second - math.floor(t.rows[i].start)) * 100
    key = t.rows[i].key
    mask = np.uint64(TABLE - 1)
    o1 = np.int64(mix(key + np.uint64(1)) & mask) + run
    o2 = np.int64(mix(key + np.uint64(2)) & mask) + run
    o3 = np.int64(mix(key + np.uint64(3)) & mask) + run
    o4 = np.int64(mix(key + np.uint64(4)) & mask) + run
    o5 = np.int64(mix(key + np.uint64(5)) & mask) + run
    o6 = np.int64(mix(key + np.uint64(6)) & mask) + run
    scale = 1.0 / p[a].speed_m_s
    shoes = math.sqrt(1.0 + _SWAY_POWER * p[a].spread[3] * w_shoes)
    sway_x = p[a].sway_x * scale * shoes
    sway_y = p[a].sway_y * scale * shoes
    rumble = p[a].rumble * scale * math.sqrt(1.0 + 1.5 * w_shoes)
    hum = p[a].hum * scale * math.sqrt(1.0 + 2.0 * w_motor)
    rattle = p[a].rattle * scale * math.sqrt(1.0 + _RATTLE_POWER * p[a].spread[1] * w_motor)
    line = p[a].line * scale
    sign = t.rows[i].sign
    turn = 2.0 * math.pi * p[a].line_hz * scale
    for n in range(100):
        v = velocity[n]
        x[n] += v * (sway_x * tables.sway[o1 + n] + rumble * tables.rumble[o3 + n])
        y[n] += v * (sway_y * tables.sway[o2 + n] + rumble * tables.rumble[o4 + n])
        z[n] += sign * acceleration[n] + v * hum * tables.hum[o5 + n]
    for n in range(100):
        z[n] += velocity[n] * line * math.sin(turn * position[n])
    if w_motor > 0.01:
        # A worn bearing rattles in blows: once each time that a rolling element passes the worn spot.
        blows = p[a].defect_hz * scale
        depth = 0.9 * w_motor
        for n in range(100):
            place = blows * position[n]
            blow = math.exp(-5.0 * (place - math.floor(place)))
            z[n] += velocity[n] * rattle * tables.rattle[o6 + n] * (1.0 - depth + depth * 3.17 * blow)
    else:
        for n in range(100):
            z[n] += velocity[n] * rattle * tables.rattle[o6 + n]
    if t.rows[i].shake > 0.0:
        # Somebody jumps in the car.
        jump = 2.0 * math.pi * 2.2
        for n in range(100):
            kick = max(0.0, math.sin(jump * times[n])) * t.rows[i].shake * (velocity[n] > 0.0)
            z[n] += kick
            x[n] += 0.4 * kick * tables.sway[o1 + n]
            y[n] += 0.4 * kick * tables.sway[o2 + n]
    _joints(p, a, t, i, shoes, times, position, velocity, x, y)
    _rope(p, a, t, i, times, z)


@kernel
def _joints(
    p: Rows,
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
    ramp = 2.0 * t.rows[i].rising + t.rows[i].constant
    peak = t.rows[i].jerk * t.rows[i].rising * (t.rows[i].rising + t.rows[i].constant)
    half = 0.5 * peak * ramp
    distance = 2.0 * half + peak * t.rows[i].cruise
    pitch = p[a].joint_m
    low = t.rows[i].from_m if t.rows[i].sign > 0 else t.rows[i].from_m - distance
    first = math.ceil(low / pitch)
    for joint in range(first, int((low + distance) / pitch) + 1):
        ahead = abs(joint * pitch - t.rows[i].from_m)
        if ahead < half or ahead > half + peak * t.rows[i].cruise:
            continue  # passed slowly: too soft to feel
        passed = ramp + (ahead - half) / peak
        if times[99] < passed or times[0] > passed + 2.0:
            continue
        blow = p[a].joint * shoes * peak / p[a].speed_m_s
        # Rails never meet alike: each joint has its own size and side.
        odd = float(key_of(a, joint, 7, 0) & np.uint64(255)) / 255.0
        omega = 2.0 * math.pi * p[a].joint_hz
        for n in range(100):
            after = times[n] - passed
            if after > 0.0:
                swing = blow * math.exp(-0.15 * omega * after) * math.sin(omega * after)
                x[n] += swing * (0.3 + 0.7 * odd)
                y[n] += swing * (0.9 - 0.7 * odd)


@kernel
def _rope(p: Rows, a: int, t: Travels, i: int, times: NDArray[np.float64], z: NDArray[np.float64]) -> None:
    """Add the bounce of the car on its ropes after it starts and after it stops."""
    duration = 4.0 * t.rows[i].rising + 2.0 * t.rows[i].constant + t.rows[i].cruise
    omega = 2.0 * math.pi * p[a].rope_hz
    for end in range(2):
        began = duration * end
        if times[99] < began or times[0] > began + 1.5:
            continue
        size = 0.12 * t.rows[i].jerk * t.rows[i].rising * t.rows[i].sign
        for n in range(100):
            after = times[n] - began
            if after > 0.0:
                z[n] += size * math.exp(-0.12 * omega * after) * math.sin(omega * after)
