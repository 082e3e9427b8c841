"""A disk that refuses: rows wait in memory up to a bound, then the flow waits; nothing is lost, nothing torn shown."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry

from flows import rolled
from flows.metrics import Pipeline
from flows.rolled import RolledFiles
from flows.rows import ArchiveRows
from flows.sinks import ArchiveSink

BEGIN = 1_767_571_200_000_000  # 2026-01-05T00:00:00Z
HOUR = 3_600_000_000
KEY = ("scores", "lift", "2026-01-05")


class Disk:
    """A disk that refuses, while it is full, at one of the steps by which a file gets there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
        self.full = True
        self.refused = 0
        self._where = where
        write, sync, rename = rolled._write_parquet, os.fsync, Path.replace

        def torn(chunks: list[bytes], sink: Any) -> None:
            if self.full and self._where == "write":
                sink.write(b"PAR1")
            self._refuse("write")
            write(chunks, sink)

        def synced(descriptor: int) -> None:
            self._refuse("sync")
            sync(descriptor)

        def renamed(path: Path, target: Path) -> Path:
            if path.name.endswith(".parquet.tmp"):
                self._refuse("rename")
            return rename(path, target)

        monkeypatch.setattr(rolled, "_write_parquet", torn)
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "replace", renamed)

    def _refuse(self, where: str) -> None:
        if self.full and where == self._where:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")


def shown(folder: Path) -> list[int]:
    """Return the numbers in the files that are shown; every one of them is whole."""
    paths = sorted(folder.rglob("*.parquet"))
    assert not [path for path in paths if path.name.startswith(".")]
    return sorted(n for path in paths for n in pq.read_table(path, partitioning=None).column("n").to_pylist())


def hour(n: int) -> tuple[Any, ...]:
    """Return rows that make the file before them due."""
    return KEY, pa.table({"n": [n]}), BEGIN + n * HOUR, BEGIN + n * HOUR


@pytest.mark.parametrize("where", ["write", "sync", "rename"])
def test_rows_wait_for_a_full_disk_and_are_written_once_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    disk, now = Disk(monkeypatch, where), [0.0]
    said: list[bool] = []
    files = RolledFiles(tmp_path, clock=lambda: now[0], stalled=said.append)
    for n in range(5):
        files.add(*hour(n))
        assert shown(tmp_path) == []
        assert not [path for path in tmp_path.rglob("*.tmp") if path.stat().st_size], "what is torn goes"
    assert said == [True] and disk.refused == 1, "it is asked again after a pause, not for each row"
    now[0] = 1.0
    files.add(*hour(5))
    assert disk.refused == 2
    now[0] = 1.5
    files.add(*hour(6))
    assert disk.refused == 2
    disk.full, now[0] = False, 2.0
    files.add(*hour(7))
    assert said == [True, True, False]
    assert shown(tmp_path) == list(range(8))


def test_a_disk_is_asked_again_though_nothing_more_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, now = Disk(monkeypatch, "write"), [0.0]
    said: list[bool] = []
    files = RolledFiles(tmp_path, clock=lambda: now[0], stalled=said.append)
    files.add(*hour(0))
    files.add(*hour(1))
    disk.full, now[0] = False, 2.0
    files.add(("other", "lift", "2026-01-05"), pa.table({"n": [9]}), BEGIN, BEGIN)
    assert said[-1] is False and {0, 1} <= set(shown(tmp_path))


def test_memory_is_bounded_and_the_flow_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer stops taking rows while more than its bound waits, and goes on by itself."""
    disk, stop = Disk(monkeypatch, "sync"), threading.Event()
    waits: list[int] = []

    def wait(timeout: float | None = None) -> bool:
        waits.append(sum(file.nbytes for file in files._files.values()))
        disk.full = len(waits) < 3
        return False

    monkeypatch.setattr(stop, "wait", wait)
    monkeypatch.setattr(rolled, "HELD_BYTES", 10_000)
    files = RolledFiles(tmp_path, clock=lambda: 0.0, stop=stop)
    random = np.random.default_rng(0)
    given: list[int] = []
    while not waits:
        numbers = random.integers(0, 2**62, 100).tolist()  # what cannot be compressed
        files.add(KEY, pa.table({"n": numbers}), BEGIN + len(given) * HOUR, BEGIN + len(given) * HOUR)
        given += numbers
        assert len(given) < 10_000
    assert len(waits) == 3, "it waited until the disk took the rows"
    assert max(waits) < 13_000
    assert shown(tmp_path) == sorted(given)


@pytest.mark.parametrize("store", ["", "s"])
def test_a_stop_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    """The run ends; what was not written is told, unless it is in the recovery store."""
    disk = Disk(monkeypatch, "sync")
    monkeypatch.setattr(rolled, "HELD_BYTES", 1000)
    stop = threading.Event()
    files = RolledFiles(tmp_path, store=store, clock=lambda: 0.0, stop=stop)
    stop.set()
    for n in range(1000):
        files.add(*hour(n))
    state = files.state()
    files.close()
    assert (files.refused is None) == bool(store)
    assert files.refused is None or files.refused.errno == errno.ENOSPC
    disk.full = False
    RolledFiles(tmp_path, state=state, store=store).close()
    assert shown(tmp_path) == list(range(1000))


def test_what_waits_for_the_disk_is_part_of_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, "write")
    files = RolledFiles(tmp_path)
    files.add(*hour(0))
    files.add(*hour(1))
    state = files.state()
    disk.full = False
    resumed = RolledFiles(tmp_path, state=state)
    resumed.close()
    assert shown(tmp_path) == [0, 1]


def test_a_line_of_the_journal_without_its_file_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the journal and the rename: the number is used again."""
    disk = Disk(monkeypatch, "rename")
    files = RolledFiles(tmp_path, store="s")
    state = files.state()
    files.add(*hour(0))
    files.add(*hour(1))
    assert len((tmp_path / ".0.journal").read_text().split()) > 0
    disk.full = False
    resumed = RolledFiles(tmp_path, state=state, store="s")
    for n in range(2):
        resumed.add(*hour(n))
    resumed.close()
    assert shown(tmp_path) == [0, 1]


def test_what_a_crash_left_half_written_is_overwritten(tmp_path: Path) -> None:
    left = tmp_path / ".0.parquet.tmp"
    left.write_bytes(b"PAR1 torn")
    files = RolledFiles(tmp_path)
    files.add(*hour(0))
    files.close()
    assert shown(tmp_path) == [0] and not left.exists()
    assert ds.dataset(tmp_path / "scores", partitioning="hive").count_rows() == 1


def test_the_metrics_say_that_the_archive_is_stalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, pipeline = Disk(monkeypatch, "sync"), Pipeline(CollectorRegistry())

    def stalled() -> float | None:
        return pipeline.registry.get_sample_value("vigie_sink_stalled", {"sink": "archive"})

    part = ArchiveSink(tmp_path, pipeline).build_part("archive", "a0", None)
    assert stalled() == 0.0
    part.write_batch([ArchiveRows(*KEY, pa.table({"n": [n]}), BEGIN + n * HOUR, BEGIN + n * HOUR) for n in range(2)])
    assert stalled() == 1.0
    disk.full = False
    part.close()
    assert stalled() == 0.0 and shown(tmp_path) == [0, 1]
