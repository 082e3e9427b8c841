"""What happens to the assets, in the form that the compiled kernels read, and how far a wear process has gone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel

__all__ = [
    "KNOTS",
    "MISUSE",
    "SENSOR",
    "SILENCE",
    "SUDDEN",
    "WEAR",
    "Events",
    "distort",
    "event_at",
    "outage_end",
    "state_at",
    "wear_at",
    "wear_path",
]

WEAR, SUDDEN, MISUSE, SENSOR, SILENCE = range(5)
"""Kinds of events, in the order of `flows.simulator.truth.KINDS`."""

STUCK, SPIKES, DRIFT, OFFSET = range(4)
"""Kinds of sensor faults, in the order of `flows.simulator.truth.SENSOR_FAULTS`."""

KNOTS = 65
"""Points of a wear path."""
_PATH_SHAPE = 80.0


EVENT = np.dtype(
    [
        ("kind", np.int64),
        ("mode", np.int64),
        ("detail", np.int64),
        ("amount", np.float64),
        ("onset", np.int64),
        ("breakdown", np.int64),
        ("inspect", np.int64),
        ("end", np.int64),
        ("path", np.float64, (KNOTS,)),
    ]
)
"""One event. Times are microseconds since 1970; `breakdown` and `inspect` are beyond any time where nothing breaks;
`mode` is the failure mode, or the signal of a sensor fault; `detail` the variant; `amount` its size; `path` how wear
goes from the onset to the breakdown."""


class Events(NamedTuple):
    """Events of one class that touch a span of time: those of asset ``a`` are ``rows[first[a]:first[a + 1]]``."""

    first: NDArray[np.int64]
    rows: NDArray[Any]


def wear_path(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw how wear goes from 0 at the onset to 1 at the breakdown, at `KNOTS` even times.

    A gamma process whose mean follows a power law of the time, tied to reach 1 at the end: it never falls, it
    accelerates, and it takes uneven steps.

    References
    ----------
    van Noortwijk: A survey of the application of gamma processes in maintenance, RESS 94 (2009), eq. 1 and 3.

    Examples
    --------
    >>> path = wear_path(np.random.default_rng(0))
    >>> float(path[0]), float(path[-1]), bool((np.diff(path) >= 0).all())
    (0.0, 1.0, True)
    """
    power = rng.uniform(1.4, 2.6)
    mean = np.linspace(0.0, 1.0, KNOTS) ** power
    grown = np.concatenate([[0.0], np.cumsum(rng.gamma(_PATH_SHAPE * np.diff(mean) + 1e-6))])
    path: NDArray[np.float64] = grown / grown[-1]
    return path


@kernel
def wear_at(events: Events, asset: int, mode: int, time_us: int) -> float:
    """Return the wear of one failure mode at a time, 0 .. 1."""
    for row in range(events.first[asset], events.first[asset + 1]):
        if events.rows[row].kind == WEAR and events.rows[row].mode == mode:
            if time_us <= events.rows[row].onset or time_us >= events.rows[row].end:
                continue
            if time_us >= events.rows[row].breakdown:
                return 1.0
            share = (
                (time_us - events.rows[row].onset) / (events.rows[row].breakdown - events.rows[row].onset) * (KNOTS - 1)
            )
            knot = int(share)
            left = events.rows[row].path[knot]
            worn: float = left + (share - knot) * (events.rows[row].path[knot + 1] - left)
            return worn
    return 0.0


@kernel
def event_at(events: Events, asset: int, kind: int, time_us: int) -> int:
    """Return the row of an event of this kind that is going on, or -1."""
    for row in range(events.first[asset], events.first[asset + 1]):
        if events.rows[row].kind == kind and events.rows[row].onset <= time_us < events.rows[row].end:
            return row
    return -1


@kernel
def state_at(events: Events, asset: int, time_us: int) -> int:
    """Return what the controller reports: 0 normal, 1 out of service, 2 under maintenance."""
    for row in range(events.first[asset], events.first[asset + 1]):
        if events.rows[row].breakdown <= time_us < events.rows[row].end:
            return 2 if time_us >= events.rows[row].inspect else 1
    return 0


@kernel
def outage_end(events: Events, asset: int, from_us: int, to_us: int) -> int:
    """Return when the outage ends that touches the span, or -1 where there is none."""
    for row in range(events.first[asset], events.first[asset + 1]):
        if events.rows[row].breakdown < to_us and from_us < events.rows[row].end:
            ended: int = events.rows[row].end
            return ended
    return -1


@kernel
def distort(
    events: Events, row: int, time_us: int, draw: float, low: float, high: float, values: NDArray[np.float64]
) -> None:
    """Write what a faulty sensor says over what it should say, within the plausible range."""
    kind = events.rows[row].detail
    amount = events.rows[row].amount
    if kind == STUCK:
        values[:] = min(max(amount, low), high)
        return
    if kind == SPIKES:
        if draw < 0.04:
            at = int(draw / 0.04 * len(values))
            sign = 1.0 if draw < 0.02 else -1.0
            values[at] = min(max(values[at] + 8.0 * sign * amount, low), high)
        return
    add = amount
    if kind == DRIFT:
        add *= (time_us - events.rows[row].onset) / (events.rows[row].end - events.rows[row].onset)
    for i in range(len(values)):
        values[i] = min(max(values[i] + add, low), high)
