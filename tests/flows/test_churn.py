"""Assets come, go and change class while the flow runs: no trace of them is left, in memory or at the next scrape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from features.assets import Asset
from features.signals import load_class
from features.telemetry import BLOCKS
from flows import steps
from flows.exposition import exposition
from flows.fleet import Fleet
from flows.intake import Intake
from flows.known import SETTLED, Known
from flows.metrics import Pipeline
from flows.show import Show
from flows.sources import Message
from flows.steps import Assess, Dispatch, Retired, Score, Shard, Tick, Window
from models.assessment import Assessed

CLASSES = {name: load_class(name) for name in ("lift", "boiler")}
START_US = 1_767_571_200_000_000
SHARDS = 2
SIGNAL = {"lift": ("motor_current", 10), "boiler": ("flow", 60)}


class Flow:
    """The steps of the flow for every shard and class, without the engine."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.pipeline = Pipeline(CollectorRegistry())
        self.fleet = Fleet(CLASSES, known.register)
        known.changed(self.fleet.reload)
        self.intake = Intake(known.class_of, {}, self.pipeline)
        self.deal = Shard(CLASSES, known.class_of, SHARDS)
        self.chains: dict[tuple[str, str], tuple[Window, Score, Assess, Show]] = {}
        self.dispatch = {name: Dispatch(c, self.pipeline, self.fleet.decide) for name, c in CLASSES.items()}

    def take(self, blocks: pa.RecordBatch) -> None:
        for key, (name, item) in self.deal(self.intake(Message("in", "blocks", blocks))):
            chain = self.chains.get((key, name))
            if chain is None:
                if isinstance(item, Tick):
                    continue
                c = CLASSES[name]
                window = Window(c, self.pipeline, self.known.class_of, lambda: self.known.version)
                chain = window, Score(c, self.pipeline), Assess(c, self.pipeline), Show(c, self.fleet)
                self.chains[key, name] = chain
            window, score, assess, show = chain
            for step in window(item):
                for scored in score(step):
                    for result in assess(scored):
                        list(show(result))
                        self._decide(name, result)

    def _decide(self, name: str, result: Any) -> None:
        if isinstance(result, Retired):
            list(self.dispatch[name](result))
        elif isinstance(result, Assessed):
            for candidate in result.candidates:
                list(self.dispatch[name](candidate))

    @property
    def nbytes(self) -> int:
        """Bytes of everything that a step remembers, the table of the fleet among it."""
        return self.fleet.nbytes + sum(step.nbytes for chain in self.chains.values() for step in chain)

    def rows(self) -> int:
        return sum(len(window._windows.names) for window, *_ in self.chains.values())

    def shown(self) -> set[str]:
        """Return the assets that the exposition names."""
        lines = exposition(self.fleet, self.pipeline).decode().splitlines()
        return {line.split('asset="')[1].partition('"')[0] for line in lines if 'asset="' in line}


def telemetry(known: Known, window: int) -> pa.RecordBatch:
    """Return a minute of every asset."""
    rows = []
    for asset in known.register.values():
        signal, count = SIGNAL[asset.equipment]
        for part in range(60 // count):
            start = START_US + window * 60_000_000 + part * count * 1_000_000
            values = np.full(count, 5.0).tolist()
            row = {"asset": asset.id, "signal": signal, "start": start, "period_us": 1_000_000, "values": values}
            rows.append(row)
    rows.sort(key=lambda row: str(row["start"]))
    return pa.RecordBatch.from_pylist(rows, schema=BLOCKS)


def fleets(changes: int, each: int) -> Iterator[list[str]]:
    """Yield registers of 100 assets as rows of a file; of each, `each` are new, and one has changed its class."""
    rows = {f"a{n}": ("lift", "boiler")[n % 2] for n in range(100)}
    number = 100
    yield [f"{name},{equipment}" for name, equipment in rows.items()]
    for _ in range(changes // each):
        for name in list(rows)[:each]:
            del rows[name]
        name = next(iter(rows))
        rows[name] = {"lift": "boiler", "boiler": "lift"}[rows.pop(name)]
        for _ in range(each):
            rows[f"a{number}"] = ("lift", "boiler")[number % 2]
            number += 1
        yield [f"{name},{equipment}" for name, equipment in rows.items()]


@pytest.mark.timeout(600)
def test_ten_thousand_changes_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SHARDS_KNOWN", 200)
    path = tmp_path / "assets.csv"
    registers = fleets(10_000, 20)

    def write(rows: list[str]) -> None:
        hidden = tmp_path / "next"
        hidden.write_text("id,class\n" + "".join(f"{row}\n" for row in rows))
        hidden.replace(path)

    write(next(registers))
    known = Known({}, path, {}, CLASSES)
    known._seen = None
    flow = Flow(known)
    sizes = []
    for window, rows in enumerate([None, *registers]):
        if rows is not None:
            write(rows)
        known.look()
        if window % 5 == 0:
            assert flow.shown() <= set(known.register), "who left is gone at the next scrape"
        flow.take(telemetry(known, window))
        sizes.append((flow.rows(), flow.nbytes))
        if window % 100 == 50:
            settled = {row.partition(",")[0] for row in list(rows or [])[:20]}
            assert settled <= flow.shown(), "who has been here for four minutes is shown"
    assert known.version >= 500
    assert max(sizes[50:]) == max(sizes[:50]), "rows that were freed are used again, and no array grows"
    assert flow.rows() <= 200 and len(flow.fleet) <= 100 and len(flow.deal._number_of) <= 200
    for _ in range(SETTLED):
        known.look()
    flow.take(telemetry(known, len(sizes)))
    names = {name for window, *_ in flow.chains.values() for name in window._windows.names if name}
    assert names == set(known.register)
    account = flow.pipeline.account()
    assert account["received"] == sum(account.values()) - account["received"]
    assert account["unknown_asset"] > 0, "windows of who left were open"


def test_an_asset_that_comes_while_it_runs_warms_up(tmp_path: Path) -> None:
    known = Known({"l1": Asset(id="l1", equipment="lift")})
    flow = Flow(known)
    for window in range(3):
        flow.take(telemetry(known, window))
    known.register = known.register | {"l2": Asset(id="l2", equipment="lift")}
    flow.fleet.reload(known.register)
    known.version += 1
    for window in range(3, 6):
        flow.take(telemetry(known, window))
    [table, _] = flow.fleet.tables()
    assert sorted(table.ids) == ["l1", "l2"]
    text = exposition(flow.fleet, flow.pipeline)
    assert b'vigie_asset_state{asset="l2",state="warming"} 1' in text
