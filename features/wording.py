"""What a parser finds wrong in a file, in the words of whoever wrote the file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import inspect

__all__ = ["nearest", "parser_words"]

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
_LIMITS = {">=": "of at least", "<=": "of at most", ">": "above", "<": "below"}

_PLACE = re.compile(r"(.*?)(?: - at `\$(.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(\w+)[^`]*`(?: (of length )?([<>]=?) (\S+)| matching regex '(.*)')?(?:, got .*)?")


def nearest(name: str, known: Iterable[str], what: str = "keys") -> str:
    """Return what may have been meant by a name: the one that resembles it, else all there are.

    Examples
    --------
    >>> nearest("pasword_file", ["username", "password_file"])
    'did you mean `password_file`?'
    >>> nearest("colour", ["id", "class"])
    'the keys are id, class'
    """
    known = list(known)
    close = get_close_matches(name.lower(), known, 1, 0.75)
    return f"did you mean `{close[0]}`?" if close else f"the {what} are {', '.join(known)}"


def parser_words(error: msgspec.ValidationError, kind: Any, document: Any) -> str:
    """Return what is wrong and where, with what may be written there.

    Parameters
    ----------
    error
        What the parser says.
    kind
        The type that the document shall have.
    document
        The document as it was written, without types.

    Examples
    --------
    >>> Door = msgspec.defstruct("Door", [("closing_s", float)], forbid_unknown_fields=True)
    >>> for written in ({"closing_s": "soon"}, {"closing_s": 2.0, "close_s": 2.0}):
    ...     try:
    ...         msgspec.convert(written, Door)
    ...     except msgspec.ValidationError as error:
    ...         print(parser_words(error, Door, written))
    $.closing_s: expected a number, got 'soon'
    there is no key `close_s`: did you mean `closing_s`?
    """
    found = _PLACE.fullmatch(str(error))
    assert found is not None
    said, path = found[1], found[2] or ""
    place, node, value = _walk(path, inspect.type_info(kind), document)
    words = _field(said, node, value) or _choice(node, value) or _expected(said, node, value, place) or said
    return f"${place}: {words}" if place else words


def _walk(path: str, node: inspect.Type, value: Any) -> tuple[str, inspect.Type, Any]:
    """Follow a path of the parser; return it with the keys that it leaves out, the type there, and what is there."""
    place = ""
    for name, number in _STEP.findall(path):
        kinds = _kinds(node)
        node = _chosen(node, value)
        if name:
            place += f".{name}"
            if isinstance(node, inspect.StructType):
                if name == node.tag_field:
                    return place, inspect.LiteralType(tuple(kinds)), value.get(name)
                node = next((f.type for f in node.fields if f.encode_name == name), inspect.AnyType())
            value = value.get(name) if isinstance(value, dict) else None
        elif isinstance(node, inspect.DictType):
            key = _first_wrong(node.value_type, value)
            place += f".{key}" if key else "[...]"
            node, value = node.value_type, value.get(key) if isinstance(value, dict) else None
        else:
            place += f"[{number}]"
            node = getattr(node, "item_type", inspect.AnyType())
            there = isinstance(value, list) and number.isdigit() and int(number) < len(value)
            value = value[int(number)] if there else None
    return place, node if _kinds(node) else _chosen(node, value), value


def _first_wrong(node: inspect.Type, values: Any) -> str | None:
    """Return the first key whose value is not what it shall be: the parser does not say which."""
    if isinstance(node, inspect.StructType) and isinstance(values, dict):
        for key, value in values.items():
            try:
                msgspec.convert(value, node.cls)
            except msgspec.ValidationError:
                return str(key)
    return None


def _kinds(node: inspect.Type) -> list[str]:
    """Return the words that tell the tables of a union apart, sorted."""
    some = node.types if isinstance(node, inspect.UnionType) else (node,)
    return sorted(str(one.tag) for one in some if isinstance(one, inspect.StructType) and one.tag is not None)


def _chosen(node: inspect.Type, value: Any) -> inspect.Type:
    """Return the one type of a union that a value has chosen, or that is not null."""
    if not isinstance(node, inspect.UnionType):
        return node
    some = [one for one in node.types if not isinstance(one, inspect.NoneType)]
    tagged = [one for one in some if isinstance(one, inspect.StructType) and one.tag_field is not None]
    said = [one for one in tagged if isinstance(value, dict) and value.get(one.tag_field) == one.tag]
    return (said or some)[0]


def _field(said: str, node: inspect.Type, value: Any) -> str | None:
    """Say which key is missing, or is none."""
    found = _FIELD.fullmatch(said)
    if found is None:
        return None
    name = found[2]
    struct = _chosen(node, value)
    assert isinstance(struct, inspect.StructType)
    if found[1] == "missing required":
        kinds = f": it is one of {', '.join(_kinds(node))}" if name == struct.tag_field else ""
        return f"the key `{name}` is missing{kinds}"
    keys = [field.encode_name for field in struct.fields]
    keys += [] if struct.tag_field is None else [struct.tag_field]
    return f"there is no key `{name}`: {nearest(name, keys)}"


def _choice(node: inspect.Type, value: Any) -> str | None:
    """Say which words there are where one of a few must stand."""
    return f"{value!r} is none of {', '.join(map(str, node.values))}" if isinstance(node, inspect.LiteralType) else None


def _expected(said: str, node: inspect.Type, value: Any, place: str) -> str | None:
    """Say what must stand there, and what does."""
    found = _EXPECTED.fullmatch(said)
    if found is None:
        return None
    kind, length, limit, number, pattern = found.groups()
    if kind == "array" and isinstance(value, dict) and not isinstance(node, inspect.DictType):
        return f"write [[{place.rpartition('.')[2]}]], in double brackets: there may be several"
    words = _KINDS.get(kind, kind)
    if length:
        words += f" {_LIMITS[limit]} {number} {'entries' if kind == 'array' else 'characters'}"
    elif limit:
        words += f" {_LIMITS[limit]} {number.removesuffix('.0')}"
    elif pattern:
        words += f" that matches {pattern}"
    if kind == "array" and isinstance(value, str):
        return f'expected a list: write ["{value}"]'
    got = "a table" if isinstance(value, dict) else "an empty list" if value == [] else repr(value)[:80]
    return f"expected {words}, got {got}"
