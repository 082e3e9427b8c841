"""Fuzzing of the decoders: mutated messages of every form, and what must hold whatever the bytes are.

    python tests/fuzz.py --messages 1000000

No decoder raises, none takes longer than `SLOWEST_S`, none allocates more than ten times what it is given (`ABOVE` has
those that do) and an allowance: `ALLOWANCE` bytes beside a single table, `BESIDE` beside a message that is repeated to
a megabyte. What is counted is the memory of Python, numpy and Arrow; `tracemalloc` does not see what a kernel allocates
within itself. Every block is one that the engine may have, and every message of a broker counts as one reading at
least, alone and among others. Everything follows from the seed: a failure prints it, and its bytes are kept in
`--keep`.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import multiprocessing
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.encode import encode
from features.signals import EquipmentClass, load_class
from features.telemetry import BLOCKS, Decoded, Reason, Rejected, count_readings, empty_blocks, new_blocks
from features.times import LATEST_US
from features.wire import MessageWire, decode, decode_jsonlines, decode_wide_csv, decode_wide_table

FACTOR, ALLOWANCE = 10, 1_572_864
"""A decoder may allocate so many times the bytes of its message, and a megabyte and a half beside."""
SLOWEST_S = 20.0
"""No message of the corpus may take longer, on a machine that does other things too."""
LARGE = 1_048_576
"""Bytes to which a message is repeated where its memory is measured: a few hundred drown in the allowance."""
BESIDE = 524_288
"""What a decoder may allocate beside ten times a payload of `LARGE`: the objects of the lines it takes apart."""
ABOVE = {"senml of a class": 20, "senml-cbor": 20, "csv": 20}
"""Decoders that allocate more than ten times a payload of `LARGE`: packs of one short record in Python's objects, and
rows of short cells, for each of which `features.runs` has room for a block."""
MEASURED = 1000
"""One message in so many is decoded with the eyes on memory, a megabyte of it, which takes some seconds."""
START_US = 1_767_571_200_000_000
BROKER: tuple[MessageWire, ...] = ("arrow", "json", "senml", "senml-cbor", "cbor")

Decode = Callable[[list[bytes]], Decoded]


@dataclass
class Tally:
    """What became of the messages of one decoder."""

    name: str
    messages: int = 0
    accepted: int = 0
    rejected: int = 0
    worst_ratio: float = 0.0
    slowest_s: float = 0.0
    failures: list[tuple[str, bytes]] = field(default_factory=list)


def blocks(rng: np.random.Generator, equipment: EquipmentClass) -> pa.RecordBatch:
    """Draw the blocks of an asset and second."""
    names = equipment.signal_names
    chosen = rng.permutation(len(names))[: rng.integers(1, 5)]
    length = rng.choice([1, 1, 2, 5, 20], len(chosen))
    values = np.round(rng.normal(size=int(length.sum())) * 10.0 ** rng.integers(-3, 4), 3)
    period = np.where(length > 1, rng.choice([10_000, 100_000, 33_333]), 0)
    asset = str(rng.choice(["lift-0001", "urn:dev:mac:0024befffe804ff1", "b/2"]))
    return new_blocks(
        [asset], list(names), np.zeros(len(chosen), np.int32), chosen.astype(np.int32),
        np.full(len(chosen), START_US + int(rng.integers(0, 10)) * 1_000_000), period.astype(np.int64),
        np.concatenate(([0], np.cumsum(length))).astype(np.int32), values,
    )  # fmt: skip


def json_lines(batch: pa.RecordBatch) -> bytes:
    """Return blocks as lines of JSON, with samples and rows among them."""
    lines = []
    for row in batch.to_pylist():
        values = ", ".join(map(repr, row["values"]))
        start = row["start"].timestamp()
        lines.append(
            f'{{"asset": "{row["asset"]}", "signal": "{row["signal"]}", "start": {start}, '
            f'"period_us": {row["period_us"]}, "values": [{values}]}}'
        )
        lines.append(f'{{"asset": "{row["asset"]}", "time": "2026-01-05T00:00:00Z", "{row["signal"]}": 1.5}}')
    return "\n".join(lines).encode()


def wide(rng: np.random.Generator, equipment: EquipmentClass) -> pa.Table:
    """Draw a wide table."""
    n = int(rng.integers(1, 6))
    chosen = rng.permutation(equipment.signal_names)[:3]
    columns: dict[str, Any] = {
        "time": [f"2026-01-05T00:00:{i:02d}Z" for i in range(n)],
        "asset": [str(rng.choice(["a", "b"])) for _ in range(n)],
    }
    return pa.table(columns | {str(name): np.round(rng.normal(size=n), 3) for name in chosen})


def written(table: pa.Table | pa.RecordBatch, compression: str | None = None) -> bytes:
    """Return a table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write(table)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def as_parquet(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="none")
    return sink.getvalue()


def as_csv(table: pa.Table) -> bytes:
    """Return a table as CSV."""
    columns = [column.to_pylist() for column in table.columns]
    rows = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    return "\n".join([",".join(table.column_names), *rows, ""]).encode()


def corpus(name: str, rng: np.random.Generator, equipment: EquipmentClass) -> list[tuple[bytes, int]]:
    """Draw sound messages of one form, and how many readings each holds."""
    found = []
    for _ in range(40):
        if name in ("csv", "table", "parquet"):
            table = wide(rng, equipment)
            write = {"csv": as_csv, "table": written, "parquet": as_parquet}[name]
            found.append((write(table), table.num_rows * (table.num_columns - 2)))
            continue
        batch = blocks(rng, equipment)
        readings = count_readings(batch)
        if name == "jsonl":
            found.append((json_lines(batch), readings + batch.num_rows))
        else:
            [message] = encode(name, batch)  # type: ignore[arg-type]
            if name == "arrow" and rng.integers(2):
                message = written(batch, compression="zstd")
            found.append((message, readings))
    return found


def decoders(equipment: EquipmentClass) -> dict[str, Decode]:
    """Return each decoder as a function of messages."""

    def broker(wire: MessageWire, described: EquipmentClass | None) -> Decode:
        return lambda given: decode(wire, given, source="fuzz", equipment=described, times_us=[START_US] * len(given))

    def tables(read: Callable[[bytes], list[pa.RecordBatch]]) -> Decode:
        def decode_all(given: list[bytes]) -> Decoded:
            try:
                batches = read(given[0])
            except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError):
                # A file that cannot be opened is a sentence of the command, before any decoder.
                return Decoded(empty_blocks(), [Rejected(Reason.MALFORMED, 1, "fuzz", given[0])])
            found = [decode_wide_table(one, equipment, asset="a", source="fuzz") for one in batches]
            whole = [one.blocks for one in found if one.blocks.num_rows]
            for one in whole[1:]:
                check_blocks(one, timed=False)
            return Decoded(whole[0] if whole else empty_blocks(), [r for one in found for r in one.rejected])

        return decode_all

    def read_stream(data: bytes) -> list[pa.RecordBatch]:
        table = pa.ipc.open_stream(data).read_all()
        if table.num_rows > 1000:
            raise ValueError("more rows than bytes")
        return list(table.to_batches())

    def read_parquet(data: bytes) -> list[pa.RecordBatch]:
        # As files are read: a piece at a time, without threads of Arrow's own.
        file = pq.ParquetFile(pa.BufferReader(data))
        if file.metadata.num_rows > 1000:
            raise ValueError("more rows than bytes")
        return list(file.iter_batches(use_threads=False))

    return {
        **{wire: broker(wire, None) for wire in BROKER},
        "senml of a class": broker("senml", equipment),
        "json of a class": broker("json", equipment),
        "jsonl": lambda given: decode_jsonlines(given[0], source="fuzz", equipment=equipment),
        "csv": lambda given: decode_wide_csv(given[0], equipment, asset="a", source="fuzz"),
        "table": tables(read_stream),
        "parquet": tables(read_parquet),
    }


_BYTES = np.frombuffer(
    b'\x00\xff\x7f\x80\xbf\x9f[]{}",:0919.-eE+ntf\\u\n \xed\xa0\xc3\x1b\x5b\x9b\xbb\xfb\xf9', np.uint8
)
_TOKENS = (
    b"1e999", b"-1e999", b"99999999999999999999999999", b"NaN", b"Infinity", b"null", b"true", b'""', b"[]", b"{}",
    b'"\\ud800"', b"-0", b"1e-400", b"[[[[[[[[", b"]]]]", b'"a_":1,', b'"bn":"x:",', b'"bver":11,',
    b'"vs":"inspection"',
    b"\xd8\x56\x5b\x00\x00\x01\x00\x00\x00\x00\x00", b"\x9b\x10\x00\x00\x00\x00\x00\x00\x00", b"\x5f", b"\xc2",
    b"\xc4\x82",
    b"\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xf9\x7e\x00", b"\xbf", b"\xff\xff\xff\xff", b"\x00" * 16,
    b"2026-10-25T02:30:00",
)  # fmt: skip


