"""Score rows, the archive and dead letters, read back with programs that are not this project."""

from __future__ import annotations

import csv
import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from bytewax.outputs import FixedPartitionedSink

from features.signals import EquipmentClass, load_class
from features.telemetry import Reason, Rejected
from features.windows import ClosedWindows, Silence
from flows import rolled
from flows.dispatch import Decision
from flows.rows import archive_rows
from flows.sinks import ArchiveSink, DeadLetterSink, ScoreRows

LIFT = load_class("lift")
BEGIN = 1_767_571_200_000_000  # 2026-01-05T00:00:00Z
WINDOW = 10_000_000


def windows(rows: list[int], starts: list[int], equipment: EquipmentClass = LIFT) -> ClosedWindows:
    n = len(rows)
    start = BEGIN + np.array(starts, np.int64) * WINDOW
    features = np.arange(n * len(equipment.features), dtype=np.float64).reshape(n, -1)
    features[:, 1] = np.nan
    return ClosedWindows(
        ["lift-1", "lift-2"],
        np.array(rows, np.int32),
        start,
        start + WINDOW,
        np.arange(n, dtype=np.int64) + 100,
        np.full(n, np.nan),
        features,
    )


def assessed(rows: list[int], starts: list[int], **columns: Any) -> Any:
    n, modes, horizons = len(rows), len(LIFT.failure_modes), len(LIFT.failure_horizons)
    scored = SimpleNamespace(
        score=np.array(columns.pop("score", [0.5] * n)), warming=np.array(columns.pop("warming", [False] * n))
    )
    values: dict[str, Any] = {
        "state": np.ones(n, np.int8),
        "health": np.tile(np.linspace(0.9, 0.6, modes), (n, 1)),
        "leading": np.full(n, -1, np.int16),
        "p_fail": np.tile(np.linspace(0.1, 0.3, horizons), (n, 1)),
        "rul_s": np.tile([1e5, 2e5, 3e5], (n, 1)),
        "top": np.full((n, 3), -1, np.int16),
        "top_share": np.zeros((n, 3)),
        "candidates": [],
    } | {name: np.array(value) for name, value in columns.items()}
    return SimpleNamespace(windows=windows(rows, starts), scored=scored, **values)


def decision(asset: str, start: int, rung: Any = "page") -> Decision:
    at = BEGIN + start * WINDOW
    return Decision(f"{asset}/door", asset, "lift", "door_operator", at, at, rung, 0.7, "open", "Doors are slow.")


def write(sink: ScoreRows, *batches: list[Any]) -> None:
    part = sink.build("out", 0, 1)
    for batch in batches:
        part.write_batch(batch)
    part.close()
    sink.write()


def keep(sink: FixedPartitionedSink[Any, Any], *batches: list[tuple[str, Any]]) -> None:
    """Write into the partitions of a sink as the engine does."""
    names = sink.list_parts()
    parts = [sink.build_part("out", name, None) for name in names]
    for batch in batches:
        for number, part in enumerate(parts):
            part.write_batch([value for key, value in batch if sink.part_fn(key) % len(names) == number])
    for part in parts:
        part.close()


def archived(*results: Any) -> list[tuple[str, Any]]:
    return [(f"{n}", rows) for n, result in enumerate(results) for rows in archive_rows(result, LIFT)]


COLUMNS = [
    "asset", "window_start", "window_end", "samples", "state", "anomaly_score", "health", "p_fail_2h", "p_fail_24h",
    "p_fail_7d", "rul_p10_s", "rul_p50_s", "rul_p90_s", "page", "failure_mode", "top_signals",
]  # fmt: skip


