"""Real brokers, clients that are not ours, and whatever may be killed: nothing is lost, nothing comes twice."""

from __future__ import annotations

import gc
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from prometheus_client import CollectorRegistry

from flows.metrics import Pipeline
from flows.mqtt.client import Broker, MqttClient
from flows.mqtt.session import Session, content_type
from flows.mqtt.topics import Topics, _matches, filter_problem
from flows.spool.frames import Record
from flows.spool.reader import SpoolReader
from flows.spool.source import SpoolSource
from flows.spool.writer import Spool, marks_of

PARTITIONS = 4
DEADLINE_S = 60.0
TOPICS = ["site/{asset}"]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"no {what} within {DEADLINE_S} s"
        threading.Event().wait(0.005)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Mosquitto:
    """A real broker that may be killed and started again on its port, with what it wrote."""

    def __init__(self, program: str, folder: Path, settings: str = "allow_anonymous true", port: int | None = None):
        folder.mkdir()
        self.port = port or free_port()
        self.database = folder / "mosquitto.db"
        self._command = [program, "-c", str(folder / "mosquitto.conf")]
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nuser root\npersistence true\npersistence_location {folder}/\n"
            "autosave_interval 1\nmax_inflight_messages 0\nmax_queued_messages 0\n" + settings + "\n"
        )

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for(self._listens, "broker")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def saved(self) -> None:
        """Wait until all that the broker has acknowledged is in its database: it writes once a second."""
        # A save that had begun before does not count, so two are waited for.
        for _ in range(2):
            before = self.database.stat().st_mtime_ns if self.database.exists() else 0
            wait_for(lambda b=before: self.database.exists() and self.database.stat().st_mtime_ns > b, "save")  # type: ignore[misc]


@pytest.fixture
def broker(program: Callable[[str], str], tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    started: list[Mosquitto] = []

    def start(*args: Any, run: bool = True, **kwargs: Any) -> Mosquitto:
        made = Mosquitto(program("mosquitto"), tmp_path / f"broker-{len(started)}", *args, **kwargs)
        started.append(made)
        if run:
            made.start()
        return made

    yield start
    for one in started:
        one.kill()


class Gateways:
    """A client that is not under test: publishes numbered messages with QoS 1 and repeats what is not acknowledged."""

    def __init__(self, port: int) -> None:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "gateways", protocol=MQTTProtocolVersion.MQTTv5)
        self.client.max_queued_messages_set(0)
        self.client.reconnect_delay_set(1, 1)
        wishes = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        wishes.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", port, clean_start=False, properties=wishes)
        self.client.loop_start()
        self.content = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        self.content.ContentType = "application/json"
        self.sent: dict[str, int] = {}

    def publish(self, n: int, assets: int = 8) -> None:
        for i in range(n):
            asset = f"lift-{i % assets}"
            number = self.sent.get(asset, 0)
            self.sent[asset] = number + 1
            payload = json.dumps({"asset": asset, "n": number}).encode()
            self.client.publish(f"site/{asset}", payload, qos=1, properties=self.content)

    def acknowledged(self) -> bool:
        return not self.client._out_messages

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def gateways() -> Iterator[Callable[[int], Gateways]]:
    made: list[Gateways] = []

    def make(port: int) -> Gateways:
        made.append(Gateways(port))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Ingest:
    """A client under test in this process, with all that it says."""

    def __init__(self, folder: Path, port: int, limit_bytes: int = 1 << 40, **broker: Any) -> None:
        topics = Topics(broker.pop("topics", TOPICS), PARTITIONS)
        self.folder, self.said = folder, list[str]()
        self.pipeline = Pipeline(CollectorRegistry())
        described = Broker("127.0.0.1", port, "vigie-test", topics.subscribed, **broker)
        self.spool = Spool(folder, PARTITIONS, limit_bytes)
        self.client = MqttClient(
            "gateways", described, self.spool, topics, self.pipeline, told=self.said.append, retry_s=(0.05, 0.2)
        )
        self.client.start()

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop()

    def value(self, name: str) -> float:
        return self.pipeline.registry.get_sample_value(f"vigie_{name}", {"input": "gateways"}) or 0.0

    def wait_up(self) -> None:
        wait_for(lambda: self.client.up, "connection: " + self.client.state)


