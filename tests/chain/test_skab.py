"""Real telemetry of others: the Skoltech Anomaly Benchmark through the command, by the protocol of its authors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from vigie.command import main

ROOT = Path(__file__).parents[2]
CLASS = ROOT / "benchmarks" / "classes" / "skab.toml"


def test_every_file_is_scored_whole_and_twice_alike(data: Path, tmp_path: Path) -> None:
    files = sorted((data / "skab").glob("*/*.csv"))
    assert len(files) == 21
    for path in files:
        out = tmp_path / "scores.parquet"
        assert main(["score", str(path), "--class", str(CLASS), "--out", str(out)]) == 0
        rows = pq.read_table(out)
        lines = path.read_text().splitlines()
        present = sum(1 for line in lines[1:] for cell in line.split(";")[1:9] if cell)
        assert sum(rows["samples"].to_pylist()) == present
        starts = rows["window_start"].to_pylist()
        assert starts == sorted(starts)
        length = {
            (end - start).total_seconds() for start, end in zip(starts, rows["window_end"].to_pylist(), strict=True)
        }
        assert max(length) <= 10.0
        assert all(len(signals) <= 3 for signals in rows["top_signals"].to_pylist())
    first = out.read_bytes()
    assert main(["score", str(path), "--class", str(CLASS), "--out", str(out)]) == 0
    assert out.read_bytes() == first


def test_outliers_are_found_with_few_false_alarms(data: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "benchmarks/skab.py"), "--data", str(data), "--json", str(figures)]
    subprocess.run(command, check=True, capture_output=True)
    got = json.loads(figures.read_text())
    assert got["skab_files"] == 20
    assert got["skab_f1"] >= 0.78
    assert got["skab_far"] <= 0.30
