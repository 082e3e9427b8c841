"""A spool: what a broker delivered, on disk before it is acknowledged, kept until the dataflow has it for good.

A folder with one log for all partitions, so that a group commit is one write and one fdatasync whatever their number
(sixteen files cost sixteen times the processor). The log is a list of segments named by the position of their first
byte; a position is never used twice, so one number says for ever what a reader has read.

    spool.json                       version, identity and number of partitions, fixed for the life of the folder
    marks                            up to where the log is committed; up to where each partition was handed out
    lock                             held by the one process that writes
    00000000000000000000.log         a segment
    00000000000000000000.log.1234.corrupt   what was damaged at byte 1234 of that segment, set aside
"""

from __future__ import annotations

import fcntl
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from flows.spool.frames import Frame, Record, Segment, decode_slice, encode_frame

__all__ = ["Meta", "Spool", "SpoolError", "marks_of", "partition_of", "read_meta", "segments_of", "set_aside"]

SEGMENT_BYTES = 64 << 20
"""Size at which a segment is closed: small enough that deleting by segment frees space soon, large enough to be few."""

VERSION = 1


class SpoolError(Exception):
    """Why a spool cannot be used, in one sentence."""


class Meta(msgspec.Struct, frozen=True):
    """What is fixed for the life of a spool: version of its form, its identity, its number of partitions."""

    version: int
    id: str
    partitions: int

    @property
    def salt(self) -> int:
        """Number that no sender knows."""
        return zlib.crc32(self.id.encode())


def partition_of(topic: str, partitions: int) -> int:
    """Return the partition of a topic: the same in every process and run.

    Examples
    --------
    >>> partition_of("site/lift-0001", 16)
    6
    """
    return zlib.crc32(topic.encode()) % partitions


def read_meta(folder: Path) -> Meta | None:
    """Return what is fixed of a spool; None where there is none yet.

    Raises
    ------
    SpoolError
        If it cannot be read, or is of another version.
    """
    path = folder / "spool.json"
    try:
        meta = msgspec.json.decode(path.read_bytes(), type=Meta)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise SpoolError(f"{path}: this cannot be read ({error})") from None
    if meta.version != VERSION:
        raise SpoolError(f"{path}: the spool is of version {meta.version}, this program writes version {VERSION}")
    return meta


def segments_of(folder: Path) -> list[int]:
    """Return the positions at which the segments of a spool begin, ascending."""
    return sorted(int(path.stem) for path in folder.glob("*.log"))


def segment_path(folder: Path, base: int) -> Path:
    """Return the path of the segment that begins at a position."""
    return folder / f"{base:020d}.log"


def marks_of(folder: Path, partitions: int) -> NDArray[np.int64]:
    """Return the marks of a spool, shared by every process: committed, then handed out by partition."""
    marks: NDArray[np.int64] = np.memmap(folder / "marks", np.int64, "r+", shape=(1 + partitions,))
    return marks


def set_aside(segment: Path, fd: int, start: int, end: int) -> bool:
    """Copy damaged bytes of a segment into a file beside it; return whether they are new, not set aside before."""
    try:
        aside = segment.with_name(f"{segment.name}.{start}.corrupt").open("xb")
    except FileExistsError:
        return False
    except OSError:  # a full disk: what is damaged is skipped and counted all the same
        return True
    with aside:
        while start < end and (piece := os.pread(fd, min(1 << 20, end - start), start)):
            try:
                aside.write(piece)
            except OSError:
                break
            start += len(piece)
    return True


