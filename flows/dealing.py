"""How the blocks of a message are dealt out to shards: one pass of counting, and no column copied.

Each shard gets the message's own columns and the places of its blocks in them, those of an asset together and in the
order of arrival. What depends on names is looked up once for each dictionary of names, not for each message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compiled import kernel
from features.windows import ShardBatch

__all__ = ["Dealer", "Names"]

_KEPT = 4
"""Dictionaries that are remembered: one for each input that sends the same names with every message."""


class Names:
    """What is known of the names of a dictionary; an equal dictionary gives the same object again.

    Parameters
    ----------
    dictionary
        The names.
    number_of
        Gives the number of the shard of a name, counted from 0.

    Attributes
    ----------
    names
        The names as a list, always the same one.
    number
        Number of each name's shard, int32 of shape ``(n,)``, -1 where it has not been asked for.
    """

    def __init__(self, dictionary: pa.Array) -> None:
        self.dictionary = dictionary
        self.names: list[str] = dictionary.to_pylist()
        self.number = np.full(len(self.names), -1, np.int32)
        self._order: NDArray[np.int64] | None = None

    def order(self, present: NDArray[np.bool_], number_of: Callable[[str], int]) -> NDArray[np.int64]:
        """Return the names in the order of their shards; those that are present get a number."""
        missing = np.flatnonzero(present & (self.number < 0))
        if len(missing):
            self.number[missing] = [number_of(self.names[index]) for index in missing.tolist()]
            self._order = None
        if self._order is None:
            self._order = np.argsort(self.number, kind="stable")
        return self._order


class Dealer:
    """Deals messages out to shards.

    Parameters
    ----------
    number_of
        Gives the number of the shard of an asset; numbers are small.
    """

    def __init__(self, number_of: Callable[[str], int]) -> None:
        self._number_of = number_of
        self._known: list[Names] = []

    def forget(self) -> None:
        """Forget which shard an asset belongs to: the register has changed."""
        self._known.clear()

    def names_of(self, dictionary: pa.Array) -> Names:
        """Return what is known of a dictionary of names."""
        for known in self._known:
            if known.dictionary.equals(dictionary):
                return known
        if len(self._known) >= _KEPT:
            self._known.pop(0)
        self._known.append(Names(dictionary))
        return self._known[-1]

    def __call__(
        self, source: str, blocks: pa.RecordBatch, clock: NDArray[np.int64], limit_us: int
    ) -> Iterator[tuple[int, ShardBatch]]:
        """Deal one message out.

        Parameters
        ----------
        source
            Name of the input partition.
        blocks
            The message, with at least one block, in the form of `features.telemetry.BLOCKS`.
        clock
            Event time that the partition had reached when each block came.
        limit_us
            Latest time that is not in the future.

        Yields
        ------
        For each shard that has blocks its number and batch.
        """
        column = blocks.column("asset")
        assets = self.names_of(column.dictionary)
        asset = column.indices.to_numpy()
        signals = blocks.column("signal")
        lists = blocks.column("values")
        offsets = lists.offsets.to_numpy()
        values = lists.values.to_numpy(zero_copy_only=False)
        start = blocks.column("start").view(pa.int64()).to_numpy()
        period = blocks.column("period_us").to_numpy()
        first, count = offsets[:-1], np.diff(offsets)
        per_asset = np.zeros(len(assets.names), np.int64)
        _count(asset, per_asset)
        order = assets.order(per_asset > 0, self._number_of)
        place = np.empty(len(asset), np.int32)
        _deal(asset, order, per_asset, place)
        signal_names = self.names_of(signals.dictionary).names
        columns = (asset, signals.indices.to_numpy(), start, period, first, count, clock, values, source, limit_us)
        single = bool(count.min() == 1 == count.max())
        ends = per_asset[order]
        number = assets.number[order]
        bounds = np.flatnonzero(np.diff(number, prepend=-2, append=-2))
        begin = 0
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            stop = int(ends[high - 1])
            if stop == begin:
                continue
            there = np.flatnonzero(np.diff(ends[low:high], prepend=begin)) + low
            owners, own_ends = order[there].astype(np.int32), ends[there] - begin
            groups = place[begin:stop], owners, own_ends, single
            yield int(number[low]), ShardBatch(assets.names, signal_names, *columns, *groups)
            begin = stop


@kernel
def _count(asset: NDArray[np.int32], per_asset: NDArray[np.int64]) -> None:
    """Count the blocks of each asset."""
    for i in range(len(asset)):
        per_asset[asset[i]] += 1


@kernel
def _deal(
    asset: NDArray[np.int32], order: NDArray[np.int64], per_asset: NDArray[np.int64], place: NDArray[np.int32]
) -> None:
    """Write the places of the blocks by asset in this order, and where each asset's end."""
    total = np.int64(0)
    for name in order:
        count = per_asset[name]
        per_asset[name] = total
        total += count
    for i in range(len(asset)):
        place[per_asset[asset[i]]] = i
        per_asset[asset[i]] += 1
