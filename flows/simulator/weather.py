"""The weather of a site, and what the clock on the wall says there.

Outdoor temperature is season, time of day and a synoptic part that comes and goes within days (an AR(1) process of
6-hour steps, written as its moving average so that any hour can be computed alone).
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from flows.simulator.draws import key_of, normal

__all__ = ["ZONE", "day_kind", "outdoor_celsius", "utc_offset_s"]

ZONE = "Europe/Paris"
"""Time zone of every simulated site."""

_YEARLY_MEAN = 11.8
_SEASON = 8.2
_COLDEST_DAY = 25.0
_SYNOPTIC = 3.3
_PHI = 0.88
_TERMS = 96  # 0.88 ** 96 = 5e-6: what is cut off cannot be seen
_STREAM_SITE = 101
_STREAM_AIR = 102

# Public holidays with a fixed date: (month, day). On them the house lives as on a Sunday.
_HOLIDAYS = {(1, 1), (5, 1), (5, 8), (7, 14), (8, 15), (11, 1), (11, 11), (12, 25)}


@kernel
def _synoptic(seed: int, site: int, step: int) -> float:
    state = np.empty(1, np.uint64)
    total = 0.0
    weight = math.sqrt(1.0 - _PHI * _PHI)
    for back in range(_TERMS):
        state[0] = key_of(seed, site, _STREAM_AIR, step - back)
        total += weight * normal(state)
        weight *= _PHI
    return total


@kernel
def _outdoor(seed: int, site: int, first_hour: int, out: NDArray[np.float64]) -> None:
    state = np.empty(1, np.uint64)
    state[0] = key_of(seed, site, _STREAM_SITE, 0)
    mean = _YEARLY_MEAN + 1.2 * normal(state)
    swing = 1.0 + 0.1 * normal(state)
    step = first_hour // 6
    before = _synoptic(seed, site, step)
    after = _synoptic(seed, site, step + 1)
    for i in range(len(out)):
        hour = first_hour + i
        if hour // 6 != step:
            step += 1
            before = after
            after = _synoptic(seed, site, step + 1)
        share = (hour - 6 * step) / 6.0
        season = -math.cos(2.0 * math.pi * (hour / 24.0 - _COLDEST_DAY) / 365.25)
        daily = (3.4 + 1.6 * season) * math.cos(2.0 * math.pi * (hour - 14) / 24.0)  # warmest at 14 h UTC
        out[i] = mean + swing * _SEASON * season + daily + _SYNOPTIC * (before + share * (after - before))


def outdoor_celsius(seed: int, sites: int, first_hour: int, hours: int) -> NDArray[np.float64]:
    """Return the outdoor temperature of each site at full hours since 1970, shape ``(sites, hours)``.

    Examples
    --------
    >>> winter, summer = outdoor_celsius(0, 1, 24 * 365, 240), outdoor_celsius(0, 1, 24 * 546, 240)
    >>> bool(winter.mean() + 8 < summer.mean())
    True
    """
    out = np.empty((sites, hours))
    for site in range(sites):
        _outdoor(seed, site, first_hour, out[site])
    return out


@lru_cache(maxsize=4096)
def utc_offset_s(hour: int) -> int:
    """Return how many seconds the wall clock is ahead of UTC at a full hour since 1970.

    Examples
    --------
    >>> utc_offset_s(0), utc_offset_s(24 * 20000)
    (3600, 7200)
    """
    offset = datetime.fromtimestamp(hour * 3600, UTC).astimezone(ZoneInfo(ZONE)).utcoffset()
    return int((offset or timedelta()).total_seconds())


@lru_cache(maxsize=4096)
def day_kind(day: int) -> tuple[int, float]:
    """Return the kind of a local day since 1970 (0 working day, 1 Saturday, 2 Sunday or holiday) and how busy it is.

    Examples
    --------
    >>> day_kind(0)  # 1970-01-01, a holiday
    (2, 1.0)
    """
    when = date(1970, 1, 1) + timedelta(days=day)
    busy = 0.78 if when.month == 8 else 1.0
    if when.weekday() == 6 or (when.month, when.day) in _HOLIDAYS:
        return 2, busy
    return (1 if when.weekday() == 5 else 0), busy
