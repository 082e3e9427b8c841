"""Episodes: one predicted failure of one asset and failure mode, from its opening to its end.

An episode opens as a ticket or as a page when the probability of failure in the paging horizon has been above the
class's threshold in `PERSISTENCE` steps one after the other, so a single spike wakes nobody, and when the wear shows:
`TICKET_WORN` or `PAGE_WORN` of the way to failure has been gone. Within an episode the rung only rises. It ends
withdrawn when the probability has stayed below half the ticket's threshold for `CALM_STEPS` steps, failed when the
asset stops, repaired when it comes back from maintenance. What a technician says of it comes with the interventions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel

__all__ = [
    "NONE",
    "PAGE",
    "RUNGS",
    "TICKET",
    "Episodes",
    "close",
    "episode_id",
    "judge",
    "new_episodes",
    "reason",
]

NONE, TICKET, PAGE = 0, 1, 2
RUNGS = ("none", "ticket", "page")
"""Rungs of the ladder, by code."""

PERSISTENCE = 3
"""Steps in a row above the threshold before an episode opens or rises."""
TICKET_WORN, PAGE_WORN = 0.15, 0.2
"""Degradation below which there is no ticket and no page, however fast it rises: what has not gone far may be noise."""
CALM_STEPS = 72
"""Steps below half the ticket's threshold after which an episode is withdrawn: wear pauses, and comes back."""


class Episodes(NamedTuple):
    """The open episodes, arrays of shape ``(assets, failure_modes)``.

    `rung` (`NONE` where none is open) and `opened_us`; `tickets` and `pages` count the steps in a row above the
    thresholds; `calm_us` is when the probability fell below half the ticket's threshold, -1 where it has not.
    """

    rung: NDArray[np.int8]
    opened_us: NDArray[np.int64]
    tickets: NDArray[np.int32]
    pages: NDArray[np.int32]
    calm_us: NDArray[np.int64]


def new_episodes(assets: int, modes: int) -> Episodes:
    """Return no open episode for any asset."""
    shape = (assets, modes)
    return Episodes(
        rung=np.zeros(shape, np.int8),
        opened_us=np.full(shape, -1, np.int64),
        tickets=np.zeros(shape, np.int32),
        pages=np.zeros(shape, np.int32),
        calm_us=np.full(shape, -1, np.int64),
    )


@kernel
def judge(
    e: Episodes,
    a: int,
    m: int,
    at_us: int,
    window_us: int,
    step_us: int,
    probability: float,
    worn: float,
    ticket: float,
    page: float,
) -> int:
    """Take the probability of a closed step; return 1 where the episode opens or rises, -1 where it is withdrawn.

    Parameters
    ----------
    at_us
        End of the step.
    window_us
        Start of the window that closed it: the event time at which an episode opens.
    probability
        That the failure mode ends in a breakdown within the paging horizon.
    worn
        Its degradation.
    ticket, page
        The class's thresholds.
    """
    e.tickets[a, m] = e.tickets[a, m] + 1 if worn > TICKET_WORN and probability >= ticket else 0
    e.pages[a, m] = e.pages[a, m] + 1 if worn > PAGE_WORN and probability >= page else 0
    wanted = NONE
    if e.pages[a, m] >= PERSISTENCE:
        wanted = PAGE
    elif e.tickets[a, m] >= PERSISTENCE:
        wanted = TICKET
    if wanted > e.rung[a, m]:
        if e.rung[a, m] == NONE:
            e.opened_us[a, m] = window_us
        e.rung[a, m] = wanted
        e.calm_us[a, m] = -1
        return 1
    if e.rung[a, m] == NONE:
        return 0
    if probability >= 0.5 * ticket:
        e.calm_us[a, m] = -1
    elif e.calm_us[a, m] < 0:
        e.calm_us[a, m] = at_us
    elif at_us - e.calm_us[a, m] >= CALM_STEPS * step_us:
        return -1
    return 0


@kernel
def close(e: Episodes, a: int, m: int) -> None:
    """End the episode of a failure mode."""
    e.rung[a, m] = NONE
    e.opened_us[a, m] = e.calm_us[a, m] = -1
    e.tickets[a, m] = e.pages[a, m] = 0


