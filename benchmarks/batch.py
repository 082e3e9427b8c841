"""DuckDB computes the base features of the same readings in batch, on one thread: the speed of a good database.

It is given what it likes best: all readings at hand before the clock starts, as flat columns with integer ids, as a
table of its own or as Arrow, whichever is faster; and the reading order is known to be the order of time, so that the
first and the last reading cost no search. Two passes: means first, then the powers about them. One pass over plain or
shifted powers, and DuckDB's own `skewness` and `kurtosis`, fail the check where a level is far from the spread. Of the
ways to write the query the fastest is taken, on the machine that runs it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.profiles import START_US, Readings
from benchmarks.turns import Result

_KEYS = {
    "columns": (
        f"(time - {START_US}) // {{window_us}} number, asset, signal",
        "number, asset, signal",
        "number, asset, signal",
    ),
    "packed": (
        f"((time - {START_US}) // {{window_us}} * {{assets}} + asset) * 64 + signal key",
        "key",
        "key // 64 // {assets} number, key // 64 % {assets} asset, key % 64 signal",
    ),
}
"""How a window is named in the query: by three columns, or by one number."""

_QUERY = f"""
    with readings as (select {{keys}}, value, ((time - {START_US}) % {{window_us}}) / 1e6 s from {{table}}),
    base as (
        select {{key}}, count(*)::double n, avg(value) mean, avg(s) middle, min(value) low, max(value) high,
            first(value) first, last(value) last
        from readings group by {{key}}
    ),
    powers as (
        select {{key}}, sum(d * d) m2, sum(d * d * d) m3, sum(d * d * d * d) m4, sum(u * u) tt, sum(u * d) td
        from (select {{key}}, value - mean d, s - middle u from readings join base using ({{key}})) group by {{key}}
    )
    select {{named}}, n as count, mean, sqrt(m2 / n) as std, low as min, high as max, high - low as peak_to_peak,
        sqrt(mean * mean + m2 / n) as rms,
        greatest(abs(low), abs(high)) / nullif(sqrt(mean * mean + m2 / n), 0) as crest,
        case when high > low then sqrt(n) * m3 / (m2 * sqrt(m2)) end as skewness,
        case when high > low then n * m4 / (m2 * m2) - 3 end as kurtosis,
        td / nullif(tt, 0) as slope, first, last
    from base join powers using ({{key}})
"""


class Batch:
    """A database with the readings in it.

    Parameters
    ----------
    readings
        All of them, in the order of time for each asset and signal.
    assets
        Number of assets.
    window_s
        Length of a window in seconds.
    """

    def __init__(self, readings: Sequence[Readings], assets: int, window_s: float) -> None:
        names = {"asset": "asset", "signal": "signal", "time": "time_us", "value": "value"}
        self.arrow = pa.table({k: np.concatenate([getattr(r, v) for r in readings]) for k, v in names.items()})
        self._database = duckdb.connect()
        self._database.execute("set threads = 1")
        self._database.register("arrow", self.arrow)
        self._database.execute("create table own as select * from arrow")
        window_us = round(window_s * 1e6)
        self._ways = [
            _query(table, key, window_us=window_us, assets=assets) for table in ("own", "arrow") for key in _KEYS
        ]
        self._way = self._ways[0]

    def statistics(self) -> pa.Table:
        """Return a row a window and signal: its `number`, `asset`, `signal`, and `features.signals.STATISTICS`."""
        return self._database.sql(self._way).to_arrow_table()

    def choose(self) -> None:
        """Take the fastest way."""
        self.run()  # what only the first query costs
        spent = {}
        for way in self._ways:
            self._way = way
            spent[way] = self.run()["seconds"]
        self._way = min(spent, key=spent.__getitem__)

    def run(self) -> Result:
        """Measure one run."""
        begun = time.perf_counter()
        self.statistics()
        return {"readings": float(self.arrow.num_rows), "seconds": time.perf_counter() - begun}


def _query(table: str, way: str, **numbers: int) -> str:
    keys, key, named = (part.format(**numbers) for part in _KEYS[way])
    return _QUERY.format(table=table, keys=keys, key=key, named=named, **numbers)