def results() -> list[list[Any]]:
    names = list(LIFT.detection.features)
    closing, opening = names.index("doors.closing_s"), names.index("doors.opening_s")
    heat = names.index("motor_temperature.mean")
    nan = float("nan")
    return [
        [("lift", assessed([0, 1], [1, 1]))],
        [
            ("lift", decision("lift-2", 2)),
            ("lift", Silence([], np.zeros(0, np.int32), np.zeros(0, np.int64), 0)),
            ("lift", assessed(
                [1, 0, 0], [2, 2, 0],
                state=np.array([3, 0, 1], np.int8),
                leading=np.array([0, -1, -1], np.int16),
                top=np.array([[closing, opening, heat], [closing, heat, -1], [heat, -1, -1]], np.int16),
                score=[2.0, 0.0, nan],
                warming=[False, True, False],
                health=np.array([[nan, 0.4, 0.7, nan]] + [[nan] * 4] * 2),
                p_fail=np.array([[0.1, 0.5, 0.9], [nan] * 3, [nan] * 3]),
                rul_s=np.array([[1.0, 2.0, nan], [nan] * 3, [nan] * 3]),
            )),
        ],
        [("lift", decision("lift-1", 1, "ticket")), ("lift", decision("lift-1", 77))],
    ]  # fmt: skip


