"""Real brokers that speak Kafka's protocol, each a process of its own on a free port of loopback."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

PATIENCE_S = 30.0
"""No condition here takes longer on a busy machine."""


def until(met: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition, and fail where it does not come."""
    deadline = time.monotonic() + patience_s
    while not met():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


class Broker:
    """A broker that keeps its data in a folder, so that it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._settled = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        spec = importlib.util.find_spec("noida_db")
        assert spec is not None and spec.origin is not None, "pip install noida-db"
        command = [str(Path(spec.origin).with_name("noida-db")), "start", "--data-dir", str(self.folder)]
        command += ["--only", "kafka", "--kafka-port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._listens, "the broker to listen")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False

    def settle(self) -> None:
        """Wait until all that was acknowledged is on its disk, which takes this broker a second."""
        if self._settled == 0:
            self.make("settled", 1)
        self._settled += 1
        self.send("settled", [b""])
        file = self.folder / "kafka.json"

        def saved() -> bool:
            try:
                topics = dict(json.loads(file.read_bytes())["topics"])
            except (OSError, ValueError):
                return False
            settled = topics.get("settled")
            return settled is not None and dict(settled["partitions"])[0]["high_watermark"] >= self._settled

        until(saved, "the broker to save its data")

    def kill(self) -> None:
        """Kill it with signal 9, after its data are on disk: what a real one does before it acknowledges."""
        self.settle()
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self._process.pid}/stat")
        until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "the broker to stand still")

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def make(self, topic: str, partitions: int) -> None:
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result()
        until(lambda: topic in admin.list_topics(timeout=5.0).topics, "the topic")

    def send(
        self,
        topic: str,
        payloads: Iterable[bytes | None],
        partition: int = 0,
        headers: dict[str, bytes] | None = None,
        time_ms: int = 0,
    ) -> None:
        failed: list[KafkaError] = []

        def confirmed(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failed.append(error)

        producer = Producer({"bootstrap.servers": self.address, "acks": "all"})
        for payload in payloads:
            producer.produce(
                topic,
                payload,
                partition=partition,
                headers=list((headers or {}).items()),
                timestamp=time_ms or int(time.time() * 1000),
                on_delivery=confirmed,
            )
        assert producer.flush(PATIENCE_S) == 0 and not failed

    def delete(self, topic: str, before: int, partition: int = 0) -> None:
        """Delete the messages of a partition before an offset, as retention does."""
        admin = AdminClient({"bootstrap.servers": self.address})
        for done in admin.delete_records([TopicPartition(topic, partition, before)]).values():
            done.result()

    def read(self, topic: str) -> list[Message]:
        """Return all messages of a topic, partition by partition."""
        consumer = Consumer(
            {"bootstrap.servers": self.address, "group.id": "test", "enable.partition.eof": True, "log_level": 2}
        )
        numbers = list(consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, n, 0) for n in numbers])
        found: list[Message] = []
        errors: list[KafkaError] = []
        ended: set[int | None] = set()
        deadline = time.monotonic() + PATIENCE_S
        while len(ended) < len(numbers):
            assert time.monotonic() < deadline, f"waited in vain for the end of the topic: {errors}"
            for message in consumer.consume(1000, 0.05):
                error = message.error()
                if error is None:
                    found.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
                else:
                    errors.append(error)
        consumer.close()
        return sorted(found, key=lambda m: (m.partition() or 0, m.offset() or 0))

    def messages(self, topic: str, partitions: int) -> int:
        """Return how many messages the partitions of a topic have had."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "test", "log_level": 2})
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, n), PATIENCE_S)[1] for n in range(partitions)]
        consumer.close()
        return sum(ends)

    def committed(self, topic: str, group: str, partitions: int = 1) -> list[int]:
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, "log_level": 2})
        asked = [TopicPartition(topic, n) for n in range(partitions)]
        found = [one.offset for one in consumer.committed(asked, timeout=PATIENCE_S)]
        consumer.close()
        return found


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Return a running broker with an empty disk."""
    broker = Broker(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def dead_broker(tmp_path: Path) -> Iterator[Broker]:
    """Return a broker that has not been started yet."""
    broker = Broker(tmp_path / "broker")
    yield broker
    broker.stop()


@pytest.fixture
def wait() -> Callable[[Callable[[], bool], str], None]:
    """Return a function that waits for a condition."""
    return until
