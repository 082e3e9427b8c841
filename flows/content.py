"""Content types of the payloads that a broker may deliver, and the form in which each is decoded."""

from __future__ import annotations

from flows.files import Wire

__all__ = ["CONTENT_TYPES", "wire_of"]

CONTENT_TYPES: dict[str, Wire] = {
    "application/json": "json",
    "application/senml+json": "senml",
    "application/senml+cbor": "senml-cbor",
    "application/cbor": "cbor",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.arrow.file": "arrow",
}
"""As they are registered with IANA; parameters after a semicolon do not count."""


def wire_of(content: str, default: Wire) -> Wire:
    """Return the form of a payload by its content type; `default` where that is none that is known.

    Examples
    --------
    >>> wire_of("application/senml+json; charset=utf-8", "arrow"), wire_of("", "arrow")
    ('senml', 'arrow')
    """
    return CONTENT_TYPES.get(content.partition(";")[0].strip().lower(), default)
