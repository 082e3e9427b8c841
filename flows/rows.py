"""Results as tables: the public columns of a score row, the features of a window, a decision, a rejection.

What cannot be known is null, never NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.signals import EquipmentClass
from features.telemetry import Rejected
from features.times import LATEST_US
from features.windows import ClosedWindows
from flows.dispatch import Decision
from models.assessment import STATES, Assessed

__all__ = [
    "DAY_US",
    "DECISIONS",
    "REJECTED",
    "TIME",
    "ArchiveRows",
    "archive_rows",
    "day_of",
    "decision_rows",
    "feature_rows",
    "plausible",
    "rejected_rows",
    "score_rows",
    "score_schema",
]

TIME = pa.timestamp("us", "UTC")
DAY_US = 86_400_000_000

DECISIONS = pa.schema(
    [
        ("episode", pa.string()),
        ("asset", pa.string()),
        ("failure_mode", pa.string()),
        ("opened", TIME),
        ("window_start", TIME),
        ("rung", pa.string()),
        ("outcome", pa.string()),
        ("probability", pa.float64()),
        ("reason", pa.string()),
    ]
)
"""Pages, tickets and ends of episodes."""

REJECTED = pa.schema(
    [
        ("time", TIME),
        ("asset", pa.string()),
        ("signal", pa.string()),
        ("reason", pa.string()),
        ("readings", pa.int64()),
        ("source", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.binary()),
    ]
)
"""Rejected input: `time` is the event time of its first reading, null where unknown; `raw` the bytes as they came."""


def score_schema(equipment: EquipmentClass) -> pa.Schema:
    """Return the public columns of the score rows of a class.

    Examples
    --------
    >>> from features.signals import load_class
    >>> [name for name in score_schema(load_class("lift")).names if name.startswith("p_fail")]
    ['p_fail_2h', 'p_fail_24h', 'p_fail_7d']
    """
    return pa.schema(
        [
            ("asset", pa.string()),
            ("window_start", TIME),
            ("window_end", TIME),
            ("samples", pa.int64()),
            ("state", pa.string()),
            ("anomaly_score", pa.float64()),
            ("health", pa.float64()),
            *((f"p_fail_{horizon}", pa.float64()) for horizon in equipment.failure_horizons),
            ("rul_p10_s", pa.float64()),
            ("rul_p50_s", pa.float64()),
            ("rul_p90_s", pa.float64()),
            ("page", pa.bool_()),
            ("failure_mode", pa.string()),
            ("top_signals", pa.list_(pa.string())),
        ]
    )


def score_rows(assessed: Assessed, equipment: EquipmentClass, paged: NDArray[np.bool_] | None = None) -> pa.Table:
    """Return the score rows of assessed windows.

    Parameters
    ----------
    assessed
        The windows, n of them.
    equipment
        Their class.
    paged
        Windows in which a page was sent, shape ``(n,)``; none by default.
    """
    windows, scored = assessed.windows, assessed.scored
    n = len(windows.rows)
    health = np.where(np.isnan(assessed.health), np.inf, assessed.health).min(axis=1, initial=np.inf)
    modes = pa.array([*equipment.failure_modes, None], pa.string())
    columns = [
        *_head(windows),
        pa.array(STATES).take(pa.array(assessed.state)),
        _known(scored.score),
        _known(np.where(np.isinf(health), np.nan, health)),
        *(_known(column) for column in assessed.p_fail.T),
        *(_known(column) for column in assessed.rul_s.T),
        pa.array(np.zeros(n, np.bool_) if paged is None else paged),
        modes.take(pa.array(np.where(assessed.leading < 0, len(modes) - 1, assessed.leading))),
        _top_signals(assessed, equipment),
    ]
    return pa.Table.from_arrays(columns, schema=score_schema(equipment))


def feature_rows(windows: ClosedWindows, equipment: EquipmentClass) -> pa.Table:
    """Return windows with all their features, a column each, named as in the class file."""
    names = ["asset", "window_start", "window_end", "samples", "state_code"]
    columns = [*_head(windows), _known(windows.state_code)]
    columns += [_known(column) for column in windows.features.T]
    return pa.table(dict(zip([*names, *(f.name for f in equipment.features)], columns, strict=True)))


class ArchiveRows(NamedTuple):
    """Rows of one table, class and day of the archive, between two event times."""

    table: str
    equipment: str
    day: str
    rows: pa.Table
    first_us: int
    last_us: int


def archive_rows(
    result: Assessed | Decision | tuple[float, ClosedWindows], equipment: EquipmentClass
) -> Iterator[ArchiveRows]:
    """Yield the rows of a result: features and scores of windows, features of longer windows, a decision."""
    name = equipment.name
    if isinstance(result, Decision):
        start_us = result.window_start_us
        yield ArchiveRows("decisions", name, day_of(start_us), decision_rows([result]), start_us, start_us)
    elif isinstance(result, tuple):
        length_s, windows = result
        yield from _by_day(f"features_{length_s:g}s", name, windows, feature_rows(windows, equipment))
    else:
        yield from _by_day("features", name, result.windows, feature_rows(result.windows, equipment))
        # Pages are decided later than the row is written.
        yield from _by_day("scores", name, result.windows, score_rows(result, equipment).drop_columns(["page"]))


def _by_day(table: str, name: str, windows: ClosedWindows, rows: pa.Table) -> Iterator[ArchiveRows]:
    """Yield rows, which are those of the windows, by day."""
    days = windows.start_us // DAY_US
    for day in np.unique(days).tolist():
        here = days == day
        start_us = windows.start_us[here]
        some = rows if here.all() else rows.filter(pa.array(here))
        yield ArchiveRows(table, name, day_of(int(start_us[0])), some, int(start_us.min()), int(start_us.max()))


def day_of(us: int) -> str:
    """Return the day of an event time.

    Examples
    --------
    >>> day_of(1_767_571_200_000_000)
    '2026-01-05'
    """
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).date().isoformat()


def decision_rows(decisions: Sequence[Decision]) -> pa.Table:
    """Return pages, tickets and ends of episodes, a row each."""
    rows = [(d.episode, d.asset, d.failure_mode, d.opened_us, d.window_start_us, d.rung, d.outcome,
             None if np.isnan(d.probability) else d.probability, d.reason) for d in decisions]  # fmt: skip
    return _table(rows, DECISIONS)


def rejected_rows(rejected: Sequence[Rejected]) -> pa.Table:
    """Return rejected input, a row each.

    Examples
    --------
    >>> from features.telemetry import Reason
    >>> rejected_rows([Rejected(Reason.LATE, 3, "topic", b"{}", "lift-1")]).to_pylist()[0]["reason"]
    'late'
    """
    rows = [
        (plausible(r.start_us), r.asset, r.signal, str(r.reason), r.readings, r.source, r.detail, r.raw)
        for r in rejected
    ]
    return _table(rows, REJECTED)


def plausible(time_us: int | None) -> int | None:
    """Return an event time, or None where no calendar shows it: it may be why the input was rejected."""
    return time_us if time_us is not None and 0 <= time_us < LATEST_US else None


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [() for _ in schema]
    return pa.Table.from_arrays(
        [pa.array(list(c), pa.int64()).cast(TIME) if f.type == TIME else pa.array(list(c), f.type)
         for c, f in zip(columns, schema, strict=True)],
        schema=schema,
    )  # fmt: skip


def _head(windows: ClosedWindows) -> list[pa.Array]:
    """Return asset, start, end and samples."""
    present, where = np.unique(windows.rows, return_inverse=True)
    names = pa.array([windows.names[row] for row in present.tolist()], pa.string())
    return [
        names.take(pa.array(where)),
        pa.array(windows.start_us).cast(TIME),
        pa.array(windows.end_us).cast(TIME),
        pa.array(windows.samples),
    ]


def _known(values: NDArray[np.float64]) -> pa.Array:
    """Return a column in which NaN is null."""
    return pa.array(np.ascontiguousarray(values, np.float64), pa.float64(), from_pandas=True)


def _top_signals(assessed: Assessed, equipment: EquipmentClass) -> pa.ListArray:
    """Return the signals that speak loudest, strongest first, each once; none while the score says nothing."""
    signals = [
        equipment.features[equipment.feature_index[name.partition("@")[0]]].signal
        for name in equipment.detection.features
    ]
    different = list(dict.fromkeys(signals))
    number = np.array([different.index(signal) for signal in signals])
    says = ~assessed.scored.warming & ~np.isnan(assessed.scored.score)
    top = np.where(assessed.top >= 0, number[assessed.top], -1)
    shown = (top >= 0) & says[:, None]
    for column in range(1, top.shape[1]):
        shown[:, column] &= (top[:, :column] != top[:, column : column + 1]).all(axis=1)
    offsets = np.concatenate(([0], np.cumsum(shown.sum(axis=1)))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(different, pa.string()).take(pa.array(top[shown])))
