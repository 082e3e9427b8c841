"""The same windows a second time, as SQL over a table of readings: what a batch database says they hold."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

STATISTICS = """
with placed as (
    select asset, signal, time_us, value, time_us // {length} * {length} as start_us,
           (time_us % {length}) / 1e6 as second
    from readings
), sized as (
    select asset, signal, start_us, count(*) as n, min(value) as low, max(value) as high,
           arg_min(value, time_us) as earliest, arg_max(value, time_us) as latest,
           favg(value) as mean, favg(second) as middle
    from placed group by all
), spread as (
    select p.asset, p.signal, p.start_us, favg(pow(value - mean, 2)) as m2, favg(pow(value - mean, 3)) as m3,
           favg(pow(value - mean, 4)) as m4, favg((value - mean) * (second - middle)) as by_time,
           favg(pow(second - middle, 2)) as of_time, favg(value * value) as square
    from placed p join sized s using (asset, signal, start_us) group by all
)
select asset, signal, start_us, n::double as count, mean,
       case when high > low then sqrt(m2) else 0 end as std, low as min, high as max, high - low as peak_to_peak,
       sqrt(square) as rms,
       case when square > 0 then greatest(abs(low), abs(high)) / sqrt(square) end as crest,
       case when high > low then m3 / pow(m2, 1.5) end as skewness,
       case when high > low then m4 / (m2 * m2) - 3 end as kurtosis,
       case when n > 1 then by_time / of_time end as slope,
       earliest as first, latest as last
from sized join spread using (asset, signal, start_us)
"""


def windows(
    readings: Sequence[tuple[str, str, int, float]], length_us: int
) -> dict[tuple[str, str, int], dict[str, float]]:
    """Return the statistics of accepted readings by asset, signal and start of the window."""
    columns = list(zip(*readings, strict=True))
    table = pa.table(
        {
            "asset": pa.array(columns[0], pa.string()),
            "signal": pa.array(columns[1], pa.string()),
            "time_us": pa.array(columns[2], pa.int64()),
            "value": pa.array(columns[3], pa.float64()),
        }
    )
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("readings", table)
        result = connection.execute(STATISTICS.format(length=length_us))
        names = [column[0] for column in result.description]
        rows = result.fetchall()
    return {
        (row[0], row[1], row[2]): {n: np.nan if v is None else v for n, v in zip(names[3:], row[3:], strict=True)}
        for row in rows
    }
