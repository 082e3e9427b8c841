"""Counts that never step back: after a restart the last are shown on until the replay has passed them.

A restart goes back to the last snapshot and counts again what came since. Prometheus would take a counter that falls
for one that began anew, and add all of it to its rates. What was shown last is kept beside the recovery store, all of
the account together, so that it balances at every scrape.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

__all__ = ["ShownOn"]

LONGEST_S = 900.0
"""A replay is through long before; what then still lies below is another input, and begins anew."""

_COUNTERS = (
    b"vigie_readings_total",
    b"vigie_readings_scored_total",
    b"vigie_readings_rejected_total",
    b"vigie_windows_total",
    b"vigie_pages_total",
    b"vigie_tickets_total",
)
_PENDING = b"vigie_readings_pending"


class ShownOn:
    r"""Makes expositions whose counts do not step back from one process to the next.

    Parameters
    ----------
    path
        Where the last counts are kept; it is read once, and written with each exposition.
    clock
        Monotonic clock in seconds.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     before = ShownOn(Path(folder) / "shown.json")(b"vigie_readings_total 7.0\n")
    ...     after = ShownOn(Path(folder) / "shown.json")
    ...     [after(b"vigie_readings_total 5.0\n"), after(b"vigie_readings_total 9.0\n")]
    [b'vigie_readings_total 7.0\n', b'vigie_readings_total 9.0\n']
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._behind_s: float | None = None
        self._before: dict[str, float] = {}
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._before = msgspec.json.decode(path.read_bytes(), type=dict[str, float])

    def __call__(self, text: bytes) -> bytes:
        """Return an exposition, with the counts that were shown last where some of its own are lower."""
        lines = text.split(b"\n")
        places = {
            line.rpartition(b" ")[0].decode(): place
            for place, line in enumerate(lines)
            if line.startswith(b"vigie_") and line.partition(b" ")[0].partition(b"{")[0] in (*_COUNTERS, _PENDING)
        }
        now = {series: float(lines[place].rpartition(b" ")[2]) for series, place in places.items()}
        pending = _PENDING.decode()
        if any(now.get(series, 0.0) < count for series, count in self._before.items() if series != pending):
            if self._behind_s is None:
                self._behind_s = self._clock()
            if self._clock() - self._behind_s < LONGEST_S:
                return self._shown(lines, places)
        self._behind_s = None
        self._before = now
        self._keep(now)
        return text

    def _shown(self, lines: list[bytes], places: dict[str, int]) -> bytes:
        for series, place in places.items():
            lines[place] = f"{series} {self._before.get(series, 0.0)!r}".encode()
        for series, count in self._before.items():
            if series in places:
                continue
            # A family's samples stand together: behind its type, which a process that just starts has not told yet.
            family = series.partition("{")[0]
            head = f"# TYPE {family} ".encode()
            at = next((n for n, known in enumerate(lines) if known.startswith(head)), None)
            if at is None:
                at = len(lines) - (not lines[-1])
                lines.insert(at, head + (b"gauge" if family == _PENDING.decode() else b"counter"))
            lines.insert(at + 1, f"{series} {count!r}".encode())
        return b"\n".join(lines)

    def _keep(self, counts: dict[str, float]) -> None:
        hidden = self._path.with_name(f"{self._path.name}.tmp")
        # A full disk must not end a scrape: at worst a count steps back.
        with contextlib.suppress(OSError):
            hidden.write_bytes(msgspec.json.encode(counts))
            hidden.replace(self._path)
