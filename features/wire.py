"""The wire decoders: every form of telemetry that comes in, made into `features.telemetry.Decoded`.

None of them fails, whatever the bytes, and each accounts for every reading: it is in a block, or in a `Rejected`.
Files come a piece at a time, each form with its decoder; what brokers bring comes many messages at a time, through
`decode`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from features.arrow_blocks import decode_arrow, decode_arrows, decode_blocks, holds_blocks
from features.cbor_blocks import decode_cbor
from features.json_blocks import decode_json
from features.json_lines import decode_jsonlines
from features.senml import decode_senml, decode_senml_cbor
from features.signals import EquipmentClass
from features.telemetry import Decoded
from features.wide import decode_wide_table
from features.wide_csv import check_header, decode_wide_csv

__all__ = [
    "MessageWire",
    "check_header",
    "content_type",
    "content_wire",
    "decode",
    "decode_arrow",
    "decode_blocks",
    "decode_jsonlines",
    "decode_wide_csv",
    "decode_wide_table",
    "holds_blocks",
]

MessageWire = Literal["arrow", "json", "senml", "senml-cbor", "cbor"]
"""Forms of the messages of a broker: Arrow IPC, JSON blocks, SenML as JSON and as CBOR, CBOR blocks."""

_CONTENT: dict[str, MessageWire] = {
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.arrow.file": "arrow",
    "application/json": "json",
    "application/senml+json": "senml",
    "application/senml+cbor": "senml-cbor",
    # A stream of RFC 8428, section 4.8, in a message is a pack.
    "application/sensml+json": "senml",
    "application/sensml+cbor": "senml-cbor",
    "application/cbor": "cbor",
}


def content_type(wire: MessageWire) -> str:
    """Return the content type of a form.

    Examples
    --------
    >>> content_type("senml-cbor")
    'application/senml+cbor'
    """
    return next(name for name, form in _CONTENT.items() if form == wire)


def content_wire(header: str | None) -> MessageWire | None:
    """Return the form that a content type names, None where it names none of them.

    Examples
    --------
    >>> content_wire("application/senml+json; charset=utf-8"), content_wire("text/plain"), content_wire(None)
    ('senml', None, None)
    """
    return None if header is None else _CONTENT.get(header.partition(";")[0].strip().lower())


def decode(
    wire: MessageWire,
    payloads: Sequence[bytes],
    *,
    source: str,
    equipment: EquipmentClass | None = None,
    times_us: Sequence[int] | None = None,
) -> Decoded:
    """Decode many messages of one form into one batch; never fails.

    A message is decoded or rejected whatever its neighbours are, and each counts as one reading at least: one that
    holds none is malformed.

    Parameters
    ----------
    wire
        Form of the messages.
    payloads
        The messages.
    source
        Name of the input.
    equipment
        Gives words their numbers, naive times their zone and SenML its units, where the messages are of one class.
    times_us
        When each message came, in microseconds since 1970, for the relative times of SenML.

    Examples
    --------
    >>> messages = [b'{"asset":"b1","signal":"flow","start":0,"values":[1.5]}', b"broken"]
    >>> decoded = decode("json", messages, source="example")
    >>> decoded.blocks.num_rows, decoded.rejected[0].raw
    (1, b'broken')
    """
    match wire:
        case "json":
            return decode_json(payloads, source=source, equipment=equipment)
        case "cbor":
            return decode_cbor(payloads, source=source, equipment=equipment)
        case "senml":
            return decode_senml(payloads, source=source, equipment=equipment, times_us=times_us)
        case "senml-cbor":
            return decode_senml_cbor(payloads, source=source, equipment=equipment, times_us=times_us)
        case "arrow":
            return decode_arrows(payloads, source=source)