def mutated(rng: np.random.Generator, whole: list[bytes]) -> bytes:
    """Return a sound message after one to four accidents."""
    message = bytearray(whole[int(rng.integers(len(whole)))])
    for kind in rng.integers(0, 8, int(rng.integers(1, 5))).tolist():
        at, to = sorted(rng.integers(0, len(message) + 1, 2).tolist())
        if kind == 0 and at < len(message):
            message[at] = int(rng.integers(256))
        elif kind == 1 and at < len(message):
            message[at] = int(_BYTES[rng.integers(len(_BYTES))])
        elif kind == 2 and at < len(message):
            message[at] ^= 1 << int(rng.integers(8))
        elif kind == 3:
            token = _TOKENS[int(rng.integers(len(_TOKENS)))]
            message[at : at + int(rng.integers(0, 9))] = token
        elif kind == 4:
            del message[at : min(to, at + int(rng.integers(1, 20)))]
        elif kind == 5:
            message[at:at] = message[at : min(to, at + 64)] * int(rng.integers(1, 4))
        elif kind == 6:
            other = whole[int(rng.integers(len(whole)))]
            cut = int(rng.integers(0, len(other) + 1))
            message[at:] = other[cut:]
        elif kind == 7 and rng.integers(4) == 0:
            del message[at:]
    return bytes(message)


def check_blocks(batch: pa.RecordBatch, timed: bool = True) -> None:
    """Assert that the engine may have the blocks; times of wide tables it looks at itself."""
    assert batch.schema.equals(BLOCKS), "columns"
    batch.validate(full=True)
    if batch.num_rows == 0:
        return
    assert not any(column.null_count for column in batch.columns), "a null"
    for name in ("asset", "signal"):
        assert "" not in set(batch.column(name).to_pylist()), f"an empty {name}"
    length = np.diff(batch.column("values").offsets.to_numpy())
    start = batch.column("start").view(pa.int64()).to_numpy()
    period = batch.column("period_us").to_numpy()
    assert (length >= 1).all(), "a block without samples"
    if not timed:
        return
    assert (start >= 0).all(), "a start before 1970"
    assert (period[length > 1] > 0).all(), "a block without a step"
    assert (start + (length - 1) * period.astype(object) < LATEST_US).all(), "an end after 2200"


def account(decoded: Decoded, timed: bool = True) -> tuple[int, int]:
    """Check what was decoded; return the readings that were accepted and rejected."""
    check_blocks(decoded.blocks, timed)
    assert all(one.readings > 0 for one in decoded.rejected), "a rejection of no reading"
    return count_readings(decoded.blocks), sum(one.readings for one in decoded.rejected)


