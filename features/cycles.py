"""What a kind of working cycle needs and says: the table rows that `features.lift` and `features.boiler` fill.

A base window knows how a signal is distributed; a cycle knows what the machine did: a trip, a door that closed,
a burner that fired.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from features.compiled import kernel

__all__ = ["CycleKind", "Output", "count_event", "held_us", "rate_per_hour"]

HOUR_US = 3_600_000_000.0
SEEN_H = 1.0 / 6.0
"""Hours that an asset is watched before its hourly rates are given: less says more about the start than the asset."""


@dataclass(frozen=True, slots=True)
class Output:
    """One number that a cycle gives for each window.

    Attributes
    ----------
    name
        Name inside the cycle; the feature is `<cycle>.<name>`.
    unit
        UCUM unit.
    role
        The role whose signal this number speaks for, named when the number is a reason.
    description
        One line for the generated signal list.
    """

    name: str
    unit: str
    role: str
    description: str


@dataclass(frozen=True, slots=True)
class CycleKind:
    """A kind of cycle: its inputs, its parameters, its outputs and the kernel that computes them.

    Attributes
    ----------
    code
        Integer by which the window kernel selects `step`.
    roles
        What the kernel reads, in the order of its role numbers; a class file binds each to a signal.
    parameters
        Name and default of each parameter, in the order in which the kernel reads them.
    outputs
        What it gives, in order; NaN where a window cannot know.
    state_size
        Number of float64 that an asset carries from window to window, all zero at the start.
    step
        Compiled kernel ``step(state, times_us, roles, values, start_us, end_us, parameters, out)``: one asset's samples
        of one window in the order of time, those of one instant in the order of their roles. No sample is NaN. Where
        windows are cut changes only to which window a finished cycle belongs.
    """

    code: int
    roles: tuple[str, ...]
    parameters: tuple[tuple[str, float], ...]
    outputs: tuple[Output, ...]
    state_size: int
    step: Callable[..., None]


@kernel
def held_us(since_us: int, until_us: int, start_us: int, hold_us: int) -> int:
    """Return how long a sample speaks inside a window: from its time to the next one's, at most `hold_us`."""
    return max(0, min(until_us, since_us + hold_us) - max(since_us, start_us))


@kernel
def count_event(weight: float, last_us: float, at_us: int) -> float:
    """Add an event to an exponentially weighted count that forgets with a time constant of one hour."""
    return weight * math.exp((last_us - at_us) / HOUR_US) + 1.0


@kernel
def rate_per_hour(weight: float, last_us: float, first_us: float, now_us: int) -> float:
    """Return events an hour from an exponentially weighted count; NaN before an asset has been watched for ten minutes.

    The count of a steady rate, watched for a time T, expects ``rate (1 - exp(-T))``; dividing by that leaves no bias
    from the start, as in [1]_, section 3.

    References
    ----------
    .. [1] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """
    seen_h = (now_us - first_us) / HOUR_US
    if seen_h < SEEN_H:
        return math.nan
    return weight * math.exp((last_us - now_us) / HOUR_US) / -math.expm1(-seen_h)
