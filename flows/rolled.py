"""Parquet files that roll: written under a hidden name, shown under their own when they are whole and on disk.

A folder ``<table>/class=<class>/day=<day>/`` holds files of at least 16 MB, or an hour of event time; only the end of a
run, and a backlog that spreads over very many days at once, makes smaller ones.

Rows that wait for their file are part of the state. A restart takes them over and removes the files that were shown
after that snapshot, because their rows come again: each row stands in the archive once. What may have to be removed is
known from a journal beside the tables, one line a file.

A disk that is full, or any other refusal, loses nothing: rows wait in memory up to `HELD_BYTES`, then the writer waits,
and with it the flow and its inputs.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["RolledFiles"]

VERSION = 1
CHUNK_BYTES = 32_000_000
"""Memory of rows that are compressed together, and become a row group."""
FILE_BYTES = 16_000_000
HOUR_US = 3_600_000_000
OPEN_FILES = 64
"""Files that are collected at the same time; the one that has waited longest gives way."""
HELD_BYTES = 256_000_000
"""Memory of rows that a full disk may keep waiting before the flow waits too."""
RETRY_S = 1.0
JOURNAL_LINES = 10_000
"""Lines that a journal keeps: files of months, where a restart goes back a minute."""

Key = tuple[str, str, str]


@dataclass
class _File:
    """A file that is being collected: rows as they came, and compressed chunks of rows before them."""

    opened_s: float
    first_us: int
    last_us: int
    rows: list[pa.Table] = field(default_factory=list)
    rows_bytes: int = 0
    chunks: list[bytes] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return self.rows_bytes + sum(map(len, self.chunks))

    def due(self, now_s: float) -> bool:
        """Tell whether the file is large enough, or has waited for long enough."""
        if now_s - self.opened_s > HOUR_US / 1e6 or self.last_us - self.first_us >= HOUR_US:
            return True
        return sum(map(len, self.chunks)) >= FILE_BYTES

    def compress(self) -> None:
        """Make a chunk of the rows that wait."""
        if self.rows:
            table = pa.concat_tables(self.rows).combine_chunks()
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
                writer.write_table(table)
            self.chunks.append(sink.getvalue().to_pybytes())
            self.rows, self.rows_bytes = [], 0


class RolledFiles:
    """Writes rows into the files of a folder.

    Parameters
    ----------
    folder
        Where the tables lie; it is made when the first file is.
    writer
        Part of the names of the files and of the journal: no two writers of a folder have the same.
    state
        What `state` returned, to go on from there.
    store
        Id of the recovery store, empty without one: a store that holds no state yet is at its beginning, so that
        whatever was shown on its behalf comes again.
    clock
        Monotonic clock in seconds: a file does not wait longer than an hour of it.
    stop
        Once it is set nothing waits for a disk any more.
    stalled
        Called with True where a file could not be written, with False once one could.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     files = RolledFiles(Path(name))
    ...     files.add(("scores", "lift", "2026-01-05"), pa.table({"asset": ["lift-1"]}), 0, 0)
    ...     files.close()
    ...     [str(path.relative_to(name)) for path in Path(name).rglob("*.parquet")]
    ['scores/class=lift/day=2026-01-05/19700101T000000Z-0-000000.parquet']
    """

    def __init__(
        self,
        folder: Path,
        writer: str = "0",
        state: dict[str, Any] | None = None,
        store: str = "",
        clock: Callable[[], float] = time.monotonic,
        stop: threading.Event | None = None,
        stalled: Callable[[bool], None] = lambda stalled: None,
    ) -> None:
        self._folder, self._writer, self._store, self._clock = folder, writer, store, clock
        self._stop = stop or threading.Event()
        self._stalled = stalled
        self._files: dict[Key, _File] = {}
        self._failed_s: float | None = None
        self._refusal: OSError | None = None
        self._journal = folder / f".{writer}.journal"
        shown = _read_journal(self._journal)
        self._next = max((line.number for line in shown), default=-1) + 1
        again: set[_Line] = set()
        if state is not None:
            self._next = int(state["next"])
            again = {line for line in shown if line.number >= self._next}
            for key, first_us, last_us, chunks in state["files"]:
                self._files[key] = _File(clock(), first_us, last_us, chunks=list(chunks))
        elif store:
            again = {line for line in shown if line.store == store}
        for line in again:
            (folder / line.name).unlink(missing_ok=True)
        if again or len(shown) > JOURNAL_LINES:
            with suppress(OSError):  # a full disk: the lines of files that are gone do no harm
                _write_journal(self._journal, [line for line in shown if line not in again][-JOURNAL_LINES:])

    def add(self, key: Key, rows: pa.Table, first_us: int, last_us: int) -> None:
        """Add rows to the file of a (table, class, day); they lie between these event times."""
        now_s = self._clock()
        file = self._files.pop(key, None) or _File(now_s, first_us, last_us)
        # Taken out and put back in: the files stand in the order in which they were last used.
        self._files[key] = file
        file.rows.append(rows)
        file.rows_bytes += rows.nbytes
        file.first_us, file.last_us = min(file.first_us, first_us), max(file.last_us, last_us)
        if file.rows_bytes >= CHUNK_BYTES:
            file.compress()
        if self._failed_s is None or now_s - self._failed_s >= RETRY_S:
            due = [k for k, f in self._files.items() if f.due(now_s)]
            if not due and (len(self._files) > OPEN_FILES or self._failed_s is not None):
                due = [next(iter(self._files))]
            for each in due:
                self._finish(each)
        while self._failed_s is not None and sum(f.nbytes for f in self._files.values()) > HELD_BYTES:
            if self._stop.wait(RETRY_S):
                return
            self._finish(next(iter(self._files)))

    def state(self) -> dict[str, Any]:
        """Return the rows that wait, and the number of the next file."""
        for file in self._files.values():
            file.compress()
        files = [(key, file.first_us, file.last_us, list(file.chunks)) for key, file in self._files.items()]
        return {"version": VERSION, "next": self._next, "files": files}

    def close(self) -> None:
        """Finish every file; `refused` tells of those that the disk does not take: the engine knows no failed end."""
        for key in list(self._files):
            self._finish(key)

    @property
    def refused(self) -> OSError | None:
        """Why rows wait that could not be written; None where none do, or they are in the recovery store."""
        return self._refusal if self._files and not self._store else None

    def _finish(self, key: Key) -> None:
        """Write a file and show it; where the disk refuses, the rows wait."""
        try:
            self._show(key, self._files[key])
        except OSError as error:
            self._refusal = error
            self._failed_s = self._clock()
            self._stalled(True)
            return
        del self._files[key]
        if self._failed_s is not None:
            self._failed_s = None
            self._stalled(False)

    def _show(self, key: Key, file: _File) -> None:
        file.compress()
        table, equipment, day = key
        folder = self._folder / table / f"class={equipment}" / f"day={day}"
        folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(file.first_us // 1_000_000))
        while (path := folder / f"{stamp}-{self._writer}-{self._next:06d}.parquet").exists():
            self._next += 1  # the journal was lost: what is there stays
        # The same name each time: what a crash leaves there is overwritten.
        hidden = self._folder / f".{self._writer}.parquet.tmp"
        try:
            with pa.OSFile(str(hidden), "wb") as sink:
                _write_parquet(file.chunks, sink)
            descriptor = os.open(hidden, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            # The journal comes first: a file that is shown can be found again.
            _add_to_journal(self._journal, _Line(self._next, str(path.relative_to(self._folder)), self._store))
            hidden.replace(path)
        except OSError:
            hidden.unlink(missing_ok=True)
            raise
        self._next += 1


def _write_parquet(chunks: list[bytes], sink: pa.NativeFile) -> None:
    """Write chunks as row groups of about `CHUNK_BYTES`."""
    writer: pq.ParquetWriter | None = None
    waiting: list[pa.Table] = []
    for number, chunk in enumerate(chunks):
        with pa.ipc.open_stream(chunk) as stream:
            waiting.append(stream.read_all())
        if sum(table.nbytes for table in waiting) < CHUNK_BYTES and number < len(chunks) - 1:
            continue
        rows = pa.concat_tables(waiting, promote_options="default").combine_chunks()
        waiting = []
        if writer is None:
            writer = pq.ParquetWriter(sink, rows.schema, compression="zstd")
        writer.write_table(rows)
    assert writer is not None, "a file has rows"
    writer.close()


class _Line(NamedTuple):
    """A file that was shown: its number, its name below the folder, and on behalf of which recovery store."""

    number: int
    name: str
    store: str


def _read_journal(path: Path) -> list[_Line]:
    """Return the lines of a journal; one that a crash cut off names no file."""
    lines = []
    try:
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                number, name, store = json.loads(text)
                lines.append(_Line(int(number), str(name), str(store)))
            except ValueError:
                continue
    except FileNotFoundError:
        pass
    return lines


def _write_journal(path: Path, lines: list[_Line]) -> None:
    hidden = path.with_name(f"{path.name}.tmp")
    hidden.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    hidden.replace(path)


def _add_to_journal(path: Path, line: _Line) -> None:
    with path.open("a", encoding="utf-8") as file:
        # A line that a crash cut off must not swallow this one.
        file.write(f"\n{json.dumps(line)}\n")
        file.flush()
        os.fsync(file.fileno())
