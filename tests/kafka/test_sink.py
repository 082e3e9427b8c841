"""Results into a topic: confirmed before an epoch ends, never lost, and never there twice after a resume."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from features.assets import shard_of
from flows.kafka.delivery import Undelivered
from flows.kafka.records import Records, dealt
from flows.kafka.settings import KafkaOutput, client_config
from flows.kafka.sink import KafkaSink
from flows.metrics import Pipeline
from flows.sealed import seal, unsealed

Wait = Callable[[Callable[[], bool], str], None]
ASSETS = [f"lift-{n:04d}" for n in range(1, 13)]


class Writer:
    """A process of its own, as far as the broker knows: it writes results as the engine does, and can be abandoned."""

    def __init__(
        self,
        broker: Any,
        states: dict[str, Any] | None = None,
        partitions: int = 4,
        mine: Callable[[int], bool] = lambda number: True,
        since_us: int | None = None,
        timeout_s: float = 20.0,
        stop: threading.Event | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        output = KafkaOutput(brokers=(broker.address,), scores="scores")
        self.pipeline = Pipeline(CollectorRegistry())
        self.sink = KafkaSink(
            "scores",
            "scores",
            client_config(output, Path()) | (config or {}),
            self.pipeline,
            partitions,
            timeout_s,
            stop,
            mine,
            since_us,
        )
        self.parts = {n: self.sink.build_part("out", n, (states or {}).get(n)) for n in self.sink.list_parts()}

    def write(self, first: int, end: int, assets: list[str] = ASSETS) -> Writer:
        """Write a result of each asset for each of some windows."""
        rows = [
            (a, f"{a}|{w}", json.dumps({"asset": a, "window": w}).encode()) for w in range(first, end) for a in assets
        ]
        for key, records in dealt(rows, self.sink.partitions):
            name = f"{self.sink.part_fn(key):04d}"
            if name in self.parts:
                self.parts[name].write_batch([records])
        return self

    def snapshot(self) -> dict[str, Any]:
        return {name: part.snapshot() for name, part in self.parts.items()}

    def metric(self, name: str) -> float | None:
        return self.pipeline.registry.get_sample_value(f"vigie_sink_{name}", {"sink": "scores"})


def windows(broker: Any) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for message in broker.read("scores"):
        value = json.loads(message.value())
        assert message.key().decode() == value["asset"]
        found.setdefault(value["asset"], []).append(value["window"])
    return found


def test_every_result_is_there_once_in_order_and_where_its_asset_belongs(broker: Any) -> None:
    broker.make("scores", 4)
    writer = Writer(broker).write(0, 50)
    writer.snapshot()
    assert windows(broker) == {asset: list(range(50)) for asset in ASSETS}
    for message in broker.read("scores"):
        assert message.partition() == shard_of(message.key().decode(), 4)
        headers = dict(message.headers())
        assert headers["content-type"] == b"application/json"
        assert (
            headers["id"] == f"{json.loads(message.value())['asset']}|{json.loads(message.value())['window']}".encode()
        )
    assert writer.metric("delivered_total") == 600.0
    assert writer.metric("unconfirmed_seconds") == 0.0
    assert writer.metric("stalled") == 0.0
    assert writer.metric("failures_total") == 0.0


@pytest.mark.parametrize("partitions", [1, 3, 4, 16])
def test_what_an_interrupted_run_has_sent_is_not_sent_again(broker: Any, partitions: int) -> None:
    broker.make("scores", partitions)
    killed = Writer(broker).write(0, 10)
    states = killed.snapshot()
    killed.write(10, 20)
    killed.snapshot()  # nobody kept it: the process died before the epoch was committed
    resumed = Writer(broker, states).write(10, 15)
    states = resumed.snapshot()
    # It is killed again, before it has come as far as the first time.
    again = Writer(broker, states).write(15, 30)
    again.snapshot()
    assert windows(broker) == {asset: list(range(30)) for asset in ASSETS}
    assert (resumed.metric("repeated_total"), again.metric("repeated_total")) == (60.0, 60.0)


def test_two_equal_results_stay_two(broker: Any) -> None:
    broker.make("scores", 1)
    killed = Writer(broker)
    states = killed.write(0, 1).snapshot()
    killed.write(1, 2, ["lift-0001"]).write(1, 2, ["lift-0001"]).snapshot()
    Writer(broker, states).write(1, 2, ["lift-0001"]).write(1, 2, ["lift-0001"]).write(1, 2, ["lift-0001"]).snapshot()
    assert windows(broker)["lift-0001"] == [0, 1, 1, 1]


def test_a_run_that_was_killed_before_its_first_snapshot_is_compared_since_the_store_was_made(broker: Any) -> None:
    broker.make("scores", 4)
    Writer(broker).write(0, 3).snapshot()
    time.sleep(0.01)  # the clock of the broker's timestamps has milliseconds
    made_us = time.time_ns() // 1000
    Writer(broker, since_us=made_us).write(0, 3).snapshot()
    # Without a store, and with a new one, the same windows are new results.
    assert windows(broker) == {asset: [0, 1, 2, 0, 1, 2] for asset in ASSETS}
    Writer(broker, since_us=made_us).write(0, 5).snapshot()
    assert windows(broker) == {asset: [0, 1, 2, 0, 1, 2, 3, 4] for asset in ASSETS}


def test_sink_partitions_move_between_processes_with_their_snapshots(broker: Any) -> None:
    broker.make("scores", 3)
    halves = [Writer(broker, mine=lambda n: n % 2 == 0), Writer(broker, mine=lambda n: n % 2 == 1)]
    states: dict[str, Any] = {}
    for half in halves:
        states |= half.write(0, 5).snapshot()
    for half in halves:
        half.write(5, 9).snapshot()
    one = Writer(broker, states).write(5, 12)
    one.snapshot()
    assert windows(broker) == {asset: list(range(12)) for asset in ASSETS}


def test_a_sink_that_has_nothing_to_write_needs_no_broker_and_keeps_what_it_knew(dead_broker: Any) -> None:
    assert unsealed(Writer(dead_broker).snapshot()["0000"])["ends"] is None
    state = {"version": 1, "ends": {0: 7}, "sent": {(b"a", b"a|1"): 1}, "kept": 3}
    assert Writer(dead_broker, {"0002": state}).snapshot()["0002"] == seal(state)


def test_what_cannot_be_delivered_in_time_ends_the_run(broker: Any) -> None:
    broker.make("scores", 4)
    writer = Writer(broker, timeout_s=1.0).write(0, 1)
    writer.snapshot()
    broker.freeze()
    with pytest.raises(Undelivered, match=r"the results for the topic scores cannot be delivered: .*; 12 are not"):
        writer.write(1, 2).snapshot()
    assert (writer.metric("failures_total") or 0) > 0
    broker.thaw()


def test_a_broker_that_is_dead_from_the_start_ends_the_run_at_the_deadline(dead_broker: Any) -> None:
    writer = Writer(dead_broker, timeout_s=1.0)
    began = time.monotonic()
    with pytest.raises(Undelivered, match="the brokers do not answer"):
        writer.write(0, 1)
    assert 1.0 < time.monotonic() - began < 20.0


def test_a_stop_does_not_wait_for_a_dead_broker(dead_broker: Any) -> None:
    stop = threading.Event()
    stop.set()
    began = time.monotonic()
    with pytest.raises(Undelivered, match="the run was stopped while"):
        Writer(dead_broker, timeout_s=3600.0, stop=stop).write(0, 1)
    assert time.monotonic() - began < 9.0


def test_a_full_queue_holds_the_flow_back_until_the_broker_is_there_again(broker: Any, wait: Wait) -> None:
    broker.make("scores", 1)
    writer = Writer(broker, config={"queue.buffering.max.messages": 20})
    writer.write(0, 1).snapshot()
    broker.kill()
    done = threading.Event()

    def work() -> None:
        writer.write(1, 20)
        writer.snapshot()
        done.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait(lambda: (writer.metric("unconfirmed_seconds") or 0.0) > 0.5, "the stall to show")
    assert not done.is_set()
    broker.start()
    assert done.wait(30.0)
    thread.join()
    assert windows(broker) == {asset: list(range(20)) for asset in ASSETS}
    assert writer.metric("unconfirmed_seconds") == 0.0
    assert writer.metric("delivered_total") == 240.0


def test_a_topic_that_is_not_there_is_made_by_the_broker_and_read_back_from_its_beginning(broker: Any) -> None:
    killed = Writer(broker, since_us=0)
    killed.write(0, 2)
    killed.snapshot()
    Writer(broker, since_us=0).write(0, 3).snapshot()
    assert windows(broker) == {asset: [0, 1, 2] for asset in ASSETS}


def test_records_are_dealt_like_assets_to_shards() -> None:
    parts = dict(dealt([(a, f"{a}|0", b"") for a in ASSETS], 4))
    assert sum(len(part.keys) for part in parts.values()) == len(ASSETS)
    for name, part in parts.items():
        assert {shard_of(key.decode(), 4) for key in part.keys} == {shard_of(name, 4)}
    assert Records([], [], []) not in parts.values()
