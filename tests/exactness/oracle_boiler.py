"""What a boiler's cycles say of a whole series, found by looking back over all of it.

Written from the documentation of `features.boiler`; samples, windows and results as in the lift's oracle.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Sample = tuple[int, float]
Span = tuple[int, int]
HOUR_US = 3.6e9
DAY_US = 8.64e10
NAN = math.nan


def mean(numbers: Sequence[float]) -> float:
    """Return the mean, NaN of nothing."""
    return math.fsum(numbers) / len(numbers) if numbers else NAN


def inside(samples: Sequence[Sample], window: Span) -> list[Sample]:
    """Return the samples of a window."""
    return list(samples[bisect_left(samples, (window[0],)) : bisect_left(samples, (window[1],))])


def rate(events: Sequence[int], first_us: int, end_us: int) -> float:
    """Return events an hour by ``end_us``: each weighs ``exp(-age / 1 h)``; without bias, unknown for ten minutes."""
    seen = (end_us - first_us) / HOUR_US
    if seen < 1 / 6:
        return NAN
    return math.fsum(math.exp((at - end_us) / HOUR_US) for at in events if at < end_us) / (1.0 - math.exp(-seen))


def newest(samples: Sequence[Sample], at_us: int) -> Sample | None:
    """Return the newest sample by a time."""
    place = bisect_right(samples, (at_us, math.inf))
    return samples[place - 1] if place else None


def burner(
    modulation: Sequence[Sample], windows: Sequence[Span], on: float = 0.02, short_s: float = 300.0, hold_s: float = 5.0
) -> list[dict[str, float]]:
    """Return firings, the time on, and the short firings, in each window."""
    hold_us = round(hold_s * 1e6)
    burns = [value >= on for _, value in modulation]
    gap = [i == 0 or modulation[i][0] - modulation[i - 1][0] > hold_us for i in range(len(modulation))]
    starts, shorts = [], []
    for i in range(len(modulation)):
        if not burns[i] or (i > 0 and burns[i - 1]):
            continue
        if i > 0:
            starts.append(modulation[i][0])
        end = next((k for k in range(i, len(modulation)) if not burns[k]), None)
        if end is not None and not any(gap[i : end + 1]) and modulation[end][0] - modulation[i][0] < short_s * 1e6:
            shorts.append(modulation[end][0])
    found = []
    for window in windows:
        if not inside(modulation, window):
            found.append(dict.fromkeys(("starts", "on_s", "starts_per_hour", "short_cycles_per_hour"), NAN))
            continue
        on_us = 0
        for i, (at, _) in enumerate(modulation):
            if burns[i]:
                until = at + hold_us if i + 1 == len(modulation) else min(at + hold_us, modulation[i + 1][0])
                on_us += max(0, min(until, window[1]) - max(at, window[0]))
        found.append(
            {
                "starts": float(sum(window[0] <= at < window[1] for at in starts)),
                "on_s": on_us / 1e6,
                "starts_per_hour": rate(starts, modulation[0][0], window[1]),
                "short_cycles_per_hour": rate(shorts, modulation[0][0], window[1]),
            }
        )
    return found


def ignition(
    sparks: Sequence[Sample],
    flames: Sequence[Sample],
    windows: Sequence[Span],
    flame_ua: float = 1.0,
    settled_s: float = 10.0,
    give_up_s: float = 120.0,
    hold_s: float = 5.0,
) -> list[dict[str, float]]:
    """Return the attempts a start, and the current of settled flames, in each window."""
    hold_us, give_up_us, settled_us = round(hold_s * 1e6), round(give_up_s * 1e6), round(settled_s * 1e6)
    merged = sorted([(t, 0, v) for t, v in sparks] + [(t, 1, v) for t, v in flames])
    starts: list[Sample] = []
    currents: list[Sample] = []
    attempts: list[int] = []
    silent = False
    stands: int | None = None
    before: dict[int, tuple[int, bool]] = {}
    for at, role, value in merged:
        if attempts and at - attempts[-1] > give_up_us:
            # The control has locked out, if the guard has looked and seen nothing.
            if 1 in before and not before[1][1] and not silent:
                starts.append((at, float(len(attempts))))
            attempts, silent = [], False
        gap = role not in before or at - before[role][0] > hold_us
        active = value >= (0.5 if role == 0 else flame_ua)
        rises = active and not (role in before and before[role][1])
        if role == 0:
            if rises:
                attempts.append(at)
            silent |= gap and bool(attempts)
        else:
            silent |= gap and role in before and bool(attempts)
            if active and (gap or rises):
                stands = at
            if rises and attempts:
                if not silent:
                    starts.append((at, float(len(attempts))))
                attempts, silent = [], False
            if active and stands is not None and at - stands >= settled_us:
                currents.append((at, value))
        before[role] = at, active
    return [
        {
            "attempts": mean([v for _, v in inside(starts, window)]),
            "flame_current_ua": mean([v for _, v in inside(currents, window)]),
        }
        for window in windows
    ]


def difference(
    warm: Sequence[Sample], cold: Sequence[Sample], windows: Sequence[Span], hold_s: float = 5.0
) -> list[dict[str, float]]:
    """Return the mean over time of one held value less another, in each window that saw both."""
    hold_us = round(hold_s * 1e6)
    edges = sorted({t for t, _ in (*warm, *cold)} | {t + hold_us for t, _ in (*warm, *cold)})
    found = []
    for window in windows:
        if not inside(warm, window) or not inside(cold, window):
            found.append({"mean": NAN})
            continue
        marks = [window[0], *edges[bisect_right(edges, window[0]) : bisect_left(edges, window[1])], window[1]]
        total, known = [], 0
        for begin, end in pairwise(marks):
            one, other = newest(warm, begin), newest(cold, begin)
            if one and other and begin < min(one[0], other[0]) + hold_us:
                total.append((one[1] - other[1]) * (end - begin))
                known += end - begin
        found.append({"mean": math.fsum(total) / known if known else NAN})
    return found


def flue(
    modulation: Sequence[Sample],
    air: Sequence[Sample],
    water: Sequence[Sample],
    gas: Sequence[Sample],
    windows: Sequence[Span],
    on: float = 0.02,
    settled_s: float = 120.0,
    o2_percent: float = 4.0,
    hold_s: float = 5.0,
    load_exponent: float = 1.0,
) -> list[dict[str, float]]:
    """Return Siegert's loss and the approach while the burner is settled, in each window."""
    hold_us = round(hold_s * 1e6)
    since: list[int | None] = []
    for i, (at, value) in enumerate(modulation):
        if value < on:
            since.append(None)
        elif i == 0 or since[-1] is None or at - modulation[i - 1][0] > hold_us:
            since.append(at)
        else:
            since.append(since[-1])
    times = [t for t, _ in modulation]
    losses: list[Sample] = []
    approaches: list[tuple[int, float, float]] = []
    for at, value in gas:
        place = int(np.searchsorted(times, at, side="right")) - 1
        if place < 0:
            continue
        began = since[place]
        if began is None or at - began < settled_s * 1e6 or at - times[place] > hold_us:
            continue
        outside, returning = newest(air, at), newest(water, at)
        if outside and at - outside[0] <= HOUR_US:
            losses.append((at, value - outside[1]))
        if returning and at - returning[0] <= hold_us:
            approaches.append((at, value - returning[1], modulation[place][1] ** load_exponent))
    factor = (0.66 / (21.0 - o2_percent) + 0.009) / 100.0
    found = []
    for window in windows:
        here = [a for a in approaches if window[0] <= a[0] < window[1]]
        ratio = NAN
        if here and inside(water, window):
            ratio = math.fsum(a for _, a, _ in here) / math.fsum(load for _, _, load in here)
        loss = mean([v for _, v in inside(losses, window)])
        found.append({"loss_ratio": factor * loss, "approach_k": ratio})
    return found


