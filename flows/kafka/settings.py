"""What a site file says of Kafka, what can be wrong in it, and how the client is told.

A password never stands in the site file, and is never printed: it is the first line of a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

__all__ = ["KafkaInput", "KafkaOutput", "Sasl", "Tls", "client_config", "problems"]

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
"""What Kafka allows as the name of a topic."""


class Tls(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An encrypted connection; files are PEM, relative to the site file.

    Attributes
    ----------
    ca
        Certificate of the authority that signed the broker's; by default those that the machine trusts.
    cert, key
        Certificate and key of this client, where the broker asks for one.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class Sasl(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Name and password.

    Attributes
    ----------
    mechanism
        How they are proven.
    username
        The name.
    password_file
        File whose first line is the password.
    """

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    username: Annotated[str, Meta(min_length=1)]
    password_file: str


class KafkaInput(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="kafka"):
    """Telemetry from a topic.

    Attributes
    ----------
    name
        Name of the input.
    brokers
        Where the cluster is asked first, ``host:port``.
    topic
        The topic.
    partitions
        How many partitions it has; fixed for the life of a recovery store.
    group
        Consumer group under which offsets are committed, for tools that show the lag.
    wire
        Form of the messages that do not say it in a header `content-type`.
    equipment
        Class of the words and local times in JSON; `class` in the file.
    start
        Where to begin when neither the recovery store nor the group knows an offset.
    tls, sasl
        How the connection is protected.
    """

    name: str
    brokers: Annotated[tuple[str, ...], Meta(min_length=1)]
    topic: Name
    partitions: Annotated[int, Meta(ge=1, le=4096)]
    group: Annotated[str, Meta(min_length=1)] = "vigie"
    wire: Literal["arrow", "json", "senml", "senml-cbor", "cbor"] = "arrow"
    equipment: Annotated[str | None, Meta()] = msgspec.field(default=None, name="class")
    start: Literal["earliest", "latest"] = "earliest"
    tls: Tls | None = None
    sasl: Sasl | None = None


class KafkaOutput(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Topics for results, keyed by asset; one that is not named is not written.

    Attributes
    ----------
    brokers
        Where the cluster is asked first, ``host:port``.
    scores, decisions, rejected
        Topics of score rows, of pages and tickets, and of rejected input.
    delivery_timeout_s
        After so many seconds without a confirmation the run ends, rather than lose a result.
    tls, sasl
        How the connection is protected.
    """

    brokers: Annotated[tuple[str, ...], Meta(min_length=1)]
    scores: Name | None = None
    decisions: Name | None = None
    rejected: Name | None = None
    delivery_timeout_s: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    tls: Tls | None = None
    sasl: Sasl | None = None

    @property
    def topics(self) -> dict[str, str]:
        """The topics that are written, by the name of the output."""
        named = {"scores": self.scores, "decisions": self.decisions, "rejected": self.rejected}
        return {output: topic for output, topic in named.items() if topic is not None}


def client_config(described: KafkaInput | KafkaOutput, folder: Path) -> dict[str, Any]:
    """Return how librdkafka is told of the cluster, in its own words.

    Parameters
    ----------
    described
        What the site file says.
    folder
        Where the site file lies.

    Examples
    --------
    >>> described = KafkaOutput(brokers=("a:9092", "b:9092"), tls=Tls(ca="ca.pem"))
    >>> client_config(described, Path("/etc/vigie"))["ssl.ca.location"]
    '/etc/vigie/ca.pem'
    """
    tls, sasl = described.tls, described.sasl
    protocol = ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT")
    config: dict[str, Any] = {
        "bootstrap.servers": ",".join(described.brokers),
        "security.protocol": protocol,
        "client.id": "vigie",
        "log_level": 2,  # below critical the callbacks say it, once
        "reconnect.backoff.ms": 250,  # of at most four attempts a second, growing to one in 5 s
        "reconnect.backoff.max.ms": 5_000,
        "socket.keepalive.enable": True,
    }
    if tls is not None:
        for word, name in (("ca", tls.ca), ("certificate", tls.cert), ("key", tls.key)):
            if name is not None:
                config[f"ssl.{word}.location"] = str(folder / name)
    if sasl is not None:
        config |= {
            "sasl.mechanisms": sasl.mechanism,
            "sasl.username": sasl.username,
            "sasl.password": _password(folder / sasl.password_file),
        }
    return config


def _password(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().rstrip("\r\n")


def problems(described: KafkaInput | KafkaOutput, folder: Path) -> Iterator[str]:
    """Yield what is wrong in a description, a sentence each; the brokers are not asked.

    Examples
    --------
    >>> list(problems(KafkaOutput(brokers=("broker",)), Path()))[0]
    "brokers: an address is host:port, such as 127.0.0.1:9300; got 'broker'"
    """
    from flows.site import parse_address

    wrong = False
    for broker in described.brokers:
        try:
            parse_address(broker)
        except ValueError as error:
            wrong = True
            yield f"brokers: {error}"
    if isinstance(described, KafkaOutput):
        if not described.topics:
            yield "no topic is named: give scores, decisions or rejected"
        if len(set(described.topics.values())) < len(described.topics):
            yield "scores, decisions and rejected need a topic each"
    tls, sasl = described.tls, described.sasl
    if tls is not None and (tls.cert is None) != (tls.key is None):
        wrong = True
        yield "tls: cert and key go together"
    named = {} if tls is None else {"tls.ca": tls.ca, "tls.cert": tls.cert, "tls.key": tls.key}
    if sasl is not None:
        named["sasl.password_file"] = sasl.password_file
    for what, name in named.items():
        problem = None if name is None else _unreadable(folder / name)
        if problem is not None:
            wrong = True
            yield f"{what}: {problem}"
    if sasl is not None and not wrong and not _password(folder / sasl.password_file):
        wrong = True
        yield f"sasl.password_file: the first line of {folder / sasl.password_file} is empty"
    if not wrong:
        yield from _refused(client_config(described, folder))


def _unreadable(path: Path) -> str | None:
    try:
        path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return f"there is no file {path}"
    except (OSError, UnicodeDecodeError) as error:
        return f"{path} cannot be read ({error})"
    return None


def _refused(config: dict[str, Any]) -> Iterator[str]:
    """Yield why the client refuses its configuration, such as a key that does not belong to its certificate."""
    from confluent_kafka import Consumer, KafkaException

    try:
        Consumer(config | {"group.id": "check"}).close()
    except KafkaException as error:
        reason = str(error.args[0].str()) if hasattr(error.args[0], "str") else str(error)
        yield f"the Kafka client refuses these settings: {reason.strip()}"
