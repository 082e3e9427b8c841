"""What is written to a topic: records with a key, an id and a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from features.assets import shard_of

__all__ = ["Records", "dealt"]


class Records(NamedTuple):
    """Records of one sink partition, in order.

    Attributes
    ----------
    keys
        The asset of each, by which the topic is partitioned.
    ids
        What makes each one the same result again, within its key.
    values
        The values.
    """

    keys: list[bytes]
    ids: list[bytes]
    values: list[bytes]


def dealt(records: Iterable[tuple[str, str, bytes]], partitions: int) -> Iterator[tuple[str, Records]]:
    """Deal records (key, id, value) out to sink partitions; each part has the name of one of its keys.

    Examples
    --------
    >>> parts = dealt([("lift-1", "a", b"1"), ("lift-2", "b", b"2"), ("lift-1", "c", b"3")], 16)
    >>> [(name, part.ids) for name, part in parts]
    [('lift-1', [b'a', b'c']), ('lift-2', [b'b'])]
    """
    parts: dict[int, tuple[str, Records]] = {}
    for key, identity, value in records:
        _, part = parts.setdefault(shard_of(key, partitions), (key, Records([], [], [])))
        part.keys.append(key.encode())
        part.ids.append(identity.encode())
        part.values.append(value)
    yield from parts.values()
