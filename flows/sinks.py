"""Where results go: score rows into one file; features, scores, decisions and rejected input into the archive.

The archive is a folder of Parquet that DuckDB, Polars and pandas read without this project:

``features/class=lift/day=2026-01-05/*.parquet``
    a row a base window, a column a feature; ``features_3600s`` and the like for the longer windows;
``scores/...``
    the columns of a score row but `page`, which is decided later than the row is written;
``decisions/...``
    pages, tickets and ends of episodes;
``rejected/...``
    rejected input with its raw bytes, by the class of its asset and the day of its event time, where they are known.

All of them take items at least once: after a crash and a resume, rows since the last snapshot are there twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from features.signals import EquipmentClass
from features.telemetry import Rejected
from features.windows import ClosedWindows, Silence
from flows.dispatch import Decision
from flows.rolled import RolledFiles
from flows.rows import DAY_US, decision_rows, feature_rows, plausible, rejected_rows, score_rows, score_schema

__all__ = ["ArchiveSink", "DeadLetterSink", "ScoreRows"]


class _Written(StatelessSinkPartition[Any]):
    """A partition that hands its items on and says when it ends."""

    def __init__(self, write: Callable[[list[Any]], None], end: Callable[[], None]) -> None:
        self._write, self._end = write, end

    def write_batch(self, items: list[Any]) -> None:
        self._write(items)

    def close(self) -> None:
        self._end()


class ScoreRows(DynamicSink[Any]):
    """Takes ``(class, Assessed | Silence | Decision)`` of one class; writes all score rows to one file at the end.

    Rows stand in the order of window and asset; the same results give the same bytes. The file appears when it is
    whole; nothing is written where the run did not come to its end.

    Parameters
    ----------
    path
        Name of the file, ``.parquet`` or ``.csv``.
    equipment
        The class.
    failed
        Asked at the end: True leaves the file unwritten, because the input was damaged.
    """

    def __init__(self, path: Path, equipment: EquipmentClass, failed: Callable[[], bool] = lambda: False) -> None:
        self.path = path
        self.equipment = equipment
        self.windows = 0
        self.pages = 0
        self._failed = failed
        self._rows: list[pa.Table] = []
        self._pages: set[tuple[str, int]] = set()
        self._open = 0

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Any]:
        """Build the sink of a worker; the last one to end writes the file."""
        self._open += 1
        return _Written(self._take, self._end)

    def _take(self, items: list[Any]) -> None:
        for _, result in items:
            if isinstance(result, Decision):
                if result.rung == "page":
                    self._pages.add((result.asset, result.window_start_us))
            elif not isinstance(result, Silence):
                self._rows.append(score_rows(result, self.equipment))

    def _end(self) -> None:
        self._open -= 1
        if self._open == 0 and not self._failed():
            self.write()

    def write(self) -> None:
        """Write the file."""
        schema = score_schema(self.equipment)
        table = pa.concat_tables([schema.empty_table(), *self._rows])
        order = pc.sort_indices(table, [("window_start", "ascending"), ("asset", "ascending")])
        table = table.take(order).combine_chunks()
        page = np.zeros(table.num_rows, np.bool_)
        starts = table.column("window_start").combine_chunks().view(pa.int64()).to_numpy()
        for asset, start_us in self._pages:
            first, end = np.searchsorted(starts, [start_us, start_us + 1]).tolist()
            place = pc.index(table.column("asset").slice(first, end - first), asset).as_py()
            if place >= 0:
                page[first + place] = True
        table = table.set_column(schema.get_field_index("page"), "page", pa.array(page))
        self.windows, self.pages = table.num_rows, int(page.sum())
        hidden = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            if self.path.suffix == ".csv":
                _write_csv(table, hidden)
            else:
                pq.write_table(table, hidden, compression="zstd")
            hidden.replace(self.path)
        finally:
            hidden.unlink(missing_ok=True)


def _write_csv(table: pa.Table, path: Path) -> None:
    for name in ("window_start", "window_end"):
        times = table.column(name).combine_chunks().view(pa.int64())
        whole = not np.any(times.to_numpy() % 1_000_000)
        naive = times.view(pa.timestamp("us"))
        text = pc.strftime(naive.cast(pa.timestamp("s")) if whole else naive, "%Y-%m-%dT%H:%M:%SZ")
        table = table.set_column(table.schema.get_field_index(name), name, text)
    joined = pc.binary_join(table.column("top_signals"), ";")
    table = table.set_column(table.schema.get_field_index("top_signals"), "top_signals", joined)
    with path.open("wb") as file:
        file.write(",".join(table.schema.names).encode() + b"\n")
        begin = file.tell()
        try:
            pacsv.write_csv(table, file, pacsv.WriteOptions(include_header=False, quoting_style="none"))
        except pa.ArrowInvalid:
            # Some name holds a separator or a quote.
            file.seek(begin)
            file.truncate()
            pacsv.write_csv(table, file, pacsv.WriteOptions(include_header=False, quoting_style="needed"))


class DeadLetterSink(DynamicSink[Rejected]):
    """Takes `Rejected` and keeps it with its raw bytes, as Parquet.

    Parameters
    ----------
    folder
        Folder of the archive; rejected input lies in ``rejected/`` below it.
    class_of
        The class of an asset, None for an unknown one.
    """

    def __init__(self, folder: Path, class_of: Callable[[str], str | None] = lambda asset: None) -> None:
        self._folder, self._class_of = folder, class_of

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Rejected]:
        """Build the sink of a worker."""
        files = RolledFiles(self._folder, worker_index)

        def write(items: list[Rejected]) -> None:
            def key(item: Rejected) -> tuple[str, str]:
                equipment = None if item.asset is None else self._class_of(item.asset)
                start_us = plausible(item.start_us)
                return equipment or "unknown", "unknown" if start_us is None else _day(start_us)

            for (equipment, day), group in groupby(sorted(items, key=key), key):
                some = list(group)
                times = [item.start_us or 0 for item in some] if day != "unknown" else [0]
                files.add(("rejected", equipment, day), rejected_rows(some), min(times), max(times))

        return _Written(write, files.close)


class ArchiveSink(DynamicSink[Any]):
    """Takes ``(class, Assessed | Silence | Decision | (seconds, ClosedWindows))`` and keeps it for ever, as Parquet.

    Parameters
    ----------
    folder
        Folder of the archive.
    classes
        Equipment classes by name.
    """

    def __init__(self, folder: Path, classes: Mapping[str, EquipmentClass]) -> None:
        self._folder, self._classes = folder, classes

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Any]:
        """Build the sink of a worker."""
        files = RolledFiles(self._folder, worker_index)

        def write(items: list[Any]) -> None:
            for name, result in items:
                equipment = self._classes[name]
                if isinstance(result, Decision):
                    start_us = result.window_start_us
                    files.add(("decisions", name, _day(start_us)), decision_rows([result]), start_us, start_us)
                elif isinstance(result, tuple):
                    length_s, windows = result
                    _add(files, f"features_{length_s:g}s", name, windows, feature_rows(windows, equipment))
                elif not isinstance(result, Silence):
                    windows = result.windows
                    _add(files, "features", name, windows, feature_rows(windows, equipment))
                    scores = score_rows(result, equipment).drop_columns(["page"])
                    _add(files, "scores", name, windows, scores)

        return _Written(write, files.close)


def _add(files: RolledFiles, table: str, name: str, windows: ClosedWindows, rows: pa.Table) -> None:
    """Add rows, which are those of the windows, to the files of their days."""
    days = windows.start_us // DAY_US
    for day in np.unique(days).tolist():
        here = days == day
        start_us = windows.start_us[here]
        some = rows if here.all() else rows.filter(pa.array(here))
        files.add((table, name, _day(int(start_us[0]))), some, int(start_us.min()), int(start_us.max()))


def _day(us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).date().isoformat()
