"""The forms in which the same telemetry travels; text carries four decimals, as a gateway would write them.

``arrow``
    one Arrow IPC stream for all the message: gateways that batch many assets;
``json``, ``cbor``
    blocks of one asset and second a wire message, the samples as a JSON array, or as a CBOR typed array (RFC 8746);
``senml``
    a SenML pack of one asset and second a wire message (RFC 8428), a record a reading.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, cast

import cbor2
import msgspec
import numpy as np
import pyarrow as pa

import features.wire
from benchmarks.profiles import Columns
from flows.sources import Message, Wire

DOUBLES = 86
"""Tag of an array of little-endian float64 (RFC 8746, section 2.1)."""

_json = msgspec.json.Encoder()


BATCHED = hasattr(features.wire, "decode")
"""Whether the flow takes many wire messages at once, and with them the forms of brokers."""

WIRES = ("cbor", "json", "senml") if BATCHED else ("json",)
"""Forms beside Arrow."""


def message_of(columns: Columns, wire: str, source: str) -> Message:
    """Return a message in one of the wire forms."""
    match wire:
        case "blocks":
            return Message(source, "blocks", columns.batch)
        case "arrow":
            return Message(source, "arrow", [arrow(columns)] if BATCHED else arrow(columns))
        case "json" if not BATCHED:
            return Message(source, "jsonl", b"\n".join(json_blocks(columns)))
    encode = {"json": json_blocks, "senml": senml, "cbor": cbor_blocks}[wire]
    return Message(source, cast("Wire", wire), encode(columns))


def arrow(columns: Columns) -> bytes:
    """Return an Arrow IPC stream."""
    batch = columns.batch
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    out: bytes = sink.getvalue().to_pybytes()
    return out


def json_blocks(columns: Columns) -> list[bytes]:
    """Return a wire message an asset and second, a line of JSON a block."""
    values = np.round(columns.values, 4).tolist()
    out = []
    for asset, start_us, blocks in _seconds(columns):
        lines = [
            _json.encode(
                {
                    "asset": asset,
                    "signal": signal,
                    "start": start_us / 1e6,
                    "period_us": period_us,
                    "values": values[first:end],
                }
            )
            for signal, period_us, first, end in blocks
        ]
        out.append(b"\n".join(lines))
    return out


def senml(columns: Columns) -> list[bytes]:
    """Return a SenML pack an asset and second."""
    values = np.round(columns.values, 4).tolist()
    out = []
    for asset, start_us, blocks in _seconds(columns):
        records: list[dict[str, Any]] = [
            {"n": signal, "t": i * period_us / 1e6, "v": values[first + i]}
            for signal, period_us, first, end in blocks
            for i in range(end - first)
        ]
        records[0] = {"bn": f"{asset}:", "bt": start_us / 1e6, **records[0]}
        out.append(_json.encode(records))
    return out


def cbor_blocks(columns: Columns) -> list[bytes]:
    """Return a wire message an asset and second, its blocks as typed arrays."""
    values = columns.values.astype("<f8", copy=False)
    out = []
    for asset, start_us, blocks in _seconds(columns):
        out.append(
            cbor2.dumps(
                [
                    {
                        "asset": asset,
                        "signal": signal,
                        "start": start_us / 1e6,
                        "period_us": period_us,
                        "values": cbor2.CBORTag(DOUBLES, values[first:end].tobytes()),
                    }
                    for signal, period_us, first, end in blocks
                ]
            )
        )
    return out


def _seconds(columns: Columns) -> Iterator[tuple[str, int, list[tuple[str, int, int, int]]]]:
    """Yield each asset and second of a message with its blocks: signal, step, and where their samples lie."""
    names = [columns.signals[n] for n in columns.signal.tolist()]
    first, end = columns.offsets[:-1].tolist(), columns.offsets[1:].tolist()
    rows = zip(
        columns.asset.tolist(),
        columns.start_us.tolist(),
        zip(names, columns.period_us.tolist(), first, end, strict=True),
        strict=True,
    )
    for (asset, start_us), group in itertools.groupby(rows, key=lambda row: row[:2]):
        yield columns.assets[asset], start_us, [blocks for _, _, blocks in group]
