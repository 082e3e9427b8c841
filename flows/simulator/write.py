"""A simulated fleet as files: telemetry in one of four forms, the register, and the truth."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.assets import Register
from features.telemetry import BLOCKS
from flows.simulator.boiler import BOILER_SIGNALS
from flows.simulator.fleet import Fleet, FleetPlan, Truth
from flows.simulator.lift import LIFT_SIGNALS

__all__ = ["Wire", "json_lines", "write_assets", "write_fleet", "write_truth"]

Wire = Literal["parquet", "arrow", "jsonl", "csv"]
Progress = Callable[[int, float], None]

_DAY_US = 86_400_000_000
_DECIMALS = 5  # of a reading in text: finer than any sensor here
_ASSET_COLUMNS = (
    "id",
    "class",
    "site",
    "building",
    "address",
    "households",
    "provider",
    "contract",
    "time_zone",
    "commissioned",
    "make",
    "simulated",
)
_TRUTH_COLUMNS = ("asset", "class", "kind", "failure_mode", "onset", "breakdown", "end", "detail")


def write_fleet(plan: FleetPlan, out: Path, wire: Wire = "parquet", progress: Progress | None = None) -> int:
    """Write a fleet into a folder: `assets.csv`, `truth.csv`, and its telemetry under `telemetry/`.

    Parquet, Arrow (the IPC file format) and JSON lines hold blocks in one file a day of the plan; CSV is a wide table,
    one file an asset, with empty cells where a signal has no sample. Text carries five decimals. Memory stays below
    that of a batch, whatever the length.

    Parameters
    ----------
    plan
        A finite plan.
    out
        Folder, made where it does not exist; files in it are replaced.
    wire
        Form of the telemetry.
    progress
        Called after each batch with the readings so far and the share of the time that is done, 0 .. 1.

    Returns
    -------
    int
        Number of readings.
    """
    if plan.days is None:
        raise ValueError("an endless fleet does not fit into files: give the plan a number of days")
    fleet = Fleet(plan)
    folder = out / "telemetry"
    folder.mkdir(parents=True, exist_ok=True)
    write_assets(fleet.register, out / "assets.csv")
    write_truth(fleet.truth, out / "truth.csv")
    if wire == "csv":
        for asset in fleet.register:
            (folder / f"{asset}.csv").unlink(missing_ok=True)
    readings = 0
    day = 0
    while fleet.time_us < plan.end_us:
        day += 1
        until_us = min(plan.start_us + day * _DAY_US, plan.end_us)
        path = folder / f"{_iso(until_us - 1)[:10]}-{day:04d}.{wire}"
        with _Sink(path, wire, fleet.register) as sink:
            for batch in fleet.stream(until_us):
                sink.write(batch)
                readings += len(batch.column("values").values)
                if progress is not None:
                    progress(readings, (fleet.time_us - plan.start_us) / (plan.end_us - plan.start_us))
    return readings


class _Sink:
    """One file of telemetry, or for CSV the files of all assets."""

    def __init__(self, path: Path, wire: Wire, register: Register) -> None:
        self._path, self._wire, self._register = path, wire, register
        self._file: Any = None

    def __enter__(self) -> _Sink:
        if self._wire == "parquet":
            self._file = pq.ParquetWriter(self._path, BLOCKS, compression="zstd", compression_level=1)
        elif self._wire == "arrow":
            self._file = pa.ipc.new_file(self._path, BLOCKS)
        elif self._wire == "jsonl":
            self._file = self._path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, batch: pa.RecordBatch) -> None:
        if self._wire == "parquet" or self._wire == "arrow":
            self._file.write_batch(batch)
        elif self._wire == "jsonl":
            self._file.write(json_lines(batch))
        else:
            _append_tables(batch, self._path.parent, self._register)


def json_lines(batch: pa.RecordBatch) -> bytes:
    """Return blocks as lines of JSON, ``{"asset", "signal", "start", "period_us", "values"}``.

    Examples
    --------
    >>> fleet = Fleet(FleetPlan(lifts=1, boilers=0, start_us=0, days=1.0))
    >>> json_lines(fleet.step(61_000_000)).splitlines()[-1][:60]
    b'{"asset":"lift-0001","signal":"controller_state","start":"19'
    """
    values = np.round(batch.column("values").flatten().to_numpy(), _DECIMALS)
    ends = batch.column("values").offsets.to_numpy()
    ends = ends - ends[0]  # of a slice they begin in the middle
    starts = np.datetime_as_string(batch.column("start").to_numpy(zero_copy_only=False).astype("M8[us]"))
    rows = [
        {"asset": asset, "signal": signal, "start": f"{start}Z", "period_us": period, "values": v.tolist()}
        for asset, signal, start, period, v in zip(
            batch.column("asset").to_pylist(),
            batch.column("signal").to_pylist(),
            starts.tolist(),
            batch.column("period_us").to_pylist(),
            np.split(values, ends[1:-1]),
            strict=True,
        )
    ]
    return msgspec.json.Encoder().encode_lines(rows)


def _append_tables(batch: pa.RecordBatch, folder: Path, register: Register) -> None:
    """Append to the wide table of each asset what a batch says of it."""
    columns = batch.column("asset")
    assets = columns.indices.to_numpy()
    signals = batch.column("signal").indices.to_numpy()
    names = batch.column("signal").dictionary.to_pylist()
    start = batch.column("start").cast(pa.int64()).to_numpy()
    period = batch.column("period_us").to_numpy()
    ends = batch.column("values").offsets.to_numpy().astype(np.int64)
    values = np.round(batch.column("values").values.to_numpy(), _DECIMALS)
    length = np.diff(ends)
    moment = np.repeat(start, length) + np.repeat(period, length) * _running(length)
    of_asset, of_signal = np.repeat(assets, length), np.repeat(signals, length)
    order = np.argsort(of_asset, kind="stable")
    found, first = np.unique(of_asset[order], return_index=True)
    for index, rows in zip(found, np.split(order, first[1:]), strict=True):
        asset = columns.dictionary[int(index)].as_py()
        times, at = np.unique(moment[rows], return_inverse=True)
        table = {
            "time": [f"{t}Z" for t in np.datetime_as_string(times.astype("M8[us]"))],
            "asset": [asset] * len(times),
        }
        arrays = {name: pa.array(column) for name, column in table.items()}
        for name in LIFT_SIGNALS if register[asset].equipment == "lift" else BOILER_SIGNALS:
            mine = of_signal[rows] == names.index(name)
            full = np.full(len(times), np.nan)
            full[at[mine]] = values[rows[mine]]
            arrays[name] = pa.array(full, mask=np.isnan(full))
        path = folder / f"{asset}.csv"
        options = pacsv.WriteOptions(include_header=not path.exists(), quoting_style="none")
        with path.open("ab") as file:
            pacsv.write_csv(pa.table(arrays), file, options)


def _running(length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, 2, ... within each block.

    Examples
    --------
    >>> _running(np.array([2, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    ends = np.cumsum(length)
    count: NDArray[np.int64] = np.arange(int(ends[-1])) - np.repeat(ends - length, length)
    return count


def write_assets(register: Register, path: Path) -> None:
    """Write a register as the `assets.csv` that a site reads."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_ASSET_COLUMNS)
        for asset in register.values():
            row = msgspec.to_builtins(asset)
            row["simulated"] = "true" if asset.simulated else "false"
            writer.writerow([row[name] for name in _ASSET_COLUMNS])


def write_truth(truth: list[Truth], path: Path) -> None:
    """Write the true history: ISO times in UTC, an empty breakdown where nothing broke."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_TRUTH_COLUMNS)
        for t in truth:
            breakdown = "" if t.breakdown_us is None else _iso(t.breakdown_us)
            times = (_iso(t.onset_us), breakdown, _iso(t.end_us))
            writer.writerow([t.asset, t.equipment, t.kind, t.failure_mode, *times, t.detail])


def _iso(time_us: int) -> str:
    moment = datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)
    return moment.isoformat().replace("+00:00", "Z")
