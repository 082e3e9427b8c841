"""Topic filters of an MQTT input, and which partition of the spool a topic belongs to.

A filter is MQTT's, with one addition: a level may be written ``{shard}`` or ``{asset}`` in place of ``+``. Then the
partition is the number in that level, or the shard of the asset named there, so that a process reads the assets whose
windows it keeps. Without it the partition is a checksum of the whole topic: a gateway's messages stay in their order,
and are spread by gateway.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from flows.spool.writer import partition_of

__all__ = ["Topics", "filter_problem"]

_NAMED = ("{shard}", "{asset}")


def filter_problem(text: str) -> str | None:
    """Return what is wrong with a filter; None where nothing is.

    Examples
    --------
    >>> filter_problem("site/{shard}/+"), filter_problem("site/#/x")
    (None, "'#' may only be the last level")
    """
    levels = text.split("/")
    if not text or len(text.encode()) > 65_535 or "\0" in text:
        return "a topic filter has 1 to 65,535 bytes, none of them zero"
    if "#" in levels[:-1]:
        return "'#' may only be the last level"
    if any(("#" in level or "+" in level) and len(level) > 1 for level in levels):
        return "'+' and '#' stand for whole levels"
    if levels[0] == "$share":
        return "shared subscriptions give up the order of an asset's messages"
    named = [level for level in levels if "{" in level or "}" in level]
    if len(named) > 1 or any(level not in _NAMED for level in named):
        return "one level may be {shard} or {asset}"
    return None


class Topics:
    """Filters and partitions of one input.

    Parameters
    ----------
    filters
        Filters as they stand in the site file.
    partitions
        Number of partitions.

    Attributes
    ----------
    subscribed
        Filters as the broker understands them.

    Examples
    --------
    >>> topics = Topics(["fleet/{shard}/+", "boilers/{asset}"], partitions=16)
    >>> topics.subscribed, topics.partition("fleet/3/gateway-7"), topics.partition("boilers/boiler-0001")
    (['fleet/+/+', 'boilers/+'], 3, 6)
    """

    def __init__(self, filters: Sequence[str], partitions: int) -> None:
        self.partitions = partitions
        self.subscribed = ["/".join("+" if level in _NAMED else level for level in one.split("/")) for one in filters]
        self._named = [
            (plain.split("/"), level, name)
            for plain, one in zip(self.subscribed, filters, strict=True)
            for level, name in enumerate(one.split("/"))
            if name in _NAMED
        ]

    def partition(self, topic: str) -> int:
        """Return the partition of a topic."""
        levels = topic.split("/") if self._named else []
        for plain, level, name in self._named:
            if _matches(plain, levels):
                text = levels[level]
                if name == "{shard}" and text.isascii() and text.isdigit():
                    return int(text) % self.partitions
                return zlib.crc32(text.encode()) % self.partitions
        return partition_of(topic, self.partitions)


def _matches(pattern: Sequence[str], levels: Sequence[str]) -> bool:
    """Tell whether a filter takes a topic (MQTT 5, 4.7.1).

    Examples
    --------
    >>> _matches(["a", "+", "#"], ["a", "b"]), _matches(["a", "+"], ["a"])
    (True, False)
    """
    for n, level in enumerate(pattern):
        if level == "#":
            return True
        if n >= len(levels) or level not in ("+", levels[n]):
            return False
    return len(pattern) == len(levels)
