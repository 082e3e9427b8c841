"""The forms in which the same telemetry travels; text carries four decimals, as a gateway would write them.

``arrow``
    one Arrow IPC stream for all the message, as gateways send it that batch many assets;
``cbor``, ``json``, ``senml``
    blocks of one asset and second a wire message, the samples as a typed array of CBOR (RFC 8746) or an array of JSON;
    or a SenML pack of one asset and second, a record a reading (RFC 8428).

The flow gets what a broker hands over at once: thousands of the small messages, or a few of the large ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from benchmarks.profiles import Columns
from features.encode import encode
from features.wire import MessageWire
from flows.sources import Message

WIRES: dict[str, MessageWire] = {"cbor": "cbor", "json": "json", "senml": "senml"}
"""Forms beside Arrow."""

DECIMALS = 4


def message_of(columns: Columns, wire: str, source: str) -> Message:
    """Return a message in one of the wire forms."""
    if wire == "arrow":
        return Message(source, "arrow", [arrow(columns.batch)])
    form = WIRES[wire]
    if form != "cbor":
        columns = replace(columns, values=np.round(columns.values, DECIMALS))
    return Message(source, form, encode(form, columns.batch))


def arrow(batch: pa.RecordBatch) -> bytes:
    """Return an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream
