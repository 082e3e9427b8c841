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

With a recovery store each row stands there once, whatever happened: see `flows.rolled`. Without one, what was still
being collected is lost if the process is killed.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from bytewax.outputs import DynamicSink, FixedPartitionedSink, StatefulSinkPartition, StatelessSinkPartition

from features.signals import EquipmentClass
from features.telemetry import Rejected
from features.windows import Silence
from flows.dispatch import Decision
from flows.metrics import Pipeline
from flows.rolled import RolledFiles
from flows.rows import ArchiveRows, day_of, plausible, rejected_rows, score_rows, score_schema
from flows.sealed import seal, unsealed

__all__ = ["ArchiveSink", "DeadLetterSink", "ScoreRows"]

WRITERS = 2
"""Writers of the archive: more would make more files that hold an hour, and one would be as fast as one process."""


class _Written(StatelessSinkPartition[Any]):
    """A partition that hands its items on."""

    def __init__(self, write: Callable[[list[Any]], None]) -> None:
        self._write = write

    def write_batch(self, items: list[Any]) -> None:
        self._write(items)


class ScoreRows(DynamicSink[Any]):
    """Takes ``(class, Assessed | Silence | Decision)`` of one class; `write` makes one file of all score rows.

    Rows stand in the order of window and asset; the same results give the same bytes. The file appears when it is
    whole.

    Parameters
    ----------
    path
        Name of the file, ``.parquet`` or ``.csv``.
    equipment
        The class.
    """

    def __init__(self, path: Path, equipment: EquipmentClass) -> None:
        self.path = path
        self.equipment = equipment
        self.windows = 0
        self.pages = 0
        self._rows: list[pa.Table] = []
        self._pages: set[tuple[str, int]] = set()

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Any]:
        """Build the sink of a worker."""
        return _Written(self._take)

    def _take(self, items: list[Any]) -> None:
        for _, result in items:
            if isinstance(result, Decision):
                if result.rung == "page":
                    self._pages.add((result.asset, result.window_start_us))
            elif not isinstance(result, Silence):
                self._rows.append(score_rows(result, self.equipment))

    def write(self) -> None:
        """Write the file.

        Raises
        ------
        OSError
            If it cannot be written.
        """
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


class ArchiveSink(FixedPartitionedSink[ArchiveRows, Any]):
    """Takes ``(key, ArchiveRows)`` and keeps the rows for ever, as Parquet.

    Parameters
    ----------
    folder
        Folder of the archive.
    pipeline
        Shows where it is stalled.
    stop
        Once it is set, nothing waits for a full disk any more.
    store
        Id of the recovery store, empty without one.
    """

    def __init__(
        self,
        folder: Path,
        pipeline: Pipeline | None = None,
        stop: threading.Event | None = None,
        store: str = "",
    ) -> None:
        self._rolled = _Rolled(folder, "archive", pipeline, stop, store)

    def check(self) -> None:
        """Raise an OSError where the run has ended and rows are left that could not be written."""
        self._rolled.check()

    def list_parts(self) -> list[str]:
        """Return the writers, the same for the life of a recovery store."""
        return [f"a{number}" for number in range(WRITERS)]

    def part_fn(self, item_key: str) -> int:
        """Return the writer of a key."""
        return zlib.crc32(item_key.encode())

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _Archive:
        """Return a writer at its beginning, or as a snapshot left it."""
        return _Archive(self._rolled(for_part, unsealed(resume_state)))


class _Archive(StatefulSinkPartition[ArchiveRows, Any]):
    def __init__(self, files: RolledFiles) -> None:
        self._files = files

    def write_batch(self, values: list[ArchiveRows]) -> None:
        for table, equipment, day, rows, first_us, last_us in values:
            self._files.add((table, equipment, day), rows, first_us, last_us)

    def snapshot(self) -> bytes:
        return seal(self._files.state())

    def close(self) -> None:
        self._files.close()


class DeadLetterSink(FixedPartitionedSink[Rejected, Any]):
    """Takes ``(key, Rejected)`` and keeps it with its raw bytes, as Parquet.

    Parameters
    ----------
    folder
        Folder of the archive; rejected input lies in ``rejected/`` below it.
    class_of
        The class of an asset, None for an unknown one.
    pipeline, stop, store
        As for `ArchiveSink`.
    """

    def __init__(
        self,
        folder: Path,
        class_of: Callable[[str], str | None] = lambda asset: None,
        pipeline: Pipeline | None = None,
        stop: threading.Event | None = None,
        store: str = "",
    ) -> None:
        self._class_of = class_of
        self._rolled = _Rolled(folder, "dead_letters", pipeline, stop, store)

    def check(self) -> None:
        """Raise an OSError where the run has ended and rows are left that could not be written."""
        self._rolled.check()

    def list_parts(self) -> list[str]:
        """Return the writers, the same for the life of a recovery store."""
        return [f"r{number}" for number in range(WRITERS)]

    def part_fn(self, item_key: str) -> int:
        """Return the writer of a key."""
        return zlib.crc32(item_key.encode())

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _DeadLetters:
        """Return a writer at its beginning, or as a snapshot left it."""
        return _DeadLetters(self._rolled(for_part, unsealed(resume_state)), self._class_of)


class _DeadLetters(StatefulSinkPartition[Rejected, Any]):
    def __init__(self, files: RolledFiles, class_of: Callable[[str], str | None]) -> None:
        self._files, self._class_of = files, class_of

    def write_batch(self, values: list[Rejected]) -> None:
        for (equipment, day), group in groupby(sorted(values, key=self._place), self._place):
            some = list(group)
            times = [item.start_us or 0 for item in some] if day != "unknown" else [0]
            self._files.add(("rejected", equipment, day), rejected_rows(some), min(times), max(times))

    def snapshot(self) -> bytes:
        return seal(self._files.state())

    def close(self) -> None:
        self._files.close()

    def _place(self, item: Rejected) -> tuple[str, str]:
        equipment = None if item.asset is None else self._class_of(item.asset)
        start_us = plausible(item.start_us)
        return equipment or "unknown", "unknown" if start_us is None else day_of(start_us)


@dataclass(frozen=True, slots=True)
class _Rolled:
    """How the files of one output are made, by writer and state."""

    folder: Path
    sink: str
    pipeline: Pipeline | None
    stop: threading.Event | None
    store: str
    made: list[RolledFiles] = field(default_factory=list)

    def __call__(self, writer: str, state: dict[str, Any] | None) -> RolledFiles:
        self._stalled(False)
        files = RolledFiles(self.folder, writer, state, self.store, stop=self.stop, stalled=self._stalled)
        self.made.append(files)
        return files

    def check(self) -> None:
        """Raise an OSError where rows are left that could not be written."""
        for files in self.made:
            if files.refused is not None:
                raise OSError(
                    f"{self.folder}: the last rows of the {self.sink.replace('_', ' ')} could not be written"
                    f" ({files.refused.strerror}) and are lost; make room, and use --recovery, which keeps them"
                )

    def _stalled(self, stalled: bool) -> None:
        if self.pipeline is not None:
            self.pipeline.sink_stalled.labels(self.sink).set(stalled)
