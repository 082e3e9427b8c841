"""Working cycles of a lift: trips, doors, levelling.

Each kernel is a small state machine that an asset carries from window to window, so a trip or a door cycle that spans
windows counts once, in the window in which it ends. A silence longer than `hold_s` breaks what was under way: its
duration is not known, so it leaves no record. A gateway that sends only around trips must send a sample at rest before
and after each.

A kernel costs 1 to 2 ns a sample.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from features.cycles import CycleKind, Output, count_event, held_us, rate_per_hour

__all__ = ["KINDS", "doors_step", "levelling_step", "trips_step"]

CONSTANT = 0.05
"""Share of its top speed by which a car that runs at constant speed may vary (EN 81-20:2020, 5.9.2.4)."""

AT_REST = 0.5
"""A moving car rests below this share of the speed at which a resting one moves, so that noise makes no trips."""

REVERSAL = 0.1
"""Share of the opening by which a closing door must turn back to count as a reopening; less is play of the belt."""

UNKNOWN, CLOSED, OPENING, OPEN, CLOSING, REOPENING = range(6)
"""Phases of a door."""

Real = np.float32 | np.float64


@kernel
def trips_step(
    state: NDArray[np.float64],
    times_us: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[Real],
    start_us: int,
    end_us: int,
    parameters: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Follow the car from the first sample in motion to the first at rest.

    Run current is the mean over samples within 5 % of the trip's top speed; it starts anew when the speed rises by more
    than 5 % over the one at which it started, so it needs no second pass and no window that holds the whole trip. Start
    current is the largest one since the last sample at rest, which holds the inrush before the car is seen to move.

    References
    ----------
    .. [1] EN 81-20:2020, 5.9.2.4: speed is judged in mid-travel, without acceleration and deceleration, within 5 %.
    .. [2] ISO 25745-1:2012 for the reference trip and its running current.
    """
    threshold, hold = parameters[0], int(parameters[1] * 1e6)
    first, last, moving, known = state[0], int(state[1]), state[2] == 1.0, state[3] == 1.0
    began, speed, top, total = int(state[4]), state[5], state[6], state[7]
    samples, peak, starts, started = state[8], state[9], state[10], state[11]
    speeds = trips = runs = peaked = moving_us = duration_us = 0
    run_sum = peak_sum = 0.0
    for i in range(len(times_us)):
        t = times_us[i]
        if roles[i] == 1:
            current = float(values[i])
            peak = max(peak, current)
            if moving and speed >= (1.0 - CONSTANT) * top and t - last <= hold:
                total += current
                samples += 1.0
            continue
        speeds += 1
        speed = abs(float(values[i]))
        gap = first == 0.0 or t - last > hold
        if moving:
            moving_us += held_us(last, t, start_us, hold)
        if speed >= (threshold * AT_REST if moving and not gap else threshold):
            if gap or not moving:
                known = not gap
                began, top, total, samples = t, speed, 0.0, 0.0
                if known:
                    starts = count_event(starts, started, t)
                    started = float(t)
            elif speed > (1.0 + CONSTANT) * top:
                top, total, samples = speed, 0.0, 0.0
            moving = True
        else:
            if moving and known and not gap:
                trips += 1
                duration_us += t - began
                if samples > 0.0:
                    runs += 1
                    run_sum += total / samples
                if peak > -math.inf:
                    peaked += 1
                    peak_sum += peak
            moving, peak = False, -math.inf
        if first == 0.0:
            first = float(t)
        last = t
    if moving:
        moving_us += held_us(last, end_us, start_us, hold)
    state[0], state[1], state[2], state[3] = first, last, moving, known
    state[4], state[5], state[6], state[7] = began, speed, top, total
    state[8], state[9], state[10], state[11] = samples, peak, starts, started
    out[0] = trips if speeds > 0 else math.nan
    out[1] = moving_us * 1e-6 if speeds > 0 else math.nan
    out[2] = duration_us * 1e-6 / trips if trips > 0 else math.nan
    out[3] = run_sum / runs if runs > 0 else math.nan
    out[4] = peak_sum / peaked if peaked > 0 else math.nan
    out[5] = rate_per_hour(starts, started, first, end_us) if speeds > 0 else math.nan


@kernel
def _crossed_us(level: float, before: float, before_us: int, now: float, now_us: int) -> float:
    """Return when a door passed `level` between two samples, on the straight line between them."""
    return before_us + (level - before) / (now - before) * (now_us - before_us)


@kernel
def _settled(position: float, closed: float, open_: float) -> int:
    """Return the phase of a door of which nothing but its position is known."""
    if position <= closed:
        return CLOSED
    return OPEN if position >= open_ else UNKNOWN