def spooled(folder: Path) -> dict[str, list[int]]:
    """Return the numbers of each asset in the order in which the dataflow gets them."""
    found: dict[str, list[int]] = {}
    source = SpoolSource("gateways", folder, PARTITIONS, "cbor")
    for part in source.list_parts():
        built: Any = source.build_part("in", part, None)
        while batch := built.next_batch():
            for message in batch:
                assert message.wire == "json"
                for payload in message.payload:
                    row = json.loads(payload)
                    found.setdefault(row["asset"], []).append(row["n"])
        built.close()
    return found


def count(folder: Path) -> int:
    return sum(map(len, spooled(folder).values())) if (folder / "spool.json").exists() else 0


def records(folder: Path) -> list[Record]:
    found = []
    for n in range(PARTITIONS):
        reader = SpoolReader(folder, n)
        while slices := reader.read():
            found += [one for piece in slices for one in piece.records()]
        reader.close()
    return found


def expected(gateways: Gateways) -> dict[str, list[int]]:
    return {asset: list(range(n)) for asset, n in gateways.sent.items()}


def test_messages_come_in_order_and_are_acknowledged(
    broker: Callable[..., Mosquitto], gateways: Callable[[int], Gateways], tmp_path: Path
) -> None:
    port = broker().port
    with Ingest(tmp_path / "spool", port) as ingest:
        ingest.wait_up()
        sender = gateways(port)
        sender.publish(2000)
        wait_for(lambda: count(ingest.folder) == 2000, "messages")
        assert ingest.said == [f"input gateways: connected to 127.0.0.1:{port}"]
        assert ingest.value("input_up") == 1
        wait_for(lambda: ingest.value("input_messages_total") == 2000, "count")
        assert ingest.value("spool_commit_seconds_count") > 0
        assert ingest.value("spool_bytes") == ingest.spool.bytes > 2000 * 20
    assert spooled(ingest.folder) == expected(sender)
    assert all(abs(one.time_us / 1e6 - time.time()) < 600 for one in records(ingest.folder)[:10])
    with Ingest(tmp_path / "spool", port) as ingest:  # everything was acknowledged: nothing is left to come
        ingest.wait_up()
        sender.publish(1)
        wait_for(lambda: count(ingest.folder) == 2001, "message")
        assert ingest.value("input_repeats_total") == 0
    assert spooled(ingest.folder) == expected(sender)


INGEST = """
import sys, threading
from pathlib import Path
from prometheus_client import CollectorRegistry
from flows.metrics import Pipeline
from flows.mqtt.client import Broker, MqttClient
from flows.spool.writer import Spool
from flows.mqtt.topics import Topics
topics = Topics(["site/{asset}"], 4)
broker = Broker("127.0.0.1", int(sys.argv[2]), "vigie-test", topics.subscribed)
spool = Spool(Path(sys.argv[1]), 4, segment_bytes=20_000)
told = lambda sentence: print(sentence, flush=True)
MqttClient("gateways", broker, spool, topics, Pipeline(CollectorRegistry()), told=told, retry_s=(0.05, 0.2)).start()
threading.Event().wait()
"""