def test_score_rows_have_the_public_columns_in_the_order_of_windows(tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    sink = ScoreRows(out, LIFT)
    write(sink, *results())
    table = pq.read_table(out)
    assert table.schema.names == COLUMNS
    assert table.schema.field("window_start").type == pa.timestamp("us", "UTC")
    assert table.schema.field("top_signals").type.value_type == pa.string()
    rows = table.to_pylist()
    assert [(r["window_start"].second, r["asset"]) for r in rows] == [
        (0, "lift-1"), (10, "lift-1"), (10, "lift-2"), (20, "lift-1"), (20, "lift-2"),
    ]  # fmt: skip
    assert [r["page"] for r in rows] == [False, False, False, False, True]
    assert (sink.windows, sink.pages) == (5, 1)
    failing, warming, unknown = rows[4], rows[3], rows[0]
    assert failing["state"] == "failing"
    assert failing["failure_mode"] == next(iter(LIFT.failure_modes))
    assert failing["health"] == 0.4
    assert (failing["p_fail_7d"], failing["rul_p50_s"], failing["rul_p90_s"]) == (0.9, 2.0, None)
    # Closing and opening are both the door: it is named once.
    assert failing["top_signals"] == ["door_position", "motor_temperature"]
    assert (warming["state"], warming["anomaly_score"], warming["top_signals"]) == ("warming", 0.0, [])
    assert (unknown["anomaly_score"], unknown["health"], unknown["p_fail_2h"]) == (None, None, None)
    assert (unknown["failure_mode"], unknown["top_signals"]) == (None, [])
    assert not any(isinstance(v, float) and v != v for r in rows for v in r.values())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_two_runs_give_the_same_bytes_whatever_the_batches(tmp_path: Path, suffix: str) -> None:
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    write(ScoreRows(one, LIFT), *results())
    write(ScoreRows(two, LIFT), [item for batch in reversed(results()) for item in batch])
    assert one.read_bytes() == two.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [one.name, two.name]


def test_csv_is_plain(tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    write(ScoreRows(out, LIFT), *results())
    text = out.read_text()
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert text.splitlines()[5] == (
        "lift-2,2026-01-05T00:00:20Z,2026-01-05T00:00:30Z,100,failing,2,0.4,0.1,0.5,0.9,1,2,,true,"
        "door_operator,door_position;motor_temperature"
    )
    query = f"select typeof(window_start), samples, page from read_csv('{out}') where page"
    assert duckdb.connect().execute(query).fetchall() == [("TIMESTAMP WITH TIME ZONE", 100, True)]


def test_a_name_with_a_separator_is_quoted(tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    result = assessed([0], [0])
    result.windows.names[0] = 'Lift "A", north'
    write(ScoreRows(out, LIFT), [("lift", result)])
    with out.open(newline="") as file:
        assert next(csv.DictReader(file))["asset"] == 'Lift "A", north'


def test_an_empty_run_gives_an_empty_table(tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    write(ScoreRows(out, LIFT))
    assert pq.read_table(out).schema.names == COLUMNS
    assert pq.read_table(out).num_rows == 0


@pytest.mark.parametrize("store", ["", "a store"])
def test_a_disk_that_refuses_the_last_rows_is_told_after_the_end(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine aborts where the end of an output fails; with a store the rows are in it."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rolled, "_write_parquet", full)
    sink = ArchiveSink(tmp_path / "archive", store=store)
    keep(sink, *(archived(*(r for _, r in batch if not isinstance(r, Silence))) for batch in results()))
    if store:
        sink.check()
    else:
        with pytest.raises(OSError, match=r"the last rows of the archive could not be written \(No space.*--recovery"):
            sink.check()


def test_the_archive_is_read_by_others(tmp_path: Path) -> None:
    day = 8640
    keep(
        ArchiveSink(tmp_path / "archive"),
        *(archived(*(r for _, r in batch if not isinstance(r, Silence))) for batch in results()),
        archived(assessed([0, 1], [day - 1, day])),
        archived((600.0, windows([0], [0]))),
    )
    at = tmp_path / "archive"
    connection = duckdb.connect()
    found = connection.execute(
        f"select class, day::varchar as on_day, count(*), max(samples) from read_parquet("
        f"'{at}/features/**/*.parquet', hive_partitioning=true) group by all order by on_day"
    ).fetchall()
    assert found == [("lift", "2026-01-05", 6, 102), ("lift", "2026-01-06", 1, 101)]
    [row] = connection.execute(
        f"""select "vibration_x.count", "vibration_x.mean" from read_parquet('{at}/features/**/*.parquet')
        where asset = 'lift-1' and window_start = '2026-01-05T00:00:10Z'"""
    ).fetchall()
    assert row == (0.0, None)
    scores = ds.dataset(at / "scores", partitioning="hive").to_table()
    assert [n for n in scores.schema.names if n not in ("class", "day")] == [n for n in COLUMNS if n != "page"]
    assert scores.num_rows == 7
    decisions = ds.dataset(at / "decisions", partitioning="hive").to_table().to_pylist()
    assert sorted((d["asset"], d["rung"]) for d in decisions) == [
        ("lift-1", "page"), ("lift-1", "ticket"), ("lift-2", "page"),
    ]  # fmt: skip
    assert ds.dataset(at / "features_600s", partitioning="hive").count_rows() == 1
    assert all(path.suffix == ".parquet" or path.parent == at for path in at.rglob("*") if path.is_file())


def test_dead_letters_keep_their_bytes_and_lie_by_class_and_day(tmp_path: Path) -> None:
    sink = DeadLetterSink(tmp_path, lambda asset: "lift" if asset == "lift-1" else None)
    keep(
        sink,
        [("a.csv", Rejected(Reason.MALFORMED, 1, "a.csv", b"\xff\x00,", detail="expected UTF-8"))],
        [
            ("lift-1", Rejected(Reason.LATE, 3, "topic", b"{}", "lift-1", "door_position", BEGIN)),
            ("lift-9", Rejected(Reason.UNKNOWN_ASSET, 2, "topic", b"{}", "lift-9", None, BEGIN)),
            ("lift-1", Rejected(Reason.BAD_TIME, 2, "topic", b"{}", "lift-1", None, 2**62)),
        ],
    )
    rows = ds.dataset(tmp_path / "rejected", partitioning="hive").to_table().to_pylist()
    assert sorted((r["class"], r["day"], r["reason"], r["readings"]) for r in rows) == [
        ("lift", "2026-01-05", "late", 3),
        ("lift", "unknown", "bad_time", 2),
        ("unknown", "2026-01-05", "unknown_asset", 2),
        ("unknown", "unknown", "malformed", 1),
    ]
    assert [r["raw"] for r in rows if r["reason"] == "malformed"] == [b"\xff\x00,"]
