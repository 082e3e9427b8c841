"""The form of the spool on disk: frames, one a group commit, that hold a slice for each partition they have records of.

A frame is a header (magic, number of slices, length of the body, CRC-32 of header and index), an index (partition,
records, bytes and CRC-32 of each slice), and the slices. The first checksum begins with the spool's own number and the
frame's position, so that a frame inside a payload is none. A slice keeps its records as columns (channels, times of
arrival, packet identifiers, lengths, payloads), so that a reader makes one call a column and none a record.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame", "Record", "Segment", "Slice", "decode_slice", "encode_frame"]

MAGIC = b"\xf5VSP"
"""First bytes of a frame; 0xf5 occurs in no UTF-8 text, so payloads of JSON never look like one."""

_HEADER = struct.Struct("<4sIQI")
_COUNTS = struct.Struct("<II")
_INDEX_ROW = struct.Struct("<HIII")
_INDEX = np.dtype([("partition", "<u2"), ("records", "<u4"), ("bytes", "<u4"), ("crc", "<u4")])
_WINDOW = 1 << 20
"""Bytes that the search for the next frame looks at a time."""


class Record(NamedTuple):
    """A message of a broker.

    Attributes
    ----------
    topic
        Its topic.
    content
        Its content type, or an empty text.
    time_us
        When it arrived, microseconds since 1970.
    mid
        Packet identifier that the broker gave it, 0 for none.
    payload
        Its payload.
    """

    topic: str
    content: str
    time_us: int
    mid: int
    payload: bytes


class Frame(NamedTuple):
    """Where a frame and its slices lie in a segment, in bytes: `slices` maps partition to (from, to, CRC-32)."""

    start: int
    end: int
    slices: dict[int, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Slice:
    """The records of one partition in a frame, as columns.

    Attributes
    ----------
    channels
        Pairs of topic and content type.
    channel
        Of each record, its number in `channels`.
    times_us, mids
        Of each record.
    payloads
        Of each record.
    """

    channels: list[tuple[str, str]]
    channel: NDArray[np.uint32]
    times_us: NDArray[np.int64]
    mids: NDArray[np.uint16]
    payloads: list[bytes]

    def records(self) -> list[Record]:
        """Return the records one by one."""
        columns = zip(self.channel.tolist(), self.times_us.tolist(), self.mids.tolist(), self.payloads, strict=True)
        return [Record(*self.channels[number], *rest) for number, *rest in columns]


def _start(salt: int, position: int) -> int:
    """Return where the checksum of a frame begins: it holds in its own spool and at its own position only."""
    return zlib.crc32(struct.pack("<Q", position), salt)


def encode_frame(groups: Mapping[int, Sequence[Record]], salt: int, position: int) -> bytes:
    """Return the frame of a group commit: records by partition, each in their order.

    Parameters
    ----------
    groups
        Records by partition.
    salt
        Number of the spool that no sender knows, so that no payload can pass for a frame.
    position
        Where the frame will lie.

    Examples
    --------
    >>> frame = encode_frame({3: [Record("site/lift-1", "application/json", 0, 1, b"{}")]}, salt=1, position=0)
    >>> len(frame)
    93
    """
    slices = [(partition, _encode_slice(records)) for partition, records in groups.items() if records]
    index = np.empty(len(slices), _INDEX)
    for row, (partition, body) in enumerate(slices):
        index[row] = partition, len(groups[partition]), len(body), zlib.crc32(body)
    table = index.tobytes()
    length = sum(len(body) for _, body in slices)
    crc = zlib.crc32(table, zlib.crc32(_HEADER.pack(MAGIC, len(slices), length, 0), _start(salt, position)))
    return b"".join([_HEADER.pack(MAGIC, len(slices), length, crc), table, *(body for _, body in slices)])


def _encode_slice(records: Sequence[Record]) -> bytes:
    topics, contents, times, mids, payloads = zip(*records, strict=True)
    pairs = list(zip(topics, contents, strict=True))
    number = {pair: n for n, pair in enumerate(dict.fromkeys(pairs))}
    channels = msgspec.msgpack.encode(list(number))
    return b"".join(
        [
            _COUNTS.pack(len(records), len(channels)),
            channels,
            np.array(times, "<i8").tobytes(),
            np.array([number[pair] for pair in pairs], "<u4").tobytes(),
            np.array(list(map(len, payloads)), "<u4").tobytes(),
            np.array(mids, "<u2").tobytes(),
            *payloads,
        ]
    )


_CHANNELS = msgspec.msgpack.Decoder(list[tuple[str, str]])


def decode_slice(body: bytes) -> Slice:
    """Return the records of a slice whose checksum holds.

    Examples
    --------
    >>> record = Record("site/lift-1", "", 5, 1, b"{}")
    >>> decode_slice(_encode_slice([record])).records() == [record]
    True
    """
    n, size = _COUNTS.unpack_from(body)
    at = _COUNTS.size + size
    times = np.frombuffer(body, "<i8", n, at)
    channel = np.frombuffer(body, "<u4", n, at + 8 * n)
    lengths = np.frombuffer(body, "<u4", n, at + 12 * n)
    mids = np.frombuffer(body, "<u2", n, at + 16 * n)
    ends = (at + 18 * n + np.cumsum(lengths, dtype=np.int64)).tolist()
    starts = [at + 18 * n, *ends[:-1]]
    payloads = [body[a:b] for a, b in zip(starts, ends, strict=True)]
    return Slice(_CHANNELS.decode(body[_COUNTS.size : at]), channel, times, mids, payloads)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of the log, open for reading.

    Attributes
    ----------
    fd
        Its file.
    base
        Position of its first byte.
    salt
        Number of the spool.
    """

    fd: int
    base: int
    salt: int

    def frame_at(self, at: int, end: int) -> Frame | None:
        """Return the frame that begins at a byte of the file and ends before another; None where there is none."""
        head = os.pread(self.fd, 4096, at)
        if len(head) < _HEADER.size:
            return None
        magic, count, length, crc = _HEADER.unpack_from(head)
        body = at + _HEADER.size + count * _INDEX.itemsize
        if magic != MAGIC or count > 1 << 16 or body + length > end:
            return None
        size = body - at
        if size > len(head):
            head = os.pread(self.fd, size, at)
        table = head[_HEADER.size : size]
        start = _start(self.salt, self.base + at)
        if zlib.crc32(table, zlib.crc32(_HEADER.pack(magic, count, length, 0), start)) != crc:
            return None
        slices = {}
        for partition, _, size, check in _INDEX_ROW.iter_unpack(table):
            slices[partition] = body, body + size, check
            body += size
        return Frame(at, body, slices)

    def next_frame(self, at: int, end: int) -> int:
        """Return where the next frame begins at or after a byte of the file; `end` where none does."""
        while at < end:
            window = os.pread(self.fd, min(_WINDOW, end - at), at)
            found = window.find(MAGIC)
            while found >= 0:
                if self.frame_at(at + found, end) is not None:
                    return at + found
                found = window.find(MAGIC, found + 1)
            if len(window) < _WINDOW:
                break
            at += len(window) - len(MAGIC) + 1
        return end

    def frames(self, at: int, end: int) -> Iterator[Frame | tuple[int, int]]:
        """Yield the frames between two bytes of the file, and as (from, to) what lies between them and is none."""
        while at < end:
            frame = self.frame_at(at, end)
            if frame is None:
                beyond = self.next_frame(at + 1, end)
                yield at, beyond
                at = beyond
            else:
                yield frame
                at = frame.end

    def body(self, start: int, end: int, crc: int) -> bytes | None:
        """Return a slice; None where its checksum is wrong."""
        body = os.pread(self.fd, end - start, start)
        return body if zlib.crc32(body) == crc else None