@pytest.mark.timeout(240)
def test_kill_9_of_the_client_at_any_moment_loses_nothing(
    broker: Callable[..., Mosquitto], gateways: Callable[[int], Gateways], tmp_path: Path
) -> None:
    draw = random.Random(5)
    port, folder = broker().port, tmp_path / "spool"
    folder.mkdir()
    sender = gateways(port)

    def ingest() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", INGEST, str(folder), str(port)], stdout=subprocess.PIPE, text=True
        )

    process = ingest()
    assert process.stdout is not None
    assert process.stdout.readline().startswith("input gateways: connected")
    try:
        for _ in range(8):
            sender.publish(600)
            committed = int(marks_of(folder, PARTITIONS)[0])
            aim = committed + draw.randrange(20_000)
            wait_for(lambda a=aim: int(marks_of(folder, PARTITIONS)[0]) > a or sender.acknowledged(), "commit")  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            process.stdout.close()
            process = ingest()
            assert process.stdout is not None
        wait_for(lambda: count(folder) >= sum(sender.sent.values()), "messages")
        # What comes after it shows that nothing more was on its way.
        sender.publish(8)
        wait_for(lambda: count(folder) >= sum(sender.sent.values()), "last message")
    finally:
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
    assert spooled(folder) == expected(sender)


@pytest.mark.timeout(240)
def test_kill_9_of_the_broker_loses_nothing_that_it_had_saved(
    broker: Callable[..., Mosquitto], gateways: Callable[[int], Gateways], tmp_path: Path
) -> None:
    mosquitto = broker()
    with Ingest(tmp_path / "spool", mosquitto.port) as ingest:
        ingest.wait_up()
        sender = gateways(mosquitto.port)
        saved: dict[str, int] = {}
        for _ in range(3):
            sender.publish(500)
            wait_for(sender.acknowledged, "acknowledgement")
            mosquitto.saved()
            saved = dict(sender.sent)
            sender.publish(300)
            mosquitto.kill()
            wait_for(lambda: not ingest.client.up, "end of the connection")
            mosquitto.start()
        wait_for(sender.acknowledged, "acknowledgement")
        # Those that the broker had acknowledged and not saved are repeated by nobody, if they did not come before.
        sender.publish(8)
        last = {asset: n - 1 for asset, n in sender.sent.items()}
        wait_for(lambda: {a: ns[-1] for a, ns in spooled(ingest.folder).items()} == last, "last messages")
        found = spooled(ingest.folder)
    for asset, numbers in found.items():
        # The gateway itself repeats what this broker took and did not acknowledge before it died.
        assert list(dict.fromkeys(numbers)) == sorted(set(numbers)), asset
        assert set(range(saved[asset])) <= set(numbers), asset
    assert any("the connection was lost" in sentence or "does not" in sentence for sentence in ingest.said)
    assert ingest.said[-1] == f"input gateways: connected to 127.0.0.1:{mosquitto.port}"


def test_a_broker_that_is_dead_at_the_start_is_a_state(
    broker: Callable[..., Mosquitto], gateways: Callable[[int], Gateways], tmp_path: Path
) -> None:
    mosquitto = broker(run=False)
    with Ingest(tmp_path / "spool", mosquitto.port) as ingest:
        wait_for(lambda: ingest.value("input_errors_total") >= 3, "attempts")
        assert ingest.value("input_up") == 0
        assert ingest.said == [
            f"input gateways: no messages from 127.0.0.1:{mosquitto.port}, Connection refused; it is tried again"
        ]
        mosquitto.start()
        ingest.wait_up()
        gateways(mosquitto.port).publish(8)
        wait_for(lambda: count(ingest.folder) == 8, "messages")


def test_a_client_ends_at_once_whatever_the_broker_does(broker: Callable[..., Mosquitto], tmp_path: Path) -> None:
    with socket.socket() as silent:  # accepts, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began_s = time.monotonic()
        with Ingest(tmp_path / "spool", silent.getsockname()[1], keepalive_s=1) as ingest:
            wait_for(lambda: "Keep alive timeout" in ingest.client.state, "state")
        assert time.monotonic() - began_s < 10.0
    assert not any(thread.name.startswith(("mqtt-", "commit-")) for thread in threading.enumerate())


