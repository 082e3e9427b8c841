"""Files that roll: each row stands in the archive once, whatever kills the run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import rolled
from flows.rolled import RolledFiles

BEGIN = 1_767_571_200_000_000  # 2026-01-05T00:00:00Z
HOUR = 3_600_000_000
KEY = ("scores", "lift", "2026-01-05")
ROWS = pa.table({"asset": ["a"]})


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.parquet*"))


def numbers(folder: Path, table: str = "scores") -> list[int]:
    """Return what stands in a table, read as somebody else would."""
    if not (folder / table).exists():
        return []
    found = ds.dataset(folder / table, partitioning="hive").to_table()
    return sorted(found.column("n").to_pylist()) if "n" in found.column_names else []


def row(n: int) -> pa.Table:
    return pa.table({"n": [n]})


def test_a_file_ends_after_an_hour_or_when_it_is_large_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    files = RolledFiles(tmp_path, clock=lambda: now[0])
    files.add(KEY, ROWS, BEGIN, BEGIN)
    files.add(KEY, ROWS, BEGIN + HOUR // 2, BEGIN + HOUR // 2)
    assert names_of(tmp_path) == []
    files.add(KEY, ROWS, BEGIN + HOUR, BEGIN + HOUR)
    assert names_of(tmp_path) == ["20260105T000000Z-0-000000.parquet"]
    # Nothing waits longer than an hour of the clock, and a name that is taken is not taken again.
    files.add(KEY, ROWS, BEGIN, BEGIN)
    now[0] = 3601.0
    files.add(("features", "lift", "2026-01-05"), ROWS, BEGIN, BEGIN)
    assert names_of(tmp_path) == ["20260105T000000Z-0-000000.parquet", "20260105T000000Z-0-000001.parquet"]
    monkeypatch.setattr(rolled, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(rolled, "FILE_BYTES", 4000)
    noise = np.random.default_rng(0)
    for _ in range(4):
        files.add(("large", "lift", "2026-01-05"), pa.table({"x": noise.normal(size=200)}), BEGIN, BEGIN)
    assert len(names_of(tmp_path / "large")) == 1
    files.close()
    assert ds.dataset(tmp_path / "large", partitioning="hive").count_rows() == 800
    assert not any(name.startswith(".") for name in names_of(tmp_path))


def test_a_large_file_has_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolled, "CHUNK_BYTES", 1600)
    files = RolledFiles(tmp_path)
    for n in range(20):
        files.add(KEY, pa.table({"n": range(n * 50, n * 50 + 50)}), BEGIN, BEGIN)
    files.close()
    assert numbers(tmp_path) == list(range(1000))
    [path] = (tmp_path / "scores").rglob("*.parquet")
    assert pq.ParquetFile(path).metadata.num_row_groups == 5


def test_a_backlog_of_many_days_keeps_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolled, "OPEN_FILES", 3)
    files = RolledFiles(tmp_path)
    for day in range(1, 10):
        files.add(("scores", "lift", f"2026-01-{day:02d}"), ROWS, BEGIN, BEGIN)
    assert len(names_of(tmp_path)) == 6
    files.close()
    assert len(names_of(tmp_path)) == 9


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2), st.integers(0, 3)),
        st.tuples(st.just("snapshot"), st.just(0), st.just(0)),
        st.tuples(st.just("crash"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS, st.booleans())
@settings(max_examples=80, deadline=None)
def test_each_row_stands_once_however_often_a_run_is_killed(steps: list[tuple[str, int, int]], begun: bool) -> None:
    """A crash goes back to the newest snapshot, or to the beginning, and what came after it comes again."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rolled, "OPEN_FILES", 2)
        folder = Path(name)
        if begun:  # another run was here before
            other = RolledFiles(folder, store="other")
            other.add(KEY, row(-1), BEGIN, BEGIN)
            other.close()
        input_ = [(n, table, hour) for n, (what, table, hour) in enumerate(steps) if what == "add"]
        state: Any = None
        position = kept = 0
        files = RolledFiles(folder, store="this")
        for what, _, _ in steps:
            if what == "add":
                n, table, hour = input_[position]
                key = ("scores", "lift", f"2026-01-0{table + 1}")
                files.add(key, row(n), BEGIN + hour * HOUR // 2, BEGIN + hour * HOUR // 2)
                position += 1
            elif what == "snapshot":
                state, kept = files.state(), position
            else:
                files, position = RolledFiles(folder, state=state, store="this"), kept
        for n, _, hour in input_[position:]:
            files.add(KEY, row(n), BEGIN + hour * HOUR // 2, BEGIN + hour * HOUR // 2)
        files.close()
        assert numbers(folder) == ([-1] if begun else []) + [n for n, _, _ in input_]


def test_a_state_is_a_copy_and_resumes_more_than_once(tmp_path: Path) -> None:
    files = RolledFiles(tmp_path)
    files.add(KEY, row(1), BEGIN, BEGIN)
    state = files.state()
    files.add(KEY, row(2), BEGIN, BEGIN)
    for _ in range(2):
        resumed = RolledFiles(tmp_path, state=state)
        resumed.add(KEY, row(3), BEGIN, BEGIN)
        resumed.close()
        assert numbers(tmp_path) == [1, 3]


def test_a_store_at_its_beginning_removes_what_was_shown_for_it_and_nothing_else(tmp_path: Path) -> None:
    for n, (writer, store) in enumerate((("0", ""), ("0", "old"), ("0", "mine"), ("1", "mine"))):
        files = RolledFiles(tmp_path, writer, store=store)
        files.add(KEY, row(n), BEGIN, BEGIN)
        files.close()
    RolledFiles(tmp_path, "0", store="mine")
    assert numbers(tmp_path) == [0, 1, 3]
    RolledFiles(tmp_path, "0")
    assert numbers(tmp_path) == [0, 1, 3]


def test_a_journal_that_was_cut_off_costs_nothing(tmp_path: Path) -> None:
    files = RolledFiles(tmp_path, store="s")
    files.add(KEY, row(1), BEGIN, BEGIN)
    files.close()
    journal = tmp_path / ".0.journal"
    with journal.open("a") as file:
        file.write('[1, "scores/cl')  # a crash
    files = RolledFiles(tmp_path, state={"version": 1, "next": 1, "files": []}, store="s")
    files.add(KEY, row(2), BEGIN, BEGIN)
    files.close()
    assert numbers(tmp_path) == [1, 2]
    RolledFiles(tmp_path, store="s")
    assert numbers(tmp_path) == []


def test_a_lost_journal_never_overwrites_a_file(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / ".0.journal").unlink(missing_ok=True)
        files = RolledFiles(tmp_path)
        files.add(KEY, row(n), BEGIN, BEGIN)
        files.close()
    assert numbers(tmp_path) == [0, 1, 2]


def test_a_journal_keeps_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolled, "JOURNAL_LINES", 3)
    for n in range(8):
        files = RolledFiles(tmp_path)
        files.add(KEY, row(n), BEGIN, BEGIN)
        files.close()
    lines = [json.loads(line) for line in (tmp_path / ".0.journal").read_text().splitlines() if line]
    assert [line[0] for line in lines] == [4, 5, 6, 7]
    assert numbers(tmp_path) == list(range(8))
