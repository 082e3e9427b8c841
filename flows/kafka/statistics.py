"""What the Kafka client says of a partition once a second: whether somebody leads it and can be reached."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

__all__ = ["Standing", "standing"]


class _Broker(msgspec.Struct):
    nodeid: int
    state: str


class _Partition(msgspec.Struct):
    partition: int
    leader: int
    unknown: bool
    hi_offset: int


class _Topic(msgspec.Struct):
    partitions: dict[str, _Partition]


class _Statistics(msgspec.Struct):
    brokers: dict[str, _Broker]
    topics: dict[str, _Topic]


_DECODER = msgspec.json.Decoder(_Statistics)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a partition stands.

    Attributes
    ----------
    led
        Whether a broker leads it.
    reachable
        Whether the connection to that broker is up.
    partitions
        How many partitions the topic has.
    end
        Next offset that will be written; None while it is unknown.
    """

    led: bool
    reachable: bool
    partitions: int
    end: int | None


def standing(statistics: str | bytes, topic: str, number: int) -> Standing | None:
    """Read the statistics of librdkafka (``STATISTICS.md`` of that project); None where the partition is not in them.

    Examples
    --------
    >>> partition = '{"partition":0,"leader":1,"unknown":false,"hi_offset":7}'
    >>> brokers = '{"a:9092/1":{"nodeid":1,"state":"UP"}}'
    >>> standing(f'{{"brokers":{brokers},"topics":{{"t":{{"partitions":{{"0":{partition}}}}}}}}}', "t", 0)
    Standing(led=True, reachable=True, partitions=1, end=7)
    """
    found = _DECODER.decode(statistics)
    partitions = found.topics[topic].partitions if topic in found.topics else {}
    mine = partitions.get(str(number))
    if mine is None:
        return None
    return Standing(
        led=mine.leader >= 0,
        reachable=any(b.nodeid == mine.leader and b.state == "UP" for b in found.brokers.values()),
        partitions=sum(p.partition >= 0 and not p.unknown for p in partitions.values()),
        end=mine.hi_offset if mine.hi_offset >= 0 else None,
    )
