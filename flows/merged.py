"""One exposition out of those of several processes: assets side by side, counts added up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from flows import metrics
from flows.metrics import ASSET_FAMILIES

__all__ = ["merged"]

_SIDE_BY_SIDE = {f.name for f in ASSET_FAMILIES} - {metrics.PAGE_THRESHOLD.name, metrics.FAILURE_MODE.name}
"""Families of assets: an asset is in one process, so nothing has to be compared."""

_ADDED = {"vigie_readings_pending", "vigie_state_bytes"}
"""Gauges that count; of every other gauge the highest holds, of a time that is the newest."""

_FAMILY = re.compile(rb"^# HELP (\S+) ", re.MULTILINE)


def merged(texts: Iterable[bytes]) -> bytes:
    r"""Return one exposition in the text format of Prometheus.

    Parameters
    ----------
    texts
        Those of the processes, each with its families headed by ``# HELP``.

    Examples
    --------
    >>> one = b"# HELP vigie_readings_total Readings.\n# TYPE vigie_readings_total counter\nvigie_readings_total 3.0\n"
    >>> print(merged([one, one]).decode().splitlines()[-1])
    vigie_readings_total 6.0
    """
    families: dict[str, list[bytes]] = {}
    for text in texts:
        starts = [match.start() for match in _FAMILY.finditer(text)]
        for start, end in pairwise([*starts, len(text)]):
            name = text[start + 7 : text.index(b" ", start + 7)].decode()
            families.setdefault(name, []).append(text[start:end])
    return b"".join(_family(name, parts) for name, parts in families.items())


def _family(name: str, parts: list[bytes]) -> bytes:
    head, kind, first = _split(parts[0])
    if len(parts) == 1:
        return parts[0]
    if name in _SIDE_BY_SIDE:
        return b"".join([head, first, *(_split(part)[2] for part in parts[1:])])
    add = kind in (b"counter", b"histogram") or name in _ADDED
    values: dict[bytes, float] = {}
    for part in parts:
        for line in _split(part)[2].splitlines():
            series, _, text = line.rpartition(b" ")
            value = float(text)
            known = values.get(series)
            values[series] = value if known is None else known + value if add else max(known, value)
    return head + b"".join(b"%s %s\n" % (series, repr(value).encode()) for series, value in values.items())


def _split(part: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the two head lines of a family, its type, and its samples."""
    after_help = part.index(b"\n") + 1
    after_type = part.index(b"\n", after_help) + 1
    return part[:after_type], part[after_help : after_type - 1].rpartition(b" ")[2], part[after_type:]
