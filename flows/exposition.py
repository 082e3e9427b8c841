"""The fleet as Prometheus reads it.

An asset's series are text built from the table of the fleet: an asset that leaves is gone at the next scrape. Arrow
joins the columns of a family to lines, without the interpreter lock and in a fortieth of the time that labelled gauges
of `prometheus_client` take.

References
----------
Prometheus exposition formats, text-based format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray
from prometheus_client import disable_created_metrics, generate_latest

from flows import metrics
from flows.fleet import Fleet, Table
from flows.metrics import ASSET_FAMILIES, STATES, Family, Pipeline

__all__ = ["escape", "exposition"]

SERIES_OK = 20
"""Most series of an asset that is ok. Its three signals, while it is not, add at most twelve: see `_modes_shown`."""

SERIES_NOT_OK = 30

EPISODES_SHOWN = 2
"""Open episodes of one asset that have a series, those that page and the likeliest first."""

_QUANTILES = ("0.1", "0.5", "0.9")
_QUIET = [STATES.index("ok"), STATES.index("warming")]

disable_created_metrics()  # type: ignore[no-untyped-call]


def escape(text: str) -> str:
    r"""Escape a label value of the text exposition format.

    Examples
    --------
    >>> print(escape('a "b"\\c' + chr(10)))
    a \"b\"\\c\n
    """
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def exposition(fleet: Fleet, pipeline: Pipeline) -> bytes:
    """Return every metric in the text format of Prometheus.

    It costs about 0.25 microseconds a series; the fleet is locked only while its table is copied.
    """
    with pipeline.lock:
        parts = [generate_latest(pipeline.registry)]
    tables = [(table, _escaped(table.ids)) for table in fleet.tables()]
    for family in ASSET_FAMILIES:
        parts.append(f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.type}\n".encode())
        if family in (metrics.EPISODE_PAGE, metrics.EPISODE_TICKET):
            parts += _episodes(family, fleet)
            continue
        for table, ids in tables:
            if table.ids or family in (metrics.PAGE_THRESHOLD, metrics.FAILURE_MODE):
                parts += _LINES[family](family, table, ids)
    return b"".join(parts)


def _escaped(texts: list[str]) -> pa.Array:
    """Return label values, escaped as `escape` does it."""
    array = pa.array(texts, pa.string())
    for character, instead in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
        array = pc.replace_substring(array, character, instead)
    return array


def _joined(*columns: pa.Array | str) -> bytes:
    """Return the lines that the columns give side by side; a line with a null in it is left out."""
    columns = tuple(_text(c) if isinstance(c, str) else c for c in columns)
    lines = pc.binary_join_element_wise(*columns, "\n", "")
    _, offsets, text = lines.buffers()
    if text is None:
        return b""
    first, last = np.frombuffer(offsets, np.int32)[[lines.offset, lines.offset + len(lines)]]
    return memoryview(text)[first:last].tobytes()


@lru_cache(maxsize=4096)
def _text(constant: str) -> pa.Scalar:
    """Return a constant part of a line; Arrow looks for pandas each time that it makes one."""
    return pa.scalar(constant, pa.string())


def _numbers(values: ArrayLike) -> pa.Array:
    """Return numbers as text, null where they are not finite."""
    numbers = np.ascontiguousarray(values, np.float64)
    known = np.packbits(np.isfinite(numbers), bitorder="little")
    array = pa.Array.from_buffers(pa.float64(), len(numbers), [pa.py_buffer(known), pa.py_buffer(numbers)])
    return array.cast(pa.string())


def _series(family: Family, ids: pa.Array, labels: str, values: ArrayLike) -> bytes:
    """Return a line for each value that is known; `labels` follow the asset."""
    return _joined(f'{family.name}{{asset="', ids, f'"{labels}}} ', _numbers(values))


def _probability(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    name = escape(table.equipment.name)
    for h, horizon in enumerate(table.equipment.failure_horizons):
        yield _series(family, ids, f',class="{name}",horizon="{horizon}"', table.now["p_fail"][:, h])


def _leading(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    modes = _escaped(list(table.equipment.failure_modes))
    leading = table.now["leading"]
    mode = modes.take(pa.array(leading, pa.int32(), mask=leading < 0))
    yield _joined(f'{family.name}{{asset="', ids, '",failure_mode="', mode, '"} 1')


def _remaining(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    for q, quantile in enumerate(_QUANTILES):
        yield _series(family, ids, f',quantile="{quantile}"', table.now["rul_s"][:, q])


def _modes_shown(horizons: int) -> int:
    """Return how many failure modes of an asset have a series.

    The limit leaves room for its probabilities, leading mode, three of remaining life, score, state, info, households,
    last reading, and two episodes; and of an asset that is not ok, for four series of each of three signals.
    """
    others = horizons + 9 + EPISODES_SHOWN
    return max(1, min(SERIES_OK - others, SERIES_NOT_OK - others - 12))


def _health(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    """Of a class with more failure modes than there is room for, each asset's worst."""
    health = table.now["health"]
    room = _modes_shown(len(table.equipment.failure_horizons))
    if health.shape[1] > room:
        rank = np.argsort(np.argsort(health, axis=1, kind="stable"), axis=1)
        health = np.where(rank < room, health, np.nan)
    for m, mode in enumerate(table.equipment.failure_modes):
        yield _series(family, ids, f',failure_mode="{escape(mode)}"', health[:, m])