@kernel
def doors_step(
    state: NDArray[np.float64],
    times_us: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[Real],
    start_us: int,
    end_us: int,
    parameters: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Follow the door from closed to open and back.

    Opening lasts from leaving `closed` to reaching `open`, closing from leaving `open` to reaching `closed`; the
    crossings are interpolated between samples, so 10 Hz resolves far less than 0.1 s. A closing door that turns back by
    more than 0.1 has reopened: the cycle counts its reopenings and gives no closing time. A door that turns back before
    it was open makes no cycle.

    References
    ----------
    .. [1] EN 81-20:2020, 5.3.6.2.2.1: a person or thing in the way of a closing door starts its reopening.
    """
    closed, open_, hold = parameters[0], parameters[1], int(parameters[2] * 1e6)
    seen, last, before, phase = state[0] == 1.0, int(state[1]), state[2], int(state[3])
    began, opening, turns, extreme = state[4], state[5], state[6], state[7]
    cycles = openings = closings = 0
    opening_us = closing_us = reopenings = 0.0
    for i in range(len(times_us)):
        t, position = times_us[i], float(values[i])
        ends = False
        if not seen or t - last > hold or phase == UNKNOWN:
            found = _settled(position, closed, open_)
            if found != phase or (phase != CLOSED and phase != OPEN):
                phase, opening, turns = found, math.nan, 0.0
        elif phase == CLOSED:
            if position > closed:
                phase, opening, turns = OPENING, math.nan, 0.0
                began = _crossed_us(closed, before, last, position, t)
        elif phase == OPEN:
            if position < open_:
                phase, extreme = CLOSING, position
                began = _crossed_us(open_, before, last, position, t)
                ends = position <= closed
        elif phase >= CLOSING:
            ends = position <= closed
            if position >= open_:
                turns += 1.0 if phase == CLOSING and position > extreme + REVERSAL else 0.0
                phase = OPEN
            elif phase == CLOSING and position > extreme + REVERSAL:
                phase, extreme, turns = REOPENING, position, turns + 1.0
            elif phase == REOPENING and position < extreme - REVERSAL:
                phase, extreme = CLOSING, position
            else:
                extreme = min(extreme, position) if phase == CLOSING else max(extreme, position)
        if phase == OPENING:
            if position >= open_:
                phase, opening = OPEN, _crossed_us(open_, before, last, position, t) - began
            elif position <= closed:
                phase = CLOSED
        if ends:
            cycles += 1
            reopenings += turns
            if opening >= 0.0:
                openings += 1
                opening_us += opening
            if turns == 0.0:
                closings += 1
                closing_us += _crossed_us(closed, before, last, position, t) - began
            phase, opening, turns = CLOSED, math.nan, 0.0
        seen, last, before = True, t, position
    state[0], state[1], state[2], state[3] = seen, last, before, phase
    state[4], state[5], state[6], state[7] = began, opening, turns, extreme
    out[0] = cycles if len(times_us) > 0 else math.nan
    out[1] = opening_us * 1e-6 / openings if openings > 0 else math.nan
    out[2] = closing_us * 1e-6 / closings if closings > 0 else math.nan
    out[3] = reopenings / cycles if cycles > 0 else math.nan


@kernel
def levelling_step(
    state: NDArray[np.float64],
    times_us: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[Real],
    start_us: int,
    end_us: int,
    parameters: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Read how far the car stands from the sill when it has just stopped, before anything re-levels it.

    The first offset within `within_s` of the first sample at rest is the stop's error; a stop without one, such as an
    emergency stop between two floors, is not counted. It fails where the car re-levels faster than the offset is sent.

    References
    ----------
    .. [1] EN 81-20:2020, 5.12.1.1.4: stopping accuracy 10 mm, levelling accuracy 20 mm.
    """
    threshold, hold, within = parameters[0], int(parameters[1] * 1e6), int(parameters[2] * 1e6)
    seen, last, moving = state[0] == 1.0, int(state[1]), state[2] == 1.0
    waiting, stopped = state[3] == 1.0, int(state[4])
    speeds = offsets = stops = 0
    error = 0.0
    for i in range(len(times_us)):
        t = times_us[i]
        if roles[i] == 1:
            offsets += 1
            if waiting and t - stopped <= within:
                stops += 1
                error += abs(float(values[i]))
            waiting = False
            continue
        speeds += 1
        gap = not seen or t - last > hold
        speed = abs(float(values[i]))
        if speed >= (threshold * AT_REST if moving and not gap else threshold):
            moving, waiting = True, False
        else:
            if moving:
                waiting, stopped = not gap, t
            moving = False
        seen, last = True, t
    state[0], state[1], state[2] = seen, last, moving
    state[3], state[4] = waiting, stopped
    out[0] = stops if stops > 0 or (speeds > 0 and offsets > 0) else math.nan
    out[1] = error / stops if stops > 0 else math.nan


KINDS: dict[str, CycleKind] = {
    "trips": CycleKind(
        code=1,
        roles=("speed", "current"),
        parameters=(("moving_m_s", 0.05), ("hold_s", 2.0)),
        outputs=(
            Output("count", "1", "speed", "Trips that ended in the window"),
            Output("moving_s", "s", "speed", "Time in motion"),
            Output("duration_s", "s", "speed", "Mean duration of the trips that ended in the window"),
            Output("run_current_a", "A", "current", "Mean current at constant speed, mean of the trips that ended"),
            Output("start_current_a", "A", "current", "Largest current of a trip, mean of the trips that ended"),
            Output("starts_per_hour", "/h", "speed", "Rate of starts, exponentially weighted over an hour"),
        ),
        state_size=12,
        step=trips_step,
    ),
    "doors": CycleKind(
        code=2,
        roles=("position",),
        parameters=(("closed", 0.05), ("open", 0.95), ("hold_s", 2.0)),
        outputs=(
            Output("cycles", "1", "position", "Door cycles that ended in the window"),
            Output("opening_s", "s", "position", "Mean opening time of the cycles that ended in the window"),
            Output("closing_s", "s", "position", "Mean closing time of the cycles without reopening"),
            Output("reopenings", "1", "position", "Reopenings a cycle"),
        ),
        state_size=8,
        step=doors_step,
    ),
    "levelling": CycleKind(
        code=3,
        roles=("speed", "offset"),
        parameters=(("moving_m_s", 0.05), ("hold_s", 2.0), ("within_s", 5.0)),
        outputs=(
            Output("stops", "1", "offset", "Stops at a landing in the window"),
            Output("error_mm", "mm", "offset", "Mean absolute levelling error at these stops"),
        ),
        state_size=5,
        step=levelling_step,
    ),
}
