"""What the page says of the fleet, as JSON: risk, state, failure mode, lead time, and the signals that say so.

What a class names, `flows.page.words` puts into plain words; `page.js` lays it out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.signals import EquipmentClass
from flows.metrics import STATES
from flows.page.words import feature_words, reason_words, unit_words

if TYPE_CHECKING:
    from flows.dispatch import Decision
    from flows.fleet import Fleet, Table

__all__ = ["SORTS", "AssetView", "FleetView", "RejectedView", "asset_view", "fleet_view", "rejected_view"]

LARGEST_PAGE = 200


class Chance(Struct, frozen=True):
    """Probability of a breakdown within a horizon; None = cannot know yet."""

    horizon: str
    seconds: float
    probability: float | None


class Trace(Struct, frozen=True):
    """A small chart: seconds before the newest point, and the values there."""

    ago_s: list[int]
    values: list[float | None]


class SignalView(Struct, frozen=True):
    """A feature of an asset, with its usual range and how much it says."""

    signal: str
    feature: str
    words: str
    unit: str
    share: float
    value: float | None
    lower: float | None
    upper: float | None
    trace: Trace | None


class ModeView(Struct, frozen=True):
    """A failure mode of an asset; `health` is 1 as new, 0 failed, None = cannot know yet."""

    name: str
    words: str
    advice: str
    health: float | None


class EpisodeView(Struct, frozen=True):
    """An open episode."""

    episode: str
    rung: str
    failure_mode: str
    words: str
    opened_us: int
    probability: float | None
    reason: str


class AssetView(Struct, frozen=True, rename={"equipment": "class"}):
    """A row of the page; `details` and `modes` only where one asset is asked for."""

    id: str
    equipment: str
    site: str
    building: str
    address: str
    provider: str
    make: str
    commissioned: str
    households: int
    simulated: bool
    state: str
    score: float | None
    chances: list[Chance]
    paging_horizon: str
    page_at: float
    mode: ModeView | None
    lead_s: list[float | None]
    rung: str
    end_us: int
    signals: list[SignalView]
    details: list[SignalView] = []
    modes: list[ModeView] = []
    episodes: list[EpisodeView] = []
    risk: Trace | None = None


class ClassView(Struct, frozen=True):
    """A class of the fleet."""

    name: str
    words: str
    assets: int


class FleetView(Struct, frozen=True):
    """A page of the table, and what stands above it."""

    newest_us: int | None
    age_s: float | None
    simulated: int
    registered: int | None
    total: int
    states: dict[str, int]
    classes: list[ClassView]
    pages_open: int
    tickets_open: int
    rejected: int
    matching: int
    page: int
    pages: int
    size: int
    sort: str
    assets: list[AssetView]


class ReasonView(Struct, frozen=True):
    """Rejected readings of one reason."""

    reason: str
    words: str
    readings: int


class ExampleView(Struct, frozen=True):
    """One of the last rejected."""

    reason: str
    words: str
    readings: int
    source: str
    asset: str
    signal: str
    start_us: int | None
    detail: str
    raw: str


class RejectedView(Struct, frozen=True):
    """What was rejected: how much for which reason, and the last of it."""

    readings: int
    reasons: list[ReasonView]
    last: list[ExampleView]


def fleet_view(
    fleet: Fleet,
    search: str = "",
    state: str = "",
    equipment: str = "",
    page: int = 1,
    size: int = 50,
    sort: str = "risk",
) -> FleetView:
    """Return one page of the fleet.

    Parameters
    ----------
    search
        Words that must all stand in an asset's id, class, site, building, address, provider, make or failure mode.
    state, equipment
        A value of `STATES`, or ``attention`` for degraded and failing; a class name; empty for all.
    page, size
        From 1; assets a page, at most `LARGEST_PAGE`. A page beyond the last is the last.
    sort
        One of `SORTS`; anything else is ``risk``.
    """
    tables = fleet.tables()
    episodes = fleet.episodes()
    rungs: dict[str, Decision] = {}
    for episode in episodes:
        before = rungs.get(episode.asset)
        if before is None or (before.rung != "page" and episode.rung == "page"):
            rungs[episode.asset] = episode
    words = search.casefold().split()
    sort = sort if sort in SORTS else "risk"
    found: list[tuple[tuple[object, ...], int, Table]] = []
    for table in tables:
        if not equipment or table.equipment.name == equipment:
            keys = SORTS[sort](table, rungs)
            found += [(keys[row], row, table) for row in _matching(table, words, state)]
    found.sort(key=itemgetter(0))
    size = min(max(size, 1), LARGEST_PAGE)
    pages = max(1, -(-len(found) // size))
    page = min(max(page, 1), pages)
    counts = np.zeros(len(STATES), np.int64)
    for table in tables:
        counts += np.bincount(table.now["state"], minlength=len(STATES))
    return FleetView(
        newest_us=fleet.newest_us,
        age_s=fleet.age_s,
        simulated=sum(asset.simulated for table in tables for asset in table.register),
        registered=None if fleet.register is None else len(fleet.register),
        total=sum(len(table.ids) for table in tables),
        states=dict(zip(STATES, counts.tolist(), strict=True)),
        classes=[ClassView(t.equipment.name, t.equipment.description, len(t.ids)) for t in tables],
        pages_open=sum(episode.rung == "page" for episode in episodes),
        tickets_open=sum(episode.rung == "ticket" for episode in episodes),
        rejected=sum(fleet.rejected.copy().values()),
        matching=len(found),
        page=page,
        pages=pages,
        size=size,
        sort=sort,
        assets=[_asset(fleet, t, row, rungs) for _, row, t in found[(page - 1) * size : page * size]],
    )


def asset_view(fleet: Fleet, asset: str) -> AssetView | None:
    """Return all that is known of one asset; None if it is not in the fleet."""
    table = fleet.find(asset)
    if table is None:
        return None
    episodes = [episode for episode in fleet.episodes() if episode.asset == asset]
    rungs = {asset: min(episodes, key=lambda episode: episode.rung)} if episodes else {}  # "page" before "ticket"
    return _asset(fleet, table, 0, rungs, episodes)


def rejected_view(fleet: Fleet) -> RejectedView:
    """Return what was rejected, most frequent reason first."""
    counts = fleet.rejected.copy()
    return RejectedView(
        readings=sum(counts.values()),
        reasons=[ReasonView(reason, reason_words(reason), n) for reason, n in counts.most_common()],
        last=[
            ExampleView(
                r.reason, reason_words(r.reason), r.readings, r.source, r.asset, r.signal, r.start_us, r.detail, r.raw
            )
            for r in fleet.rejections()
        ],
    )


def _matching(table: Table, words: list[str], state: str) -> list[int]:
    """Return the rows of a table that are asked for."""
    states = table.now["state"]
    rows = np.arange(len(table.ids))
    if state == "attention":
        rows = rows[(states == STATES.index("degraded")) | (states == STATES.index("failing"))]
    elif state:
        rows = rows[states == STATES.index(state)] if state in STATES else rows[:0]
    if not words:
        return rows.tolist()
    modes = [f"{name}\n{mode.description}" for name, mode in table.equipment.failure_modes.items()]
    leading = table.now["leading"]
    kept = []
    for row in rows.tolist():
        a = table.register[row]
        text = f"{a.id}\n{table.equipment.name}\n{a.site}\n{a.building}\n{a.address}\n{a.provider}\n{a.make}"
        if leading[row] >= 0:
            text = f"{text}\n{modes[leading[row]]}"
        text = text.casefold()
        if all(word in text for word in words):
            kept.append(row)
    return kept


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key in which lift-9 comes before lift-10."""
    return [
        (0, int(part), "") if part.isdecimal() and part.isascii() and len(part) < 19 else (1, 0, part)
        for part in re.split(r"(\d+)", text.casefold())
    ]


