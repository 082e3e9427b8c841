"""Do all compute the same? The base features of this flow, of DuckDB and of the yardstick, on the same readings."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isnan
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks import yardstick
from benchmarks.batch import Batch
from benchmarks.engine import base_features
from benchmarks.profiles import START_US, Profile, Readings, asset_names, equipment_of, flat
from features.signals import STATISTICS, EquipmentClass

PEERS = Path(__file__).with_name("peers.py")

TOLERANCE = 1e-6
"""Largest relative difference between two features that are the same."""

Key = tuple[str, int, str]
"""Asset, number of the window, signal."""

Features = dict[Key, NDArray[np.float64]]
"""By key, one value for each of `STATISTICS`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first feature in which two do not agree."""

    other: str
    key: Key
    statistic: str
    ours: float
    theirs: float

    def __str__(self) -> str:
        asset, number, signal = self.key
        return (
            f"{self.other} differs: {self.statistic} of {signal} of {asset} in window {number} "
            f"is {self.theirs!r} there and {self.ours!r} here"
        )


def disagreement(name: str, assets: int = 3, windows: int = 4) -> Difference | None:
    """Compare all on a prefix; return the first difference, or None where there is none."""
    equipment = equipment_of(name)
    profile = Profile(equipment, asset_names(name, assets))
    messages = range(round(windows * equipment.window_s) // profile.message_s)
    ours = base_features(profile, messages)
    if len({key[:2] for key in ours}) != assets * windows:
        raise SystemExit(f"{assets * windows} windows were expected, {len({key[:2] for key in ours})} came")
    readings = [flat(profile.message(number)) for number in messages]
    others = {"DuckDB": of_batch(readings, profile), "the yardstick": of_yardstick(readings, profile)}
    for other, theirs in others.items():
        found = next(differences(other, ours, theirs), None)
        if found is not None:
            return found
    return None


def differences(other: str, ours: Features, theirs: Mapping[Key, Mapping[str, float]]) -> Iterator[Difference]:
    """Yield where somebody else's features are not ours, as far as the other computes them."""
    for key, row in ours.items():
        their = theirs.get(key)
        if their is None:
            yield Difference(other, key, "count", float(row[0]), 0.0)
            continue
        for statistic, value in zip(STATISTICS, row.tolist(), strict=True):
            if statistic in their and not same(value, their[statistic], row):
                yield Difference(other, key, statistic, value, their[statistic])


def same(ours: float, theirs: float, row: NDArray[np.float64]) -> bool:
    """Tell whether two numbers are the same within `TOLERANCE`; a slope near 0 is held to the spread of its window."""
    if isnan(ours) or isnan(theirs):
        return isnan(ours) and isnan(theirs)
    scale = max(abs(ours), abs(theirs), 1e-3 * float(row[STATISTICS.index("std")]))
    return abs(ours - theirs) <= TOLERANCE * scale


def of_batch(readings: list[Readings], profile: Profile) -> dict[Key, dict[str, float]]:
    """Return DuckDB's features."""
    table = Batch(readings, len(profile.assets), profile.equipment.window_s).statistics()
    signals = profile.equipment.signal_names
    return {
        (profile.assets[row["asset"]], row["number"], signals[row["signal"]]): _numbers(row)
        for row in table.to_pylist()
    }


def peer_command(peer: str, file: Path, name: str) -> list[str]:
    """Return how a peer is started on a file of readings."""
    window_us = round(equipment_of(name).window_s * 1e6)
    return [str(PEERS), peer, str(file), "--window-us", str(window_us)]


def write_readings(name: str, file: Path, assets: int, messages: int) -> Profile:
    """Write the readings of a prefix for a peer."""
    profile = Profile(equipment_of(name), asset_names(name, assets))
    pq.write_table(as_table([flat(profile.message(number)) for number in range(messages)], profile.equipment), file)
    return profile


def peer_disagreement(name: str, peer: str, python: str) -> str | None:
    """Return in what a peer differs on a prefix, nothing where it does not, or None where it is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "readings.parquet")
        messages = round(2 * equipment_of(name).window_s) // 10
        profile = write_readings(name, file, assets=2, messages=messages)
        command = [python, *peer_command(peer, file, name), "--features"]
        said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in said.stdout.splitlines() if line.startswith("{")]
    if said.returncode != 0 or not answers:
        raise SystemExit(f"{peer} failed: {said.stderr.strip().splitlines()[-1:]}")
    if "absent" in answers[0]:
        return None
    signals, window_us = profile.equipment.signal_names, round(profile.equipment.window_s * 1e6)
    theirs = {
        (profile.assets[key // len(signals)], number - START_US // window_us, signals[key % len(signals)]): features
        for key, number, features in answers[0]["rows"]
    }
    found = next(differences(peer, base_features(profile, range(messages)), theirs), None)
    return "" if found is None else str(found)


def _numbers(row: dict[str, float | None]) -> dict[str, float]:
    return {name: float("nan") if row[name] is None else float(row[name] or 0.0) for name in STATISTICS}


def of_yardstick(readings: list[Readings], profile: Profile) -> dict[Key, dict[str, float]]:
    """Return the yardstick's seven features, in our terms."""
    c = profile.equipment
    found: dict[Key, dict[str, float]] = {}
    items = yardstick_readings(readings, profile)
    for (asset, number), features in yardstick.features(items, c.window_s, c.lateness_s).items():
        for signal in c.signal_names:
            if f"{signal}.count" in features:
                count, mean, m2, low, high, squares, last = (
                    features[f"{signal}.{f}"] for f in ("count", "mean", "m2", "min", "max", "squares", "last")
                )
                found[asset, number, signal] = {
                    "count": count,
                    "mean": mean,
                    "std": (m2 / count) ** 0.5,
                    "min": low,
                    "max": high,
                    "rms": (squares / count) ** 0.5,
                    "last": last,
                }
    return found


def yardstick_readings(readings: list[Readings], profile: Profile) -> list[yardstick.Reading]:
    """Return the readings as the yardstick takes them, in the order of time."""
    signals, begin = profile.equipment.signal_names, datetime.fromtimestamp(START_US / 1e6, UTC)
    items = [
        (profile.assets[asset], (begin + timedelta(microseconds=time_us - START_US), signals[signal], value))
        for r in readings
        for asset, signal, time_us, value in zip(
            r.asset.tolist(), r.signal.tolist(), r.time_us.tolist(), r.value.tolist(), strict=True
        )
    ]
    return sorted(items, key=lambda item: item[1][0])


def as_table(readings: list[Readings], equipment: EquipmentClass) -> pa.Table:
    """Return the readings as a table for peers: `key` of asset and signal, `time_us`, `value`."""
    asset, signal = (np.concatenate([getattr(r, name) for r in readings]) for name in ("asset", "signal"))
    columns = {
        "key": asset.astype(np.int64) * len(equipment.signals) + signal,
        "time_us": np.concatenate([r.time_us for r in readings]),
        "value": np.concatenate([r.value for r in readings]),
    }
    return pa.table(columns).sort_by("time_us")
