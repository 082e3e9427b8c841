"""An MQTT broker as an input: what it delivers goes into a spool, and is acknowledged once it is on disk there."""

from __future__ import annotations

import os
import random
import select
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from flows.metrics import Pipeline
from flows.mqtt.committer import Committer
from flows.mqtt.session import Session
from flows.mqtt.topics import Topics
from flows.spool.writer import Spool

__all__ = ["Broker", "MqttClient"]

HELD_BYTES = 64 << 20
"""What may wait for its commit; above it the connection is not read."""

RETRY_S = (1.0, 60.0)
"""First and longest wait before the next attempt to connect."""

END_S, LAST_S = 5.0, 1.0
"""How long an end waits for broker and disk, and how long then for the disk alone: together less than a run has. It is
counted from when the client was told to leave, so that several clients wait at the same time."""


@dataclass(frozen=True, slots=True)
class Broker:
    """How to reach a broker.

    Attributes
    ----------
    host, port
        Where it listens.
    client_id
        Name under which it keeps the session: fixed for the life of the input, and no other client's.
    topics
        Filters as the broker understands them.
    qos
        1, or 0 for what may be lost.
    username, password_file
        Who asks; the file is read at each attempt, so that a new password needs no restart.
    tls
        Whether the connection is encrypted.
    ca_file, cert_file, key_file
        Certificates of the authority (without it the system's), and of the client with its key.
    session_expiry_s
        How long the broker keeps the session of a client that is away.
    receive_maximum
        Messages that may be unacknowledged.
    keepalive_s
        A broker that says nothing for about twice as long is taken for dead.
    """

    host: str
    port: int
    client_id: str
    topics: Sequence[str]
    qos: Literal[0, 1] = 1
    username: str | None = None
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    session_expiry_s: int = 7 * 86_400
    receive_maximum: int = 4_096
    keepalive_s: int = 30

    def session(self) -> Session:
        """Return a connection that is not open yet.

        Raises
        ------
        OSError, ValueError
            If the password or a certificate cannot be read.
        """
        session = Session(self.client_id)
        if self.username is not None:
            password = None if self.password_file is None else _first_line(self.password_file)
            session.username_pw_set(self.username, password)
        if self.tls:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
            session.tls_set_context(context)
        return session