def _risk(table: Table, rungs: dict[str, Decision]) -> list[tuple[float, float, str]]:
    """Most likely to break down within the paging horizon first, by row.

    An asset whose probability cannot be known now, such as a silent one, keeps the rank of its open episode.
    """
    horizon = table.equipment.failure_horizons.index(table.equipment.paging_horizon)
    probability = np.nan_to_num(table.now["p_fail"][:, horizon], nan=-1.0).tolist()
    score = np.nan_to_num(table.now["score"], nan=-1.0).tolist()
    for row, asset in enumerate(table.ids) if rungs else ():
        if probability[row] < 0.0 and asset in rungs:
            probability[row] = rungs[asset].probability
    return [(-p, -s, asset) for p, s, asset in zip(probability, score, table.ids, strict=True)]


def _lead(table: Table, rungs: dict[str, Decision]) -> list[tuple[object, ...]]:
    return list(zip(np.nan_to_num(table.now["rul_s"][:, 1], nan=np.inf).tolist(), _risk(table, rungs), strict=True))


def _state(table: Table, rungs: dict[str, Decision]) -> list[tuple[object, ...]]:
    return list(zip(_URGENCY[table.now["state"]].tolist(), _risk(table, rungs), strict=True))


def _households(table: Table, rungs: dict[str, Decision]) -> list[tuple[object, ...]]:
    return list(zip([-asset.households for asset in table.register], _risk(table, rungs), strict=True))


