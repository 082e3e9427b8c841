"""Where messages come from: files, replayed at recorded speed, at a multiple of it, or as fast as they go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from features.signals import EquipmentClass
from flows.cutting import Cutter
from flows.files import READ_ERRORS, InputError, Piece, Wire, open_check, pieces, sentence

__all__ = ["FileSource", "InputError", "Message", "Wire", "name_of", "open_check"]

WAKE_S = 0.5
"""Longest sleep of a paced replay: how soon it notices that it shall stop."""


@dataclass(frozen=True, slots=True)
class Message:
    """What an input delivers at once.

    Attributes
    ----------
    source
        Name of the input partition, such as a file's path.
    wire
        Form of the payload: `blocks` is a record batch of `features.telemetry.BLOCKS`; `arrow` the bytes of an Arrow
        IPC stream or file of blocks, or a batch that is to become one; `jsonl` whole lines of JSON; `csv` a header line
        and whole lines; `table` a record batch of a wide table. What comes from a broker is `arrow`, `json`, `senml`,
        `senml-cbor` or `cbor`.
    payload
        The payload. From a broker a list of bytes: many of its messages at once.
    times_us
        When each payload of a list arrived, in microseconds since 1970; None where unknown.
    """

    source: str
    wire: Wire
    payload: Any
    times_us: Sequence[int] | None = None


def _utc_now() -> datetime:
    return datetime.now(UTC)


def name_of(path: Path, folder: Path | None) -> str:
    """Return what a file is called: its path from the folder, or all of it where it lies elsewhere.

    Examples
    --------
    >>> name_of(Path("/site/telemetry/a.csv"), Path("/site")), name_of(Path("/data/a.csv"), Path("/site"))
    ('telemetry/a.csv', '/data/a.csv')
    """
    return str(path.relative_to(folder) if folder is not None and path.is_relative_to(folder) else path)


class FileSource(FixedPartitionedSource[Message, dict[str, int]]):
    """Reads files, a partition each, in the order of their rows.

    A file that turns out to be damaged on the way ends there, `failure` says so, and the others go on: nothing is
    raised inside the dataflow. Resumes after the last message that was emitted.

    Parameters
    ----------
    paths
        Files that `open_check` has let pass.
    folder
        A file below it is called by its path from there, so that its name, a recovery key, outlives a move of the site.
    equipment
        Class of the wide tables among them.
    speed
        Recorded seconds a second, 1 = as recorded; None = as fast as it goes.
    stop
        Ends the input when it is set.
    clock
        Monotonic clock in seconds.
    now
        The wall clock in which the engine wants to be told when to come back.
    said
        Told in a sentence which file ends early.

    Examples
    --------
    >>> FileSource([Path("lift-1.csv"), Path("lift-2.csv")]).list_parts()
    ['lift-1.csv', 'lift-2.csv']
    """

    def __init__(
        self,
        paths: Sequence[Path],
        equipment: EquipmentClass | None = None,
        speed: float | None = None,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
        folder: Path | None = None,
        said: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        if speed is not None and not speed > 0:
            raise ValueError(f"a speed is above 0, or None for as fast as it goes; got {speed}")
        self.paths = {name_of(path, folder): path for path in paths}
        self.equipment = equipment
        self.speed = speed
        self.stop = stop
        self.clock = clock
        self.now = now
        self.said = said
        self.failure: str | None = None
        self._done: dict[str, tuple[int, int]] = {}
        self._origin: tuple[float, int] | None = None
        self._resumed = False

    def list_parts(self) -> list[str]:
        """Return the paths."""
        return list(self.paths)

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, int] | None
    ) -> StatefulSourcePartition[Message, dict[str, int]]:
        """Return a file at its beginning, or where a snapshot left it."""
        position = 0 if resume_state is None else resume_state["position"]
        self._resumed |= position > 0
        return _Partition(self, for_part, position)

    def progress(self) -> tuple[float, int]:
        """Return the share of all bytes that has been read, and how many readings those held at most."""
        total = sum(_size(path) for path in self.paths.values())
        done = list(self._done.values())
        return min(1.0, sum(size for size, _ in done) / max(1, total)), sum(readings for _, readings in done)

    def read(self, part: str, position: int) -> Iterator[Piece]:
        """Yield the pieces of a file, and keep the account of them."""
        # A piece of paced time costs about a millisecond: four a second are smooth enough.
        span_us = 0 if self.speed is None else round(max(1.0, self.speed * 0.25)) * 1_000_000
        readings = 0
        try:
            for piece in pieces(self.paths[part], self.equipment, Cutter.of(self.equipment, span_us), position):
                readings += piece.readings
                self._done[part] = piece.done, readings
                yield piece
        except InputError as error:
            self._fail(str(error))
        except READ_ERRORS as error:
            self._fail(f"{part}: the file is damaged ({sentence(error)})")
        self._done[part] = _size(self.paths[part]), readings

    def due_s(self, piece: Piece) -> float:
        """Return in how many seconds a piece is due: all files keep their distance in time to the earliest."""
        if self.speed is None:
            return 0.0
        if self._origin is None:
            self._origin = self.clock(), self._earliest(piece)
        began_s, first_us = self._origin
        return began_s + (piece.last_us - first_us) / 1e6 / self.speed - self.clock()

    def _earliest(self, piece: Piece) -> int:
        first_us = piece.first_us
        # After a resume the files stand where they stood: the first piece sets the pace.
        others = () if self._resumed or len(self.paths) == 1 else self.paths.values()
        for path in others:
            try:
                other = next(pieces(path, self.equipment, Cutter.of(self.equipment, 1_000_000), chunk=65_536), piece)
            except (InputError, *READ_ERRORS):
                continue
            first_us = min(first_us, other.first_us)
        return first_us

    def _fail(self, failure: str) -> None:
        self.said(failure)
        self.failure = failure if self.failure is None else f"{self.failure}; {failure}"


class _Partition(StatefulSourcePartition[Message, dict[str, int]]):
    def __init__(self, source: FileSource, part: str, position: int) -> None:
        self._source, self._part, self._position = source, part, position
        self._pieces = source.read(part, position)
        self._next: Piece | None = None
        self._awake: datetime | None = None

    def next_batch(self) -> list[Message]:
        self._awake = None
        if self._source.stop is not None and self._source.stop.is_set():
            raise StopIteration
        piece = self._next or next(self._pieces)
        wait_s = self._source.due_s(piece)
        if wait_s > 0:
            self._next = piece
            self._awake = self._source.now() + timedelta(seconds=min(wait_s, WAKE_S))
            return []
        self._next = None
        self._position = piece.position
        return [Message(self._part, piece.wire, piece.payload)]

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> dict[str, int]:
        return {"position": self._position}

    def close(self) -> None:
        self._pieces.close()  # type: ignore[attr-defined]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