def episode_id(asset: str, failure_mode: str, opened_us: int) -> str:
    """Return the id of an episode: what it is about, and the event time at which it opened.

    Examples
    --------
    >>> episode_id("lift-0007", "brake", 1_767_225_600_000_000)
    'lift-0007/brake/2026-01-01T00:00:00Z'
    """
    opened = datetime.fromtimestamp(opened_us // 1_000_000, UTC)
    return f"{asset}/{failure_mode}/{opened:%Y-%m-%dT%H:%M:%SZ}"


def reason(
    failure_mode: str,
    outcome: str,
    horizon: str,
    feature: str,
    unit: str,
    relative: bool,
    day_s: float,
    figures: list[float],
) -> str:
    """Say in one sentence why an episode opened, rose or ended.

    Parameters
    ----------
    outcome
        ``open``, ``withdrawn``, ``failed`` or ``repaired``.
    horizon
        The paging horizon as the class file writes it.
    feature, unit
        The indicator that has gone furthest, empty where none is known.
    relative
        Whether its failure limit is a factor on its reference.
    day_s
        Seconds of the day of 24 steps in which rates and lives are counted.
    figures
        Probability in the paging horizon; p10, p50, p90 of the remaining life; level, reference and daily change of the
        indicator; health. NaN = unknown.

    Examples
    --------
    >>> figures = [0.71, 2.1, 3.3, 5.2, 4.118, 2.9, 0.087, 0.47]
    >>> reason(  # doctest: +NORMALIZE_WHITESPACE
    ...     "door_operator", "open", "7d", "doors.closing_s", "s", True, 86400.0, figures)
    'doors.closing_s is 1.42 times its reference (4.12 s instead of 2.9 s) and rising 3 % a day; door_operator likely
    to fail in 2.1 to 5.2 days, 71 % within 7d.'
    """
    probability, soonest, _, latest, level, reference, change, health = figures
    name = failure_mode
    if outcome == "failed":
        return f"The asset stopped while {name} was predicted to fail ({_percent(probability)} within {horizon})."
    if outcome == "repaired":
        return f"The asset came back from maintenance: {name} is taken as repaired, its references begin anew."
    if outcome == "withdrawn":
        return f"{name} is no longer likely to fail: {_percent(probability)} within {horizon}, health {health:.2f}."
    what = f"health of {name} is {health:.2f}"
    if feature and level == level:
        what = f"{feature} is {_apart(level, reference, unit, relative)}"
        way = "rising" if change >= 0.0 else "falling"
        rate = f"{100.0 * abs(change / reference):.2g} %" if relative else _quantity(abs(change), _per(unit))
        what += f" and {way} {rate} {_day(day_s)}"
    when = f"{_percent(probability)} within {horizon}"
    if latest == latest:
        when = f"likely to fail in {_span(soonest * day_s, latest * day_s)}, {when}"
    elif soonest == soonest:
        when = f"may fail in {_span(soonest * day_s, soonest * day_s)} or later, {when}"
    else:
        when = f"may fail, {when}"
    return f"{what}; {name} {when}."


def _apart(level: float, reference: float, unit: str, relative: bool) -> str:
    instead = f"({_quantity(level, unit)} instead of {_quantity(reference, unit)})"
    if relative:
        return f"{level / reference:.3g} times its reference {instead}"
    side = "above" if level >= reference else "below"
    return f"{_quantity(abs(level - reference), _per(unit))} {side} its reference {instead}"


def _quantity(value: float, unit: str) -> str:
    shown = {"Cel": "°C", "uA": "µA"}.get(unit, unit)
    return f"{value:.3g}" if unit == "1" else f"{value:.3g} {shown}"


def _per(unit: str) -> str:
    """Return the unit of a difference."""
    return "K" if unit == "Cel" else unit


def _percent(ratio: float) -> str:
    return f"{100.0 * ratio:.0f} %"


def _day(day_s: float) -> str:
    return "a day" if day_s == 86400.0 else f"each {_span(day_s, day_s)}"


def _span(from_s: float, to_s: float) -> str:
    """Return a span of time in the unit that suits its end.

    Examples
    --------
    >>> _span(100_000.0, 400_000.0), _span(3_000.0, 9_000.0), _span(86_400.0, 86_400.0)
    ('1.2 to 4.6 days', '0.83 to 2.5 hours', '1 day')
    """
    size, name = next(((s, n) for s, n in _SPANS if to_s >= s), _SPANS[-1])
    low, high = (f"{value / size:.0f}" if value >= 9.5 * size else f"{value / size:.2g}" for value in (from_s, to_s))
    if low == high:
        return f"{high} {name}" if high == "1" else f"{high} {name}s"
    return f"{low} to {high} {name}s"


_SPANS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))
