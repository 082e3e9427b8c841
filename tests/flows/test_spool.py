"""The spool gives exactly what was committed, in order, whatever is cut off or damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.spool.frames import Record, Slice, encode_frame
from flows.spool.reader import SpoolReader
from flows.spool.source import SpoolSource, messages
from flows.spool.writer import Spool, SpoolError, marks_of, segments_of

PARTITIONS = 3


def record(n: int, topic: str = "site/lift-1", content: str = "", payload: bytes | None = None) -> Record:
    return Record(topic, content, 1_000_000 + n, n % 65_536, b"%d" % n if payload is None else payload)


def read_all(reader: SpoolReader, max_bytes: int = 1 << 20) -> list[Record]:
    found: list[Record] = []
    while not reader.drained:
        slices = reader.read(max_bytes)
        if not slices and not reader.drained:
            assert reader.read(max_bytes) == []
            break
        found += [one for piece in slices for one in piece.records()]
    return found


def payloads(folder: Path, partition: int, position: int | None = None, spool: str | None = None) -> list[bytes]:
    reader = SpoolReader(folder, partition, position, spool)
    try:
        reader.read(0)
        return [one.payload for one in read_all(reader)]
    finally:
        reader.close()


payload = st.one_of(st.binary(max_size=40), st.just(b"\xf5VSP"), st.just(encode_frame({0: [record(1)]}, 0, 0)))
group = st.dictionaries(st.integers(0, PARTITIONS - 1), st.lists(payload, min_size=1, max_size=4), max_size=PARTITIONS)
step = st.one_of(
    st.tuples(st.just("commit"), group),
    st.tuples(st.just("crash"), st.binary(max_size=30)),
    st.tuples(st.just("crash within"), st.tuples(group, st.integers(0, 1000))),
    st.tuples(st.just("forget"), st.integers(0, 100)),
)


@given(st.lists(step, max_size=12), st.integers(1, 200))
@settings(max_examples=150, deadline=None)
def test_what_is_committed_is_read_in_order_whatever_crashes(steps: list[Any], segment_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spool = Spool(folder, PARTITIONS, segment_bytes=segment_bytes)
        # Each partition's records with the position at which their frame ends.
        kept: list[list[tuple[int, bytes]]] = [[] for _ in range(PARTITIONS)]
        live = [SpoolReader(folder, n) for n in range(PARTITIONS)]
        seen: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        count = 0
        for verb, value in steps:
            if verb == "commit":
                groups = {}
                for partition, many in value.items():
                    groups[partition] = [record(count + i, payload=one) for i, one in enumerate(many)]
                    count += len(many)
                assert spool.commit(groups) is True
                for partition, many in groups.items():
                    kept[partition] += [(spool.end, one.payload) for one in many]
            elif verb == "forget":
                spool.forget(min(spool.start + (spool.end - spool.start) * value // 100, min(map(at, live))))
            else:
                spool.close()
                tail = value
                if verb == "crash within":
                    torn = {n: [record(0, payload=p) for p in many] for n, many in value[0].items()}
                    frame = encode_frame(torn, spool.meta.salt, spool.end)
                    tail = frame[: value[1] * (len(frame) - 1) // 1000]
                with (folder / f"{segments_of(folder)[-1]:020d}.log").open("ab") as file:
                    file.write(tail)
                spool = Spool(folder, PARTITIONS, segment_bytes=segment_bytes)
                assert spool.damaged_bytes == 0
            for partition, reader in enumerate(live):
                seen[partition] += [one.payload for one in read_all(reader, 50)]
        for partition in range(PARTITIONS):
            assert seen[partition] == [one for _, one in kept[partition]]
            left = [one for end, one in kept[partition] if end > spool.start]
            assert payloads(folder, partition) == left
            assert live[partition].notes == []
            live[partition].close()
        spool.close()


def at(reader: SpoolReader) -> int:
    return reader.position or 0


@given(st.integers(0, 10_000), st.integers(0, 255), st.booleans())
@settings(max_examples=100, deadline=None)
def test_damage_costs_no_more_than_the_frame_it_lies_in(place: int, value: int, reopened: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Spool(folder, PARTITIONS) as spool:
            ends = []
            for n in range(6):
                spool.commit({0: [record(2 * n), record(2 * n + 1)], 1: [record(100 + n)]})
                ends.append(spool.end)
        path = folder / f"{0:020d}.log"
        data = bytearray(path.read_bytes())
        place = place % len(data)
        changed = data[place] != value
        data[place] = value
        path.write_bytes(data)
        if reopened:
            with Spool(folder, PARTITIONS) as spool:
                spool.commit({0: [record(1000)]})
        struck = sum(end <= place for end in ends)
        for _ in range(2):  # never fatal twice
            reader = SpoolReader(folder, 0)
            found = [one.mid for one in read_all(reader)]
            expected = [n for n in range(12) if n // 2 != struck] if changed else list(range(12))
            assert set(expected) <= set(found)
            assert found == sorted(found)
            assert (found[-1:] == [1000]) == reopened
            reader.close()
        if changed:
            assert len(found) - reopened in (10, 12)  # 12 where the damage struck the other partition


def test_damage_is_named_and_counted_once(tmp_path: Path) -> None:
    with Spool(tmp_path, 1) as spool:
        for n in range(3):
            spool.commit({0: [record(n, payload=b"x" * 100)]})
        end = spool.end
    path = tmp_path / f"{0:020d}.log"
    data = bytearray(path.read_bytes())
    data[end // 3 + 3] ^= 1
    data[end - 1] ^= 1
    path.write_bytes(data)
    with Spool(tmp_path, 1) as spool:
        assert spool.damaged_bytes == end // 3
        assert spool.notes == [f"{path}: {end // 3} bytes at {end // 3} are damaged and set aside in a .corrupt file"]
        assert (tmp_path / f"{path.name}.{end // 3}.corrupt").read_bytes() == data[end // 3 : 2 * end // 3]
    reader = SpoolReader(tmp_path, 0)
    assert [one.mid for one in read_all(reader)] == [0]
    assert reader.damaged_bytes == 100 + 8 + 4 + 18 + 10 + 2 or reader.damaged_bytes > 100  # the slice of the last
    assert len(reader.notes) == 1
    reader.close()
    again = SpoolReader(tmp_path, 0)
    assert [one.mid for one in read_all(again)] == [0]
    assert (again.damaged_bytes, again.notes) == (0, [])
    again.close()
    with Spool(tmp_path, 1) as spool:
        assert (spool.damaged_bytes, spool.notes) == (0, [])


def test_a_torn_end_is_cut_off_and_told(tmp_path: Path) -> None:
    with Spool(tmp_path, 1) as spool:
        spool.commit({0: [record(1)]})
    path = tmp_path / f"{0:020d}.log"
    with path.open("ab") as file:
        file.write(encode_frame({0: [record(2)]}, spool.meta.salt, spool.end)[:-1])
    with Spool(tmp_path, 1) as spool:
        [note] = spool.notes
        assert note.startswith(f"{path}: cut off ")
        spool.commit({0: [record(3)]})
    assert payloads(tmp_path, 0) == [b"1", b"3"]
    assert not list(tmp_path.glob("*.corrupt"))


def test_a_whole_commit_whose_mark_was_lost_stays(tmp_path: Path) -> None:
    with Spool(tmp_path, 1) as spool:
        spool.commit({0: [record(1)]})
        spool.commit({0: [record(2)]})
    (tmp_path / "marks").unlink()
    with Spool(tmp_path, 1) as spool:
        spool.commit({0: [record(3)]})
    assert payloads(tmp_path, 0) == [b"1", b"2", b"3"]


def test_a_reader_behind_a_lost_end_misses_nothing_that_comes_later(tmp_path: Path) -> None:
    with Spool(tmp_path, 1) as spool:
        spool.commit({0: [record(1)]})
        spool.commit({0: [record(2)]})
        position, identity = spool.end, spool.meta.id
    os.truncate(tmp_path / f"{0:020d}.log", position // 2)
    with Spool(tmp_path, 1) as spool:
        spool.commit({0: [record(3)]})
    assert payloads(tmp_path, 0, position, identity) == [b"3"]


def test_nothing_is_seen_before_it_is_committed(tmp_path: Path) -> None:
    with Spool(tmp_path, 1) as spool:
        spool.commit({0: [record(1)]})
        with (tmp_path / f"{0:020d}.log").open("ab") as file:
            file.write(encode_frame({0: [record(2)]}, spool.meta.salt, spool.end))
        assert payloads(tmp_path, 0) == [b"1"]


def test_a_full_spool_refuses_until_something_is_forgotten(tmp_path: Path) -> None:
    with Spool(tmp_path, 1, limit_bytes=4000) as spool:
        n = 0
        while spool.commit({0: [record(n, payload=b"x" * 300)]}):
            n += 1
        assert spool.full
        assert 4000 <= spool.bytes < 4500
        spool.forget(spool.end // 2)
        assert not spool.full
        assert spool.commit({0: [record(n)]})
        spool.forget(spool.end)
        assert spool.bytes == 0
        assert len(segments_of(tmp_path)) == 1


def test_a_disk_that_refuses_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Spool(tmp_path, 1) as spool:
        spool.commit({0: [record(1)]})

        def refuse(fd: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", refuse)
            with pytest.raises(OSError, match="No space"):
                spool.commit({0: [record(2)]})
        assert payloads(tmp_path, 0) == [b"1"]
        spool.commit({0: [record(2)]})
        assert payloads(tmp_path, 0) == [b"1", b"2"]
    with Spool(tmp_path, 1):
        assert payloads(tmp_path, 0) == [b"1", b"2"]


def test_one_writer_at_a_time_and_partitions_for_life(tmp_path: Path) -> None:
    with Spool(tmp_path, 4), pytest.raises(SpoolError, match="another run writes into this spool"):
        Spool(tmp_path, 4)
    with pytest.raises(SpoolError, match="has 4 partitions and keeps them for life; set partitions = 4"):
        Spool(tmp_path, 8)
    (tmp_path / "spool.json").write_bytes(b'{"version":9,"id":"a","partitions":4}')
    with pytest.raises(SpoolError, match="version 9"):
        Spool(tmp_path, 4)
    (tmp_path / "spool.json").write_bytes(b"{")
    with pytest.raises(SpoolError, match="cannot be read"):
        Spool(tmp_path, 4)
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="cannot be opened"):
        Spool(tmp_path / "file", 4)


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = "import os, sys, pathlib, flows.spool.writer as s; s.Spool(pathlib.Path(sys.argv[1]), 4); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -9
    Spool(tmp_path, 4).close()


def test_the_newest_records_are_found_across_segments(tmp_path: Path) -> None:
    with Spool(tmp_path, 2, segment_bytes=200) as spool:
        for n in range(20):
            spool.commit({n % 2: [record(n)]})
        assert [one.mid for one in spool.recent(5)] == [15, 16, 17, 18, 19]
        assert len(spool.recent(100)) == 20


def test_a_spool_made_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    with Spool(tmp_path, 1) as spool:
        spool.commit({0: [record(1)]})
    reader = SpoolReader(tmp_path, 0, position=10_000, spool="another")
    assert [one.mid for one in read_all(reader) or read_all(reader)] == [1]
    assert "another spool" in reader.notes[0]
    reader.close()


WRITER = """
import sys
from pathlib import Path
from flows.spool.frames import Record
from flows.spool.writer import Spool
spool = Spool(Path(sys.argv[1]), 2, segment_bytes=2_000)
for n in range(4_000):
    spool.commit({n % 2: [Record("a", "", n, 0, b"%d" % n)]})
    spool.forget(int(spool.marks[1:].min()))
