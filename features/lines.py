"""Lines of a payload: taken a few at a time, and gathered again where they are rejected.

A Python object a line costs forty bytes and more, twenty times the shortest lines. So nothing here holds one for each
line of a payload: a slice of some lines is read and forgotten, and rejected lines are bytes, one after another.
"""

from __future__ import annotations

from collections.abc import Iterator

from features.telemetry import Reason, Rejected

__all__ = ["SLICE", "RejectedLines", "slices"]

SLICE = 65_536
"""Bytes of lines that are taken apart at a time: Python's objects of them stay below four megabytes."""
_GROUP = 512
"""Bytes of a payload for each group of rejected lines, which costs about as much itself."""
_GROUPS = 1000
"""So many groups are always let be: half a megabyte."""
_COPIES = 3
"""A line that is wrong in several ways stands in several groups, up to so many times the payload in all."""


def slices(payload: bytes, size: int = SLICE, end_of_line: bytes = b"\n") -> Iterator[bytes]:
    r"""Yield the payload in pieces of whole lines, of `size` bytes or one line if that is longer.

    Examples
    --------
    >>> list(slices(b"one\ntwo\nthree", 8))
    [b'one\ntwo\n', b'three']
    """
    begin = 0
    while begin < len(payload):
        end = begin + size
        if end < len(payload):
            end = payload.rfind(end_of_line, begin, end) + 1 or payload.find(end_of_line, end) + 1 or len(payload)
        yield payload[begin:end]
        begin = end


class RejectedLines:
    r"""Groups the rejected lines of a payload: one `Rejected` for all that are wrong in the same way.

    Lines are wrong in the same way if reason, `why`, asset and signal are the same; the detail is that of the first.
    Where the names are so many, or the lines wrong in so many ways, that the groups would be larger than the payload
    several times, the names are left out.

    Parameters
    ----------
    source
        Name of the input.
    size
        Bytes of the payload.

    Examples
    --------
    >>> lines = RejectedLines("example", 100)
    >>> for line in (b"x", b"y"):
    ...     lines.add(line, Reason.MALFORMED, 1, "expected a number", f"got {line!r}")
    >>> [one] = lines.finish()
    >>> one.readings, one.raw, one.detail
    (2, b'x\ny', "expected a number, got b'x'")
    """

    def __init__(self, source: str, size: int) -> None:
        self._source = source
        self._most_groups = max(_GROUPS, size // _GROUP)
        self._most_bytes = _COPIES * size
        self._bytes = 0
        self._found: dict[tuple[Reason, str, str | None, str | None], _Group] = {}

    def add(
        self,
        line: bytes,
        reason: Reason,
        readings: int,
        why: str,
        got: str = "",
        asset: str | None = None,
        signal: str | None = None,
    ) -> None:
        """Reject readings of a line; the detail says why, and what came in the first line that is rejected so."""
        if len(self._found) >= self._most_groups or self._bytes > self._most_bytes:
            asset = signal = None
        key = (reason, why, asset, signal)
        group = self._found.get(key)
        if group is None:
            group = self._found[key] = _Group(f"{why}, {got}" if got else why)
        group.readings += readings
        # A line that is wrong twice is the same object; of a single byte there is only one, and it is wrong once.
        if group.last is not line or len(line) == 1:
            group.raw += line
            group.raw += b"\n"
            group.last = line
            self._bytes += len(line) + 1

    def finish(self) -> list[Rejected]:
        """Return what was rejected, in the order of the first line of each group, and forget it."""
        found = []
        for (reason, _, asset, signal), group in self._found.items():
            del group.raw[-1:]
            found.append(
                Rejected(reason, group.readings, self._source, bytes(group.raw), asset, signal, detail=group.detail)
            )
            group.raw.clear()
        self._found = {}
        return found


class _Group:
    __slots__ = ("detail", "last", "raw", "readings")

    def __init__(self, detail: str) -> None:
        self.detail = detail
        self.readings = 0
        self.raw = bytearray()
        self.last: bytes | None = None
