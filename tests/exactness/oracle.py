"""What windows hold, by definition: every reading is kept, and each window is computed from scratch in plain NumPy.

Written from the documentation of `features.moments.statistics` and of `features.windows`; calls none of the kernels.
Sums run in extended precision about the first sample, so that a large offset costs the oracle nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STATISTICS = ("count", "mean", "std", "min", "max", "peak_to_peak", "rms", "crest", "skewness", "kurtosis", "slope",
              "first", "last")  # fmt: skip
EXACT = ("count", "min", "max", "peak_to_peak", "first", "last")
"""Statistics that no order of arrival may change by a bit."""
LATEST_US = 7_258_118_400_000_000
"""2200-01-01, beyond which no clock is believed."""


class Reading(NamedTuple):
    """One sample: event time in microseconds since 1970."""

    asset: str
    signal: str
    time_us: int
    value: float


def statistics(times_us: NDArray[np.int64], values: NDArray[np.float64]) -> dict[str, float]:
    """Return the statistics of one window's samples of one signal.

    Examples
    --------
    >>> found = statistics(np.array([0, 1_000_000]), np.array([1.0, 2.0]))
    >>> found["mean"], found["slope"], found["std"]
    (1.5, 1.0, 0.5)
    """
    order = np.argsort(times_us, kind="stable")
    t, x = times_us[order], values[order]
    shifted = x.astype(np.longdouble) - np.longdouble(x[0])
    mean_shifted = shifted.mean()
    deviation = shifted - mean_shifted
    mean = np.longdouble(x[0]) + mean_shifted
    variance = np.mean(deviation**2)
    rms = np.sqrt(mean**2 + variance)
    seconds = (t - t[0]).astype(np.longdouble) / 1_000_000
    seconds -= seconds.mean()
    constant = x.max() == x.min()
    found = {
        "count": float(len(x)),
        "mean": float(mean),
        "std": 0.0 if constant else float(np.sqrt(variance)),
        "min": float(x.min()),
        "max": float(x.max()),
        "peak_to_peak": float(x.max() - x.min()),
        "rms": float(rms),
        "crest": float(np.abs(x).max() / rms) if rms > 0 else np.nan,
        "skewness": np.nan if constant else float(np.mean(deviation**3) / variance**1.5),
        "kurtosis": np.nan if constant else float(np.mean(deviation**4) / variance**2 - 3),
        "slope": float(np.sum(seconds * deviation) / np.sum(seconds**2)) if len(x) > 1 else np.nan,
        "first": float(x[0]),
        "last": float(x[-1]),
    }
    found["seconds"] = float(np.sqrt(np.mean(seconds**2)))
    return found


def tolerance(name: str, expected: dict[str, float]) -> float:
    """Return by how much a statistic may differ: 1e-9 of what it is measured by.

    A mean is measured by the spread around it, a slope by spread over duration, and skewness and kurtosis, which may
    be 0 by chance, by the kurtosis: that is what the sums they come from are made of.
    """
    if name in EXACT:
        return 0.0
    if name == "mean":
        return 1e-9 * expected["std"] + 1e-14 * max(abs(expected["min"]), abs(expected["max"]))
    if name == "slope":
        return 1e-9 * max(abs(expected["slope"]), expected["std"] / max(expected["seconds"], 1e-300))
    if name in ("skewness", "kurtosis"):
        return 1e-9 * (3.0 + abs(expected["kurtosis"]))
    return 1e-9 * abs(expected[name])


@dataclass
class Window:
    """One window of one asset: readings of all signals, and the statistics by signal."""

    samples: int
    signals: dict[str, dict[str, float]]
    state_code: float = np.nan


def windows(
    readings: Iterable[Reading], length_us: int, state_signal: str | None = None
) -> dict[tuple[str, int], Window]:
    """Return the windows of accepted readings by asset and start; no time stands twice in a signal of an asset."""
    grouped: dict[tuple[str, int], dict[str, list[Reading]]] = defaultdict(lambda: defaultdict(list))
    for reading in readings:
        grouped[reading.asset, reading.time_us // length_us * length_us][reading.signal].append(reading)
    found: dict[tuple[str, int], Window] = {}
    code: dict[str, float] = {}
    for key in sorted(grouped):
        by_signal = {
            signal: statistics(np.array([r.time_us for r in some]), np.array([r.value for r in some], np.float64))
            for signal, some in grouped[key].items()
        }
        if state_signal in by_signal:
            code[key[0]] = by_signal[state_signal]["last"]
        samples = sum(len(some) for some in grouped[key].values())
        found[key] = Window(samples, by_signal, code.get(key[0], np.nan))
    return found


def first_wins(
    readings: Iterable[Reading], ranges: dict[str, tuple[float, float]]
) -> tuple[list[Reading], dict[str, int]]:
    """Take readings in the order of their arrival, all within the lateness; return the accepted, and why others not."""
    seen: set[tuple[str, str, int]] = set()
    accepted: list[Reading] = []
    reasons: dict[str, int] = defaultdict(int)
    for reading in readings:
        if reading.value != reading.value:
            continue
        low, high = ranges[reading.signal]
        key = reading[:3]
        if not low <= reading.value <= high:
            reasons["out_of_range"] += 1
        elif key in seen:
            reasons["duplicate"] += 1
        else:
            seen.add(key)
            accepted.append(reading)
    return accepted, dict(reasons)


@dataclass
class _Asset:
    newest: int | None = None
    open_from: int = 0
    home: str = ""
    heard: int = 0
    silent: bool = False
    seen: set[tuple[str, int]] = field(default_factory=set)
    counts: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))


class Acceptance:
    """Accepts or rejects readings one after the other, as the documentation says; remembers everything.

    Parameters
    ----------
    window_us, lateness_us, idle_us, silent_us
        Of the class.
    ranges
        Plausible range of each signal.
    most
        Most readings of a signal in one window.
    limit_us
        Latest time that is not in the future.
    """

    def __init__(
        self,
        window_us: int,
        lateness_us: int,
        idle_us: int,
        silent_us: int,
        ranges: dict[str, tuple[float, float]],
        most: dict[str, int],
        limit_us: int = 2**62,
    ) -> None:
        self.window_us, self.lateness_us, self.idle_us, self.silent_us = window_us, lateness_us, idle_us, silent_us
        self.ranges, self.most, self.limit_us = ranges, most, limit_us
        self.assets: dict[str, _Asset] = defaultdict(_Asset)
        self.accepted: list[Reading] = []
        self.reasons: dict[str, int] = defaultdict(int)
        self.silences: list[tuple[str, int]] = []

    def message(
        self, blocks: Sequence[tuple[str, str, int, int, Sequence[float]]], source: str, clocks: Sequence[int]
    ) -> None:
        """Take the blocks ``(asset, signal, start, period, values)`` of a message of one input partition.

        `clocks` is the event time that the partition has reached with each of them. An asset's samples are judged
        window by window, those of one window in the order in which they came.
        """
        of_asset: dict[str, list[tuple[int, tuple[str, str, int, int, Sequence[float]]]]] = defaultdict(list)
        for clock, block in zip(clocks, blocks, strict=True):
            if block[1] in self.ranges:
                of_asset[block[0]].append((clock, block))
            else:
                self.reasons["unknown_signal"] += sum(1 for value in block[4] if value == value)
        for asset, some in of_asset.items():
            one = self.assets[asset]
            if one.home != source:
                one.home, one.heard = source, some[0][0]
            one.heard = max(one.heard, *(clock for clock, _ in some))
            one.silent = False
            readings = [reading for _, block in some for reading in self._readings(*block)]
            for reading in sorted(readings, key=lambda r: r.time_us // self.window_us):
                reason = self._reason(one, reading.signal, reading.time_us, reading.value)
                if reason:
                    self.reasons[reason] += 1
                else:
                    self.accepted.append(reading)

    def _readings(
        self, asset: str, signal: str, start_us: int, period_us: int, values: Sequence[float]
    ) -> list[Reading]:
        found = []
        for i, value in enumerate(values):
            time_us = start_us + i * period_us
            if value != value:
                continue
            if 0 <= time_us <= LATEST_US and (len(values) == 1 or period_us > 0):
                found.append(Reading(asset, signal, time_us, value))
            else:
                self.reasons["bad_time"] += 1
        return found

    def tick(self, source: str, clock_us: int) -> None:
        """Let the event time of an input partition pass; an asset that falls silent is told once."""
        for name, one in self.assets.items():
            if one.newest is None or one.home != source:
                continue
            if clock_us - one.heard > self.idle_us:
                one.open_from = max(one.open_from, one.newest // self.window_us + 1)
            if clock_us - one.heard > self.silent_us and not one.silent:
                one.silent = True
                self.silences.append((name, one.newest))

    def _reason(self, one: _Asset, signal: str, time_us: int, value: float) -> str:
        low, high = self.ranges[signal]
        if not low <= value <= high:
            return "out_of_range"
        if time_us > self.limit_us:
            return "future"
        window = time_us // self.window_us
        if one.newest is not None and window < one.open_from:
            return "late"
        if (signal, time_us) in one.seen:
            return "duplicate"
        if one.newest is None:
            one.newest, one.open_from = time_us, (time_us - self.lateness_us) // self.window_us
        elif time_us > one.newest:
            one.newest = time_us
            one.open_from = max(one.open_from, (time_us - self.lateness_us) // self.window_us)
        if one.counts[signal, window] >= self.most[signal]:
            return "overrate"
        one.counts[signal, window] += 1
        one.seen.add((signal, time_us))
        return ""
