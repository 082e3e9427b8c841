"""Files as an input: what is refused before the start, what happens on the way, and the pace of a replay."""

from __future__ import annotations

import gzip
import math
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from features.signals import Detection, EquipmentClass, Layout, Signal
from features.telemetry import BLOCKS, Decoded, count_readings, new_blocks
from features.wire import decode_arrow, decode_jsonlines, decode_wide_csv, decode_wide_table
from flows import files
from flows.cutting import Cutter
from flows.sources import FileSource, InputError, Message, open_check

BEGIN = datetime(2026, 10, 24, 22, tzinfo=UTC)


def machine(bands: bool = False, zone: str | None = None) -> EquipmentClass:
    bands_hz = ((1.0, 5.0),) if bands else ()
    return EquipmentClass(
        name="machine",
        description="",
        window_s=10.0,
        lateness_s=5.0,
        signals={
            "flow": Signal(unit="1", range=(-1e9, 1e9), period_s=1.0, description=""),
            "speed": Signal(unit="1", range=(-1e9, 1e9), period_s=0.01, description="", bands_hz=bands_hz),
        },
        detection=Detection(features=("flow.mean",)),
        idle_after_s=60.0,
        silent_after_s=600.0,
        time_zone=zone,
    )


def csv(rows: int = 100, step_s: float = 1.0) -> bytes:
    times = [(BEGIN + timedelta(seconds=i * step_s)).isoformat() for i in range(rows)]
    return ("time,flow,speed\n" + "".join(f"{t},{i},{i % 7}\n" for i, t in enumerate(times))).encode()


def blocks(rows: int = 100) -> pa.RecordBatch:
    start = int(BEGIN.timestamp() * 1e6) + np.arange(rows) * 1_000_000
    zero = np.zeros(rows, np.int32)
    offsets = np.arange(rows + 1, dtype=np.int32)
    return new_blocks(["m1"], ["flow"], zero, zero, start, np.zeros(rows, np.int64), offsets, np.arange(float(rows)))


def jsonl(rows: int = 100) -> bytes:
    begin = BEGIN.timestamp()
    return "".join(
        f'{{"asset": "m1", "signal": "flow", "time": {begin + i}, "value": {i}}}\n' for i in range(rows)
    ).encode()


def arrow(path: Path, table: pa.Table | pa.RecordBatch, file: bool = True) -> None:
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(str(path), table.schema) as writer:
        writer.write(table)


def messages(source: FileSource) -> list[Message]:
    found: list[Message] = []
    flow = Dataflow("test")
    op.output("out", op.input("in", flow, source), TestingSink(found))
    run_main(flow)
    return found


def decode(message: Message, equipment: EquipmentClass) -> Decoded:
    match message.wire:
        case "csv":
            return decode_wide_csv(bytes(message.payload), equipment, asset="m1", source="test")
        case "table":
            return decode_wide_table(message.payload, equipment, asset="m1", source="test")
        case "jsonl":
            return decode_jsonlines(message.payload, source="test")
    return decode_arrow(message.payload, source="test")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("none.csv", None, "there is no such file"),
        ("empty.csv", b"", "the file is empty"),
        ("blank.csv", b"\n \n", "the file is empty"),
        ("empty.csv.gz", gzip.compress(b"", mtime=0), "the file is empty"),
        ("noise.csv", bytes(range(128, 256)) * 9, "no header of a table"),
        ("noise.parquet", bytes(range(128, 256)) * 9, "not a whole Parquet file"),
        ("noise.arrow", bytes(range(128, 256)) * 9, "not a whole Arrow file"),
        ("noise.jsonl", bytes(range(128, 256)) * 9, "no line is a JSON object"),
        ("noise.gz", b"\x1f\x8b" + bytes(range(128, 256)), "cannot be read"),
        ("none.csv", b"weather,wind\n1,2\n", "none of the columns of the class 'machine'"),
        ("twice.csv", b"time,flow,flow\n0,1,2\n", "stands twice"),
        ("timeless.csv", b"flow,speed\n1,2\n", "no time column"),
    ],
)
def test_a_file_that_is_no_telemetry_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: bytes | None, expected: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        open_check(path, machine())
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_folder_a_cut_off_parquet_and_a_missing_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is a folder"):
        open_check(tmp_path, machine())
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.Table.from_batches([blocks()]), whole)
    open_check(whole, None)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a whole Parquet file"):
        open_check(cut, None)
    wide = tmp_path / "wide.csv"
    wide.write_bytes(csv())
    with pytest.raises(InputError, match="needs the class"):
        open_check(wide, None)
    table = tmp_path / "twice.parquet"
    pq.write_table(pa.table([pa.array([1])] * 3, names=["time", "flow", "flow"]), table)
    with pytest.raises(InputError, match="stands twice"):
        open_check(table, machine())


