"""Blocks as the messages that gateways send, for the simulator, for tests and for benchmarks.

`encode` makes one message of all blocks of an asset that begin in the same second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cbor2
import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.senml import LABELS
from features.wire import MessageWire

__all__ = ["encode"]

_SECOND_US = 1_000_000


class _Block(NamedTuple):
    signal: str
    start_us: int
    period_us: int
    values: NDArray[np.float64]


def encode(wire: MessageWire, blocks: pa.RecordBatch) -> list[bytes]:
    """Return the messages of a batch of blocks, one an asset and second, in the order in which they begin.

    A missing sample is null in JSON, NaN in binary forms, and no record in SenML.

    Parameters
    ----------
    wire
        Form of the messages.
    blocks
        Record batch of the form `features.telemetry.BLOCKS`.

    Examples
    --------
    >>> from features.json_blocks import decode_json
    >>> payload = b'{"asset":"b1","start":0,"signals":{"flow":[1.5]}}'
    >>> encode("json", decode_json([payload], source="example").blocks)
    [b'{"asset":"b1","start":0.0,"signals":{"flow":[1.5]}}']
    """
    if wire == "arrow":
        return [_arrow(blocks.take(pa.array(rows))) for rows in _groups(blocks)]
    write = _WRITERS[wire]
    names = blocks.column("signal").dictionary.to_pylist()
    signal = blocks.column("signal").indices.to_numpy()
    assets = blocks.column("asset").dictionary.to_pylist()
    asset = blocks.column("asset").indices.to_numpy()
    start = blocks.column("start").view(pa.int64()).to_numpy()
    period = blocks.column("period_us").to_numpy()
    offsets = blocks.column("values").offsets.to_numpy()
    values = blocks.column("values").values.to_numpy(zero_copy_only=False)
    return [
        write(
            assets[asset[rows[0]]],
            [
                _Block(names[signal[r]], int(start[r]), int(period[r]), values[offsets[r] : offsets[r + 1]])
                for r in rows
            ],
        )
        for rows in _groups(blocks)
    ]


def _groups(blocks: pa.RecordBatch) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each message."""
    if blocks.num_rows == 0:
        return
    second = blocks.column("start").view(pa.int64()).to_numpy() // _SECOND_US
    asset = blocks.column("asset").indices.to_numpy()
    order = np.lexsort((np.arange(len(asset)), asset, second))
    edges = np.flatnonzero((np.diff(second[order]) != 0) | (np.diff(asset[order]) != 0)) + 1
    yield from np.split(order, edges)


def _arrow(blocks: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, blocks.schema) as writer:
        writer.write_batch(blocks)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def _objects(asset: str, blocks: Sequence[_Block], samples: Callable[[NDArray[np.float64]], object]) -> object:
    """Return the compact form of blocks, or an array of single ones where a signal stands twice."""
    start = blocks[0].start_us
    if len({block.signal for block in blocks}) < len(blocks):
        return [
            {"asset": asset, "signal": b.signal, "start": b.start_us / 1e6}
            | ({"period_us": b.period_us} if b.period_us else {})
            | {"values": samples(b.values)}
            for b in blocks
        ]
    steps = [block.period_us for block in blocks if block.period_us]
    usual = max(set(steps), key=steps.count) if steps else 0
    signals: dict[str, object] = {}
    for block in blocks:
        own: dict[str, object] = {} if block.start_us == start else {"start": block.start_us / 1e6}
        if block.period_us not in (0, usual):
            own["period_us"] = block.period_us
        given = samples(block.values)
        signals[block.signal] = own | {"values": given} if own else given
    head: dict[str, object] = {"asset": asset, "start": start / 1e6}
    return head | ({"period_us": usual} if usual else {}) | {"signals": signals}


def _json(asset: str, blocks: Sequence[_Block]) -> bytes:
    # msgspec writes NaN as null, and the shortest text that reads as the same number.
    return msgspec.json.encode(_objects(asset, blocks, lambda values: values.tolist()))


def _cbor(asset: str, blocks: Sequence[_Block]) -> bytes:
    return cbor2.dumps(_objects(asset, blocks, lambda values: cbor2.CBORTag(86, values.astype("<f8").tobytes())))


def _records(asset: str, blocks: Sequence[_Block]) -> list[dict[str, object]]:
    """Return a SenML pack whose base time is the second in which it begins."""
    base = blocks[0].start_us // _SECOND_US
    records: list[dict[str, object]] = []
    for block in blocks:
        offset = block.start_us - base * _SECOND_US
        for i in np.flatnonzero(block.values == block.values).tolist():
            records.append({"n": block.signal, "t": (offset + i * block.period_us) / 1e6, "v": float(block.values[i])})
    if records:
        records[0] = {"bn": asset + ":", "bt": base, **records[0]}
    return records


def _senml(asset: str, blocks: Sequence[_Block]) -> bytes:
    return msgspec.json.encode(_records(asset, blocks))


def _senml_cbor(asset: str, blocks: Sequence[_Block]) -> bytes:
    records = [{LABELS[field]: value for field, value in record.items()} for record in _records(asset, blocks)]
    return cbor2.dumps(records, canonical=True)


_WRITERS: dict[str, Callable[[str, Sequence[_Block]], bytes]] = {
    "json": _json,
    "cbor": _cbor,
    "senml": _senml,
    "senml-cbor": _senml_cbor,
}