def _oldest(table: Table, rungs: dict[str, Decision]) -> list[tuple[object, ...]]:
    return list(zip(table.now["end_us"].tolist(), table.ids, strict=True))


def _name(table: Table, rungs: dict[str, Decision]) -> list[tuple[object, ...]]:
    return [(_natural(asset), asset) for asset in table.ids]


SORTS: dict[str, Callable[[Table, dict[str, Decision]], Sequence[tuple[object, ...]]]] = {
    "risk": _risk,
    "lead": _lead,
    "state": _state,
    "households": _households,
    "oldest": _oldest,
    "asset": _name,
}
"""Orders of the table: the key of each row."""

_URGENCY = np.array(
    [("failing", "stopped", "degraded", "silent", "maintenance", "warming", "ok").index(state) for state in STATES]
)


def _asset(
    fleet: Fleet, table: Table, row: int, rungs: dict[str, Decision], episodes: list[Decision] | None = None
) -> AssetView:
    c, now, known = table.equipment, table.now[row], table.register[row]
    state = STATES[now["state"]]
    past = fleet.past(known.id)
    modes = list(c.failure_modes)
    leading = int(now["leading"])
    full = episodes is not None
    shares = {}
    if state not in ("ok", "warming"):
        tops = zip(now["top"].tolist(), now["top_share"].tolist(), strict=True)
        shares = {column: share for column, share in tops if column >= 0}
    rung = rungs.get(known.id)
    return AssetView(
        id=known.id,
        equipment=c.name,
        site=known.site,
        building=known.building,
        address=known.address,
        provider=known.provider,
        make=known.make,
        commissioned=known.commissioned,
        households=known.households,
        simulated=known.simulated,
        state=state,
        score=_short(now["score"]),
        chances=[
            Chance(h, s, _short(p, 4))
            for h, s, p in zip(c.failure_horizons, c.failure_horizons_s, now["p_fail"].tolist(), strict=True)
        ],
        paging_horizon=c.paging_horizon,
        page_at=c.paging.page_probability,
        mode=_mode(c, modes[leading], now["health"][leading]) if 0 <= leading < len(modes) else None,
        lead_s=[_short(v, 6) for v in now["rul_s"].tolist()],
        rung=rung.rung if rung else "",
        end_us=int(now["end_us"]),
        signals=[_signal(c, now, column, share, past) for column, share in shares.items()],
        details=[_signal(c, now, d, float(now["share"][d]), past) for d in range(len(now["x"]))] if full else [],
        modes=[_mode(c, name, now["health"][m]) for m, name in enumerate(modes)] if full else [],
        episodes=[_episode(c, e) for e in episodes or []],
        risk=_trace(past, 0) if full else None,
    )


def _mode(c: EquipmentClass, name: str, health: float) -> ModeView:
    mode = c.failure_modes[name]
    return ModeView(name, mode.description, mode.advice, _short(health, 4))


def _episode(c: EquipmentClass, decision: Decision) -> EpisodeView:
    mode = c.failure_modes.get(decision.failure_mode)
    return EpisodeView(
        decision.episode,
        decision.rung,
        decision.failure_mode,
        mode.description if mode else decision.failure_mode,
        decision.opened_us,
        _short(decision.probability, 4),
        decision.reason,
    )


def _signal(
    c: EquipmentClass,
    now: NDArray[np.void],
    column: int,
    share: float,
    past: tuple[NDArray[np.int64], NDArray[np.float32]] | None,
) -> SignalView:
    name = c.detection.features[column]
    feature = c.features[c.feature_index[name.partition("@")[0]]]
    return SignalView(
        signal=feature.signal,
        feature=name,
        words=feature_words(c, name),
        unit=unit_words(feature.unit),
        share=_short(share, 4) or 0.0,
        value=_short(now["x"][column]),
        lower=_short(now["lower"][column]),
        upper=_short(now["upper"][column]),
        trace=_trace(past, 1 + column),
    )


def _trace(past: tuple[NDArray[np.int64], NDArray[np.float32]] | None, column: int) -> Trace | None:
    if past is None or not len(past[0]):
        return None
    times_us, values = past
    ago_s = ((times_us[-1] - times_us) // 1_000_000).tolist()
    return Trace(ago_s, [_short(value) for value in values[:, column].tolist()])


def _short(value: float, digits: int = 4) -> float | None:
    """Return the number with so many significant digits; None where it is not known."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
