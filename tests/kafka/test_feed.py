"""A simulated fleet in a topic: every reading once, each asset in the partition of its shard, in any form."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from features.assets import load_assets, shard_of
from features.telemetry import count_readings
from features.wire import MessageWire, content_type, decode
from flows.simulator.feed import arrow_messages, encoder, feed
from flows.simulator.fleet import Fleet, FleetPlan
from flows.simulator.target import Target, parse_target
from vigie.command import main

PLAN = FleetPlan(lifts=3, boilers=2, start_us=1_767_571_200_000_000, days=0.01, seed=4)


def expected() -> int:
    return sum(count_readings(batch) for batch in Fleet(PLAN).stream(PLAN.end_us))


@pytest.mark.parametrize("wire", ["arrow", "json", "senml", "senml-cbor", "cbor"])
def test_a_topic_holds_the_fleet_dealt_like_the_shards(
    broker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], wire: MessageWire
) -> None:
    out = f"kafka://{broker.address}/telemetry"
    command = ["simulate", out, "--lifts", "3", "--boilers", "2", "--days", "0.01", "--seed", "4", "--wire", wire]
    assert main([*command, "--faults", "none", "--partitions", "4", "--register", str(tmp_path / "register")]) == 0
    assert capsys.readouterr().out == f"{expected():,} readings of 3 lifts and 2 boilers -> {out}\n"
    readings = 0
    for message in broker.read("telemetry"):
        assert dict(message.headers())["content-type"].decode() == content_type(wire)
        decoded = decode(wire, [message.value()], source="test", times_us=[message.timestamp()[1] * 1000])
        assert decoded.rejected == []
        readings += count_readings(decoded.blocks)
        for asset in set(decoded.blocks.column("asset").to_pylist()):
            assert shard_of(asset, 4) == message.partition()
    assert readings == expected()
    assert len(load_assets(tmp_path / "register/assets.csv")) == 5
    assert (tmp_path / "register/truth.csv").exists()


def test_a_broker_that_is_not_there_is_told(dead_broker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", f"kafka://{dead_broker.address}/telemetry"]) == 1
    assert capsys.readouterr().err == f"vigie: the broker at {dead_broker.address} does not answer\n"


@pytest.mark.parametrize("out", ["http://a/b", "kafka://a", "kafka:///t", "kafka://a:x/t", "kafka://u:p@a/t"])
def test_an_address_that_is_none_is_told(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", out]) == 1
    expected = "expected kafka://HOST:PORT/TOPIC or mqtt://HOST:PORT/TOPIC"
    assert capsys.readouterr().err == f"vigie: {out}: {expected}\n"


def test_a_target_has_the_usual_port_where_none_is_given() -> None:
    assert parse_target("mqtt://broker/site/7") == Target("mqtt", "broker", 1883, "site/7")


def test_a_stop_ends_the_fleet_early_and_a_pace_is_kept() -> None:
    stop = threading.Event()
    now = [0.0]
    sent: list[tuple[int, bytes]] = []

    def clock() -> float:
        now[0] += 1.0
        if now[0] > 20.0:
            stop.set()
        return now[0]

    def send(partition: int, message: bytes) -> None:
        sent.append((partition, message))

    readings = feed(PLAN, 4, encoder("arrow"), send, speed=10.0, stop=stop, clock=clock)
    batches = [pa.ipc.open_stream(message).read_all() for _, message in sent]
    newest = max(int(batch.column("start").cast(pa.int64()).to_numpy().max()) for batch in batches)
    assert 0 < newest - PLAN.start_us <= 220_000_000
    assert readings == sum(len(batch.column("values").combine_chunks().flatten()) for batch in batches)


def test_an_arrow_message_holds_its_own_names_only() -> None:
    batch = Fleet(FleetPlan(lifts=200, boilers=0, start_us=0, days=1.0)).step(120_000_000)
    one = next(arrow_messages(batch.slice(0, 1)))
    assert len(one) < 5_000
    assert pa.ipc.open_stream(one).read_next_batch().column("asset").dictionary.to_pylist() == [
        batch.column("asset")[0].as_py()
    ]