def pressure(
    temperature: Sequence[Sample],
    bars: Sequence[Sample],
    windows: Sequence[Span],
    reference_c: float = 50.0,
    bar_per_k: float = 0.01,
    hold_s: float = 60.0,
) -> list[dict[str, float]]:
    """Return the corrected pressure, its trend and its slope: a weighted least-squares fit anew for each bin."""
    bin_us = 600_000_000
    paired = []
    for at, bar in bars:
        water = newest(temperature, at)
        if water and at - water[0] <= hold_s * 1e6:
            paired.append((at, water[1], bar))
    bins: list[tuple[float, float, float]] = []
    fits: dict[int, tuple[float, float, bool]] = {}
    corrected: list[Sample] = []
    slope, trend, shown = bar_per_k, 0.0, False
    numbers = [at // bin_us for at, _, _ in paired]
    for i, (at, kelvin, bar) in enumerate(paired):
        if i and numbers[i] != numbers[i - 1]:
            some = [p for p, n in zip(paired, numbers, strict=True) if n == numbers[i - 1]]
            day, k, p = (mean([one[column] for one in some]) for column in range(3))
            slope, trend = _fit(bins, (day / DAY_US, k - reference_c, p), slope, trend, bar_per_k)
            shown = bins[-1][0] - bins[0][0] >= 1.5
        corrected.append((at, bar - slope * (kelvin - reference_c)))
        fits[i] = slope, trend, shown
    found = []
    for window in windows:
        here = [i for i, (at, _, _) in enumerate(paired) if window[0] <= at < window[1]]
        known = bool(here) and bool(inside(temperature, window))
        newest_fit = fits[here[-1]] if here else (slope, trend, False)
        found.append(
            {
                "corrected_bar": mean([corrected[i][1] for i in here]) if known else NAN,
                "bar_per_day": newest_fit[1] if known and newest_fit[2] else NAN,
                "bar_per_k": newest_fit[0] if known and newest_fit[2] else NAN,
            }
        )
    return found


def _fit(
    bins: list[tuple[float, float, float]], new: tuple[float, float, float], slope: float, trend: float, prior: float
) -> tuple[float, float]:
    """Add a bin (day, kelvin, bar) and fit bar = level + slope kelvin + trend day, older bins fading over two days."""
    if bins and new[0] - bins[0][0] >= 1.5:
        weights = np.exp((np.array([d for d, _, _ in bins]) - bins[-1][0]) / 2.0)
        level = [float(np.average([one[column] for one in bins], weights=weights)) for column in range(3)]
        rise = new[2] - level[2] - slope * (new[1] - level[1]) - trend * (new[0] - level[0])
        if rise > 0.15:
            # Somebody has topped up: what was before lies higher by as much.
            bins[:] = [(d, k, p + rise) for d, k, p in bins]
    bins.append(new)
    if len(bins) == 1:
        return prior, 0.0
    data = np.array(bins)
    weights = np.sqrt(np.exp((data[:, 0] - data[-1, 0]) / 2.0))
    design = np.column_stack([np.ones(len(data)), data[:, 1], data[:, 0] - data[-1, 0]]) * weights[:, None]
    # The prior: 324 K2 that say the slope is `prior`.
    design = np.vstack([design, [0.0, 18.0, 0.0]])
    target = np.append(data[:, 2] * weights, 18.0 * prior)
    found = np.linalg.lstsq(design, target, rcond=None)[0]
    return float(found[1]), float(found[2])


def circulation(
    power: Sequence[Sample],
    flow: Sequence[Sample],
    windows: Sequence[Span],
    running_w: float = 5.0,
    hold_s: float = 5.0,
) -> list[dict[str, float]]:
    """Return the work a cubic metre and the mean flow while the pump runs, in each window."""
    runs: list[tuple[int, float, float]] = []
    for at, value in flow:
        electric = newest(power, at)
        if electric and at - electric[0] <= hold_s * 1e6 and electric[1] >= running_w:
            runs.append((at, electric[1], value))
    found = []
    for window in windows:
        here = [run for run in runs if window[0] <= run[0] < window[1]]
        known = bool(here) and bool(inside(power, window))
        moved = math.fsum(value for _, _, value in here)
        work = math.fsum(watts for _, watts, _ in here)
        found.append(
            {
                "w_h_per_m3": work / moved if known and moved > 0.0 else NAN,
                "flow_m3_h": moved / len(here) if known else NAN,
            }
        )
    return found
