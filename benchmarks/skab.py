"""Outlier detection on the Skoltech Anomaly Benchmark: F1, false alarm rate and missed alarm rate per row.

Protocol of the benchmark's authors: the first 400 rows of each file train, the rest is tested; here on the twenty
files of valve1 and valve2, each with detectors that begin with nothing, all with one class file. A row is called
abnormal if the anomaly score of its window is above 1. F1 alone says little: an alarm that never stops has 0.70 on
these files, so read it only with the false alarm rate beside it.

    python benchmarks/skab.py --data DATA --json figures.json

Data: waico/SKAB v0.9, Skoltech, GPL-3.0, in DATA/skab.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.signals import EquipmentClass, load_class
from flows.runs import score_file

CLASS = Path(__file__).parent / "classes" / "skab.toml"
TRAINING_ROWS = 400
GROUPS = ("valve1", "valve2")


class Windows(NamedTuple):
    """Scores of one file: start and end of each window in microseconds, and its anomaly score."""

    start_us: NDArray[np.int64]
    end_us: NDArray[np.int64]
    score: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows by truth and by what was said."""

    hit: int = 0
    false: int = 0
    missed: int = 0
    quiet: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hit + other.hit, self.false + other.false, self.missed + other.missed, self.quiet + other.quiet
        )

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.hit / (2 * self.hit + self.false + self.missed)

    @property
    def false_alarm_rate(self) -> float:
        """Share of normal rows that were called abnormal."""
        return self.false / (self.false + self.quiet)

    @property
    def missed_alarm_rate(self) -> float:
        """Share of abnormal rows that were not."""
        return self.missed / (self.missed + self.hit)


def count(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> Counts:
    """Count rows by truth and by what was said."""
    return Counts(
        int((truth & said).sum()), int((~truth & said).sum()), int((truth & ~said).sum()), int((~truth & ~said).sum())
    )


def rows_of(path: Path, separator: str) -> pa.Table:
    """Read a file; times are seconds of UTC."""
    convert = pyarrow.csv.ConvertOptions(column_types={"datetime": pa.timestamp("us")})
    return pyarrow.csv.read_csv(
        path, parse_options=pyarrow.csv.ParseOptions(delimiter=separator), convert_options=convert
    )


def score(equipment: EquipmentClass, path: Path, folder: Path) -> Windows:
    """Score one file through the dataflow, as `vigie score` does, with detectors that have seen nothing."""
    out = folder / "scores.parquet"
    scored = score_file(path, equipment, out)
    if scored.account["received"] != scored.account["scored"]:
        raise SystemExit(f"{path}: readings were rejected: {scored.account}")
    table = pq.read_table(out)
    start, end = (table[name].cast(pa.int64()).to_numpy() for name in ("window_start", "window_end"))
    return Windows(start, end, table["anomaly_score"].to_numpy())


def judge(equipment: EquipmentClass, path: Path, windows: Windows) -> tuple[Counts, Counts]:
    """Count the tested rows of a file: what was said, and what an alarm that never stops would have said."""
    table = rows_of(path, equipment.table.separator)
    time = table[equipment.table.time].cast(pa.int64()).to_numpy()
    truth = table["anomaly"].to_numpy() > 0.5
    place = np.searchsorted(windows.start_us, time, side="right") - 1
    if not ((place >= 0) & (time < windows.end_us[place])).all():
        raise SystemExit(f"{path}: a row lies in no window")
    said = windows.score[place] > 1.0
    tested = slice(TRAINING_ROWS, None)
    return count(truth[tested], said[tested]), count(truth[tested], np.ones_like(said[tested]))


def files(data: Path) -> list[Path]:
    """Return the twenty files in their order."""
    found = [p for group in GROUPS for p in sorted((data / "skab" / group).glob("*.csv"), key=lambda p: int(p.stem))]
    if not found:
        raise SystemExit(f"no files in {data / 'skab'}: give the folder of data sets with --data or VIGIE_DATA")
    return found


def run(equipment: EquipmentClass, data: Path) -> tuple[dict[str, Counts], Counts]:
    """Return the counts by file, and those of an alarm that never stops."""
    counts: dict[str, Counts] = {}
    always = Counts()
    with tempfile.TemporaryDirectory() as folder:
        for path in files(data):
            said, guard = judge(equipment, path, score(equipment, path, Path(folder)))
            counts[f"{path.parent.name}/{path.stem}"] = said
            always += guard
    return counts, always


def line(name: str, c: Counts) -> str:
    """Return one line of the table."""
    return f"{name:20} {c.f1:6.3f} {100 * c.false_alarm_rate:8.1f} {100 * c.missed_alarm_rate:8.1f}"


def main() -> None:
    """Print the table, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("VIGIE_DATA", "data")), metavar="DIR")
    parser.add_argument("--class", dest="equipment", type=Path, default=CLASS, metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    counts, always = run(load_class(arguments.equipment), arguments.data)
    total = sum(counts.values(), Counts())
    print(f"{'file':20} {'F1':>6} {'FAR %':>8} {'MAR %':>8}")
    for name, c in counts.items():
        print(line(name, c))
    for group in GROUPS:
        print(line(f"all {group}", sum((c for n, c in counts.items() if n.startswith(group)), Counts())))
    print(line("all", total))
    print(line("always alarming", always))
    if arguments.json:
        figures = {
            "skab_files": len(counts),
            "skab_f1": total.f1,
            "skab_far": total.false_alarm_rate,
            "skab_mar": total.missed_alarm_rate,
            "skab_f1_always_alarming": always.f1,
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
