"""The table of the fleet: what is known of each asset now, for the metrics and for the page.

The dataflow writes it, threads of the HTTP server read it. It holds the newest window of each asset, the open episodes
and the last rejected input; it is no store, and a restart fills it again with the next windows.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.assets import Asset, Register
from features.signals import EquipmentClass
from flows.metrics import STATES
from flows.past import LONGEST_STEP_S, POINTS, remember

if TYPE_CHECKING:
    from features.telemetry import Rejected
    from features.windows import Silence
    from flows.dispatch import Decision
    from models.assessment import Assessed

__all__ = ["Fleet", "Rejection", "Table"]

LAST_REJECTED = 50
KNOWN = 256
"""Shards whose rows are remembered: more than a process has."""
RAW_SHOWN = 400

_SILENT = STATES.index("silent")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Rejected input as the page shows it: the raw bytes as text, cut."""

    reason: str
    readings: int
    source: str
    asset: str
    signal: str
    start_us: int | None
    detail: str
    raw: str


@dataclass(frozen=True, slots=True)
class Table:
    """A copy of one class's part of the fleet.

    Attributes
    ----------
    equipment
        Its class.
    ids
        Asset ids by row.
    register
        What the register says of each, by row.
    now
        Structured array of shape ``(n,)`` with the newest window of each: ``state`` (index in `STATES`), ``end_us``,
        ``score``, ``p_fail`` (H,), ``rul_s`` (3,), ``health`` (M,), ``leading``, ``top`` (3,), ``top_share`` (3,), and
        for each detection feature ``share``, ``x``, ``lower``, ``upper`` (D,). NaN = cannot know.
    """

    equipment: EquipmentClass
    ids: list[str]
    register: list[Asset]
    now: NDArray[Any]