print(len(list(Path(sys.argv[1]).glob("*.log"))))
"""


def test_a_reader_in_another_process_misses_nothing_while_segments_come_and_go(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    readers = [SpoolReader(tmp_path, n) for n in range(2)]
    found: list[list[int]] = [[], []]
    ended = False
    while not ended or not all(reader.drained for reader in readers):
        ended = process.poll() is not None
        for reader, numbers in zip(readers, found, strict=True):
            numbers += [int(payload) for piece in reader.read(500) for payload in piece.payloads]
            reader.release(reader.position or 0)
    left, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert found == [list(range(0, 4_000, 2)), list(range(1, 4_000, 2))]
    assert all(reader.notes == [] for reader in readers)
    assert int(left) < 4_000 * 70 / 2_000  # some were deleted on the way
    for reader in readers:
        reader.close()


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


def batch(part: Any) -> list[Any]:
    found: list[Any] = part.next_batch()
    return found


def test_a_source_resumes_at_its_snapshot_and_sleeps_when_idle(tmp_path: Path) -> None:
    clock = Clock()
    source = SpoolSource("gateways", tmp_path, 2, "json", now=clock)
    early: Any = source.build_part("in", "mqtt/gateways/0", None)
    assert batch(early) == []  # there is no spool yet
    assert early.next_awake() == clock.time + timedelta(seconds=0.1)
    assert early.snapshot() == {"offset": None, "spool": None}
    with Spool(tmp_path, 2) as spool:
        spool.commit({0: [record(1), record(2)], 1: [record(3)]})
        [message] = batch(early)
        assert (message.source, message.wire, message.payload) == ("mqtt/gateways/0", "json", [b"1", b"2"])
        assert message.times_us == [1_000_001, 1_000_002]
        state = early.snapshot()
        spool.commit({1: [record(4)]})
        spool.commit({0: [record(5)]})
        later: Any = source.build_part("in", "mqtt/gateways/0", state)
        assert [one.payload for one in batch(later)] == [[b"5"]]
        assert state == {"offset": state["offset"], "spool": spool.meta.id}
        for part in (early, later):
            part.close()


def test_without_a_recovery_store_what_two_snapshots_ago_was_handed_out_is_done(tmp_path: Path) -> None:
    source = SpoolSource("gateways", tmp_path, 1, "json")
    with Spool(tmp_path, 1) as spool:
        part: Any = source.build_part("in", "mqtt/gateways/0", None)
        ends = []
        for n in range(4):
            spool.commit({0: [record(n)]})
            ends.append(spool.end)
            batch(part)
            part.snapshot()
        assert marks_of(tmp_path, 1)[1] == ends[1]
        part.close()
        again: Any = source.build_part("in", "mqtt/gateways/0", None)
        assert [one.payload for one in batch(again)] == [[b"2", b"3"]]
        again.close()


def test_payloads_are_told_apart_and_topics_keep_their_order() -> None:
    def sliced(*records: Record) -> Slice:
        from flows.spool.frames import _encode_slice, decode_slice

        return decode_slice(_encode_slice(records))

    plain, senml = "application/json", "application/senml+json"
    two = [sliced(record(1, "a", plain), record(2, "b", senml)), sliced(record(3, "a", plain), record(4, "b", senml))]
    assert [(m.wire, m.payload) for m in messages("x", two, "cbor")] == [
        ("json", [b"1", b"3"]),
        ("senml", [b"2", b"4"]),
    ]
    changing = [sliced(record(1, "a", plain)), sliced(record(2, "a", senml), record(3, "a", plain), record(4, "a"))]
    assert [(m.wire, m.payload) for m in messages("x", changing, "cbor")] == [
        ("json", [b"1"]),
        ("senml", [b"2"]),
        ("json", [b"3"]),
        ("cbor", [b"4"]),
    ]
    between = [sliced(record(1, "a", plain)), sliced(record(2, "a", senml)), sliced(record(3, "a", plain))]
    assert [(m.wire, m.payload) for m in messages("x", between, "cbor")] == [
        ("json", [b"1"]),
        ("senml", [b"2"]),
        ("json", [b"3"]),
    ]