@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.txt", "a", "a.csv.gz", "a.parquet", "blocks.parquet", "a.arrow", "blocks.arrow", "blocks.arrows",
     "a.jsonl", "lines", "a.ndjson.gz"],
)  # fmt: skip
def test_every_format_gives_every_reading_and_resumes_after_each_message(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    wide = pa.table({"time": blocks().column("start"), "flow": np.arange(100.0)})
    match name.removesuffix(".gz").rpartition(".")[2]:
        case "parquet":
            table = pa.Table.from_batches([blocks()]) if "blocks" in name else wide
            pq.write_table(table, path, row_group_size=40)
        case "arrow" | "arrows":
            arrow(path, blocks() if "blocks" in name else wide, file=name != "blocks.arrows")
        case _:
            content = csv() if "csv" in name or name in ("a", "a.txt") else jsonl()
            path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    equipment = machine()
    open_check(path, equipment)
    monkeypatch.setattr(files, "ROWS", 30)
    source = FileSource([path], equipment)
    found = messages(source)
    assert source.failure is None
    assert source.progress()[0] == 1.0
    assert {m.source for m in found} == {str(path)}
    values = [
        v for m in found for b in decode(m, equipment).blocks.to_pylist() if b["signal"] == "flow" for v in b["values"]
    ]
    assert values == [float(i) for i in range(100)]
    # From the state after any message the rest comes, and nothing else.
    part: Any = FileSource([path], equipment).build_part("in", str(path), None)
    for number in range(len(found)):
        part.next_batch()
        again: Any = FileSource([path], equipment).build_part("in", str(path), part.snapshot())
        rest = []
        while batch := next_or_none(again):
            rest += batch
        counts = [count_readings(decode(m, equipment).blocks) for m in rest]
        assert counts == [count_readings(decode(m, equipment).blocks) for m in found[number + 1 :]]


def next_or_none(part: Any) -> list[Message] | None:
    try:
        batch: list[Message] = part.next_batch()
    except StopIteration:
        return None
    return batch


def pieces_of(path: Path, equipment: EquipmentClass, chunk: int, span_us: int = 0) -> list[Decoded]:
    cut = Cutter.of(equipment, span_us)
    return [
        decode(Message("test", piece.wire, piece.payload), equipment)
        for piece in files.pieces(path, equipment, cut, chunk=chunk)
    ]


@pytest.mark.parametrize("chunk", [50, 999, 10_000])
def test_the_size_of_a_piece_changes_no_spectrum(tmp_path: Path, chunk: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv(3000, 0.01))
    equipment = machine(bands=True)
    decoded = pieces_of(path, equipment, chunk)
    assert len(decoded) > 1
    speed = [b for d in decoded for b in d.blocks.to_pylist() if b["signal"] == "speed"]
    assert {len(b["values"]) for b in speed} == {100}


@pytest.mark.parametrize("chunk", [50, 777, 100_000])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_size_of_a_piece_changes_no_time_in_the_repeated_hour(tmp_path: Path, chunk: int, form: str) -> None:
    zone = "Europe/Paris"
    equipment = machine(zone=zone)
    moments = [BEGIN + timedelta(minutes=i) for i in range(6 * 60)]
    local = [m.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for m in moments]
    path = tmp_path / f"a.{form}"
    if form == "csv":
        path.write_text("time,flow\n" + "".join(f"{t},{i}\n" for i, t in enumerate(local)))
    else:
        pq.write_table(pa.table({"time": local, "flow": np.arange(360.0)}), path, row_group_size=max(1, chunk // 30))
    decoded = pieces_of(path, equipment, chunk)
    assert not any(d.rejected for d in decoded)
    times = [
        b["start"] + timedelta(microseconds=b["period_us"] * i)
        for d in decoded
        for b in d.blocks.to_pylist()
        for i in range(len(b["values"]))
    ]
    assert times == moments


def test_lines_without_a_time_do_not_disturb_where_a_piece_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = csv(500, 0.01).splitlines(keepends=True)
    lines[100:100] = [b"x,1,2\n", b"\n", b"\xff\xff\n", b"1,2\n"]
    path.write_bytes(b"".join(lines))
    decoded = pieces_of(path, machine(bands=True), 700)
    assert sum(count_readings(d.blocks) for d in decoded) == 1000
    assert sum(r.readings for d in decoded for r in d.rejected) == 2 + 1 + 1


def test_a_file_that_is_damaged_further_on_ends_there_and_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = b"".join(b"%d,%.9f,1\n" % (i, v) for i, v in enumerate(rng.normal(size=60_000)))
    whole = gzip.compress(b"time,flow,speed\n" + lines)
    cut, good = tmp_path / "cut.csv.gz", tmp_path / "good.csv"
    cut.write_bytes(whole[: len(whole) // 2])
    good.write_bytes(csv())
    source = FileSource([cut, good], machine())
    open_check(cut, machine())
    found = messages(source)
    assert source.failure is not None
    assert source.failure.startswith(f"{cut}: the file is damaged (")
    assert {m.source for m in found} >= {str(good)}
    arrows = tmp_path / "cut.arrows"
    arrow(arrows, pa.Table.from_batches([blocks(), blocks()]), file=False)
    arrows.write_bytes(arrows.read_bytes()[:-400])
    source = FileSource([arrows])
    assert len(messages(source)) == 1
    assert source.failure is not None
    missing = FileSource([tmp_path / "gone.csv"], machine())
    assert messages(missing) == []
    assert missing.failure is not None
    assert "no such file" in missing.failure


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time_s = 1000.0

    def __call__(self) -> float:
        return self.time_s

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self.time_s)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "arrow"])
@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_a_replay_keeps_the_pace_of_the_record(tmp_path: Path, form: str, speed: float) -> None:
    path = tmp_path / f"a.{form}"
    match form:
        case "csv":
            path.write_bytes(csv(60))
        case "jsonl":
            path.write_bytes(jsonl(60))
        case "parquet":
            pq.write_table(pa.Table.from_batches([blocks(60)]), path)
        case "arrow":
            arrow(path, blocks(60))
    clock = Clock()
    equipment = machine()
    part: Any = FileSource([path], equipment, speed, clock=clock, now=clock.now).build_part("in", str(path), None)
    seen: list[tuple[float, float]] = []
    while (batch := next_or_none(part)) is not None:
        awake = part.next_awake()
        if not batch:
            assert clock.now() < awake <= clock.now() + timedelta(seconds=0.5)
            clock.time_s += (awake - clock.now()).total_seconds()
            continue
        [message] = batch
        for block in decode(message, equipment).blocks.to_pylist():
            end = block["start"] + timedelta(microseconds=block["period_us"] * (len(block["values"]) - 1))
            seen.append((clock.time_s - 1000.0, (end - BEGIN).total_seconds()))
    assert max(event for _, event in seen) == 59
    # Nothing comes before its time, and nothing more than a piece after it.
    assert all(-1e-6 <= wall - event / speed <= max(1.0, speed * 0.25) / speed + 1e-6 for wall, event in seen)


def test_files_keep_their_distance_in_time(tmp_path: Path) -> None:
    early, late = tmp_path / "early.csv", tmp_path / "late.csv"
    early.write_bytes(csv(10))
    late.write_text("time,flow\n" + f"{(BEGIN + timedelta(seconds=30)).isoformat()},1\n")
    clock = Clock()
    source = FileSource([late, early], machine(), 1.0, clock=clock, now=clock.now)
    second: Any = source.build_part("in", str(late), None)
    first: Any = source.build_part("in", str(early), None)
    assert second.next_batch() == []
    assert len(first.next_batch()) == 1
    clock.time_s += 29.9
    assert second.next_batch() == []
    clock.time_s += 0.2
    assert len(second.next_batch()) == 1


def test_a_replay_stops_when_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv())
    stop = threading.Event()
    part: Any = FileSource([path], machine(), stop=stop).build_part("in", str(path), None)
    stop.set()
    assert next_or_none(part) is None
    with pytest.raises(ValueError, match="above 0"):
        FileSource([path], speed=0.0)


def test_progress_rises_to_one(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_batches([blocks(50_000)]), path)
    source = FileSource([path])
    part: Any = source.build_part("in", str(path), None)
    shares = [source.progress()[0]]
    while next_or_none(part) is not None:
        shares.append(source.progress()[0])
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert source.progress() == (1.0, 50_000)
    assert not math.isnan(shares[1])


def test_a_real_experiment_is_read_whole(data: Path) -> None:
    path = data / "skab" / "valve1" / "1.csv"
    names = path.read_text().partition("\n")[0].split(";")[1:9]
    equipment = EquipmentClass(
        name="loop",
        description="",
        window_s=60.0,
        lateness_s=5.0,
        signals={
            f"s{i}": Signal(unit="1", range=(-1e9, 1e9), period_s=1.0, description="", columns=(name,))
            for i, name in enumerate(names)
        },
        detection=Detection(features=("s0.mean",)),
        idle_after_s=120.0,
        silent_after_s=600.0,
        time_zone="UTC",
        table=Layout(time="datetime", separator=";", ignore=("anomaly", "changepoint")),
    )
    open_check(path, equipment)
    decoded = [decode(m, equipment) for m in messages(FileSource([path], equipment))]
    rows = len(path.read_text().splitlines()) - 1
    assert sum(count_readings(d.blocks) for d in decoded) == 8 * rows
    assert not any(d.rejected for d in decoded)
    assert decoded[0].blocks.schema.equals(BLOCKS)
