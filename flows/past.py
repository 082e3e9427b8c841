"""The past of an asset as the page draws it: at most `POINTS` points, each the mean of a time step."""

from __future__ import annotations

import numpy as np

from features.compiled import kernel

__all__ = ["LONGEST_STEP_S", "POINTS", "remember"]

POINTS = 96
"""Points of the past that are kept of each feature."""

LONGEST_STEP_S = 30 * 86400.0 / POINTS
"""A time step that is shorter doubles when the points are full: the past reaches back 30 to 60 days at most."""


@kernel
def remember(  # type: ignore[no-untyped-def]
    rows, end_us, values, longest_us, step_us, filled, known, time_us, value
) -> None:
    """Add each window to the last point of its asset, or to a new one when it lies in a later time step."""
    points = value.shape[1]
    for n in range(rows.shape[0]):
        row = rows[n]
        at = end_us[n] - 1  # a window that ends with a step is part of it
        last = filled[row] - 1
        if last >= 0 and at < time_us[row, last]:
            continue
        if last < 0 or at // step_us[row] != time_us[row, last] // step_us[row]:
            while filled[row] == points and step_us[row] < longest_us:
                step_us[row] *= 2
                filled[row] = _merged(step_us[row], known[row], time_us[row], value[row])
            last = filled[row] - 1
            if last < 0 or at // step_us[row] != time_us[row, last] // step_us[row]:
                if filled[row] == points:
                    time_us[row, :-1] = time_us[row, 1:].copy()
                    value[row, :-1] = value[row, 1:].copy()
                else:
                    filled[row] += 1
                last = filled[row] - 1
                value[row, last] = np.nan
                known[row] = 0
        time_us[row, last] = at
        for d in range(values.shape[1]):
            if not np.isnan(values[n, d]):
                known[row, d] += 1
                before = value[row, last, d] if known[row, d] > 1 else np.float32(0.0)
                value[row, last, d] = before + (values[n, d] - before) / known[row, d]


@kernel
def _merged(step_us, known, time_us, value):  # type: ignore[no-untyped-def]
    """Merge full points that lie in one time step, and return how many are left."""
    into = 0
    for point in range(1, value.shape[0]):
        same = time_us[point] // step_us == time_us[into] // step_us
        if not same:
            into += 1
        time_us[into] = time_us[point]
        for d in range(value.shape[1]):
            v = value[point, d]
            if not same or np.isnan(value[into, d]):
                value[into, d] = v
            elif not np.isnan(v):
                value[into, d] = 0.5 * (value[into, d] + v)
    for d in range(value.shape[1]):
        known[d] = 0 if np.isnan(value[into, d]) else max(known[d], 1)
    return into + 1
