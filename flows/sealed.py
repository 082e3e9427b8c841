"""Snapshots with a checksum: a disk that returns other bytes than were written must not become somebody's state.

What the engine keeps of a step is bytes: a mark, a checksum, and the pickled state, which is a plain dict of arrays
with a version.
"""

from __future__ import annotations

import pickle
import zlib
from typing import Any

__all__ = ["DamagedError", "seal", "sound", "unsealed"]

_MARK = b"vigie\x01"
_HEAD = len(_MARK) + 4


class DamagedError(ValueError):
    """A snapshot that is not what was written."""


def seal(state: Any) -> bytes:
    """Return a state as bytes with their checksum.

    Examples
    --------
    >>> unsealed(seal({"version": 1}))
    {'version': 1}
    """
    body = pickle.dumps(state, pickle.HIGHEST_PROTOCOL)
    return b"".join((_MARK, zlib.crc32(body).to_bytes(4, "little"), body))


def sound(snapshot: Any) -> bool:
    """Tell whether a snapshot is what was written; of one without a seal, as 0.1.0 wrote them, nobody knows.

    Examples
    --------
    >>> whole = seal({"version": 1})
    >>> sound(whole), sound(whole[:-1] + b"x"), sound({"version": 1})
    (True, False, True)
    """
    if not isinstance(snapshot, bytes):
        return True
    body = memoryview(snapshot)[_HEAD:]
    return snapshot.startswith(_MARK) and zlib.crc32(body) == int.from_bytes(snapshot[len(_MARK) : _HEAD], "little")


def unsealed(snapshot: Any) -> Any:
    """Return the state of a snapshot, also of one without a seal.

    Raises
    ------
    DamagedError
        If it is not what was written.
    """
    if not isinstance(snapshot, bytes):
        return snapshot
    if not sound(snapshot):
        raise DamagedError("a snapshot is not what was written")
    return pickle.loads(memoryview(snapshot)[_HEAD:])
