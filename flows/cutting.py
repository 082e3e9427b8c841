"""Where a stream of rows may be cut into messages, so that the cut changes no result and a replay keeps its pace."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.runs import grid_us
from features.signals import EquipmentClass
from features.times import Times, read_times

__all__ = ["LONGEST", "Cutter", "Lines", "Moment", "Table", "cut"]

LONGEST = 256_000_000
"""Bytes after which a piece ends wherever it is."""


class Moment(NamedTuple):
    """Event time of a row, and whether it lies in an hour that the clocks repeat."""

    us: int
    repeated: bool


@dataclass(frozen=True, slots=True)
class Cutter:
    """Where a piece may end.

    Attributes
    ----------
    window_us, cell_us
        A piece ends between two cells of a window; 0 = anywhere.
    span_us
        A piece ends after this much event time; 0 = after as many rows as there are.
    local
        Whether times may lie in an hour that the clocks repeat: a piece never ends inside one.
    """

    window_us: int = 0
    cell_us: int = 0
    span_us: int = 0
    local: bool = False

    @classmethod
    def of(cls, equipment: EquipmentClass | None, span_us: int = 0) -> Cutter:
        """Return the cutter of a class's wide tables.

        Examples
        --------
        >>> from features.signals import load_class
        >>> Cutter.of(load_class("lift")).cell_us
        1000000
        """
        if equipment is None:
            return cls(span_us=span_us)
        grids = [grid_us(equipment, signal) for signal in equipment.signals.values() if signal.bands_hz]
        window = round(equipment.window_s * 1e6) if grids else 0
        return cls(window, max(grids, default=0), span_us, equipment.time_zone is not None)

    def place(self, rows: int, at: Callable[[int], Moment]) -> int:
        """Return how many of the rows, which are in the order of time, make a piece; 0 where more rows are needed.

        Examples
        --------
        >>> Cutter(span_us=2_000_000).place(5, lambda row: Moment(row * 1_000_000, False))
        2
        """
        end = rows
        if self.span_us:
            until = at(0).us // 1_000_000 * 1_000_000 + self.span_us
            end = bisect_left(range(rows), until, key=lambda row: at(row).us)
            if end == rows:
                return 0
        elif self.cell_us:
            newest = self._cell(at(rows - 1).us)
            end = bisect_left(range(rows), newest, key=lambda row: self._cell(at(row).us))
        elif self.local:
            end = rows - 1
        if self.local and end and (at(end - 1).repeated or at(end).repeated):
            # The row before the hour goes with it: it tells that the hour's first row is of the first pass.
            end = max(0, bisect_left(range(end), True, key=lambda row: at(row).repeated) - 1)
        return end

    def _cell(self, us: int) -> tuple[int, int]:
        window, inside = divmod(us, self.window_us)
        return window, inside // self.cell_us


class Lines:
    """Whole lines of text, and how to read the time of one."""

    def __init__(
        self, data: bytes | memoryview, at: Callable[[bytes], Moment | None], starts: NDArray[np.int64] | None = None
    ) -> None:
        self.data, self.at = memoryview(data), at
        if starts is None:
            ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
            starts = np.concatenate(([0], ends[ends < len(data)]))
        # Offsets count from the first line that there was, so that a split copies nothing.
        self.starts = starts
        self.nbytes = len(data)

    def __len__(self) -> int:
        return len(self.starts)

    def moment(self, row: int) -> Moment:
        """Return the time of a line; one without a readable time counts as long as the one before it."""
        for number in range(row, max(-1, row - 100), -1):
            begin = int(self.starts[number] - self.starts[0])
            end = int(self.starts[number + 1] - self.starts[0]) if number + 1 < len(self) else self.nbytes
            found = self.at(self.data[begin:end].tobytes().rstrip(b"\r\n"))
            if found is not None:
                return found
        return Moment(0, False)

    def join(self, other: Lines) -> Lines:
        """Return the lines of both."""
        return Lines(self.data.tobytes() + other.data.tobytes(), self.at)

    def split(self, rows: int) -> tuple[Lines, Lines]:
        """Return the first lines, and the others."""
        if rows == len(self):
            return self, Lines(b"", self.at, self.starts[:0])
        place = int(self.starts[rows] - self.starts[0])
        first = Lines(self.data[:place], self.at, self.starts[:rows])
        return first, Lines(self.data[place:], self.at, self.starts[rows:])


class Table:
    """Rows of a record batch, and the column of their times."""

    def __init__(self, batch: pa.RecordBatch, column: str, zone: str | None, times: Times | None = None) -> None:
        self.batch, self._column, self._zone, self._times = batch, column, zone, times
        self.nbytes = batch.nbytes

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def moment(self, row: int) -> Moment:
        """Return the time of a row."""
        if self._times is None:
            self._times = read_times(self.batch.column(self._column), self._zone)
        return Moment(int(self._times.us[row]), bool(self._times.repeated[row]))

    def join(self, other: Table) -> Table:
        """Return the rows of both."""
        return Table(pa.concat_batches([self.batch, other.batch]), self._column, self._zone)

    def split(self, rows: int) -> tuple[Table, Table]:
        """Return the first rows, and the others."""
        first, rest = self.batch.slice(0, rows), self.batch.slice(rows)
        return Table(first, self._column, self._zone), Table(rest, self._column, self._zone)


Rows = TypeVar("Rows", Lines, Table)


def cut(parts: Iterator[Rows], cutter: Cutter) -> Iterator[tuple[Rows, int, int]]:
    """Cut a stream of rows where the cutter says; give each piece with its first and last time, where it is paced."""

    def timed(piece: Rows) -> tuple[Rows, int, int]:
        if not cutter.span_us:
            return piece, 0, 0
        return piece, piece.moment(0).us, piece.moment(len(piece) - 1).us

    rest: Rows | None = None
    for part in parts:
        rest = part if rest is None or len(rest) == 0 else rest.join(part)
        while len(rest):
            count = cutter.place(len(rest), rest.moment)
            if count == 0 and rest.nbytes < LONGEST:
                break
            piece, rest = rest.split(count or len(rest))
            yield timed(piece)
            if not cutter.span_us:
                break
    while rest is not None and len(rest):
        piece, rest = rest.split(cutter.place(len(rest), rest.moment) or len(rest))
        yield timed(piece)