class MqttClient:
    """Takes messages from a broker into a spool, in two threads: this one's talks to the broker, the other commits.

    Parameters
    ----------
    name
        Name of the input.
    broker
        How to reach it.
    spool
        Where messages go; it is closed with the client.
    topics
        Partition of each topic.
    pipeline
        Where metrics go.
    committed
        Position up to which the recovery store holds a partition (``mqtt/<input>/<n>``), None where it holds nothing
        yet. Without a store, None: the dataflow marks in the spool what it is done with.
    told
        Called with a sentence when the state changes.
    clock
        Monotonic clock in seconds.
    retry_s
        First and longest wait before the next attempt to connect.

    Attributes
    ----------
    state
        The newest sentence on the connection.
    up
        Whether the broker answers and the topics are subscribed.
    """

    def __init__(
        self,
        name: str,
        broker: Broker,
        spool: Spool,
        topics: Topics,
        pipeline: Pipeline,
        committed: Callable[[str], int | None] | None = None,
        told: Callable[[str], None] = lambda sentence: None,
        clock: Callable[[], float] = time.monotonic,
        retry_s: tuple[float, float] = RETRY_S,
    ) -> None:
        self.name, self.broker, self.spool = name, broker, spool
        self.state = ""
        self.up = False
        self._told, self._clock, self._retry_s = told, clock, retry_s
        self._stop = threading.Event()
        self._acks: deque[tuple[object, list[int]]] = deque()
        self._woken, self._wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._failed = False
        self._ends_s = 0.0
        self._subscriptions = spool.folder / "subscriptions.json"
        self._gauge = pipeline.input_up.labels(name)
        self._errors = pipeline.input_errors.labels(name)
        self._gauge.set(0)
        self._committer = Committer(
            name, spool, topics, pipeline, self._acknowledged, broker.receive_maximum, committed, told, clock
        )
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{name}", daemon=True)

    def start(self) -> None:
        """Begin; a broker that does not answer is a state."""
        self._committer.start()
        self._thread.start()

    def leave(self) -> None:
        """Begin to end, so that several clients end at the same time."""
        if not self._stop.is_set():
            self._ends_s = self._clock() + END_S
        self._stop.set()
        self._wake()

    def stop(self) -> None:
        """End: what came is committed and acknowledged as far as disk and broker let it; the spool is closed."""
        self.leave()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, self._ends_s - self._clock()))
            self._committer.end(max(0.0, self._ends_s + LAST_S - self._clock()))
        self.spool.close()
        if not self._thread.is_alive():
            os.close(self._woken)
            os.close(self._wakes)

    def _run(self) -> None:
        wait_s = self._retry_s[0]
        while not self._stop.is_set() and not self._committer.ended.is_set():
            began_s = self._clock()
            self._failed = False
            session: Session | None = None
            try:
                session = self.broker.session()
                self._open(session)
                self._serve(session)
                if not self._failed and not self._stop.is_set():
                    self._lost("the connection ended")
            except (OSError, ValueError) as error:
                self._lost(getattr(error, "strerror", None) or str(error))
            finally:
                self._set_up(False)
                if session is not None:
                    _close(session)
            if self._clock() - began_s > self._retry_s[1]:
                wait_s = self._retry_s[0]
            # Spread, so that many clients do not come back at once.
            self._stop.wait(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, self._retry_s[1])

    def _open(self, session: Session) -> None:
        broker = self.broker
        session.on_connect = self._on_connect
        session.on_subscribe = self._on_subscribe
        session.on_disconnect = self._on_disconnect
        session.open(broker.host, broker.port, broker.keepalive_s, broker.session_expiry_s, broker.receive_maximum)

    def _serve(self, session: Session) -> None:
        """Talk to the broker until the connection or the input ends."""
        while session.socket() is not None and not self._committer.ended.is_set():
            if self._stop.is_set():
                self._committer.end(END_S)
                self._send_acks(session)
                return
            reads = self._wait(session, self._committer.waiting_bytes < HELD_BYTES)
            self._send_acks(session)
            if reads and session.socket() is not None:
                session.receive()
                if session.received:
                    self._committer.put(session, session.received)
                    session.received = []
                session.loop_misc()

    def _wait(self, session: Session, reads: bool) -> bool:
        """Wait until there is something to do, a second at most; return whether to read, which tells of an end too."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        writes = session.want_write()
        sock = session.socket()
        assert sock is not None
        poll.register(sock.fileno(), (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0))
        ready = dict(poll.poll(0 if reads and not session.drained else 1000))
        if self._woken in ready:
            os.read(self._woken, 65_536)
        if writes:
            session.loop_write()
        return reads or bool(ready.get(sock.fileno(), 0) & (select.POLLHUP | select.POLLERR))

    def _send_acks(self, session: Session) -> None:
        mids: list[int] = []
        while self._acks:
            owner, some = self._acks.popleft()
            if owner is session:  # on another connection the packet identifiers mean something else
                mids += some
        if mids and session.socket() is not None:
            session.acknowledge(mids)
            session.loop_write()

    def _acknowledged(self, connection: object, mids: list[int]) -> None:
        self._acks.append((connection, mids))
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # it has been woken often enough
            os.write(self._wakes, b"\0")

    def _on_connect(
        self, session: Any, data: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._lost(f"it refuses the connection: {reason}")
            return
        if not flags.session_present and self.spool.end > 0:
            self._told(
                f"input {self.name}: the broker has forgotten the session of client {self.broker.client_id!r}: "
                "what was published since the last connection does not come"
            )
        self._committer.connected(session, flags.session_present)
        if flags.session_present and (gone := self._subscribed() - set(self.broker.topics)):
            session.unsubscribe(sorted(gone))
        # What a broker retains comes once, not at each connection.
        options = SubscribeOptions(qos=self.broker.qos, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        session.subscribe([(topic, options) for topic in self.broker.topics])

    def _on_subscribe(
        self, session: Any, data: Any, mid: int, reasons: list[ReasonCode], properties: Properties | None
    ) -> None:
        for topic, reason in zip(self.broker.topics, reasons, strict=False):
            if reason.is_failure:
                self._lost(f"it refuses the topic {topic!r}: {reason}")
                session.disconnect()
                return
            if reason.value < self.broker.qos:
                self._told(
                    f"input {self.name}: the broker grants QoS {reason.value} for {topic!r}: "
                    "what it sends while the connection is down is lost"
                )
        with suppress(OSError):  # a full disk: the next connection writes it
            self._subscriptions.write_bytes(msgspec.json.encode(sorted(self._subscribed() | set(self.broker.topics))))
        self._set_up(True)
        self._say(f"input {self.name}: connected to {self.broker.host}:{self.broker.port}")

    def _subscribed(self) -> set[str]:
        """Return what the session at the broker may be subscribed to, by an earlier site file too."""
        with suppress(OSError, msgspec.DecodeError):
            return set(msgspec.json.decode(self._subscriptions.read_bytes(), type=list[str]))
        return set()

    def _on_disconnect(
        self, session: Any, data: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if not self._failed and not self._stop.is_set():
            self._lost(f"the connection was lost: {reason}")

    def _lost(self, why: str) -> None:
        self._failed = True
        self._errors.inc()
        self._set_up(False)
        self._say(
            f"input {self.name}: no messages from {self.broker.host}:{self.broker.port}, {why}; it is tried again"
        )

    def _set_up(self, up: bool) -> None:
        self.up = up
        self._gauge.set(int(up))

    def _say(self, sentence: str) -> None:
        if sentence != self.state:
            self.state = sentence
            self._told(sentence)


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().rstrip("\r\n")


def _close(session: Session) -> None:
    """Take leave, so that the broker does not wait for the end of the keepalive; the session stays."""
    with suppress(OSError, ValueError):
        if session.socket() is not None:
            session.disconnect()
            session.loop_write()
