"""The two loads that everything here is measured with: a fleet of lifts at 100 Hz and a fleet of boilers at 1 Hz.

A message holds what the whole fleet sends in so many seconds, as gateways deliver it: second by second, the signals of
an asset together, a block a signal and second. Levels are those of real machines, and differ from asset to asset; cars
move and burners fire most of the time. A message depends on its number alone, so a source can be rewound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.assets import shard_of
from features.signals import EquipmentClass, load_class
from features.telemetry import new_blocks

START_US = 1_767_571_200_000_000
"""Midnight of 5 January 2026, UTC: the first window begins with the first reading."""

THIN_S = 10
"""Seconds between the readings of a signal while history is made, one in a message."""

LEVELS: dict[str, dict[str, tuple[float, float, float]]] = {
    "lift": {
        "vibration_x": (0.0, 0.05, 0.3),
        "vibration_y": (0.0, 0.05, 0.3),
        "vibration_z": (0.0, 0.1, 0.5),
        "motor_current": (1.0, 12.0, 0.5),
        "car_speed": (0.0, 1.0, 0.01),
        "door_position": (0.95, 0.01, 0.02),
        "landing_offset": (3.0, 3.0, 1.0),
        "motor_temperature": (45.0, 45.0, 0.2),
        "brake_temperature": (40.0, 40.0, 0.2),
        "controller_state": (0.0, 0.0, 0.0),
    },
    "boiler": {
        "supply_temperature": (60.0, 62.0, 0.3),
        "return_temperature": (45.0, 46.0, 0.3),
        "flue_temperature": (70.0, 105.0, 0.5),
        "outdoor_temperature": (5.0, 5.0, 0.1),
        "water_pressure": (1.5, 1.5, 0.005),
        "burner_modulation": (0.0, 0.6, 0.02),
        "ignition": (0.0, 0.0, 0.0),
        "flame_current": (0.0, 12.0, 0.5),
        "pump_power": (850.0, 850.0, 2.0),
        "flow": (3.0, 3.0, 0.1),
        "controller_state": (0.0, 0.0, 0.0),
    },
}
"""By class and signal: level at rest, level while the machine works, and the height of the noise on it."""


@dataclass(frozen=True, slots=True)
class Columns:
    """One message as plain columns; `assets` and `signals` are names, the rest as in `features.telemetry.BLOCKS`."""

    assets: Sequence[str]
    signals: Sequence[str]
    asset: NDArray[np.int32]
    signal: NDArray[np.int32]
    start_us: NDArray[np.int64]
    period_us: NDArray[np.int64]
    offsets: NDArray[np.int32]
    values: NDArray[np.float64]

    @property
    def batch(self) -> pa.RecordBatch:
        """The message as a record batch of blocks."""
        return new_blocks(
            self.assets,
            self.signals,
            self.asset,
            self.signal,
            self.start_us,
            self.period_us,
            self.offsets,
            self.values,
        )


@dataclass(frozen=True, slots=True)
class Readings:
    """The same, a row a reading: asset and signal by their number, microseconds since 1970, value."""

    asset: NDArray[np.int32]
    signal: NDArray[np.int32]
    time_us: NDArray[np.int64]
    value: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Layout:
    asset: NDArray[np.int32]
    signal: NDArray[np.int32]
    second: NDArray[np.int64]
    period_us: NDArray[np.int64]
    counts: NDArray[np.int64]
    offsets: NDArray[np.int32]


@dataclass
class Profile:
    """The telemetry of a fleet of one class.

    Attributes
    ----------
    equipment
        Its class.
    assets
        Ids.
    message_s
        Seconds in a message.
    thin
        Number of messages at the beginning that hold ten seconds each and a reading of each signal, to make history
        quickly.
    """

    equipment: EquipmentClass
    assets: Sequence[str]
    message_s: int = 10
    thin: int = 0
    _layouts: dict[tuple[float, tuple[tuple[int, ...], ...]], _Layout] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(7)
        levels = LEVELS[self.equipment.name]
        own = 1.0 + 0.02 * rng.uniform(-1.0, 1.0, (len(self.assets), 1))
        table = np.array([levels[name] for name in self.equipment.signals])
        self._rest, self._work, self._noise = own * table[:, 0], own * table[:, 1], table[:, 2]
        self._draws = rng.uniform(0.0, 1.0, 2**21 + 2**16)

    def message(self, number: int) -> Columns:
        """Return a message; number 0 begins at `START_US`."""
        layout = self._layout(number)
        # One machine in four rests, another one each message.
        works = (layout.asset + number) % 4 != 0
        pair = layout.asset, layout.signal
        level = np.where(works, self._work[pair], self._rest[pair])
        values = self._spread(number, int(layout.offsets[-1]))
        values *= np.repeat(self._noise[layout.signal], layout.counts)
        values += np.repeat(level, layout.counts)
        start_us = START_US + (self.begin_s(number) + layout.second) * 1_000_000
        return Columns(
            self.assets,
            self.equipment.signal_names,
            layout.asset,
            layout.signal,
            start_us,
            layout.period_us,
            layout.offsets,
            values,
        )

    def begin_s(self, number: int) -> int:
        """Return when a message begins, in seconds after `START_US`."""
        return min(number, self.thin) * THIN_S + max(0, number - self.thin) * self.message_s

    def readings(self, number: int) -> int:
        """Return how many readings a message holds."""
        return int(self._layout(number).offsets[-1])

    def _spread(self, number: int, size: int) -> NDArray[np.float64]:
        begin = number * 7919 % 2**16
        draws = self._draws[begin : begin + 2**21]
        return np.tile(draws, -(-size // len(draws)))[:size] if size > len(draws) else draws[:size].copy()

    def _layout(self, number: int) -> _Layout:
        seconds = range(self.begin_s(number), self.begin_s(number + 1))
        shortest_s = THIN_S if number < self.thin else 0.0
        periods = [max(s.period_s, shortest_s) for s in self.equipment.signals.values()]
        due = tuple(tuple(i for i, p in enumerate(periods) if p <= 1.0 or s % round(p) == 0) for s in seconds)
        if (shortest_s, due) not in self._layouts:
            self._layouts[shortest_s, due] = self._lay_out(due, periods)
        return self._layouts[shortest_s, due]

    def _lay_out(self, due: tuple[tuple[int, ...], ...], periods: list[float]) -> _Layout:
        fleet = len(self.assets)
        second = np.concatenate([np.full(len(signals) * fleet, s, np.int64) for s, signals in enumerate(due)])
        asset = np.concatenate([np.repeat(np.arange(fleet, dtype=np.int32), len(signals)) for signals in due])
        signal = np.concatenate([np.tile(np.array(signals, np.int32), fleet) for signals in due])
        size = np.array([max(1, round(1.0 / p)) for p in periods], np.int64)
        period = np.array([round(p * 1e6) if n > 1 else 0 for p, n in zip(periods, size, strict=True)], np.int64)
        counts = size[signal]
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        return _Layout(asset, signal, second, period[signal], counts, offsets)


def flat(columns: Columns) -> Readings:
    """Return a message a row a reading, in the order in which its blocks hold them."""
    counts = np.diff(columns.offsets)
    within = np.arange(len(columns.values)) - np.repeat(columns.offsets[:-1], counts)
    return Readings(
        np.repeat(columns.asset, counts),
        np.repeat(columns.signal, counts),
        np.repeat(columns.start_us, counts) + within * np.repeat(columns.period_us, counts),
        columns.values,
    )


def equipment_of(name: str, warm_up: int = 10) -> EquipmentClass:
    """Return a class that ships with the project, its detectors ready after so many windows."""
    equipment = load_class(name)
    return msgspec.structs.replace(equipment, detection=msgspec.structs.replace(equipment.detection, warm_up=warm_up))


def asset_names(name: str, assets: int, shards: int = 16, part: int = 0, parts: int = 1) -> list[str]:
    """Return the ids of a fleet, or those of one of `parts`, dealt out as shards are dealt out to workers.

    Examples
    --------
    >>> len(asset_names("lift", 250, part=0, parts=2)) + len(asset_names("lift", 250, part=1, parts=2))
    250
    """
    names = [f"{name}-{number:06d}" for number in range(assets)]
    return [n for n in names if shard_of(n, shards) % parts == part]
