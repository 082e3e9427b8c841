"""Pathway and PyFlink compute the yardstick's seven features of the same readings; no score, which is in their favour.

A competitor that knows nothing of this project, so that it runs in the environment in which the peers are installed.
The readings are a Parquet file, `key` (asset and signal), `time_us`, `value`, in the order of time. To bring them into
the engine is part of a run, as it is of any use of them.

    python benchmarks/peers.py pathway readings.parquet --window-us 10000000
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

Row = tuple[int, int, dict[str, float]]
"""Key, number of the window since 1970, features by name."""

MODULES = {"pathway": "pathway", "pyflink": "pyflink"}


def pathway(readings: pa.Table, window_us: int) -> list[Row]:
    """Compute with Pathway's `windowby`."""
    pw = importlib.import_module("pathway")
    table = pw.debug.table_from_pandas(readings.to_pandas())
    timed = table.select(
        pw.this.key, pw.this.time_us, pw.this.value, pair=pw.make_tuple(pw.this.time_us, pw.this.value)
    )
    windows = timed.windowby(
        timed.time_us, window=pw.temporal.tumbling(duration=window_us, origin=0), instance=timed.key
    ).reduce(
        key=pw.this._pw_instance,
        start=pw.this._pw_window_start,
        count=pw.reducers.count(),
        mean=pw.reducers.avg(pw.this.value),
        squares=pw.reducers.avg(pw.this.value * pw.this.value),
        low=pw.reducers.min(pw.this.value),
        high=pw.reducers.max(pw.this.value),
        last=pw.reducers.max(pw.this.pair),
    )
    out = pw.debug.table_to_pandas(windows, include_id=False)
    columns = (out[name] for name in ("key", "start", "count", "mean", "squares", "low", "high", "last"))
    return [
        (int(key), int(start) // window_us, _features(count, mean, squares, low, high, last[1]))
        for key, start, count, mean, squares, low, high, last in zip(*columns, strict=True)
    ]


def pyflink(readings: pa.Table, window_us: int) -> list[Row]:
    """Compute with a window of Flink's Table API, one slot, in streaming mode."""
    flink = importlib.import_module("pyflink.table")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "readings.csv")
        pacsv.write_csv(readings, path, pacsv.WriteOptions(include_header=False))
        settings = flink.EnvironmentSettings.in_streaming_mode()
        environment = flink.TableEnvironment.create(settings)
        environment.get_config().set("parallelism.default", "1").set("table.local-time-zone", "UTC")
        environment.execute_sql(
            f"""
            CREATE TABLE readings (
                `key` BIGINT, time_us BIGINT, `value` DOUBLE, ts AS TO_TIMESTAMP_LTZ(time_us / 1000, 3),
                WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
            ) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv')
            """
        )
        result = environment.execute_sql(
            f"""
            SELECT `key`, UNIX_TIMESTAMP(CAST(window_start AS STRING)) AS start_s, COUNT(*), AVG(`value`),
                AVG(`value` * `value`), MIN(`value`), MAX(`value`), LAST_VALUE(`value`)
            FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(ts), INTERVAL '{window_us // 1_000_000}' SECOND))
            GROUP BY `key`, window_start, window_end
            """
        )
        with result.collect() as rows:
            return [(row[0], row[1] * 1_000_000 // window_us, _features(*list(row)[2:])) for row in rows]


def _features(count: float, mean: float, squares: float, low: float, high: float, last: float) -> dict[str, float]:
    spread = max(0.0, squares - mean * mean)
    return {
        "count": float(count),
        "mean": mean,
        "std": spread**0.5,
        "min": low,
        "max": high,
        "rms": squares**0.5,
        "last": last,
    }


PEERS: dict[str, Callable[[pa.Table, int], list[Row]]] = {"pathway": pathway, "pyflink": pyflink}


def main() -> int:
    """Say whether the peer is installed; take turns, or with --features print what it computes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("readings", type=Path)
    parser.add_argument("--window-us", type=int, required=True)
    parser.add_argument("--features", action="store_true")
    given = parser.parse_args()
    if importlib.util.find_spec(MODULES[given.name]) is None:
        print(json.dumps({"absent": 1}), flush=True)
        return 0
    readings = pq.read_table(given.readings)
    run = PEERS[given.name]
    answer: dict[str, Any] = {"ready": 1}
    if given.features:
        answer["rows"] = run(readings, given.window_us)
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        run(readings, given.window_us)
        spent, peak = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"readings": readings.num_rows, "seconds": spent, "peak_mb": peak * 1024 / 1e6}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
