"""Results as records of topics: pure functions from what the flow knows to keys, ids and JSON.

Times are ISO 8601 in UTC, what cannot be known is null. The id of a result is the same whenever it is computed again.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.signals import EquipmentClass
from features.telemetry import Rejected
from flows.dispatch import Decision
from flows.kafka.records import Records, dealt
from flows.rows import TIME, plausible, score_rows
from models.assessment import Assessed

__all__ = ["RAW_LIMIT", "decision_records", "rejected_records", "score_records"]

RAW_LIMIT = 512 * 1024
"""Bytes of rejected input that are kept: in base64 they stay below the megabyte that a broker takes by default."""

_ENCODER = msgspec.json.Encoder()


def score_records(
    results: Iterable[tuple[str, Any]], classes: Mapping[str, EquipmentClass], partitions: int
) -> Iterator[tuple[str, Records]]:
    """Yield the score rows among results ``(class, Assessed | Silence | Decision)``: the columns of a score file.

    `page` is not among them: it is decided later, and stands in the topic of decisions.

    Parameters
    ----------
    results
        What the flow has found.
    classes
        Equipment classes by name.
    partitions
        Partitions of the sink: a batch of assessed windows of one shard stays together where they are as many.
    """
    for name, result in results:
        if isinstance(result, Assessed) and len(result.windows.rows):
            table = score_rows(result, classes[name]).drop_columns(["page"])
            assets: list[str] = table.column("asset").to_pylist()
            starts = table.column("window_start").combine_chunks().view(pa.int64()).to_pylist()
            columns = [_plain(column) for column in table.columns]
            names = ["asset", "class", *table.schema.names[1:]]
            columns.insert(1, [name] * len(assets))
            values = [_ENCODER.encode(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
            records = ((a, f"{a}|{start}", value) for a, start, value in zip(assets, starts, values, strict=True))
            yield from dealt(records, partitions)


def decision_records(results: Iterable[tuple[str, Any]], partitions: int) -> Iterator[tuple[str, Records]]:
    """Yield the decisions among results: pages, tickets and ends of episodes, one by one.

    Examples
    --------
    >>> page = Decision("e1", "lift-1", "lift", "brake", 0, 10_000_000, "page", 0.7, "open", "It wears.")
    >>> key, records = next(decision_records([("lift", page)], 16))
    >>> key, records.ids, records.values[0][:60]
    ('lift-1', [b'e1|page'], b'{"episode":"e1","asset":"lift-1","class":"lift","failure_mod')
    """
    for _, result in results:
        if isinstance(result, Decision):
            value = {
                "episode": result.episode,
                "asset": result.asset,
                "class": result.equipment,
                "failure_mode": result.failure_mode,
                "opened": _iso(result.opened_us),
                "window_start": _iso(result.window_start_us),
                "rung": result.rung,
                "outcome": result.outcome,
                "probability": result.probability,
                "reason": result.reason,
            }
            yield from dealt([(result.asset, f"{result.episode}|{result.rung}", _ENCODER.encode(value))], partitions)


def rejected_records(rejected: Iterable[Rejected], partitions: int) -> Iterator[tuple[str, Records]]:
    """Yield rejected input with its raw bytes in base64, keyed by its asset, or its source where that is unknown.

    The same bytes rejected twice have the same id: they are two records, as they were two.

    Examples
    --------
    >>> from features.telemetry import Reason
    >>> late = Rejected(Reason.LATE, 3, "kafka/telemetry/0", b"{}", "lift-1", start_us=1_767_600_000_000_000)
    >>> key, records = next(rejected_records([late], 16))
    >>> records.values[0][:86]
    b'{"time":"2026-01-05T08:00:00Z","asset":"lift-1","signal":null,"reason":"late","reading'
    """
    yield from dealt((_rejected(one) for one in rejected), partitions)


def _rejected(one: Rejected) -> tuple[str, str, bytes]:
    start_us = plausible(one.start_us)
    value = {
        "time": None if start_us is None else _iso(start_us),
        "asset": one.asset,
        "signal": one.signal,
        "reason": str(one.reason),
        "readings": one.readings,
        "source": one.source,
        "detail": one.detail,
        "raw": b64encode(one.raw[:RAW_LIMIT]).decode(),
        "raw_bytes": len(one.raw),
    }
    digest = blake2b(digest_size=16)
    for part in (one.source, one.reason, one.asset, one.signal, one.start_us):
        digest.update(repr(part).encode() + b"\0")
    digest.update(one.raw)
    return one.asset or one.source, digest.hexdigest(), _ENCODER.encode(value)


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """Return a column as values that JSON knows."""
    if column.type == TIME:
        return _isos(column.combine_chunks().view(pa.int64()).to_numpy())
    if pa.types.is_floating(column.type):
        # Null becomes NaN, which JSON shows as null.
        return column.to_numpy().tolist()  # type: ignore[no-any-return]
    return column.to_pylist()  # type: ignore[no-any-return]


def _isos(times_us: NDArray[np.int64]) -> list[str]:
    whole = not np.any(times_us % 1_000_000)
    texts = np.datetime_as_string(times_us.astype("M8[us]"), unit="s" if whole else "us")
    return [f"{text}Z" for text in texts.tolist()]


def _iso(time_us: int) -> str:
    return _isos(np.array([time_us]))[0]
