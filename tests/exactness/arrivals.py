"""Telemetry and the ways in which it may arrive: blocks, delays, messages, partitions; and a run over them.

Nothing here knows what the windows should hold: `oracle` says that.
"""

from __future__ import annotations

import pickle
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.signals import EquipmentClass
from features.windows import NO_LIMIT, ClosedWindows, ShardBatch, ShardWindows, Step

Rng = np.random.Generator
Sample = tuple[int, float]
Key = tuple[str, int]


class Block(NamedTuple):
    """A run of samples of one signal of one asset."""

    asset: str
    signal: str
    start_us: int
    period_us: int
    values: tuple[float, ...]

    @property
    def last_us(self) -> int:
        """Time of its last sample."""
        return self.start_us + (len(self.values) - 1) * self.period_us


class Message(NamedTuple):
    """What one input partition delivers at once."""

    source: str
    blocks: tuple[Block, ...]


VALUES: dict[str, Callable[[Rng, int], Any]] = {
    "constant": lambda rng, n: np.full(n, float(rng.integers(-5, 6))),
    "noise": lambda rng, n: rng.normal(0.0, 3.0, n),
    "walk": lambda rng, n: rng.normal(0.0, 1.0, n).cumsum() + 20.0,
    "ramp": lambda rng, n: np.arange(n) * 0.25 - 7.0,
    "steps": lambda rng, n: rng.integers(0, 3, n).astype(np.float64),
    "offset": lambda rng, n: 1000.0 + rng.normal(0.0, 1.0, n),
    "impulses": lambda rng, n: np.where(rng.random(n) < 0.05, 50.0, rng.normal(0.0, 0.5, n)),
}
"""Kinds of values; none leaves -10000 to 10000."""


