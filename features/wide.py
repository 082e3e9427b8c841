"""Wide tables: one column a signal, one row a time.

The class file says how a table of the class looks (`[table]`): which column is the time, which the asset, what is
ignored. Every other column that is no signal is rejected cell by cell as `unknown_signal`; text where a number should
be as `bad_value`; all readings of a row without a usable time as `bad_time` or `naive_time`, of a row without an asset
as `unknown_asset`. An empty cell and NaN are missing, and no other word is. Rejected readings that share reason,
column and asset come as one `Rejected` with the raw lines of all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.columns import as_text, is_present, legible, plain_cells, read_names, read_numbers
from features.runs import blocks_of_columns
from features.signals import EquipmentClass
from features.telemetry import Decoded, Reason, Rejected, TelemetryError, empty_blocks
from features.times import Times, read_times

__all__ = ["Roles", "WideTable", "decode_table", "decode_wide_table", "roles_of"]


@dataclass(frozen=True, slots=True)
class Roles:
    """Which column of a table is what.

    Attributes
    ----------
    time
        Number of the column of times.
    asset
        Number of the column of assets, None where there is none.
    signals
        Number and signal of each column that is one.
    unknown
        Numbers of the columns that nobody knows.
    """

    time: int
    asset: int | None
    signals: tuple[tuple[int, str], ...]
    unknown: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WideTable:
    """A table as a reader hands it over.

    Attributes
    ----------
    names, columns
        Header, and a column of any Arrow type each; None for one that is ignored.
    raw
        Returns the raw bytes of rows by their numbers.
    rejected
        What the reader could not make a row of.
    limit
        Bytes of raw rows beyond which a row that is wrong in several columns is rejected once.
    """

    names: Sequence[str]
    columns: Sequence[pa.Array | None]
    raw: Callable[[NDArray[np.int64]], bytes]
    rejected: list[Rejected] = field(default_factory=list)
    limit: int = 2**62


def roles_of(names: Sequence[str], equipment: EquipmentClass) -> Roles:
    """Tell which column is what.

    Raises
    ------
    TelemetryError
        If a column stands twice, if two columns are the same signal, or if there is no time or no signal at all.

    Examples
    --------
    >>> from features.signals import load_class
    >>> roles_of(["time", "flow", "weather"], load_class("boiler"))
    Roles(time=0, asset=None, signals=((1, 'flow'),), unknown=(2,))
    """
    layout = equipment.table
    twice = [name for name, count in Counter(names).items() if count > 1 and name not in layout.ignore]
    if twice:
        raise TelemetryError(f"the column {twice[0]!r} stands twice in the header")
    meaning = {alias: name for name, signal in equipment.signals.items() for alias in signal.columns}
    meaning |= {name: name for name in equipment.signals}
    meaning = {name: s for name, s in meaning.items() if name not in (layout.time, layout.asset, *layout.ignore)}
    signals = tuple((number, meaning[name]) for number, name in enumerate(names) if name in meaning)
    if not signals:
        expected = ", ".join(list(meaning)[:4])
        raise TelemetryError(
            f"the header has none of the columns of the class {equipment.name!r}: expected some of {expected}, ..."
        )
    if layout.time not in names:
        seen = ", ".join(map(repr, names[:6]))
        raise TelemetryError(
            f"there is no time column {layout.time!r} in the header ({seen}): "
            f"name it in [table] time of the class {equipment.name!r}"
        )
    found: dict[str, str] = {}
    for number, signal in signals:
        if signal in found:
            raise TelemetryError(f"the columns {found[signal]!r} and {names[number]!r} are both the signal {signal!r}")
        found[signal] = names[number]
    known = {layout.time, layout.asset, *layout.ignore, *meaning}
    return Roles(
        time=names.index(layout.time),
        asset=names.index(layout.asset) if layout.asset in names else None,
        signals=signals,
        unknown=tuple(number for number, name in enumerate(names) if name not in known),
    )


def decode_table(table: WideTable, equipment: EquipmentClass, *, asset: str, source: str) -> Decoded:
    """Turn a table into blocks.

    Parameters
    ----------
    table
        The table.
    equipment
        Its class.
    asset
        Asset of a table without an asset column.
    source
        Name of the input.

    Raises
    ------
    TelemetryError
        If the header is wrong, as `roles_of` says.
    """
    roles = roles_of(table.names, equipment)
    moments = _column(table, roles.time)
    assets, of_asset = [asset], np.zeros(len(moments), np.int32)
    if roles.asset is not None:
        assets, of_asset = read_names(_column(table, roles.asset))
    times = read_times(moments, equipment.time_zone, of_asset)
    read = [
        (number, signal, *read_numbers(_column(table, number), equipment.signals[signal].codes))
        for number, signal in roles.signals
    ]
    nobody = of_asset < 0
    usable = ~(times.bad | times.naive | nobody)
    rejections = _Rejections(table, source, assets, of_asset, times)
    if not usable.all():
        present = np.zeros(len(moments), np.int64)
        for _, _, values, wrong in read:
            present += (values == values) | wrong
        zone = "" if equipment.time_zone is None else f" in {equipment.time_zone}"
        rejections.add(nobody, Reason.UNKNOWN_ASSET, present, roles.asset or 0, None, "expected an asset, got {}")
        bad = times.bad & ~nobody
        rejections.add(bad, Reason.BAD_TIME, present, roles.time, None, f"expected a time that exists{zone}, got {{}}")
        naive = times.naive & ~nobody
        why = f"the time {{}} has no zone, and the class {equipment.name!r} names none"
        rejections.add(naive, Reason.NAIVE_TIME, present, roles.time, None, why)
    rejections.add_cells([(number, signal, wrong & usable) for number, signal, _, wrong in read if wrong.any()])
    for number in roles.unknown:
        rejections.add_column(number, roles.time, f"the class {equipment.name!r} has no signal {table.names[number]!r}")
    order = np.flatnonzero(usable)
    if len(assets) > 1:
        order = order[np.argsort(of_asset[order], kind="stable")]
    columns = [(signal, values) for _, signal, values, _ in read]
    return Decoded(blocks_of_columns(equipment, assets, of_asset, times.us, order, columns), rejections.found)


def decode_wide_table(batch: pa.RecordBatch, equipment: EquipmentClass, *, asset: str, source: str) -> Decoded:
    """Decode a wide Arrow table, such as a piece of a Parquet file; never fails.

    Parameters
    ----------
    batch
        The table.
    equipment
        Its class.
    asset
        Asset of a table without an asset column.
    source
        Name of the input.

    Examples
    --------
    >>> from features.signals import load_class
    >>> batch = pa.record_batch({"time": [0, 1, 2], "flow": ["1.5", "leak", "1.7"]})
    >>> decoded = decode_wide_table(batch, load_class("boiler"), asset="b1", source="example")
    >>> decoded.blocks.to_pylist()[0]["values"], decoded.rejected[0].raw
    ([1.5, 1.7], b'{"time":1,"flow":"leak"}')
    """
    batch = legible(batch)
    names = batch.schema.names
    columns = [as_text(column) for column in batch.columns]

    def raw(rows: NDArray[np.int64]) -> bytes:
        cells = [plain_cells(column.take(pa.array(rows))) for column in columns]
        lines = [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]
        return msgspec.json.Encoder(enc_hook=str).encode_lines(lines).removesuffix(b"\n")

    try:
        return decode_table(WideTable(names, columns, raw), equipment, asset=asset, source=source)
    except (TelemetryError, pa.ArrowNotImplementedError) as error:
        every = np.arange(batch.num_rows)
        return Decoded(
            empty_blocks(), [Rejected(Reason.MALFORMED, max(1, len(every)), source, raw(every), detail=str(error))]
        )


class _Rejections:
    """Collects what is rejected of a table."""

    def __init__(
        self, table: WideTable, source: str, assets: Sequence[str], of_asset: NDArray[np.int32], times: Times
    ) -> None:
        self.found = list(table.rejected)
        self._bytes = 0
        self._table, self._source, self._assets = table, source, assets
        self._of_asset, self._times = of_asset, times

    def add(
        self,
        where: NDArray[np.bool_],
        reason: Reason,
        readings: NDArray[np.int64] | None,
        column: int,
        signal: str | None,
        detail: str,
    ) -> None:
        """Reject rows, or one cell of each where `readings` is None; `detail` is given the first cell of `column`."""
        if not where.any():
            return
        rows = np.flatnonzero(where)
        if len(self._assets) > 1:
            rows = rows[np.argsort(self._of_asset[rows], kind="stable")]
        for group in np.split(rows, np.flatnonzero(np.diff(self._of_asset[rows])) + 1):
            count = len(group) if readings is None else int(readings[group].sum())
            if count == 0:
                continue
            cell = repr(self._cells(column, group[:1])[0])[:80]
            raw = self._table.raw(group)
            self._bytes += len(raw)
            self.found.append(
                Rejected(
                    reason, count, self._source, raw,
                    self._asset(group), signal, self._start(group), detail.format(cell),
                )
            )  # fmt: skip

    def add_cells(self, columns: Sequence[tuple[int, str, NDArray[np.bool_]]]) -> None:
        """Reject cells column by column; those of the columns beyond the limit of raw rows together."""
        detail = "expected a number, got {}"
        for place, (number, signal, wrong) in enumerate(columns):
            if self._bytes > self._table.limit and len(columns) - place > 1:
                rest = columns[place:]
                count = np.zeros(len(wrong), np.int64)
                for _, _, wrong in rest:
                    count += wrong
                first = np.flatnonzero(count)[:1]
                number = next((number for number, _, wrong in rest if wrong[first].any()), number)
                self.add(count > 0, Reason.BAD_VALUE, count, number, None, detail)
                return
            self.add(wrong, Reason.BAD_VALUE, None, number, signal, detail)

    def add_column(self, number: int, time: int, detail: str) -> None:
        """Reject every present cell of a column; its raw bytes are lines of time and cell."""
        column = _column(self._table, number)
        rows = np.flatnonzero(is_present(column))
        if len(rows) == 0:
            return
        name = self._table.names[number]
        pairs = zip(self._cells(time, rows), self._cells(number, rows), strict=True)
        lines = [f"{self._table.names[time]},{name}", *(f"{time},{cell}" for time, cell in pairs)]
        raw = "\n".join(lines).encode(errors="surrogateescape")
        self.found.append(
            Rejected(
                Reason.UNKNOWN_SIGNAL, len(rows), self._source, raw,
                self._asset(rows), name, self._start(rows), detail,
            )
        )  # fmt: skip

    def _cells(self, number: int, rows: NDArray[np.int64]) -> list[object]:
        return plain_cells(_column(self._table, number).take(pa.array(rows)))

    def _asset(self, rows: NDArray[np.int64]) -> str | None:
        first = int(self._of_asset[rows[0]])
        return self._assets[first] if first >= 0 and (self._of_asset[rows] == first).all() else None

    def _start(self, rows: NDArray[np.int64]) -> int | None:
        row = rows[0]
        return None if self._times.bad[row] or self._times.naive[row] else int(self._times.us[row])


def _column(table: WideTable, number: int) -> pa.Array:
    column = table.columns[number]
    assert column is not None, "a column that is needed is not ignored"
    return column