def _score(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    yield _series(family, ids, f',class="{escape(table.equipment.name)}"', table.now["score"])


def _state(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    state = pa.array(STATES).take(pa.array(table.now["state"], pa.int32()))
    yield _joined(f'{family.name}{{asset="', ids, '",state="', state, '"} 1')


def _info(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    known = table.register
    yield _joined(
        f'{family.name}{{asset="',
        ids,
        f'",class="{escape(table.equipment.name)}",site="',
        _escaped([asset.site for asset in known]),
        '",building="',
        _escaped([asset.building for asset in known]),
        '",provider="',
        _escaped([asset.provider for asset in known]),
        '",make="',
        _escaped([asset.make for asset in known]),
        '",simulated="',
        pc.cast(pa.array([asset.simulated for asset in known]), pa.string()),
        '"} 1',
    )


def _households(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    """Not of an asset whose households the register does not tell."""
    yield _series(family, ids, "", [asset.households or np.nan for asset in table.register])


def _last_reading(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    yield _series(family, ids, "", table.now["end_us"] / 1e6)


def _signals(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    """Of each asset that is not ok, the signals that say so; never the same signal twice."""
    c, now = table.equipment, table.now
    signals = [c.features[c.feature_index[name.partition("@")[0]]].signal for name in c.detection.features]
    number = {name: n for n, name in enumerate(dict.fromkeys(signals))}
    names, of_feature = _escaped(list(number)), np.array([number[name] for name in signals])
    rows = np.flatnonzero(~np.isin(now["state"], _QUIET))
    top = now["top"][rows]
    said = np.where(top >= 0, of_feature[top], -1)
    for place in range(top.shape[1]):
        new = (said[:, place] >= 0) & ~(said[:, :place] == said[:, place : place + 1]).any(axis=1)
        which, column = rows[new], top[new, place]
        asset, signal = ids.take(pa.array(which)), names.take(pa.array(said[new, place]))
        for bound, values in _of_signals(family, now, which, column, place):
            yield _joined(f'{family.name}{{asset="', asset, '",signal="', signal, f'"{bound}}} ', _numbers(values))


def _of_signals(
    family: Family, now: NDArray[np.void], rows: NDArray[np.int64], column: NDArray[np.int16], place: int
) -> tuple[tuple[str, NDArray[np.float64]], ...]:
    if family is metrics.SIGNAL_SHARE:
        return (("", now["top_share"][rows, place]),)
    if family is metrics.SIGNAL_VALUE:
        return (("", now["x"][rows, column]),)
    return (',bound="lower"', now["lower"][rows, column]), (',bound="upper"', now["upper"][rows, column])


def _episodes(family: Family, fleet: Fleet) -> Iterator[bytes]:
    """Open episodes, also of an asset whose shard runs in another process."""
    shown: dict[str, int] = {}
    for episode in sorted(fleet.episodes(), key=lambda e: (e.rung != "page", -e.probability, e.episode)):
        shown[episode.asset] = shown.get(episode.asset, 0) + 1
        if shown[episode.asset] <= EPISODES_SHOWN and (episode.rung == "page") == (family is metrics.EPISODE_PAGE):
            yield (
                f'{family.name}{{asset="{escape(episode.asset)}",class="{escape(episode.equipment)}"'
                f',failure_mode="{escape(episode.failure_mode)}",episode="{escape(episode.episode)}"}} 1\n'
            ).encode()


def _threshold(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    c = table.equipment
    line = f'{family.name}{{class="{escape(c.name)}",horizon="{c.paging_horizon}"}} {c.paging.page_probability!r}\n'
    yield line.encode()


def _failure_modes(family: Family, table: Table, ids: pa.Array) -> Iterator[bytes]:
    c = table.equipment
    for name, mode in c.failure_modes.items():
        words = f'description="{escape(mode.description)}",advice="{escape(mode.advice)}"'
        yield f'{family.name}{{class="{escape(c.name)}",failure_mode="{escape(name)}",{words}}} 1\n'.encode()


_LINES: dict[Family, Callable[[Family, Table, pa.Array], Iterable[bytes]]] = {
    metrics.FAILURE_PROBABILITY: _probability,
    metrics.LEADING_FAILURE_MODE: _leading,
    metrics.REMAINING_LIFE: _remaining,
    metrics.HEALTH: _health,
    metrics.ANOMALY_SCORE: _score,
    metrics.ASSET_STATE: _state,
    metrics.ASSET_INFO: _info,
    metrics.ASSET_HOUSEHOLDS: _households,
    metrics.LAST_READING: _last_reading,
    metrics.SIGNAL_SHARE: _signals,
    metrics.SIGNAL_VALUE: _signals,
    metrics.SIGNAL_EXPECTED: _signals,
    metrics.FAILURE_MODE: _failure_modes,
    metrics.PAGE_THRESHOLD: _threshold,
}
