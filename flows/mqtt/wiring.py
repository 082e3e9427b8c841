"""An MQTT input of a site, made from what its file says: the client that fills the spool, the source that reads it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from flows.metrics import Pipeline
from flows.mqtt.client import Broker, MqttClient
from flows.mqtt.settings import MqttInput
from flows.mqtt.topics import Topics
from flows.recovery import Store
from flows.spool.source import SpoolSource
from flows.spool.writer import Spool

__all__ = ["committed_in", "mqtt_client", "mqtt_source"]


def committed_in(store: Store, name: str) -> Callable[[str], int | None]:
    """Return what says up to which position a recovery store holds a partition of an input.

    Parameters
    ----------
    store
        The store.
    name
        Name of the input, whose step is ``input_<name>``.
    """

    def committed(part: str) -> int | None:
        try:
            state = store.resume_state(f"input_{name}", part)
        except (OSError, sqlite3.Error):  # it is being written: the next time is soon enough
            return None
        offset: int | None = None if state is None else state["position"]["offset"]
        return offset

    return committed


def mqtt_client(
    described: MqttInput,
    folder: Path,
    pipeline: Pipeline,
    committed: Callable[[str], int | None] | None = None,
    told: Callable[[str], None] = lambda sentence: None,
) -> MqttClient:
    """Make the client of an input, for one process of the host: `start` it before the flow, `stop` it after.

    Parameters
    ----------
    described, folder
        What the site file says, and where it lies.
    pipeline, committed, told
        As of `flows.mqtt.client.MqttClient`.

    Raises
    ------
    SpoolError
        If the spool cannot be used, or another run writes into it.
    """
    from flows.site import parse_address

    def path(name: str | None) -> Path | None:
        return None if name is None else folder / name

    host, port = parse_address(described.broker)
    tls = described.tls
    topics = Topics(described.topics, described.partitions)
    broker = Broker(
        host,
        port,
        described.client,
        topics.subscribed,
        described.qos,
        described.username,
        path(described.password_file),
        tls is not None,
        path(None if tls is None else tls.ca),
        path(None if tls is None else tls.cert),
        path(None if tls is None else tls.key),
        described.session_expiry_s,
        described.receive_maximum,
    )
    spool = Spool(folder / described.spool, described.partitions, described.spool_limit_bytes)
    return MqttClient(described.name, broker, spool, topics, pipeline, committed, told)


def mqtt_source(
    described: MqttInput,
    folder: Path,
    pipeline: Pipeline,
    recovered: bool,
    stop: threading.Event | None = None,
    mine: Callable[[int], bool] | None = None,
    told: Callable[[str], None] = lambda sentence: None,
) -> SpoolSource:
    """Make the source of an input, for each process of the host.

    Parameters
    ----------
    described, folder
        What the site file says, and where it lies.
    pipeline, recovered, stop, mine, told
        As of `flows.spool.source.SpoolSource`.
    """
    return SpoolSource(
        described.name,
        folder / described.spool,
        described.partitions,
        described.wire,
        mine,
        recovered,
        stop,
        pipeline,
        told,
    )
