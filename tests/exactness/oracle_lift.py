"""Trips, doors and levelling of a whole series, found by looking back over all of it.

Written from the documentation of `features.lift`. Each function takes samples ``(time_us, value)`` that rise in time,
and windows ``(start_us, end_us)``; it returns a dict of outputs for each window, NaN where a window cannot know.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

Sample = tuple[int, float]
Span = tuple[int, int]
HOUR_US = 3.6e9
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
    weight = math.fsum(math.exp((at - end_us) / HOUR_US) for at in events if at < end_us)
    return weight / (1.0 - math.exp(-seen))


def spoken_us(samples: Sequence[Sample], speaks: Sequence[bool], hold_us: int, window: Span) -> int:
    """Return how much of a window the samples that speak fill: each until the next one, at most for the hold."""
    total = 0
    for i, (at, _) in enumerate(samples):
        if speaks[i] and at < window[1]:
            until = min(at + hold_us, samples[i + 1][0] if i + 1 < len(samples) else at + hold_us, window[1])
            total += max(0, until - max(at, window[0]))
    return total


def in_motion(speeds: Sequence[Sample], moving: float, hold_us: int) -> tuple[list[bool], list[bool]]:
    """Return which samples are in motion, and which follow a silence: at rest below half of what starts a motion."""
    moves: list[bool] = []
    gaps: list[bool] = []
    for i, (at, value) in enumerate(speeds):
        gaps.append(i == 0 or at - speeds[i - 1][0] > hold_us)
        held = i > 0 and moves[-1] and not gaps[-1]
        moves.append(abs(value) >= (0.5 * moving if held else moving))
    return moves, gaps


def trips(
    speeds: Sequence[Sample],
    currents: Sequence[Sample],
    windows: Sequence[Span],
    moving: float = 0.05,
    hold_s: float = 2.0,
) -> list[dict[str, float]]:
    """Return what the trips of a car say in each window."""
    hold_us = round(hold_s * 1e6)
    moves, gaps = in_motion(speeds, moving, hold_us)
    starts: list[int] = []
    done: list[tuple[int, int, float, float]] = []
    for i, (at, _) in enumerate(speeds):
        if not moves[i] or not (gaps[i] or not moves[i - 1]) or gaps[i]:
            continue
        starts.append(at)
        end = i + 1
        while end < len(speeds) and moves[end] and not gaps[end]:
            end += 1
        if end == len(speeds) or gaps[end]:
            continue
        run = speeds[i : end + 1]
        top, since = abs(run[0][1]), 0
        for k, (_, speed) in enumerate(run[:-1]):
            if abs(speed) > 1.05 * top:
                top, since = abs(speed), k
        running = []
        for k in range(since, len(run) - 1):
            if abs(run[k][1]) >= (1.0 - 0.05) * top:
                until = min(run[k + 1][0], run[k][0] + hold_us + 1)
                running += [current for _, current in inside(currents, (run[k][0], until))]
        peak = max((current for _, current in inside(currents, (speeds[i - 1][0], speeds[end][0]))), default=NAN)
        done.append((speeds[end][0], speeds[end][0] - at, mean(running), peak))
    found = []
    for window in windows:
        if not inside(speeds, window):
            found.append(dict.fromkeys(("count", "moving_s", "duration_s", "run_current_a", "start_current_a",
                                        "starts_per_hour"), NAN))  # fmt: skip
            continue
        ended = [trip for trip in done if window[0] <= trip[0] < window[1]]
        found.append(
            {
                "count": float(len(ended)),
                "moving_s": spoken_us(speeds, moves, hold_us, window) / 1e6,
                "duration_s": mean([duration / 1e6 for _, duration, _, _ in ended]),
                "run_current_a": mean([run for _, _, run, _ in ended if run == run]),
                "start_current_a": mean([peak for _, _, _, peak in ended if peak == peak]),
                "starts_per_hour": rate(starts, speeds[0][0], window[1]),
            }
        )
    return found


def crossing(level: float, before: Sample, after: Sample) -> float:
    """Return the time at which the straight line between two samples passes a level, after the first, in seconds."""
    return (level - before[1]) / (after[1] - before[1]) * (after[0] - before[0]) / 1e6


def doors(
    positions: Sequence[Sample],
    windows: Sequence[Span],
    closed: float = 0.05,
    opened: float = 0.95,
    hold_s: float = 2.0,
) -> list[dict[str, float]]:
    """Return what the cycles of a door say in each window."""
    done: list[tuple[int, float, float, int]] = []
    pieces: list[list[int]] = []
    for i, (at, _) in enumerate(positions):
        if i == 0 or at - positions[i - 1][0] > hold_s * 1e6:
            pieces.append([])
        pieces[-1].append(i)
    cycle = _Cycle(positions, closed, opened)
    for piece in pieces:
        cycle.after_silence(piece[0])
        for i in piece[1:]:
            ended = cycle.next(i)
            if ended is not None:
                done.append(ended)
    found = []
    for window in windows:
        ended_here = [cycle for cycle in done if window[0] <= cycle[0] < window[1]]
        known = bool(inside(positions, window))
        found.append(
            {
                "cycles": float(len(ended_here)) if known else NAN,
                "opening_s": mean([opening for _, opening, _, _ in ended_here if opening == opening]),
                "closing_s": mean([closing for _, _, closing, turns in ended_here if turns == 0]),
                "reopenings": mean([float(turns) for _, _, _, turns in ended_here]),
            }
        )
    return found


class _Cycle:
    """The samples of a door since it was last closed, or was first seen open; nothing where neither is known."""

    def __init__(self, samples: Sequence[Sample], closed: float, opened: float) -> None:
        self.samples, self.closed, self.opened = samples, closed, opened
        self.path: list[int] = []

    def after_silence(self, i: int) -> None:
        """Begin anew; a door that stood open before the silence and does so after it has stood open."""
        position = self.samples[i][1]
        stood = bool(self.path) and self.samples[self.path[-1]][1] >= self.opened
        if position >= self.opened and stood:
            self.path.append(i)
        else:
            self.path = [i] if position <= self.closed or position >= self.opened else []

    def next(self, i: int) -> tuple[int, float, float, int] | None:
        """Take the next sample; return the end, the opening and closing time and the reopenings of a cycle."""
        if not self.path:
            self.after_silence(i)
            return None
        self.path.append(i)
        if self.samples[i][1] > self.closed:
            return None
        path, self.path = self.path, [i]
        open_at = [k for k in range(len(path)) if self.samples[path[k]][1] >= self.opened]
        if not open_at:
            return None
        at = [self.samples[k] for k in path]
        opening = NAN
        if at[0][1] <= self.closed:
            leave = crossing(self.closed, at[0], at[1]) + at[0][0] / 1e6
            reach = crossing(self.opened, at[open_at[0] - 1], at[open_at[0]]) + at[open_at[0] - 1][0] / 1e6
            opening = reach - leave
        last = open_at[-1]
        begins = at[last][0] / 1e6 + crossing(self.opened, at[last], at[last + 1])
        ends = at[-2][0] / 1e6 + crossing(self.closed, at[-2], at[-1])
        return at[-1][0], opening, ends - begins, self._turns([p for _, p in at[open_at[0] :]])

    def _turns(self, positions: list[float]) -> int:
        """Count how often a closing door turns back by more than 0.1, before it closes again by more than 0.1."""
        turns, closing, extreme = 0, False, math.inf
        reopening = False
        for position in positions:
            if closing and position > extreme + 0.1:
                turns, closing, reopening, extreme = turns + 1, False, True, position
            elif reopening and position < extreme - 0.1:
                closing, reopening, extreme = True, False, position
            if position >= self.opened:
                closing = reopening = False
            elif not closing and not reopening:
                closing, extreme = True, position
            else:
                extreme = min(extreme, position) if closing else max(extreme, position)
        return turns


def levelling(
    speeds: Sequence[Sample],
    offsets: Sequence[Sample],
    windows: Sequence[Span],
    moving: float = 0.05,
    hold_s: float = 2.0,
    within_s: float = 5.0,
) -> list[dict[str, float]]:
    """Return how far a car stood from the sill when it had just stopped, in each window."""
    moves, gaps = in_motion(speeds, moving, round(hold_s * 1e6))
    errors: list[Sample] = []
    for i in range(1, len(speeds)):
        if gaps[i] or moves[i] or not moves[i - 1]:
            continue
        stopped = speeds[i][0]
        again = next((at for (at, _), moved in zip(speeds[i + 1 :], moves[i + 1 :], strict=True) if moved), math.inf)
        first = next(((at, value) for at, value in offsets if at >= stopped), None)
        if first is not None and first[0] < again and first[0] - stopped <= within_s * 1e6:
            errors.append((first[0], abs(first[1])))
    found = []
    for window in windows:
        here = [error for _, error in inside(errors, window)]
        watched = bool(here) or (bool(inside(speeds, window)) and bool(inside(offsets, window)))
        found.append({"stops": float(len(here)) if watched else NAN, "error_mm": mean(here)})
    return found
