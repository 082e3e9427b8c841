"""How a car and a door move: profiles with limited jerk, acceleration and speed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel

__all__ = ["leaf_position", "plan_travel", "travel_kinematics"]


@kernel
def plan_travel(distance: float, speed: float, accel: float, jerk: float) -> tuple[float, float, float, float]:
    """Plan the quickest travel over a distance within the limits.

    Returns
    -------
    tuple
        Seconds of rising acceleration, of constant acceleration, of constant speed, and the jerk that is used; the
        travel mirrors its start at its end.

    Examples
    --------
    >>> [round(v, 3) for v in plan_travel(10.0, 1.0, 0.8, 1.0)]
    [0.8, 0.45, 7.95, 1.0]
    """
    peak = speed
    reach = accel * accel / jerk  # the speed change of an acceleration that only just reaches its limit
    ramp = peak / accel + accel / jerk if peak >= reach else 2.0 * math.sqrt(peak / jerk)
    if peak * ramp > distance:
        # The distance is too short for full speed: lower the peak until both ramps just fill it.
        root = 0.5 * accel * (-accel / jerk + math.sqrt(reach / jerk + 4.0 * distance / accel))
        peak = root if root >= reach else (0.25 * distance * distance * jerk) ** (1.0 / 3.0)
        ramp = peak / accel + accel / jerk if peak >= reach else 2.0 * math.sqrt(peak / jerk)
    rising = accel / jerk if peak >= reach else math.sqrt(peak / jerk)
    constant = max(0.0, ramp - 2.0 * rising)
    cruise = max(0.0, distance / peak - ramp)
    return rising, constant, cruise, jerk


@kernel
def travel_kinematics(
    times: NDArray[np.float64],
    rising: float,
    constant: float,
    cruise: float,
    jerk: float,
    position: NDArray[np.float64],
    velocity: NDArray[np.float64],
    acceleration: NDArray[np.float64],
) -> None:
    """Fill metres travelled, speed and acceleration at times since the start; before and after it the car stands."""
    top = jerk * rising
    ramp = 2.0 * rising + constant
    peak = top * (rising + constant)
    half = 0.5 * peak * ramp
    total = 2.0 * ramp + cruise
    distance = 2.0 * half + peak * cruise
    v1 = 0.5 * top * rising
    p1 = top * rising * rising / 6.0
    for i in range(len(times)):
        t = times[i]
        if t <= 0.0 or t >= total:
            position[i] = 0.0 if t <= 0.0 else distance
            velocity[i] = 0.0
            acceleration[i] = 0.0
            continue
        late = t > ramp + cruise
        u = total - t if late else t
        if u >= ramp:
            p = half + peak * (u - ramp)
            v = peak
            a = 0.0
        elif u < rising:
            p = jerk * u * u * u / 6.0
            v = 0.5 * jerk * u * u
            a = jerk * u
        elif u < rising + constant:
            s = u - rising
            p = p1 + (v1 + 0.5 * top * s) * s
            v = v1 + top * s
            a = top
        else:
            s = ramp - u
            p = half - peak * s + jerk * s * s * s / 6.0
            v = peak - 0.5 * jerk * s * s
            a = jerk * s
        position[i] = distance - p if late else p
        velocity[i] = v
        acceleration[i] = -a if late else a


@kernel
def leaf_position(share: float) -> float:
    """Return how far a door leaf has come after a share of its time: a quarter each to speed up and to slow down.

    Examples
    --------
    >>> leaf_position(0.0), leaf_position(0.5), leaf_position(1.0)
    (0.0, 0.5, 1.0)
    """
    if share <= 0.0:
        return 0.0
    if share >= 1.0:
        return 1.0
    if share < 0.25:
        return share * share / 0.375
    if share > 0.75:
        return 1.0 - (1.0 - share) * (1.0 - share) / 0.375
    return (share - 0.125) / 0.75
