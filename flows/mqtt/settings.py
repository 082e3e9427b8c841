"""What a site file says of an MQTT broker, and what can be wrong in it.

A password never stands in the site file, and is never printed: it is the first line of a file of its own.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from flows.mqtt.topics import filter_problem
from flows.spool.writer import SpoolError, read_meta

__all__ = ["MqttInput", "Tls", "problems"]

_NAME = r"^[^/\s]+$"


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


class MqttInput(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="mqtt"):
    """Telemetry from an MQTT broker, through a spool on disk.

    Attributes
    ----------
    name
        Name of the input.
    broker
        Where it listens, ``host:port``.
    topics
        Topic filters. A level written ``{shard}`` or ``{asset}`` in place of ``+`` says by what messages are spread
        over partitions; without one it is the whole topic.
    qos
        1, or 0 for what may be lost.
    client_id
        Name under which the broker keeps the session: no other client's, and fixed; ``vigie-<name>`` by default.
    session_expiry_s
        How long the broker keeps what it could not deliver.
    receive_maximum
        Messages that may be unacknowledged; the broker has a limit of its own (mosquitto: `max_inflight_messages`).
    wire
        Form of the payloads that do not say it by a content type.
    equipment
        Class of the words and local times in JSON; `class` in the file.
    username, password_file
        Name, and file whose first line is the password.
    tls
        How the connection is encrypted; ``{}`` for the authorities that the machine trusts.
    spool
        Folder of the spool, on a disk that keeps what it has confirmed.
    partitions
        Into how many the spool is divided, for life; best as many as the site has shards.
    spool_limit_bytes
        Size at which nothing more is acknowledged, so that the broker queues.
    """

    name: Annotated[str, Meta(pattern=_NAME)]
    broker: str
    topics: Annotated[tuple[str, ...], Meta(min_length=1)]
    qos: Literal[0, 1] = 1
    client_id: Annotated[str, Meta(min_length=1, max_length=65_535)] | None = None
    session_expiry_s: Annotated[int, Meta(ge=60, le=2**32 - 1)] = 7 * 86_400
    receive_maximum: Annotated[int, Meta(ge=1, le=65_535)] = 4_096
    wire: Literal["arrow", "json", "senml", "senml-cbor", "cbor"] = "json"
    equipment: Annotated[str | None, Meta()] = msgspec.field(default=None, name="class")
    username: Annotated[str, Meta(min_length=1)] | None = None
    password_file: str | None = None
    tls: Tls | None = None
    spool: str
    partitions: Annotated[int, Meta(ge=1, le=4096)] = 16
    spool_limit_bytes: Annotated[int, Meta(ge=10_000_000)] = 10_000_000_000

    @property
    def client(self) -> str:
        """Name under which the broker keeps the session."""
        return self.client_id or f"vigie-{self.name}"


def problems(described: Sequence[MqttInput], folder: Path, classes: Collection[str]) -> Iterator[str]:
    """Yield what is wrong in the MQTT inputs of a site, a sentence each; brokers are not asked.

    Parameters
    ----------
    described
        The inputs.
    folder
        Where the site file lies.
    classes
        Names of the classes of the site.

    Examples
    --------
    >>> one = MqttInput(name="gateways", broker="localhost", topics=("fleet/+",), spool="spool")
    >>> list(problems([one], Path("/tmp"), ["lift"]))
    ["$.inputs: gateways: broker: an address is host:port, such as 127.0.0.1:9300; got 'localhost'"]
    """
    for one in described:
        yield from (f"$.inputs: {one.name}: {problem}" for problem in _of_one(one, folder, classes))
    for n, one in enumerate(described):
        for other in described[:n]:
            if (folder / one.spool).resolve() == (folder / other.spool).resolve():
                yield f"$.inputs: {one.name}: spool: the input {other.name} writes into {one.spool} already"
            if (one.client, one.broker) == (other.client, other.broker):
                yield f"$.inputs: {one.name}: client_id: {one.client!r} is the client of {other.name} already"


def _of_one(one: MqttInput, folder: Path, classes: Collection[str]) -> Iterator[str]:
    from flows.site import parse_address, unwritable

    try:
        parse_address(one.broker)
    except ValueError as error:
        yield f"broker: {error}"
    for topic in one.topics:
        problem = filter_problem(topic)
        if problem is not None:
            yield f"topics: {topic!r}: {problem}"
    if one.equipment is not None and one.equipment not in classes:
        yield f"class: no class is called {one.equipment!r}"
    if one.password_file is not None:
        if one.username is None:
            yield "password_file: a password needs a username"
        yield from _password_problems(folder / one.password_file)
    if one.tls is not None:
        yield from _tls_problems(one.tls, folder)
    problem = unwritable(folder / one.spool)
    if problem is not None:
        yield f"spool: {problem}"
        return
    try:
        meta = read_meta(folder / one.spool)
    except SpoolError as error:
        yield f"spool: {error}"
    else:
        if meta is not None and meta.partitions != one.partitions:
            yield f"partitions: the spool {one.spool} was made with {meta.partitions}, and keeps them for life"


def _password_problems(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            if not file.readline().rstrip("\r\n"):
                yield f"password_file: the first line of {path} is empty"
    except FileNotFoundError:
        yield f"password_file: there is no file {path}"
    except (OSError, UnicodeDecodeError) as error:
        yield f"password_file: {path} cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8'})"


def _tls_problems(tls: Tls, folder: Path) -> Iterator[str]:
    if (tls.cert is None) != (tls.key is None):
        yield "tls: cert and key go together"
        return
    missing = False
    for what, name in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
        if name is not None and not (folder / name).is_file():
            missing = True
            yield f"tls.{what}: there is no file {folder / name}"
    if missing:
        return
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else folder / tls.ca)
    except (OSError, ValueError) as error:
        yield f"tls.ca: {folder / str(tls.ca)} is no certificate ({getattr(error, 'strerror', None) or error})"
        return
    if tls.cert is not None and tls.key is not None:
        try:
            # An encrypted key would ask for its passphrase on the terminal.
            context.load_cert_chain(folder / tls.cert, folder / tls.key, password="")
        except (OSError, ValueError) as error:
            yield f"tls.cert: certificate and key do not fit ({getattr(error, 'strerror', None) or error})"