def repeated(name: str, message: bytes) -> list[bytes] | None:
    """Return a message `LARGE` times: as many messages for a broker, as lines for text; None where that is nothing."""
    if name.split()[0] in BROKER:
        return [message] * (LARGE // max(1, len(message)) + 1)
    if name == "jsonl":
        return [(message + b"\n") * (LARGE // (len(message) + 1) + 1)]
    header, newline, body = message.partition(b"\n")
    if name == "csv" and newline:
        return [header + newline + (body + b"\n") * (LARGE // (len(body) + 1) + 1)]
    return None


def allocated(function: Decode, *messages: bytes) -> int:
    """Return the most bytes that decoding messages holds at a time, in Python, numpy and Arrow."""
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        decoded = function(list(messages))
        peak = tracemalloc.get_traced_memory()[1]
        del decoded
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)
    return peak + int(pool.max_memory() or 0)


def fuzz(name: str, messages: int, seed: int) -> Tally:
    """Decode so many mutated messages of one form, alone and in batches of up to fifty."""
    rng = np.random.default_rng([seed, *name.encode()])
    equipment = load_class("lift")
    function = decoders(equipment)[name]
    sound = corpus(name.split()[0], rng, equipment)
    tally = Tally(name)
    for message, readings in sound:
        accepted, rejected = account(function([message]))
        if (accepted, rejected) != (readings, 0):
            tally.failures.append((f"{readings} readings came as {accepted} and {rejected} rejected", message))
    whole = [message for message, _ in sound]
    broker = name.split()[0] in BROKER
    while tally.messages < messages and len(tally.failures) < 5:
        # A hang inside compiled code: tell where, and end.
        faulthandler.dump_traceback_later(10 * SLOWEST_S, exit=True)
        batch = [mutated(rng, whole) for _ in range(min(50, messages - tally.messages))]
        alone = [_try(function, message, broker, tally) for message in batch]
        if tally.messages <= 50 or int(rng.integers(MEASURED // 50)) == 0:
            _measure(function, name, batch[0], tally)
        if broker and not tally.failures and account(function(batch)) != tuple(map(sum, zip(*alone, strict=True))):
            tally.failures.append(("a batch is not what its messages are alone", b"\n--\n".join(batch)))
    faulthandler.cancel_dump_traceback_later()
    return tally


def _try(function: Decode, message: bytes, counts: bool, tally: Tally) -> tuple[int, int]:
    begun = time.perf_counter()
    tally.messages += 1
    try:
        decoded = function([message])
        spent = time.perf_counter() - begun
        accepted, rejected = account(decoded, counts)
        assert not counts or accepted + rejected >= 1, "a message that counts as nothing"
        assert not counts or all(one.raw for one in decoded.rejected) or not message, "a rejection without its bytes"
        assert spent < SLOWEST_S, f"{spent:.1f} s"
    except Exception as error:
        tally.failures.append((f"{type(error).__name__}: {error}"[:300], message))
        return 0, 0
    tally.accepted += accepted
    tally.rejected += rejected
    tally.slowest_s = max(tally.slowest_s, spent)
    return accepted, rejected


def _measure(function: Decode, name: str, message: bytes, tally: Tally) -> None:
    large = repeated(name, message)
    given, beside = ([message], ALLOWANCE) if large is None else (large, BESIDE)
    # A message of a broker is as large as the object that holds it: that is what the flow has in memory.
    size = sum(map(sys.getsizeof, given)) + 8 * len(given)
    peak = allocated(function, *given)
    if large is not None:
        tally.worst_ratio = max(tally.worst_ratio, peak / max(1, size))
    factor = FACTOR if large is None else ABOVE.get(name, FACTOR)
    if peak > factor * size + beside:
        tally.failures.append((f"{peak} bytes for {size} in {len(given)} of a message of {len(message)}", message))


def _job(given: tuple[str, int, int]) -> Tally:
    return fuzz(*given)


def run(messages: int, seed: int, processes: int) -> Iterator[Tally]:
    """Yield the tallies of pieces of the work, done by several processes."""
    names = list(decoders(load_class("lift")))
    each = -(-messages // len(names))
    pieces = [(name, min(5000, each - i), seed + i) for i in range(0, each, 5000) for name in names]
    if processes == 1:
        yield from map(_job, pieces)
        return
    # A process that crashes ends the run with an error instead of being replaced in silence.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), faulthandler.enable) as pool:
        for done in as_completed([pool.submit(_job, piece) for piece in pieces]):
            yield done.result()


def main() -> int:
    """Fuzz, print a line a decoder, and keep the bytes of what fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000, help="mutated messages (default: 1000000)")
    parser.add_argument("--seed", type=int, default=1, help="everything follows from it (default: 1)")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count(), help="default: one a core")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-failures"), metavar="DIR", help="default: fuzz-failures"
    )
    given = parser.parse_args()
    begun = time.monotonic()
    total: dict[str, Tally] = {}
    done = 0
    for tally in run(given.messages, given.seed, given.processes):
        sums = total.setdefault(tally.name, Tally(tally.name))
        sums.messages += tally.messages
        sums.accepted += tally.accepted
        sums.rejected += tally.rejected
        sums.worst_ratio = max(sums.worst_ratio, tally.worst_ratio)
        sums.slowest_s = max(sums.slowest_s, tally.slowest_s)
        sums.failures += tally.failures
        done += tally.messages
        if sys.stderr.isatty():
            rate = done / (time.monotonic() - begun)
            left_s = max(0, given.messages - done) / rate
            print(f"\r{done:,} messages, {rate:,.0f} a second, {left_s:,.0f} s left ", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"{'decoder':18} {'messages':>10} {'accepted':>12} {'rejected':>12} {'slowest':>9} {'times its bytes':>16}")
    for name, sums in total.items():
        print(
            f"{name:18} {sums.messages:10,} {sums.accepted:12,} {sums.rejected:12,} {sums.slowest_s * 1000:6.0f} ms"
            f" {sums.worst_ratio:16.1f}"
        )
    spent = time.monotonic() - begun
    print(f"{done:,} messages in {spent:,.0f} s, {done / spent:,.0f} a second, seed {given.seed}")
    failures = [(name, *failure) for name, sums in total.items() for failure in sums.failures]
    for number, (name, why, message) in enumerate(failures[:50]):
        given.keep.mkdir(parents=True, exist_ok=True)
        path = given.keep / f"{name.replace(' ', '-')}-{number}.bin"
        path.write_bytes(message)
        print(f"{name}: {why}: {path}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
