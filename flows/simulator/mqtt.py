"""A simulated fleet onto an MQTT broker: a topic an asset, nothing lost."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np
import paho.mqtt.client as paho
import pyarrow as pa
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from flows.content_types import CONTENT_TYPES
from flows.files import Wire
from flows.simulator.fleet import Fleet, FleetPlan

__all__ = ["MqttTarget", "mqtt_target", "publish"]

UNACKNOWLEDGED = 1_000
"""Messages under way at once: enough that neither side waits for the other, 1 MB at 1 kB each."""

READINGS = 50_000
"""Readings simulated at once."""

STEP_S = 0.25
"""How often a paced fleet sends, in seconds of the clock."""


class MqttTarget(NamedTuple):
    """Where a fleet is published: topics are ``prefix/asset``."""

    host: str
    port: int
    prefix: str
    tls: bool = False
    ca_file: str | None = None
    username: str | None = None
    password_file: str | None = None


def mqtt_target(url: str) -> MqttTarget:
    """Return the target of a URL, ``mqtt://[user@]host[:port]/prefix[?password_file=F][&ca=F]``, or ``mqtts://``.

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> mqtt_target("mqtt://localhost/fleet/north")[:3]
    ('localhost', 1883, 'fleet/north')
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    prefix = parts.path.strip("/")
    port = parts.port
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.password is not None:
        raise ValueError(f"a broker is mqtt://host:port/prefix, its password in ?password_file=FILE; got {url!r}")
    if not prefix or set("+#$") & set(prefix):
        raise ValueError(f"a broker's URL ends in a prefix of topics without '+', '#' and '$'; got {url!r}")
    if unknown := query.keys() - {"password_file", "ca"}:
        raise ValueError(f"a broker's URL may have password_file and ca; got {min(unknown)!r}")
    tls = parts.scheme == "mqtts"
    return MqttTarget(
        parts.hostname,
        port or (8883 if tls else 1883),
        prefix,
        tls,
        query.get("ca", [None])[0],
        parts.username,
        query.get("password_file", [None])[0],
    )


def publish(
    plan: FleetPlan,
    target: MqttTarget,
    wire: Wire,
    encode: Callable[[pa.RecordBatch], list[bytes]],
    progress: Callable[[int, float], None] = lambda readings, share: None,
    speed: float | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Publish a fleet with QoS 1; come back when the broker has acknowledged everything.

    Parameters
    ----------
    plan
        What is simulated; an endless plan ends with `stop`.
    target
        Where it goes.
    wire
        Form of the messages, told as their content type.
    encode
        Makes one message of the blocks of an asset that begin in the same second, in the order of seconds and, within
        one, of the assets' dictionary: `features.encode.encode` of that form.
    progress
        Called with the readings so far and the share of the time that is done, 0 .. 1.
    speed
        Simulated seconds a second; None = as fast as the broker takes them.
    stop
        Ends it early.
    clock
        Monotonic clock in seconds.

    Returns
    -------
    int
        Number of readings.

    Raises
    ------
    OSError
        If the broker does not answer at the start, or refuses the connection.
    """
    stop = stop or threading.Event()
    fleet = Fleet(plan)
    content = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
    content.ContentType = next(name for name, its in CONTENT_TYPES.items() if its == wire)
    readings = 0
    began_s = clock()
    with _Publisher(target, stop) as publisher:
        while fleet.time_us < plan.end_us and not stop.is_set():
            due_us = plan.end_us
            if speed is not None:
                due_us = min(due_us, plan.start_us + int((clock() - began_s) * speed * 1e6))
            if due_us <= fleet.time_us:
                stop.wait(STEP_S)
                continue
            batch = fleet.advance(due_us, READINGS)
            for asset, payload in zip(_assets(batch), encode(batch), strict=True):
                publisher.send(f"{target.prefix}/{asset}", payload, content)
            readings += len(batch.column("values").values)
            span_us = plan.end_us - plan.start_us
            progress(readings, (fleet.time_us - plan.start_us) / span_us if plan.days is not None else 0.0)
    return readings


def _assets(batch: pa.RecordBatch) -> list[str]:
    """Return the asset of each message that a batch becomes."""
    column = batch.column("asset")
    second = batch.column("start").cast(pa.int64()).to_numpy() // 1_000_000
    asset = column.indices.to_numpy().astype(np.int64)
    names: list[str] = column.dictionary.to_pylist()
    return [names[n] for _, n in np.unique(np.stack([second, asset], axis=1), axis=0).tolist()]


class _Publisher:
    """A connection that repeats what was not acknowledged, over any number of reconnections."""

    def __init__(self, target: MqttTarget, stop: threading.Event) -> None:
        self._target, self._stop = target, stop
        # A session of its own, so that what was under way survives a reconnection.
        name = f"vigie-simulate-{time.time_ns():x}"
        self._client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(UNACKNOWLEDGED)
        self._client.max_queued_messages_set(0)
        self._client.reconnect_delay_set(1, 30)
        self._client.on_publish = self._acknowledged
        self._client.on_connect = self._connected
        self._free = threading.Semaphore(UNACKNOWLEDGED)
        self._answered = threading.Event()
        self._refused = ""

    def __enter__(self) -> _Publisher:
        target = self._target
        if target.username is not None:
            password = None
            if target.password_file is not None:
                with Path(target.password_file).open(encoding="utf-8") as file:
                    password = file.readline().rstrip("\r\n")
            self._client.username_pw_set(target.username, password)
        if target.tls:
            self._client.tls_set_context(ssl.create_default_context(cafile=target.ca_file))
        wishes = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
        wishes.SessionExpiryInterval = 3600
        self._client.connect(target.host, target.port, clean_start=False, properties=wishes)
        self._client.loop_start()
        if not self._answered.wait(30.0):
            self._refused = "it says nothing"
        if self._refused:
            self._client.loop_stop()
            raise OSError(f"the broker {target.host}:{target.port} refuses the connection: {self._refused}")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for _n in range(UNACKNOWLEDGED):
                if not self._wait():
                    break
        end = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]  # paho's
        end.SessionExpiryInterval = 0
        self._client.disconnect(properties=end)
        self._client.loop_stop()

    def send(self, topic: str, payload: bytes, properties: Properties) -> None:
        """Publish one message, as soon as not too many are under way."""
        if self._wait():
            self._client.publish(topic, payload, qos=1, properties=properties)

    def _wait(self) -> bool:
        while not self._free.acquire(timeout=0.5):
            if self._stop.is_set():
                return False
        return True

    def _acknowledged(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self._free.release()

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refused = str(reason)
        self._answered.set()
