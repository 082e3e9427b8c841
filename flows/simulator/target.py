"""Where a simulated fleet goes: a folder, or the topic of a broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["Target", "parse_target"]

_PORTS: dict[str, int] = {"kafka": 9092, "mqtt": 1883}


@dataclass(frozen=True, slots=True)
class Target:
    """A topic of a broker.

    Attributes
    ----------
    kind
        What the broker speaks.
    host, port
        Where it listens.
    topic
        The topic.
    """

    kind: Literal["kafka", "mqtt"]
    host: str
    port: int
    topic: str


def parse_target(out: str) -> Target | None:
    """Read ``kafka://host:port/topic`` or ``mqtt://host:port/topic``; None for anything that is not an address.

    Raises
    ------
    ValueError
        In one sentence, where it is an address of another kind, or one without host and topic.

    Examples
    --------
    >>> parse_target("kafka://127.0.0.1:9092/telemetry")
    Target(kind='kafka', host='127.0.0.1', port=9092, topic='telemetry')
    >>> parse_target("fleet/") is None
    True
    """
    if "://" not in out:
        return None
    expected = "expected kafka://HOST:PORT/TOPIC or mqtt://HOST:PORT/TOPIC"
    try:
        url = urlsplit(out)
        port = url.port
    except ValueError:
        raise ValueError(f"{out}: {expected}") from None
    topic = url.path.strip("/")
    kind = url.scheme
    # A name and password in an address would stand in every list of processes.
    if kind not in _PORTS or not url.hostname or not topic or url.query or url.fragment or "@" in url.netloc:
        raise ValueError(f"{out}: {expected}")
    return Target("kafka" if kind == "kafka" else "mqtt", url.hostname, port or _PORTS[kind], topic)