class Spool:
    """The one writer of a spool.

    Parameters
    ----------
    folder
        Folder, made where it does not exist.
    partitions
        Number of partitions; refused where the folder was made with another.
    limit_bytes
        Size of all segments above which `commit` refuses.
    segment_bytes
        Size at which a segment is closed.

    Attributes
    ----------
    end
        Position up to which everything is committed.
    bytes
        Size of all segments.
    notes
        What opening found: torn ends and damage, a sentence each.
    damaged_bytes
        Size of the damage that opening found in what had been committed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Spool(Path(folder), partitions=4) as spool:
    ...     spool.commit({1: [Record("site/lift-1", "", 0, 7, b"{}")]})
    ...     [record.payload for record in spool.recent(10)]
    True
    [b'{}']
    """

    def __init__(
        self, folder: Path, partitions: int = 16, limit_bytes: int = 1 << 40, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        # Deleting goes by segment: a small limit needs small ones.
        self.segment_bytes = min(segment_bytes, max(1, limit_bytes // 4))
        self.notes: list[str] = []
        self.damaged_bytes = 0
        self.end = 0
        self._sizes: dict[int, int] = {}
        self._fd, self._base, self._size, self._failed = -1, 0, 0, False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise SpoolError(f"{folder}: the spool cannot be opened ({error.strerror})") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise SpoolError(f"{folder}: another run writes into this spool") from None
        try:
            self.meta = self._settle(partitions)
            self.marks = marks_of(folder, partitions)
            self._open()
        except OSError as error:
            os.close(self._lock)
            raise SpoolError(f"{folder}: the spool cannot be opened ({error.strerror})") from None
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def full(self) -> bool:
        """Whether `commit` refuses."""
        return self.bytes >= self.limit_bytes

    def commit(self, groups: Mapping[int, Sequence[Record]]) -> bool:
        """Put records on disk, by partition, all or none; return False where the spool is full.

        Raises
        ------
        OSError
            If the disk refuses; nothing was committed then, and the same may be tried again.
        """
        if self.full:
            return False
        if self._size >= self.segment_bytes or self._failed:
            self._roll(self.end)
        frame = encode_frame(groups, self.meta.salt, self.end)
        try:
            rest = memoryview(frame)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fdatasync(self._fd)
        except OSError:
            # No reader has seen it. What the kernel still holds of this file is not to be trusted after a failure.
            self._failed = True
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(frame)
        self.end += len(frame)
        self._sizes[self._base] = self._size
        self.marks[0] = self.end
        return True

    def forget(self, before: int) -> None:
        """Delete the segments that lie before a position: what the dataflow holds for good."""
        if before >= self.end and self._size:
            self._roll(self.end)
        bases = list(self._sizes)
        for base, follows in pairwise(bases):
            if follows <= before:
                segment_path(self.folder, base).unlink(missing_ok=True)
                del self._sizes[base]

    @property
    def bytes(self) -> int:
        """Size of all segments."""
        return sum(self._sizes.values())

    @property
    def start(self) -> int:
        """Position of the first byte that is still there."""
        return next(iter(self._sizes))

    def oldest_us(self) -> int:
        """Return when the oldest record that is still there arrived; 0 where there is none."""
        for base, size in self._sizes.items():
            with self._segment(base) as segment:
                for one in segment.frames(0, size):
                    if isinstance(one, Frame):
                        bodies = [segment.body(*place) for place in one.slices.values()]
                        times = [int(decode_slice(body).times_us[0]) for body in bodies if body is not None]
                        if times:
                            return min(times)
        return 0

    def recent(self, n: int) -> list[Record]:
        """Return the newest records of all partitions, at most about `n`, in the order of their frames."""
        found: list[list[Record]] = []
        for base in reversed(self._sizes):
            with self._segment(base) as segment:
                whole = [one for one in segment.frames(0, self._sizes[base]) if isinstance(one, Frame)]
                for frame in reversed(whole):
                    if sum(map(len, found)) >= n:
                        break
                    bodies = (segment.body(*place) for place in frame.slices.values())
                    found += [decode_slice(body).records() for body in bodies if body is not None]
        return [record for records in reversed(found) for record in records]

    def close(self) -> None:
        """Give the folder back."""
        if self._fd >= 0:
            os.close(self._fd)
            os.close(self._lock)
            self._fd = -1

    def _settle(self, partitions: int) -> Meta:
        """Return what is fixed of the folder, written when it is new."""
        meta = read_meta(self.folder)
        if meta is None:
            meta = Meta(VERSION, uuid.uuid4().hex, partitions)
            np.zeros(1 + partitions, np.int64).tofile(self.folder / "marks")
            fresh = self.folder / "spool.json.new"
            fresh.write_bytes(msgspec.json.encode(meta))
            fresh.replace(self.folder / "spool.json")
            self._sync_folder()
        if meta.partitions != partitions:
            raise SpoolError(
                f"{self.folder}: the spool has {meta.partitions} partitions and keeps them for life; "
                f"set partitions = {meta.partitions}, or name another folder"
            )
        if not (self.folder / "marks").exists():  # somebody deleted it: readers go by their own snapshots
            np.zeros(1 + partitions, np.int64).tofile(self.folder / "marks")
        return meta

    def _open(self) -> None:
        bases = segments_of(self.folder)
        self._sizes = {base: segment_path(self.folder, base).stat().st_size for base in bases}
        if not bases:
            self._roll(int(self.marks[0]))
            return
        last = bases[-1]
        kept = self._mend(last)
        position = max(last + self._sizes[last], int(self.marks[0]))
        self._sizes[last] = kept
        if last + kept < position:
            # A reader may stand behind what was damaged: no position is used twice.
            self._roll(position)
        else:
            self._fd = os.open(segment_path(self.folder, last), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            self._base, self._size = last, kept
            self.end = last + kept
            self.marks[0] = self.end

    def _mend(self, base: int) -> int:
        """Cut what is not a whole frame off the end of a segment; return how much of it stays."""
        path, size = segment_path(self.folder, base), self._sizes[base]
        committed = int(self.marks[0]) - base
        kept = 0
        with self._segment(base) as segment:
            for one in segment.frames(0, size):
                if isinstance(one, Frame):
                    kept = one.end if one.end <= committed or _whole(segment, one) else kept
                elif one[1] < size or one[0] < committed:
                    self._note_damage(path, segment.fd, *one)
        if kept < size:
            if kept >= committed:
                self.notes.append(f"{path}: cut off {size - kept} bytes that a crash left unfinished")
            with path.open("r+b") as file:
                file.truncate(kept)
                os.fsync(file.fileno())
        return kept

    @contextmanager
    def _segment(self, base: int) -> Iterator[Segment]:
        fd = os.open(segment_path(self.folder, base), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield Segment(fd, base, self.meta.salt)
        finally:
            os.close(fd)

    def _note_damage(self, path: Path, fd: int, start: int, end: int) -> None:
        if set_aside(path, fd, start, end):
            self.damaged_bytes += end - start
            self.notes.append(f"{path}: {end - start} bytes at {start} are damaged and set aside in a .corrupt file")

    def _roll(self, base: int) -> None:
        """Begin a segment at a position."""
        fd = os.open(
            segment_path(self.folder, base), os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        self._sync_folder()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._base, self._size, self._failed = fd, base, 0, False
        self._sizes[base] = 0
        self.end = base
        self.marks[0] = base

    def _sync_folder(self) -> None:
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _whole(segment: Segment, frame: Frame) -> bool:
    return all(segment.body(*place) is not None for place in frame.slices.values())
