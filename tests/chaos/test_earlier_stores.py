"""Recovery stores that earlier releases wrote, one a release: each loads, and its run goes on."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from features.assets import load_assets
from features.signals import load_class
from flows.exporter import exposition
from flows.fleet import Fleet
from flows.intake import Intake
from flows.metrics import Pipeline
from flows.recovery import open_store
from flows.show import Show
from flows.simulator.fleet import FleetPlan
from flows.simulator.fleet import Fleet as Simulated
from flows.sources import Message
from flows.steps import Assess, Dispatch, Score, Shard, Window

STORES = sorted((Path(__file__).parent / "stores").glob("store-*.tar.gz"))
CLASSES = {name: load_class(name) for name in ("lift", "boiler")}
SHARDS = 2


@pytest.mark.parametrize("packed", STORES, ids=lambda path: path.name)
def test_a_store_of_an_earlier_release_goes_on(packed: Path, tmp_path: Path) -> None:
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "store", filter="data")
    register = load_assets(Path(__file__).parent / "stores" / "assets.csv")
    pipeline, fleet = Pipeline(CollectorRegistry()), Fleet(CLASSES, register)
    with open_store(tmp_path / "store", SHARDS, CLASSES, "vigie run site.toml --recovery store") as store:
        states = store.states()
    [position] = states["input_gateway"].values()

    def class_of(asset: str) -> str | None:
        return register[asset].equipment if asset in register else None

    intake = Intake(class_of, {}, pipeline, state=position["intake"])
    steps: dict[tuple[str, str, str], Any] = {}
    for step, keys in states.items():
        for key, state in keys.items():
            for name, remembered in state.get("classes", {}).items():
                one = steps[step, key, name] = _made(step, name, pipeline, fleet)
                one.load(remembered)

    account = pipeline.account()
    windows = [one for (step, _, _), one in steps.items() if step == "window"]
    assert account["received"] > 1_000_000
    # What is pending lies in the open windows that were loaded.
    assert account["pending"] == sum(one._windows.pending for one in windows) > 0
    assert exposition(fleet, pipeline).count(b"\nvigie_asset_state{") == len(register)

    # The same fleet goes on: nothing is late, and nobody warms up again.
    simulated = Simulated(FleetPlan(seed=5, lifts=2, boilers=1, start_us=1_767_571_200_000_000, days=1.0))
    begun_us = next(iter(position["intake"]["clock"].values()))
    before = simulated.step(begun_us)
    assert before.num_rows
    deal = Shard(CLASSES, class_of, SHARDS)
    source = next(iter(position["intake"]["clock"]))
    assessed = []
    for key, (name, item) in deal(intake(Message(source, "blocks", simulated.step(begun_us + 1_800_000_000)))):
        if ("window", key, name) in steps:
            for closed in steps["window", key, name](item):
                for scored in steps["score", key, name](closed):
                    assessed += [(name, result) for result in steps["assess", key, name](scored)]
    after = pipeline.account()
    assert after["scored"] > account["scored"]
    assert after.get("late", 0) == account.get("late", 0)
    lifts = [result for name, result in assessed if name == "boiler" and hasattr(result, "scored")]
    assert lifts and not any(result.scored.warming.any() for result in lifts)


def _made(step: str, name: str, pipeline: Pipeline, fleet: Fleet) -> Any:
    c = CLASSES[name]
    match step:
        case "window":
            return Window(c, pipeline)
        case "score":
            return Score(c, pipeline)
        case "assess":
            return Assess(c, pipeline)
        case "dispatch":
            return Dispatch(c, pipeline, fleet.decide)
    assert step == "show"
    return Show(c, fleet)
