"""A topic read by offset: each message once, wherever the broker or the reader stops in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bytewax.inputs import StatefulSourcePartition
from prometheus_client import CollectorRegistry

from flows.kafka.settings import KafkaInput, client_config
from flows.kafka.source import KafkaSource
from flows.metrics import Pipeline
from flows.sources import Message

LONGEST_S = 0.5
"""Longest time of one call: it takes a few milliseconds, on a machine that does nothing else."""


class Reader:
    """Reads partitions as the engine does, and remembers what it saw."""

    def __init__(self, broker: Any, topic: str = "telemetry", partitions: int = 1, **described: Any) -> None:
        described = {"brokers": (broker.address,), "wire": "json", **described}
        self.described = KafkaInput(name="gateways", topic=topic, partitions=partitions, **described)
        self.pipeline = Pipeline(CollectorRegistry())
        self.said: list[str] = []
        self.stop = threading.Event()
        config = client_config(self.described, Path())
        self.source = KafkaSource(self.described, config, self.pipeline, self.stop, say=self.said.append)
        self.parts: dict[str, StatefulSourcePartition[Message, dict[str, Any]]] = {}
        self.messages: list[Message] = []
        self.slowest_s = 0.0

    def open(self, states: dict[str, dict[str, Any]] | None = None) -> Reader:
        for name in self.source.list_parts():
            began = time.monotonic()
            self.parts[name] = self.source.build_part("input", name, (states or {}).get(name))
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        return self

    def poll(self) -> Reader:
        for part in self.parts.values():
            began = time.monotonic()
            self.messages += part.next_batch()
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        return self

    def payloads(self) -> list[bytes]:
        return [payload for message in self.messages for payload in message.payload]

    def metric(self, name: str, part: str = "kafka/telemetry/0") -> float | None:
        return self.pipeline.registry.get_sample_value(f"vigie_input_{name}", {"input": part})

    def close(self) -> dict[str, dict[str, Any]]:
        states = {name: part.snapshot() for name, part in self.parts.items()}
        for part in self.parts.values():
            part.close()
        return states


Wait = Callable[[Callable[[], bool], str], None]


def numbered(first: int, end: int) -> list[bytes]:
    return [str(n).encode() for n in range(first, end)]


def test_each_message_is_read_once_and_many_at_once(broker: Any, wait: Wait) -> None:
    broker.make("telemetry", 3)
    for partition in range(3):
        broker.send("telemetry", numbered(1000 * partition, 1000 * partition + 500), partition)
    reader = Reader(broker, partitions=3).open()
    wait(lambda: len(reader.poll().payloads()) >= 1500, "all messages")
    assert sorted(map(int, reader.payloads())) == [n for p in range(3) for n in range(1000 * p, 1000 * p + 500)]
    assert len(reader.messages) < 100
    for name in reader.source.list_parts():
        mine = [int(p) for m in reader.messages if m.source == name for p in m.payload]
        assert mine == sorted(mine)
    assert {m.wire for m in reader.messages} == {"json"}
    assert reader.slowest_s < LONGEST_S
    assert reader.close() == {f"kafka/telemetry/{n}": {"offset": 500} for n in range(3)}
    assert reader.said == []


def test_the_wire_form_is_that_of_the_header_else_of_the_topic(broker: Any, wait: Wait) -> None:
    broker.make("telemetry", 1)
    broker.send("telemetry", [b"a"], headers={"content-type": b"application/senml+cbor"}, time_ms=1_795_000_000_123)
    broker.send("telemetry", [b"b", None], time_ms=1_795_000_000_124)
    broker.send("telemetry", [b"c"], headers={"content-type": b"text/plain"})
    reader = Reader(broker).open()
    wait(lambda: len(reader.poll().payloads()) >= 4, "all messages")
    forms = {form: [p for m in reader.messages if m.wire == form for p in m.payload] for form in ("senml-cbor", "json")}
    assert forms == {"senml-cbor": [b"a"], "json": [b"b", b"", b"c"]}
    times = [t for m in reader.messages for t in m.times_us or ()]
    assert {1_795_000_000_123_000, 1_795_000_000_124_000} <= set(times)
    reader.close()


def test_reading_goes_on_after_the_snapshot(broker: Any, wait: Wait) -> None:
    broker.make("telemetry", 2)
    broker.send("telemetry", numbered(0, 100), 0)
    broker.send("telemetry", numbered(100, 150), 1)
    first = Reader(broker, partitions=2).open()
    wait(lambda: len(first.poll().payloads()) >= 150, "all messages")
    states = first.close()
    broker.send("telemetry", numbered(150, 160), 0)
    second = Reader(broker, partitions=2).open(states)
    wait(lambda: len(second.poll().payloads()) >= 10, "the new messages")
    assert second.payloads() == numbered(150, 160)
    again = Reader(broker, partitions=2).open({"kafka/telemetry/0": {"offset": 95}})
    wait(lambda: len(again.poll().payloads()) >= 15, "the messages since an older snapshot")
    assert sorted(map(int, again.payloads())) == [*range(95, 100), *range(150, 160)]
    second.close()
    again.close()


def test_a_broker_that_is_not_there_is_a_state_until_it_comes(dead_broker: Any, wait: Wait) -> None:
    reader = Reader(dead_broker, partitions=4).open()
    wait(lambda: bool(reader.poll().said), "the sentence")
    wait(lambda: (reader.poll().metric("errors_total") or 0) > 2, "some attempts")
    assert reader.metric("up") == 0.0
    assert len(reader.said) == 1 and "the input gateways cannot be read" in reader.said[0]
    assert "refused" in reader.said[0]
    assert reader.slowest_s < LONGEST_S
    dead_broker.start()
    dead_broker.make("telemetry", 4)
    dead_broker.send("telemetry", numbered(0, 10))
    wait(lambda: len(reader.poll().payloads()) >= 10, "the first messages")
    wait(lambda: all(reader.poll().metric("up", f"kafka/telemetry/{n}") == 1.0 for n in range(4)), "all to be up")
    assert reader.said[1:] == ["the input gateways is read again"]
    reader.close()


def test_a_broker_that_is_killed_and_restarted_loses_and_doubles_nothing(broker: Any, wait: Wait) -> None:
    broker.make("telemetry", 1)
    broker.send("telemetry", numbered(0, 200))
    reader = Reader(broker).open()
    wait(lambda: len(reader.poll().payloads()) >= 200, "the first messages")
    wait(lambda: reader.poll().metric("up") == 1.0, "the input to be up")
    broker.kill()
    wait(lambda: reader.poll().metric("up") == 0.0, "the loss to be noticed")
    assert reader.slowest_s < LONGEST_S
    broker.start()
    broker.send("telemetry", numbered(200, 300))
    wait(lambda: len(reader.poll().payloads()) >= 300, "the messages after the restart")
    assert reader.payloads() == numbered(0, 300)
    wait(lambda: reader.poll().metric("up") == 1.0, "the input to be up again")
    wait(lambda: reader.poll().metric("lag_messages") == 0.0, "the lag to be worked off")
    reader.close()


def test_what_the_broker_deleted_before_it_was_read_is_counted(broker: Any, wait: Wait) -> None:
    broker.make("telemetry", 1)
    broker.send("telemetry", numbered(0, 100))
    broker.delete("telemetry", before=60)
    reader = Reader(broker).open({"kafka/telemetry/0": {"offset": 10}})
    wait(lambda: len(reader.poll().payloads()) >= 40, "the messages that are left")
    assert reader.payloads() == numbered(60, 100)
    assert reader.metric("lost_messages_total") == 50.0
    assert reader.said == ["kafka/telemetry/0: 50 messages were deleted by the broker before they were read"]
    reader.close()


def test_a_topic_that_was_made_anew_is_read_from_its_beginning(broker: Any, wait: Wait) -> None:
    broker.make("telemetry", 1)
    broker.send("telemetry", numbered(0, 5))
    reader = Reader(broker).open({"kafka/telemetry/0": {"offset": 1000}})
    wait(lambda: len(reader.poll().payloads()) >= 5, "its messages")
    assert reader.said == ["kafka/telemetry/0: the topic was made anew, and is read from its beginning"]
    assert reader.metric("lost_messages_total") == 0.0
    reader.close()


def test_the_group_knows_the_offset_of_the_snapshot_before(broker: Any, wait: Wait) -> None:
    broker.make("telemetry", 1)
    broker.send("telemetry", numbered(0, 10))
    reader = Reader(broker, group="vigie-a").open()
    part = reader.parts["kafka/telemetry/0"]
    wait(lambda: len(reader.poll().payloads()) >= 10, "the messages")
    assert part.snapshot() == {"offset": 10}
    broker.send("telemetry", numbered(10, 15))
    wait(lambda: len(reader.poll().payloads()) >= 15, "the later messages")
    assert part.snapshot() == {"offset": 15}
    wait(lambda: reader.poll() is reader and broker.committed("telemetry", "vigie-a") == [10], "the commit")
    # Without a recovery store the group tells where to begin.
    after = Reader(broker, group="vigie-a").open()
    wait(lambda: len(after.poll().payloads()) >= 5, "the messages after the commit")
    assert after.payloads() == numbered(10, 15)
    after.close()
    reader.close()


def test_a_group_that_knows_nothing_begins_where_the_site_file_says(broker: Any, wait: Wait) -> None:
    broker.make("telemetry", 1)
    broker.send("telemetry", numbered(0, 10))
    reader = Reader(broker, start="latest").open()
    part = reader.parts["kafka/telemetry/0"]
    # The end is an offset too: what comes while nobody reads is not skipped.
    wait(lambda: reader.poll() is reader and part.snapshot() == {"offset": 10}, "the end to be known")
    states = reader.close()
    assert reader.payloads() == []
    broker.send("telemetry", numbered(10, 12))
    later = Reader(broker, start="latest").open(states)
    wait(lambda: len(later.poll().payloads()) >= 2, "the new messages")
    assert later.payloads() == numbered(10, 12)
    later.close()


def test_a_topic_of_more_partitions_than_are_read_is_told(broker: Any, wait: Wait) -> None:
    broker.make("telemetry", 3)
    broker.send("telemetry", numbered(0, 5))
    reader = Reader(broker, partitions=2).open()
    wait(lambda: bool(reader.poll().said), "the sentence")
    assert reader.said == [
        "the input gateways cannot be read: the topic telemetry has 3 partitions, and the site file reads 2"
    ]
    wait(lambda: len(reader.poll().payloads()) >= 5, "the messages of the others nevertheless")
    assert reader.metric("up") == 0.0
    reader.close()


def test_a_topic_that_is_not_there_is_read_when_it_comes(broker: Any, wait: Wait) -> None:
    reader = Reader(broker).open()
    wait(lambda: bool(reader.poll().said), "the sentence")
    assert "kafka/telemetry/0 has no leader" in reader.said[0]
    broker.make("telemetry", 1)
    broker.send("telemetry", numbered(0, 3))
    wait(lambda: len(reader.poll().payloads()) >= 3, "its messages")
    wait(lambda: reader.poll().metric("up") == 1.0, "the input to be up")
    reader.close()


def test_a_stop_ends_the_input_and_a_dead_broker_does_not_hold_it(broker: Any, wait: Wait) -> None:
    broker.make("telemetry", 1)
    broker.send("telemetry", numbered(0, 3))
    reader = Reader(broker).open()
    wait(lambda: len(reader.poll().payloads()) >= 3, "the messages")
    broker.stop()
    reader.stop.set()
    with pytest.raises(StopIteration):
        reader.poll()
    began = time.monotonic()
    assert reader.close() == {"kafka/telemetry/0": {"offset": 3}}
    assert time.monotonic() - began < 5.0


def test_a_process_reads_its_partitions_only() -> None:
    described = KafkaInput(name="gateways", brokers=("127.0.0.1:9092",), topic="telemetry", partitions=5)
    source = KafkaSource(described, {}, Pipeline(CollectorRegistry()), mine=lambda n: n % 2 == 1)
    assert source.list_parts() == ["kafka/telemetry/1", "kafka/telemetry/3"]