def times(rng: Rng, begin_us: int, period_us: int, count: int, kind: str) -> NDArray[np.int64]:
    """Return times of samples that rise: a grid, a grid with jitter, with holes, in bursts, or few and far between."""
    grid = begin_us + int(rng.integers(0, period_us)) + np.arange(count, dtype=np.int64) * period_us
    if kind == "jitter":
        grid += rng.integers(-(period_us // 3), period_us // 3 + 1, count)
    elif kind == "holes":
        grid = grid[rng.random(count) < 0.8]
    elif kind == "bursts":
        grid = grid[(np.arange(count) // max(1, count // 7)) % 2 == 0]
    elif kind == "few":
        grid = np.sort(rng.choice(grid, max(1, count // 20), replace=False))
    return grid[grid >= 0]


def cut(
    rng: Rng,
    asset: str,
    signal: str,
    at: Sequence[int] | NDArray[np.int64],
    values: Sequence[float] | NDArray[np.float64],
    span_us: int,
    longest: int = 60,
    overlap: float = 0.0,
    missing: bool = True,
) -> list[Block]:
    """Cut a series into blocks of at most `span_us`; some begin with samples that the one before holds already."""
    at, values = [int(t) for t in at], [float(v) for v in values]
    blocks: list[Block] = []
    i = 0
    while i < len(at):
        want = int(rng.integers(1, longest + 1))
        held = [values[i]]
        period = at[i + 1] - at[i] if i + 1 < len(at) else 0
        j = i + 1
        while j < len(at) and len(held) < want and at[j] - at[i] <= span_us:
            steps, rest = divmod(at[j] - at[j - 1], period)
            if rest or steps > (4 if missing else 1):
                break
            held += [np.nan] * (steps - 1) + [values[j]]
            j += 1
        blocks.append(Block(asset, signal, at[i], period if len(held) > 1 else 0, tuple(held)))
        i = max(i + 1, j - int(rng.integers(1, 4))) if j < len(at) and rng.random() < overlap else j
    return blocks


def arrange(
    rng: Rng,
    blocks: Iterable[Block],
    lateness_us: int,
    most: int = 30,
    sources: Sequence[str] = ("in",),
    shuffled: bool = False,
) -> list[Message]:
    """Let blocks arrive in any order within the lateness, many or few to a message, over one partition or several.

    `shuffled` mixes the blocks of each message, whatever time it spans.
    """
    placed = list(blocks)
    delay = [int(rng.integers(0, max(1, lateness_us - (b.last_us - b.start_us) + 1))) for b in placed]
    order = sorted(range(len(placed)), key=lambda i: (placed[i].last_us + delay[i], rng.random()))
    messages: list[Message] = []
    i = 0
    while i < len(order):
        j = i + int(rng.integers(1, most + 1))
        some = [placed[k] for k in order[i:j]]
        if shuffled:
            some = [some[k] for k in rng.permutation(len(some))]
        messages.append(Message(str(rng.choice(list(sources))), tuple(some)))
        i = j
    return messages


def in_order(blocks: Iterable[Block], source: str = "in") -> list[Message]:
    """Let all blocks arrive in one message, in the order of time."""
    return [Message(source, tuple(sorted(blocks, key=lambda b: b.start_us)))]


@dataclass
class Outcome:
    """What a run gave: windows by asset and start, horizons by length, asset and start, and the account."""

    windows: dict[Key, tuple[int, float, NDArray[np.float64]]] = field(default_factory=dict)
    horizons: dict[tuple[float, str, int], tuple[int, NDArray[np.float64]]] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    raw: list[bytes] = field(default_factory=list)
    silences: list[tuple[str, int]] = field(default_factory=list)
    sent: int = 0
    accepted: int = 0
    last: dict[str, int] = field(default_factory=dict)

    @property
    def scored(self) -> int:
        """Readings in windows that have closed."""
        return sum(samples for samples, _, _ in self.windows.values())

    def take(self, step: Step) -> None:
        """Add what a shard gave back; a window comes once, and those of an asset in the order of time."""
        self.accepted += step.accepted
        for rejected in step.rejected:
            self.rejected[str(rejected.reason)] += rejected.readings
            self.raw.append(rejected.raw)
        for closed in step.closed:
            self._add(closed)
        for length_s, some in step.horizons.items():
            for closed in some:
                for i, row in enumerate(closed.rows.tolist()):
                    key = (length_s, closed.names[row], int(closed.start_us[i]))
                    assert key not in self.horizons, f"{key} closed twice"
                    self.horizons[key] = int(closed.samples[i]), closed.features[i].copy()
        if step.silence is not None:
            names, since = step.silence.names, step.silence.since_us.tolist()
            self.silences += [(names[row], at) for row, at in zip(step.silence.rows.tolist(), since, strict=True)]

    def _add(self, closed: ClosedWindows) -> None:
        for i, row in enumerate(closed.rows.tolist()):
            asset, start = closed.names[row], int(closed.start_us[i])
            assert self.last.get(asset, -1) < start, f"{asset}: the window at {start} closed after a later one"
            self.last[asset] = start
            self.windows[asset, start] = int(closed.samples[i]), float(closed.state_code[i]), closed.features[i].copy()


class Run:
    """A group of shards fed message by message, with the clocks of their input partitions.

    Parameters
    ----------
    equipment
        The class.
    shards
        How many shards share the assets.
    pickled
        Send every batch through another process's door.
    limit_us
        Latest time that is not in the future.
    """

    def __init__(
        self, equipment: EquipmentClass, shards: int = 1, pickled: bool = False, limit_us: int = NO_LIMIT
    ) -> None:
        self.equipment, self.pickled, self.limit_us = equipment, pickled, limit_us
        self.shards = [ShardWindows(equipment) for _ in range(shards)]
        self.clock: dict[str, int] = {}
        self.outcome = Outcome()

    def restart(self) -> None:
        """Let every shard die, and come back from its snapshot, which went to a disk between."""
        for i, shard in enumerate(self.shards):
            state = pickle.loads(pickle.dumps(shard.state()))
            self.shards[i] = ShardWindows(self.equipment)
            self.shards[i].load(state)

    def push(self, message: Message, ticks: bool = True, clocks: Sequence[int] | None = None) -> None:
        """Deliver a message, then tell every shard the time; the account agrees after both.

        `clocks` is the time that the partition has reached with each block, by default the newest of them so far.
        """
        if clocks is None:
            clock = self.clock.get(message.source, -(2**62))
            ends = (b.last_us if b.last_us <= self.limit_us else clock for b in message.blocks)
            clocks = np.maximum.accumulate([clock, *ends])[1:].tolist()
        for number, shard in enumerate(self.shards):
            mine = [
                i for i, b in enumerate(message.blocks) if zlib.crc32(b.asset.encode()) % len(self.shards) == number
            ]
            if not mine:
                continue
            blocks = [message.blocks[i] for i in mine]
            sent = sum(1 for b in blocks for v in b.values if v == v)
            given = batch(blocks, [clocks[i] for i in mine], message.source, self.limit_us)
            step = shard.push(pickle.loads(pickle.dumps(given)) if self.pickled else given)
            assert step.accepted + sum(r.readings for r in step.rejected) == sent
            self.outcome.sent += sent
            self.outcome.take(step)
        if len(clocks):
            self.clock[message.source] = clocks[-1]
        if ticks:
            self.tick(message.source, self.clock[message.source])
        self.check()

    def tick(self, source: str, clock_us: int) -> None:
        """Tell every shard the time of a partition."""
        for shard in self.shards:
            self.outcome.take(shard.tick(source, clock_us))

    def check(self) -> None:
        """Compare the account with what is open."""
        pending = sum(shard.pending for shard in self.shards)
        assert self.outcome.sent == self.outcome.accepted + self.outcome.rejected.total()
        assert self.outcome.accepted == self.outcome.scored + pending

    def end(self) -> Outcome:
        """Close everything."""
        for shard in self.shards:
            self.outcome.take(shard.flush())
        self.check()
        assert sum(shard.pending for shard in self.shards) == 0
        return self.outcome


def batch(blocks: Sequence[Block], clocks: Any, source: str = "in", limit_us: int = NO_LIMIT) -> ShardBatch:
    """Return blocks in the form in which a shard takes them."""
    assets = sorted({b.asset for b in blocks})
    signals = sorted({b.signal for b in blocks}, reverse=True)
    count = np.array([len(b.values) for b in blocks], np.int64)
    return ShardBatch(
        assets,
        signals,
        np.array([assets.index(b.asset) for b in blocks], np.int32),
        np.array([signals.index(b.signal) for b in blocks], np.int32),
        np.array([b.start_us for b in blocks], np.int64),
        np.array([b.period_us for b in blocks], np.int64),
        np.concatenate(([0], np.cumsum(count)[:-1])).astype(np.int64),
        count,
        np.asarray(clocks, np.int64),
        np.array([v for b in blocks for v in b.values], np.float64),
        source,
        limit_us,
    )


def run(
    equipment: EquipmentClass,
    messages: Iterable[Message],
    shards: int = 1,
    restart: Callable[[int], bool] = lambda number: False,
    pickled: bool = False,
    ticks: bool = True,
    limit_us: int = NO_LIMIT,
) -> Outcome:
    """Run messages to the end; `restart` tells after which of them everything dies and comes back."""
    going = Run(equipment, shards, pickled, limit_us)
    for number, message in enumerate(messages):
        going.push(message, ticks)
        if restart(number):
            going.restart()
    return going.end()


def readings_of(messages: Iterable[Message]) -> list[tuple[str, str, int, float]]:
    """Return every sample in the order of arrival."""
    return [
        (b.asset, b.signal, b.start_us + i * b.period_us, v)
        for message in messages
        for b in message.blocks
        for i, v in enumerate(b.values)
    ]
