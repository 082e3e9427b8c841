"""Parquet files that roll: written under a hidden name, shown under their own when they are whole.

A folder ``<table>/class=<class>/day=<day>/`` holds files of at least 16 MB, or an hour of event time; only the end of a
run, and a backlog that spreads over very many days at once, makes smaller ones. What is still being collected is lost
if the process is killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["RolledFiles"]

GROUP_BYTES = 32_000_000
"""Memory of rows that become a row group."""
FILE_BYTES = 16_000_000
HOUR_US = 3_600_000_000
OPEN_FILES = 64
"""Folders that are written to at the same time; the one that has waited longest gives way."""

Key = tuple[str, str, str]


@dataclass
class _File:
    """A file that is being collected: rows that wait, and what has been written of it."""

    opened_s: float
    first_us: int
    last_us: int
    rows: list[pa.Table] = field(default_factory=list)
    nbytes: int = 0
    path: Path | None = None
    sink: pa.NativeFile | None = None
    writer: pq.ParquetWriter | None = None


class RolledFiles:
    """Writes rows into the files of a folder.

    Parameters
    ----------
    folder
        Where the tables lie; it is made when the first file is.
    writer
        Part of the names of the files, such as the number of the worker.
    clock
        Monotonic clock in seconds: a file does not wait longer than an hour of it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     files = RolledFiles(Path(name))
    ...     files.add(("scores", "lift", "2026-01-05"), pa.table({"asset": ["lift-1"]}), 0, 0)
    ...     files.close()
    ...     [str(path.relative_to(name)) for path in Path(name).rglob("*.parquet")]
    ['scores/class=lift/day=2026-01-05/19700101T000000Z-0-0.parquet']
    """

    def __init__(self, folder: Path, writer: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._writer, self._clock = folder, writer, clock
        self._files: dict[Key, _File] = {}

    def add(self, key: Key, rows: pa.Table, first_us: int, last_us: int) -> None:
        """Add rows to the file of a (table, class, day); they lie between these event times."""
        now_s = self._clock()
        for old in [k for k, f in self._files.items() if now_s - f.opened_s > HOUR_US / 1e6]:
            self._finish(old)
        file = self._files.pop(key, None) or _File(now_s, first_us, last_us)
        # Taken out and put back in: the files stand in the order in which they were last used.
        self._files[key] = file
        file.rows.append(rows)
        file.nbytes += rows.nbytes
        file.first_us, file.last_us = min(file.first_us, first_us), max(file.last_us, last_us)
        if file.nbytes >= GROUP_BYTES:
            self._write(key, file)
        large = file.sink is not None and file.sink.tell() >= FILE_BYTES
        if large or file.last_us - file.first_us >= HOUR_US:
            self._finish(key)
        elif len(self._files) > OPEN_FILES:
            self._finish(next(iter(self._files)))

    def close(self) -> None:
        """Finish every file."""
        for key in list(self._files):
            self._finish(key)

    def _write(self, key: Key, file: _File) -> None:
        rows = pa.concat_tables(file.rows).combine_chunks()
        file.rows, file.nbytes = [], 0
        if file.writer is None:
            table, equipment, day = key
            folder = self._folder / table / f"class={equipment}" / f"day={day}"
            folder.mkdir(parents=True, exist_ok=True)
            file.path = folder / f".{os.getpid()}-{self._writer}-{id(file):x}.tmp"
            file.sink = pa.OSFile(str(file.path), "wb")
            file.writer = pq.ParquetWriter(file.sink, rows.schema, compression="zstd")
        file.writer.write_table(rows)

    def _finish(self, key: Key) -> None:
        file = self._files.pop(key)
        if file.rows:
            self._write(key, file)
        assert file.writer is not None and file.sink is not None and file.path is not None, "a file has rows"
        file.writer.close()
        file.sink.close()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(file.first_us // 1_000_000))
        number = 0
        while True:
            try:
                # A link fails where the name is taken, by an earlier run or by another process; a rename would not.
                os.link(file.path, file.path.with_name(f"{stamp}-{self._writer}-{number}.parquet"))
                break
            except FileExistsError:
                number += 1
        file.path.unlink()
