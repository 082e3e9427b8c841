"""One partition of a spool, read by position."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flows.spool.frames import Frame, Segment, Slice, decode_slice
from flows.spool.writer import SpoolError, marks_of, read_meta, segment_path, segments_of, set_aside

__all__ = ["SpoolReader"]

BATCH_BYTES = 1 << 20
"""What is handed over at once when the flow is behind: about a thousand messages of 1 kB."""


class SpoolReader:
    """Reads one partition of a spool, in the process of its writer or in another.

    Only what is committed is seen. Where the folder does not exist yet there is nothing to read.

    Parameters
    ----------
    folder
        The spool.
    partition
        Number of the partition.
    position
        Where to go on; None for what no earlier run has handed out for good.
    spool
        Identity of the spool in which that position lies: another one is read from its beginning.

    Attributes
    ----------
    position
        Up to where all has been read.
    notes
        What was found on the way, a sentence each; whoever tells them empties the list.
    damaged_bytes
        Size of the damage that was skipped.
    """

    def __init__(self, folder: Path, partition: int, position: int | None = None, spool: str | None = None) -> None:
        self.folder, self.partition = folder, partition
        self.position = position
        self.spool = spool
        self.notes: list[str] = []
        self.damaged_bytes = 0
        self._marks: Any = None
        self._segment: Segment | None = None
        self._salt = 0
        self._follows = -1

    def read(self, max_bytes: int = BATCH_BYTES) -> list[Slice]:
        """Return what comes next, about as many bytes of it, in whole group commits."""
        if self._marks is None and not self._open():
            return []
        assert self.position is not None
        committed = int(self._marks[0])
        found: list[Slice] = []
        size = 0
        while size < max_bytes and self.position < committed:
            segment = self._seek()
            if segment is None:
                break
            base = segment.base
            end = min(os.fstat(segment.fd).st_size, committed - base)
            if self._follows >= 0:
                end = min(end, self._follows - base)
            for one in segment.frames(self.position - base, end):
                if isinstance(one, Frame):
                    size += self._slice(segment, one, found)
                    self.position = base + one.end
                else:
                    self._damage(segment, *one)
                    self.position = base + one[1]
                if size >= max_bytes:
                    return found
            if self.position < committed and not self._next(base):
                break
        return found

    @property
    def drained(self) -> bool:
        """Whether everything that is committed has been read."""
        return self._marks is not None and self.position is not None and self.position >= int(self._marks[0])

    def release(self, position: int) -> None:
        """Note for later runs and for the writer that nobody comes back to what lies before a position."""
        if self._marks is not None:
            self._marks[1 + self.partition] = position

    def close(self) -> None:
        """Let go of the files."""
        if self._segment is not None:
            os.close(self._segment.fd)
            self._segment = None

    def _open(self) -> bool:
        try:
            meta = read_meta(self.folder)
        except SpoolError:  # the writer says so and does not start
            return False
        if meta is None or self.partition >= meta.partitions:
            return False
        marks = marks_of(self.folder, meta.partitions)
        if self.position is None or self.spool != meta.id:
            if self.position is not None:
                self.notes.append(f"{self.folder}: this is another spool than before: it is read from its beginning")
            self.position = int(marks[1 + self.partition])
        self.spool, self._salt = meta.id, meta.salt
        self._marks = marks
        return True

    def _seek(self) -> Segment | None:
        """Return the segment of the position; where that is gone, go to the first that is left."""
        assert self.position is not None
        if self._segment is not None:
            return self._segment
        bases = segments_of(self.folder)
        if not bases:
            return None
        base = max((one for one in bases if one <= self.position), default=bases[0])
        if base > self.position:
            self.notes.append(
                f"{self.folder}: partition {self.partition} goes on at {base}, what lay before it was deleted"
            )
            self.position = base
        try:
            fd = os.open(segment_path(self.folder, base), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # deleted just now
            return None
        self._segment = Segment(fd, base, self._salt)
        self._follows = min((one for one in bases if one > base), default=-1)
        return self._segment

    def _next(self, base: int) -> bool:
        """At the end of a segment, go to the one that follows; there may be none yet."""
        if self._follows < 0:
            self._follows = min((one for one in segments_of(self.folder) if one > base), default=-1)
            # The writer may have finished this one in between: its end is looked at once more.
            return self._follows >= 0
        assert self.position is not None
        self.position = max(self.position, self._follows)
        self.close()
        return True

    def _slice(self, segment: Segment, frame: Frame, found: list[Slice]) -> int:
        place = frame.slices.get(self.partition)
        if place is None:
            return 0
        body = segment.body(*place)
        if body is None:
            self._damage(segment, place[0], place[1])
            return 0
        found.append(decode_slice(body))
        return len(body)

    def _damage(self, segment: Segment, start: int, end: int) -> None:
        path = segment_path(self.folder, segment.base)
        if set_aside(path, segment.fd, start, end):
            self.damaged_bytes += end - start
            self.notes.append(f"{path}: {end - start} bytes at {start} are damaged and set aside in a .corrupt file")
