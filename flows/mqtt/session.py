"""One connection to an MQTT broker: paho's client, freed of the work that it does for each message.

paho-mqtt makes four system calls, six objects and a table of all properties of MQTT 5 for each message that comes in,
and one more call for each acknowledgement: 90 microseconds a message. This one reads the socket in large pieces, takes
a PUBLISH apart by itself, and acknowledges many at once; everything else of the protocol is paho's.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

__all__ = ["Arrival", "Session", "content_type"]

PIECE_BYTES = 1 << 18
"""What is read at once: between two reads another thread of the process may run for 5 ms (Python's switch interval)."""

CONNECT_S = 4.0
"""How long a connection may take to begin, and as long again for its encryption: an end of the run waits for it."""

BURST = 1_000
"""Messages after which the loop looks at acknowledgements, pings and its end."""

_PUBACK = 0x40
_DUP, _QOS = 0x08, 0x06
_CONTENT_TYPE = 0x03
_SIZES = {0x01: 1, 0x02: 4, 0x23: 2}
"""Properties of a PUBLISH of fixed size (payload format, expiry, topic alias), by identifier (MQTT 5, 2.2.2.2)."""
_TEXTS = {0x03: 1, 0x08: 1, 0x09: 1, 0x26: 2}
"""Those made of texts or bytes with a length of two bytes before each (content type, response topic, correlation, user
property): how many."""


class Arrival(NamedTuple):
    """A message as it came: topic, properties, time of arrival, packet identifier, payload, and whether DUP is set."""

    topic: bytes
    properties: bytes
    time_us: int
    mid: int
    payload: bytes
    again: bool


def content_type(properties: bytes) -> str:
    """Return the content type among the properties of a PUBLISH; an empty text where there is none.

    Examples
    --------
    >>> content_type(bytes([0x02, 0, 0, 0, 9, 0x03, 0, 16]) + b"application/json")
    'application/json'
    """
    at = 0
    while at < len(properties):
        kind = properties[at]
        at += 1
        if kind in _SIZES:
            at += _SIZES[kind]
        elif kind in _TEXTS:
            for _ in range(_TEXTS[kind]):
                size = int.from_bytes(properties[at : at + 2], "big")
                if kind == _CONTENT_TYPE:
                    return properties[at + 2 : at + 2 + size].decode("utf-8", "replace")
                at += 2 + size
        elif kind == 0x0B:  # subscription identifier, of variable length
            while at < len(properties) and properties[at] & 0x80:
                at += 1
            at += 1
        else:
            break
    return ""


class Session(mqtt.Client):
    """A connection that collects what arrives in `received`.

    Parameters
    ----------
    client_id
        Name under which the broker keeps the session.

    Attributes
    ----------
    received
        Messages that came in; whoever takes them puts an empty list in their place.
    drained
        Whether the last `receive` read everything that was there.
    """

    def __init__(self, client_id: str) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
        self.received: list[Arrival] = []
        self.drained = True
        self._piece = b""
        self._at = 0
        self._shift_us = (time.time_ns() - time.monotonic_ns()) // 1000
        # With this set, paho leaves it to the caller when to write.
        self.on_socket_register_write = lambda *_: None
        self.connect_timeout = CONNECT_S

    def open(self, host: str, port: int, keepalive_s: int, expiry_s: int, receive_maximum: int) -> None:
        """Connect and ask for the session that the broker kept.

        Raises
        ------
        OSError
            If nobody answers.
        """
        wishes = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
        wishes.SessionExpiryInterval = expiry_s
        wishes.ReceiveMaximum = receive_maximum
        self.connect(host, port, keepalive_s, clean_start=False, properties=wishes)

    def receive(self) -> None:
        """Read what is there, at most about `BURST` messages."""
        self.drained = False
        while not self.drained and len(self.received) < BURST:
            if self.loop_read() or self.socket() is None:
                break

    def acknowledge(self, mids: list[int]) -> None:
        """Acknowledge messages by their packet identifiers, all in one packet of the network."""
        if mids:
            packet = b"".join([b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids])
            self._packet_queue(_PUBACK, packet, mids[0], 1)

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._at == len(self._piece):
            try:
                self._piece, self._at = super()._sock_recv(PIECE_BYTES), 0
            except BlockingIOError:
                self.drained = True
                raise
        data = self._piece[self._at : self._at + bufsize]
        self._at += len(data)
        return data

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        # paho lets go of a connection whose handshake fails without closing it.
        assert self._ssl_context is not None
        sock = self._ssl_context.wrap_socket(tcp_sock, server_hostname=self._host, do_handshake_on_connect=False)
        try:
            sock.settimeout(self.connect_timeout)
            sock.do_handshake()
        except BaseException:
            sock.close()
            raise
        return sock

    def _handle_publish(self) -> MQTTErrorCode:
        packet, header = self._in_packet["packet"], self._in_packet["command"]
        try:
            at = 2 + (packet[0] << 8 | packet[1])
            topic = bytes(packet[2:at])
            mid = 0
            if header & _QOS:
                mid = packet[at] << 8 | packet[at + 1]
                at += 2
            size = shift = 0
            while True:
                byte = packet[at]
                at += 1
                size |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
        except IndexError:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        if shift > 21 or at + size > len(packet):
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        now_us = time.monotonic_ns() // 1000 + self._shift_us
        self.received.append(
            Arrival(topic, bytes(packet[at : at + size]), now_us, mid, bytes(packet[at + size :]), bool(header & _DUP))
        )
        return MQTTErrorCode.MQTT_ERR_SUCCESS