def test_a_wrong_password_is_told_without_it(
    broker: Callable[..., Mosquitto], program: Callable[[str], str], tmp_path: Path
) -> None:
    users = tmp_path / "users"
    subprocess.run([program("mosquitto_passwd"), "-b", "-c", str(users), "vigie", "right-one"], check=True)
    port = broker(f"allow_anonymous false\npassword_file {users}").port
    secret = tmp_path / "password"
    secret.write_text("wrong-one\n")
    with Ingest(tmp_path / "spool", port, username="vigie", password_file=secret) as ingest:
        wait_for(lambda: bool(ingest.said), "sentence")
        assert ingest.said == [
            f"input gateways: no messages from 127.0.0.1:{port}, it refuses the connection: Not authorized; "
            "it is tried again"
        ]
        assert "wrong-one" not in repr(ingest.client.broker)
        secret.write_text("right-one\n")
        ingest.wait_up()
        secret.unlink()
    with Ingest(tmp_path / "spool", port, username="vigie", password_file=secret) as ingest:
        wait_for(lambda: bool(ingest.said), "sentence")
        assert "No such file" in ingest.said[0]


def openssl(program: Callable[[str], str], folder: Path, *arguments: str) -> None:
    subprocess.run([program("openssl"), *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def test_an_encrypted_connection_with_an_authority_of_ones_own(
    broker: Callable[..., Mosquitto], program: Callable[[str], str], tmp_path: Path
) -> None:
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(program, folder, *new, "-x509", "-days", "2", "-subj", "/CN=Test CA", "-keyout", "ca.key", "-out", "ca.crt")
    for name in ("server", "client"):
        openssl(program, folder, *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            program, folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{name}.crt",
        )  # fmt: skip
    port = broker(
        f"allow_anonymous true\ncafile {folder}/ca.crt\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\n"
        "require_certificate true"
    ).port
    files: dict[str, Any] = {
        "cert_file": folder / "client.crt",
        "key_file": folder / "client.key",
        "ca_file": folder / "ca.crt",
    }
    with Ingest(tmp_path / "spool", port, tls=True, **files) as ingest:
        ingest.wait_up()
        mosquitto_pub(
            program, port, "-t", "site/lift-1", "-m", json.dumps({"asset": "lift-1", "n": 0}),
            "-D", "PUBLISH", "content-type", "application/json", "--cafile", str(folder / "ca.crt"),
            "--cert", str(folder / "client.crt"), "--key", str(folder / "client.key"),
        )  # fmt: skip
        wait_for(lambda: count(ingest.folder) == 1, "message")
    with Ingest(tmp_path / "other", port, tls=True) as ingest:  # the system's authorities do not know it
        wait_for(lambda: bool(ingest.said), "sentence")
        assert "certificate verify failed" in ingest.said[0]
    with Ingest(tmp_path / "third", port) as ingest:  # not encrypted
        wait_for(lambda: bool(ingest.said), "sentence")
        assert "no messages" in ingest.said[0]


def mosquitto_pub(program: Callable[[str], str], port: int, *arguments: str) -> None:
    command = [program("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(port), "-V", "5", "-q", "1", *arguments]
    subprocess.run(command, check=True, timeout=60)


def test_a_client_that_is_not_ours(
    broker: Callable[..., Mosquitto], program: Callable[[str], str], tmp_path: Path
) -> None:
    port = broker().port
    with Ingest(tmp_path / "spool", port) as ingest:
        ingest.wait_up()
        mosquitto_pub(
            program, port, "-t", "site/lift-1", "-m", '{"n":1}', "-D", "PUBLISH", "content-type", "application/json",
            "-D", "PUBLISH", "user-property", "firmware", "2.1", "-D", "PUBLISH", "message-expiry-interval", "600",
        )  # fmt: skip
        mosquitto_pub(program, port, "-t", "site/lift-1", "-m", '[{"n":"a","v":2}]')
        mosquitto_pub(program, port, "-t", "elsewhere", "-m", "{}")
        mosquitto_pub(program, port, "-t", "site/lift-1", "-n")
        wait_for(lambda: len(records(ingest.folder)) == 3, "messages")
        source = SpoolSource("gateways", ingest.folder, PARTITIONS, "senml")
        part: Any = source.build_part(
            "in", f"mqtt/gateways/{Topics(TOPICS, PARTITIONS).partition('site/lift-1')}", None
        )
        found = part.next_batch()
        part.close()
        assert [(one.wire, payload) for one in found for payload in one.payload] == [
            ("json", b'{"n":1}'),
            ("senml", b'[{"n":"a","v":2}]'),
            ("senml", b""),
        ]


def test_a_full_spool_acknowledges_nothing_and_loses_nothing(
    broker: Callable[..., Mosquitto], gateways: Callable[[int], Gateways], tmp_path: Path
) -> None:
    port = broker().port
    with Ingest(tmp_path / "spool", port, limit_bytes=40_000, receive_maximum=100) as ingest:
        ingest.wait_up()
        sender = gateways(port)
        # This broker may send more than `receive_maximum` (seen: 709 of 100 in 2.0.11), so one group may hold it all.
        while not ingest.value("spool_full"):
            sender.publish(100)
            wait_for(lambda: ingest.value("spool_full") == 1 or sender.acknowledged(), "full spool")
        sender.publish(500)
        assert ingest.said[-1] == (
            f"input gateways: the spool {ingest.folder} takes no more messages, it has reached its limit of 40,000 "
            "bytes; the broker keeps them"
        )
        found: dict[str, list[int]] = {}
        source = SpoolSource("gateways", ingest.folder, PARTITIONS, "json")
        parts: list[Any] = [source.build_part("in", part, None) for part in source.list_parts()]

        def drain() -> bool:
            for part in parts:
                for message in part.next_batch():
                    for row in map(json.loads, message.payload):
                        found.setdefault(row["asset"], []).append(row["n"])
                part.snapshot()
            return found == expected(sender)

        wait_for(drain, "messages")
        assert ingest.said[-1].endswith("takes messages again")
        assert ingest.value("spool_full") == 0
        for part in parts:
            part.close()


def test_a_session_that_the_broker_lost_is_told(broker: Callable[..., Mosquitto], tmp_path: Path) -> None:
    mosquitto = broker()
    with Ingest(tmp_path / "spool", mosquitto.port) as ingest:
        ingest.wait_up()
        gateway = Gateways(mosquitto.port)
        gateway.publish(1)
        wait_for(lambda: count(ingest.folder) == 1, "message")
        gateway.close()
        mosquitto.kill()
        mosquitto.database.unlink(missing_ok=True)
        wait_for(lambda: not ingest.client.up, "end of the connection")
        mosquitto.start()
        ingest.wait_up()
        assert any("has forgotten the session of client 'vigie-test'" in sentence for sentence in ingest.said)


def test_topics_that_left_the_site_file_come_no_more(
    broker: Callable[..., Mosquitto], program: Callable[[str], str], tmp_path: Path
) -> None:
    port = broker().port
    with Ingest(tmp_path / "spool", port, topics=["old/+", "kept/+"]) as ingest:
        ingest.wait_up()
    with Ingest(tmp_path / "spool", port, topics=["kept/+", "new/+"]) as ingest:
        ingest.wait_up()
        for topic in ("old/a", "kept/a", "new/a"):
            mosquitto_pub(program, port, "-t", topic, "-m", "{}")
        wait_for(lambda: len(records(ingest.folder)) == 2, "messages")
    assert sorted(one.topic for one in records(tmp_path / "spool")) == ["kept/a", "new/a"]


def test_a_retained_message_comes_once(
    broker: Callable[..., Mosquitto], program: Callable[[str], str], tmp_path: Path
) -> None:
    port = broker().port
    mosquitto_pub(program, port, "-t", "site/a", "-m", "{}", "-r")
    for number in (2, 3):
        with Ingest(tmp_path / "spool", port) as ingest:
            ingest.wait_up()
            mosquitto_pub(program, port, "-t", "site/b", "-m", "{}")
            wait_for(lambda n=number: len(records(tmp_path / "spool")) >= n, "message")  # type: ignore[misc]
    topics = [one.topic for one in records(tmp_path / "spool")]
    assert sorted(topics) == ["site/a", "site/b", "site/b"]


def test_two_topics_are_spread_by_shard_asset_or_whole_topic() -> None:
    import zlib

    topics = Topics(["a/{shard}/+", "b/{asset}/x", "c/#"], 16)
    assert topics.subscribed == ["a/+/+", "b/+/x", "c/#"]
    assert topics.partition("a/19/gateway") == 3
    assert topics.partition("a/no/gateway") == zlib.crc32(b"no") % 16
    assert topics.partition("b/lift-1/x") == zlib.crc32(b"lift-1") % 16
    assert topics.partition("c/d/e") == zlib.crc32(b"c/d/e") % 16


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1 to 65,535 bytes"),
        ("a/#/b", "last level"),
        ("a/b+", "whole levels"),
        ("$share/g/a", "give up the order"),
        ("a/{shard}/{asset}", "one level"),
        ("a/{gateway}", "one level"),
    ],
)
def test_a_wrong_filter_is_refused(text: str, problem: str) -> None:
    assert problem in (filter_problem(text) or "")


level = st.sampled_from(["a", "b", ""])


@given(st.lists(level | st.just("+"), min_size=1, max_size=4), st.booleans(), st.lists(level, min_size=1, max_size=4))
def test_a_filter_takes_what_mqtt_says(pattern: list[str], rest: bool, levels: list[str]) -> None:
    pattern = [*pattern, "#"] if rest else pattern
    assert _matches(pattern, levels) == paho.topic_matches_sub("/".join(pattern), "/".join(levels))


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@given(st.data())
def test_a_message_is_taken_apart_as_paho_does_it(data: st.DataObject) -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    content = data.draw(st.none() | words)
    for name, values in {
        "PayloadFormatIndicator": st.integers(0, 1),
        "MessageExpiryInterval": st.integers(0, 2**32 - 1),
        "TopicAlias": st.integers(1, 65535),
        "ResponseTopic": words,
        "CorrelationData": st.binary(max_size=8),
        "SubscriptionIdentifier": st.integers(1, 2**28 - 1),
        "UserProperty": st.tuples(words, words),
    }.items():
        value = data.draw(st.none() | values)
        if value is not None:
            setattr(properties, name, value)
    if content is not None:
        properties.ContentType = content
    topic, mid = data.draw(words).encode(), data.draw(st.integers(1, 65535))
    payload, qos, dup = data.draw(st.binary(max_size=300)), data.draw(st.integers(0, 1)), data.draw(st.booleans())
    packed = properties.pack()  # type: ignore[no-untyped-call]
    packet = len(topic).to_bytes(2, "big") + topic + (mid.to_bytes(2, "big") if qos else b"") + packed + payload
    session = Session("test")
    session._in_packet = {"command": 0x30 | qos << 1 | dup << 3, "packet": bytearray(packet)}  # type: ignore[typeddict-item]
    assert session._handle_publish() == 0
    [one] = session.received
    assert (one.topic, one.mid, one.payload, one.again) == (topic, mid if qos else 0, payload, dup)
    assert content_type(one.properties) == (content or "")
    assert packed.endswith(one.properties)
    assert len(packed) - len(one.properties) in (1, 2)


@given(st.binary(max_size=40))
def test_no_packet_breaks_the_session(packet: bytes) -> None:
    session = Session("test")
    session._in_packet = {"command": 0x32, "packet": bytearray(packet)}  # type: ignore[typeddict-item]
    assert session._handle_publish() in (0, 2)
    content_type(packet)


def test_the_process_keeps_no_file_open(tmp_path: Path) -> None:
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for n in range(3):
        with Ingest(tmp_path / str(n), free_port()):
            pass
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