class Fleet:
    """What is known of each asset now; safe between one writing and many reading threads.

    A reading or probability of a silent asset is not known, whatever its last window said. A feature that its newest
    window does not know (a door that did not move) keeps its last known value.

    Parameters
    ----------
    equipment
        Classes by name.
    register
        Assets by id; without one every asset is taken from its telemetry.
    history
        Keep `POINTS` points of the past of each detection feature and of the paging probability, for the page: the mean
        of a time step that starts at the class's window and doubles when the points are full, until 30 days fit. Less
        than 8 kB an asset at 15 features.
    clock
        Seconds of a clock that never goes back; tells how long ago the last window came.

    Examples
    --------
    >>> from features.signals import load_class
    >>> fleet = Fleet({"lift": load_class("lift")})
    >>> len(fleet), fleet.newest_us
    (0, None)
    """

    def __init__(
        self,
        equipment: Mapping[str, EquipmentClass],
        register: Register | None = None,
        history: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.register = register
        self.rejected: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._clock = clock
        self._classes = {name: _Class(c, history) for name, c in equipment.items()}
        self._home: dict[str, _Class] = {}
        self._episodes: dict[str, Decision] = {}
        self._known: dict[int, tuple[list[str], NDArray[np.int64]]] = {}
        self._rejections: deque[Rejection] = deque(maxlen=LAST_REJECTED)
        self._newest_us: int | None = None
        self._updated_s: float | None = None

    def __len__(self) -> int:
        return len(self._home)

    @property
    def newest_us(self) -> int | None:
        """End of the newest window of all, in event time; None before the first."""
        return self._newest_us

    @property
    def age_s(self) -> float | None:
        """Seconds since the last window came; None before the first."""
        return None if self._updated_s is None else max(0.0, self._clock() - self._updated_s)

    @property
    def classes(self) -> dict[str, EquipmentClass]:
        """Classes by name, also those without an asset."""
        return {name: table.equipment for name, table in self._classes.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(table.nbytes for table in self._classes.values())

    def update(self, assessed: Assessed, equipment: str | None = None) -> None:
        """Take the newest window of each asset; an asset that is new gets a row.

        Parameters
        ----------
        assessed
            Windows of assets of one class, each asset's in the order of time.
        equipment
            Name of the class; by default what the register says of the first asset.
        """
        windows = assessed.windows
        if not len(windows.rows):
            return
        with self._lock:
            rows, newest = windows.rows, np.arange(len(windows.rows))
            if len(rows) > 1 and not (rows[1:] > rows[:-1]).all():
                rows, back = np.unique(rows[::-1], return_index=True)
                newest = len(windows.rows) - 1 - back
            table = self._class_of(windows.names[rows[0]], equipment)
            places = self._places(table, windows.names, rows)
            now = places[rows]
            fresh = (now >= 0) & (windows.end_us[newest] >= table.now["end_us"][now])
            table.take(now[fresh], newest[fresh], assessed)
            if table.past is not None:
                table.remember(places[windows.rows], assessed)
            self._newest_us = max(self._newest_us or 0, int(windows.end_us.max()))
            self._updated_s = self._clock()

    def silent(self, silence: Silence, equipment: str | None = None) -> None:
        """Call assets silent: what they would say now is not known."""
        with self._lock:
            for row, since_us in zip(silence.rows.tolist(), silence.since_us.tolist(), strict=True):
                name = silence.names[row]
                table = self._class_of(name, equipment)
                place = self._row(table, name)
                if place < 0:
                    continue
                now = table.now[place]
                if now["end_us"] == 0:
                    now["end_us"] = since_us
                now["state"] = _SILENT
                now["score"] = np.nan
                now["p_fail"] = np.nan
                now["rul_s"] = np.nan
                now["top"] = -1

    def decide(self, decision: Decision) -> None:
        """Open an episode as a page or a ticket, change its rung, or close it; of an asset that has left nothing."""
        with self._lock:
            if decision.rung == "closed":
                self._episodes.pop(decision.episode, None)
            elif self._has(decision.asset, decision.equipment):
                self._episodes[decision.episode] = decision

    def reject(self, rejected: Iterable[Rejected]) -> None:
        """Count rejected input by reason, and keep the last of it for the page."""
        with self._lock:
            for item in rejected:
                self.rejected[str(item.reason)] += item.readings
                self._rejections.append(
                    Rejection(
                        reason=str(item.reason),
                        readings=item.readings,
                        source=item.source[:RAW_SHOWN],
                        asset=(item.asset or "")[:RAW_SHOWN],
                        signal=(item.signal or "")[:RAW_SHOWN],
                        start_us=item.start_us,
                        detail=item.detail[:RAW_SHOWN],
                        raw=item.raw[:RAW_SHOWN].decode("utf-8", "backslashreplace"),
                    )
                )

    def retire(self, asset: str, equipment: str | None = None) -> None:
        """Forget an asset, if it is of this class, and its episodes; it is gone at the next scrape."""
        with self._lock:
            self._retire(asset, equipment)

    def reload(self, register: Register) -> None:
        """Take a new register; an asset that it no longer has is forgotten."""
        with self._lock:
            self.register = register
            # The episodes of all processes are kept in one, whose shards need not have their assets.
            about = {(decision.asset, decision.equipment) for decision in self._episodes.values()}
            about |= {(name, table.equipment.name) for name, table in self._home.items()}
            for name, equipment in about:
                if not self._has(name, equipment):
                    self._retire(name, equipment)
            for name, table in self._home.items():
                table.register[table.index[name]] = register[name]

    def export(self, equipment: str, assets: Iterable[str]) -> tuple[list[str], NDArray[Any]]:
        """Return those of the assets that have a row, and a copy of their newest windows, for a snapshot."""
        with self._lock:
            table = self._classes[equipment]
            known = [asset for asset in assets if asset in table.index]
            return known, table.now[[table.index[asset] for asset in known]]

    def restore(self, equipment: str, assets: Sequence[str], columns: Mapping[str, NDArray[Any]]) -> None:
        """Take over the columns of what `export` returned, of assets that the register still has in this class."""
        with self._lock:
            table = self._classes[equipment]
            kept = [place for place, asset in enumerate(assets) if self._has(asset, equipment)]
            rows = [self._row(table, assets[place]) for place in kept]
            for name in table.now.dtype.names or ():
                table.now[name][rows] = columns[name][kept]
            if len(assets):
                self._newest_us = max(self._newest_us or 0, int(columns["end_us"].max()))

    def tables(self) -> list[Table]:
        """Return a copy of the newest window of each asset, by class."""
        with self._lock:
            return [
                Table(table.equipment, list(table.ids), list(table.register), table.now[: len(table.ids)].copy())
                for table in self._classes.values()
            ]

    def episodes(self) -> list[Decision]:
        """Return the open episodes, in the order of their ids."""
        with self._lock:
            return [self._episodes[key] for key in sorted(self._episodes)]

    def rejections(self) -> list[Rejection]:
        """Return the last rejected input, newest first."""
        with self._lock:
            return list(reversed(self._rejections))

    def find(self, asset: str) -> Table | None:
        """Return a table with this asset alone; None if it is not known."""
        with self._lock:
            table = self._home.get(asset)
            if table is None:
                return None
            row = table.index[asset]
            return Table(table.equipment, [asset], [table.register[row]], table.now[row : row + 1].copy())

    def past(self, asset: str) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Return the past of an asset.

        Returns
        -------
        times_us, values
            Ends of the windows of shape ``(n,)``, and at each the paging probability and the detection features, of
            shape ``(n, 1 + D)``; None if nothing is kept.
        """
        with self._lock:
            table = self._home.get(asset)
            if table is None or table.past is None:
                return None
            past = table.past[table.index[asset]]
            filled = int(past["filled"])
            return past["time_us"][:filled].copy(), past["value"][:filled].copy()

    def _has(self, asset: str, equipment: str) -> bool:
        """Tell whether the register has an asset in this class; without a register all are welcome."""
        if self.register is None:
            return True
        known = self.register.get(asset)
        return known is not None and known.equipment == equipment

    def _class_of(self, asset: str, equipment: str | None) -> _Class:
        if equipment is None:
            if asset in self._home:
                return self._home[asset]
            if self.register is not None and asset in self.register:
                equipment = self.register[asset].equipment
            elif len(self._classes) == 1:
                equipment = next(iter(self._classes))
            else:
                raise ValueError(f"the register does not know the class of the asset {asset!r}: pass equipment=")
        return self._classes[equipment]

    def _places(self, table: _Class, names: list[str], rows: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the place in the table of each row of a shard; those of `rows` are known afterwards.

        A shard's list of names stays the same object, so each name is looked up once.
        """
        known = self._known.get(id(names))
        if known is None or known[0] is not names or len(known[1]) < len(names):
            before = np.zeros(0, np.int64) if known is None or known[0] is not names else known[1]
            places = np.full(len(names) + len(names) // 8 + 1, -1, np.int64)
            places[: len(before)] = before
            if len(self._known) >= KNOWN:
                del self._known[next(iter(self._known))]
            self._known[id(names)] = known = names, places
        places = known[1]
        for row in rows[places[rows] < 0].tolist():
            places[row] = self._row(table, names[row])
        return places

    def _row(self, table: _Class, asset: str) -> int:
        """Return the row of an asset; -1 for one that has left while its windows were on their way."""
        row = table.index.get(asset)
        if row is None and not self._has(asset, table.equipment.name):
            return -1
        if row is None:
            if asset in self._home:
                self._home[asset].remove(asset)  # it has changed its class
                self._known.clear()
            known = self.register.get(asset) if self.register else None
            row = table.add(asset, known or Asset(id=asset, equipment=table.equipment.name))
            self._home[asset] = table
        return row

    def _retire(self, asset: str, equipment: str | None) -> None:
        table = self._home.get(asset)
        if table is not None and equipment in (None, table.equipment.name):
            del self._home[asset]
            table.remove(asset)
            self._known.clear()
        for key, decision in list(self._episodes.items()):
            if decision.asset == asset and equipment in (None, decision.equipment):
                del self._episodes[key]


class _Class:
    """Rows of the assets of one class, without holes: the last row takes the place of one that leaves."""

    def __init__(self, equipment: EquipmentClass, history: bool) -> None:
        features = len(equipment.detection.features)
        self.equipment = equipment
        self.ids: list[str] = []
        self.register: list[Asset] = []
        self.index: dict[str, int] = {}
        self.paging = equipment.failure_horizons.index(equipment.paging_horizon)
        self.now = np.zeros(
            16,
            [
                ("state", "i1"),
                ("end_us", "i8"),
                ("score", "f8"),
                ("p_fail", "f8", (len(equipment.failure_horizons),)),
                ("rul_s", "f8", (3,)),
                ("health", "f8", (len(equipment.failure_modes),)),
                ("leading", "i2"),
                ("top", "i2", (3,)),
                ("top_share", "f8", (3,)),
                ("share", "f8", (features,)),
                ("x", "f8", (features,)),
                ("lower", "f8", (features,)),
                ("upper", "f8", (features,)),
            ],
        )
        self.past: NDArray[Any] | None = None
        if history:
            fields = [("step_us", "i8"), ("filled", "i8"), ("known", "i4", (features + 1,))]
            fields += [("time_us", "i8", (POINTS,)), ("value", "f4", (POINTS, features + 1))]  # type: ignore[list-item]
            self.past = np.zeros(len(self.now), fields)
            # Compile now: later a reader would wait for the lock meanwhile.
            self._remember(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, features + 1), np.float32))

    @property
    def nbytes(self) -> int:
        return self.now.nbytes + (0 if self.past is None else self.past.nbytes)

    def add(self, asset: str, known: Asset) -> int:
        row = len(self.ids)
        if row == len(self.now):
            self.now = _longer(self.now)
            if self.past is not None:
                self.past = _longer(self.past)
        self.ids.append(asset)
        self.register.append(known)
        self.index[asset] = row
        now = self.now[row]
        for name in ("score", "p_fail", "rul_s", "health", "x", "lower", "upper"):
            now[name] = np.nan
        now["state"] = now["end_us"] = 0
        now["top_share"] = now["share"] = 0.0
        now["leading"] = now["top"] = -1
        if self.past is not None:
            self.past["filled"][row] = 0
            self.past["step_us"][row] = round(self.equipment.window_s * 1e6)
        return row

    def remove(self, asset: str) -> None:
        row, last = self.index.pop(asset), len(self.ids) - 1
        if row != last:
            self.now[row] = self.now[last]
            if self.past is not None:
                self.past[row] = self.past[last]
            self.ids[row], self.register[row] = self.ids[last], self.register[last]
            self.index[self.ids[row]] = row
        del self.ids[last], self.register[last]

    def take(self, rows: NDArray[np.int64], which: NDArray[np.int64], assessed: Assessed) -> None:
        now, scored = self.now, assessed.scored
        now["end_us"][rows] = assessed.windows.end_us[which]
        now["score"][rows] = scored.score[which]
        now["share"][rows] = scored.share[which]
        now["state"][rows] = assessed.state[which]
        now["p_fail"][rows] = assessed.p_fail[which]
        now["rul_s"][rows] = assessed.rul_s[which]
        now["health"][rows] = assessed.health[which]
        now["leading"][rows] = assessed.leading[which]
        now["top"][rows] = assessed.top[which]
        now["top_share"][rows] = assessed.top_share[which]
        for name, values in (("x", scored.x), ("lower", scored.lower), ("upper", scored.upper)):
            new = values[which]
            now[name][rows] = np.where(np.isnan(new), now[name][rows], new)

    def remember(self, rows: NDArray[np.int64], assessed: Assessed) -> None:
        values = np.column_stack([assessed.p_fail[:, self.paging], assessed.scored.x]).astype(np.float32)
        here = rows >= 0
        self._remember(rows[here], assessed.windows.end_us[here], values[here])

    def _remember(self, rows: NDArray[np.int64], end_us: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        past = self.past
        assert past is not None
        fields = past["step_us"], past["filled"], past["known"], past["time_us"], past["value"]
        remember(rows, end_us, values, np.int64(LONGEST_STEP_S * 1e6), *fields)


def _longer(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array with room for half as many rows again; the new ones take no memory until they are written."""
    longer = np.zeros(len(array) * 3 // 2, array.dtype)
    longer[: len(array)] = array
    return longer
