"""The short form of `make fuzz`, and the hostile messages that no accident makes."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import cbor2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import cbor_blocks, senml
from features.telemetry import BLOCKS
from features.wire import MessageWire, decode


def _fuzz() -> ModuleType:
    path = Path(__file__).parents[1] / "fuzz.py"
    described = importlib.util.spec_from_file_location("fuzz", path)
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules["fuzz"] = module
    described.loader.exec_module(module)
    return module


fuzz = _fuzz()
NAMES = ["arrow", "json", "senml", "senml-cbor", "cbor", "senml of a class", "json of a class", "jsonl", "csv", "table",
         "parquet"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_mutated_messages(name: str) -> None:
    tally = fuzz.fuzz(name, 1800, seed=11)
    assert tally.failures == []
    assert tally.messages == 1800
    assert tally.accepted and tally.rejected


@pytest.mark.parametrize(("wire", "module", "scanner"), [("cbor", cbor_blocks, "scan"), ("senml", senml, "scan_packs")])
def test_a_scanner_says_what_the_patient_reader_says(
    wire: MessageWire, module: ModuleType, scanner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(12)
    whole = [message for message, _ in fuzz.corpus(wire, rng, fuzz.load_class("lift"))]
    messages = whole + [fuzz.mutated(rng, whole) for _ in range(1200)]
    scan = getattr(module, scanner)
    given: dict[str, Any] = {"source": "test", "times_us": [fuzz.START_US]}
    quick = [decode(wire, [message], **given) for message in messages]
    monkeypatch.setattr(module, scanner, lambda payloads: (scan([])[0], list(range(len(payloads)))))
    known = 0
    for message, expected in zip(messages, quick, strict=True):
        known += not scan([message])[1]
        found = decode(wire, [message], **given)
        assert str(found.blocks.to_pylist()) == str(expected.blocks.to_pylist()), message
        assert [(r.reason, r.readings) for r in found.rejected] == [(r.reason, r.readings) for r in expected.rejected]
    assert len(whole) < known < len(messages)


def test_every_decoder_is_fuzzed() -> None:
    assert list(fuzz.decoders(fuzz.load_class("lift"))) == NAMES


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(fuzz.BROKER))
def test_any_bytes_are_one_message(noise: bytes, wire: MessageWire) -> None:
    accepted, rejected = fuzz.account(decode(wire, [noise, noise], source="test"))
    assert accepted + rejected >= 2


def arrow(columns: dict[str, object], compression: str | None = None, file: bool = False) -> bytes:
    """Return a table as an Arrow stream or file."""
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_file if file else pa.ipc.new_stream
    with make(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


N = 100_000
NOBODY = {name: pa.nulls(100 * N) for name in ("asset", "signal", "time", "value")}
READING = {"asset": ["a"], "signal": ["x"], "time": [0]}
ZEROS = READING | {"value": [np.zeros(100 * N)]}
REPEATED = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int8)), pa.array(["x" * N]))
BLOCK = b'{"asset":"a","signal":"x","start":0,"period_s":1,"values":['
SERIES = {"asset": "a", "signal": "x", "start": 0, "period_s": 1}
HOSTILE: list[tuple[MessageWire, bytes]] = [
    ("json", b"[" * N),
    ("json", b'{"a":' * N),
    ("json", b"[" + b"[]," * N + b"0]"),
    ("json", b"[" + b"{}," * N + b"{}]"),
    ("json", b"[" + b"0," * N + b"0]"),
    ("json", BLOCK + b"1," * N + b"1]}"),
    ("json", BLOCK + b"1.5," * N + b"1]}"),
    ("json", BLOCK + b"1.5," * N + b'"x"]}'),
    ("json", BLOCK + b'"",' * N + b"1]}"),
    ("json", BLOCK + b"1" * N + b"]}"),
    ("json", BLOCK + b"1" * 400 + b',"x"]}'),
    ("json", b'{"asset":"' + b"\\ud800" * N + b'"}'),
    ("senml", b"[" * N),
    ("senml", b"[" + b'{"bn":"a/"},' * N + b'{"n":"x","v":1}]'),
    ("senml", b'[{"n":"a:x","v":1' + b"0" * N + b"}]"),
    ("senml", b"[" + b'{"v":1},' * N + b'{"v":1}]'),
    ("senml", b"[" + b"0," * N + b"0]"),
    ("senml", b'[{"n":' + b"[" * N + b"}]"),
    ("cbor", b"\x81" * N),
    ("cbor", b"\x9f" * N),
    ("cbor", b"\xc6" * N),
    ("cbor", b"\x9b\x10\x00\x00\x00\x00\x00\x00\x00"),
    ("cbor", b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff"),
    ("cbor", b"\xa1\x66values\xd8\x56\x5b\x00\x00\x01\x00\x00\x00\x00\x00" + b"\0" * N),
    ("cbor", b"\x9a\x00\x01\x86\xa0" + b"\x80" * N),
    ("cbor", cbor2.dumps(SERIES | {"values": cbor2.CBORTag(72, b"\1" * N)})),
    ("cbor", cbor2.dumps(SERIES | {"values": [1] * N})),
    ("cbor", cbor2.dumps(SERIES | {"values": [1] * N}, indefinite_containers=True)),
    ("cbor", cbor2.dumps(SERIES | {"values": cbor2.CBORTag(2, b"\xff" * N)})),
    ("cbor", cbor2.dumps({"a": cbor2.CBORTag(35, "(a+)+$" * 1000)})),
    ("senml-cbor", b"\x9a\x00\x01\x86\xa0" + b"\x80" * N),
    ("senml-cbor", b"\x9a\x00\x01\x86\xa0" + b"\xa0" * N),
    ("senml-cbor", cbor2.dumps([{0: [[]] * N}])),
    ("senml-cbor", cbor2.dumps([{0: "a:x", 2: cbor2.CBORTag(4, [2**62, 1])}])),
    ("senml-cbor", cbor2.dumps([{0: "a:x", 2: cbor2.CBORTag(5, [-(2**62), 1])}])),
    ("senml-cbor", cbor2.dumps([{0: "a:x", 2: 1, 6: 2**63}])),
    ("arrow", b"\xff" * N),
    ("arrow", arrow(ZEROS, "zstd")),
    ("arrow", arrow(ZEROS, "lz4")),
    ("arrow", arrow(ZEROS, "zstd", file=True)),
    ("arrow", arrow(READING | {"asset": pa.array(["a" * 50 * N]).dictionary_encode(), "value": [1.5]}, "zstd")),
    ("arrow", arrow(NOBODY)),
    ("arrow", arrow({"asset": REPEATED, "signal": ["x"] * 2000, "time": [0] * 2000, "value": [1.5] * 2000})),
    ("arrow", arrow(READING | {"value": pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), [1.5])})),
    ("arrow", b"ARROW1" + b"\0" * N),
    ("arrow", b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\0" * N),
]


@pytest.mark.parametrize(("wire", "message"), HOSTILE)
def test_a_hostile_message_costs_no_more_than_its_bytes(wire: MessageWire, message: bytes) -> None:
    def function(given: list[bytes]) -> object:
        return decode(wire, given, source="test", times_us=[0] * len(given))

    begun = time.perf_counter()
    accepted, rejected = fuzz.account(function([message]))
    assert time.perf_counter() - begun < fuzz.SLOWEST_S
    assert accepted + rejected >= 1
    assert fuzz.allocated(function, message) <= fuzz.FACTOR * len(message) + fuzz.ALLOWANCE


def lying(where: int, claim: int) -> bytes:
    """Return an Arrow stream in which eight bytes of the metadata are replaced by a number."""
    batch = pa.RecordBatch.from_pylist(
        [{"asset": "a", "signal": "x", "start": 0, "period_us": 0, "values": [1.5]}], BLOCKS
    )
    stream = bytearray(fuzz.written(batch))
    stream[where : where + 8] = np.int64(claim).tobytes()
    return bytes(stream)


@pytest.mark.parametrize("claim", [2**31 - 1, 2**40, 2**62, -1])
def test_arrow_that_lies_about_lengths_and_offsets(claim: int) -> None:
    def function(given: list[bytes]) -> object:
        return decode("arrow", given, source="test")

    size = len(lying(0, 0))
    for where in range(0, size, 8):
        message = lying(where, claim)
        accepted, rejected = fuzz.account(function([message]))
        assert accepted + rejected >= 1
        assert fuzz.allocated(function, message) <= fuzz.FACTOR * len(message) + fuzz.ALLOWANCE
