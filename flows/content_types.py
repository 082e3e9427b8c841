"""The media types by which a message says its wire form: a Kafka header, or MQTT's content type."""

from __future__ import annotations

from flows.files import Wire

__all__ = ["CONTENT_TYPES", "wire_of"]

CONTENT_TYPES: dict[str, Wire] = {
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.arrow.file": "arrow",
    "application/json": "json",
    "application/x-ndjson": "json",
    "application/senml+json": "senml",
    "application/senml+cbor": "senml-cbor",
    "application/cbor": "cbor",
}
"""Wire form by media type (IANA, RFC 8428 and RFC 8949)."""

_SEEN: dict[bytes | str, Wire | None] = {}
# A sender may put anything there; what the fleet really sends is a handful.
_MOST_SEEN = 256


def wire_of(content_type: bytes | str, otherwise: Wire) -> Wire:
    """Return the wire form that a content type names, or the one of the topic where it names none.

    Examples
    --------
    >>> wire_of(b"application/senml+json; charset=utf-8", "arrow")
    'senml'
    >>> wire_of("text/plain", "arrow")
    'arrow'
    """
    if content_type not in _SEEN:
        text = content_type.decode("latin-1") if isinstance(content_type, bytes) else content_type
        found = CONTENT_TYPES.get(text.partition(";")[0].strip().lower())
        if len(_SEEN) >= _MOST_SEEN:
            _SEEN.clear()
        _SEEN[content_type] = found
    return _SEEN[content_type] or otherwise
