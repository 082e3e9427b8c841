"""Which worker a shard runs on: names of keys that the engine spreads evenly, whatever the number of workers.

The engine sends a key to worker ``SipHash-1-3(key) % workers``. A shard's key is the first of its names whose hash is
congruent to its number modulo `BALANCED`, so shard n runs on worker ``n % workers`` for each number of workers that
divides it. The names depend on nothing else: they are recovery keys, and a store outlives a change of the number of
processes. An input that is partitioned like the shards is then read where its shards run.

References
----------
.. [1] J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012; with the keys 0, 0 and the
   closing byte 0xff it is the hash of a string in the standard library of Rust.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import count

__all__ = ["BALANCED", "shard_key", "worker_of"]

BALANCED = 120
"""Divided by 1, 2, 3, 4, 5, 6, 8, 10 and 12: with so many workers, shards are spread evenly."""

_MASK = (1 << 64) - 1
_START = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


def _rotated(x: int, bits: int) -> int:
    return ((x << bits) | (x >> (64 - bits))) & _MASK


def _round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = (v0 + v1) & _MASK
    v1 = _rotated(v1, 13) ^ v0
    v0 = _rotated(v0, 32)
    v2 = (v2 + v3) & _MASK
    v3 = _rotated(v3, 16) ^ v2
    v0 = (v0 + v3) & _MASK
    v3 = _rotated(v3, 21) ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = _rotated(v1, 17) ^ v2
    return v0, v1, _rotated(v2, 32), v3


def _hash(key: str) -> int:
    """Return the hash by which the engine routes a key, [1]_ with one and three rounds."""
    data = key.encode() + b"\xff"
    whole = len(data) // 8 * 8
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, whole, 8)]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    v0, v1, v2, v3 = _START
    for word in words:
        v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


def worker_of(key: str, workers: int) -> int:
    """Return the worker to which the engine sends a key.

    Examples
    --------
    >>> [worker_of(shard_key(n), 3) for n in range(6)]
    [0, 1, 2, 0, 1, 2]
    """
    return _hash(key) % workers


@lru_cache(maxsize=8192)
def shard_key(number: int) -> str:
    """Return the key of a shard.

    Examples
    --------
    >>> shard_key(7)
    '0007-152'
    """
    return next(key for i in count() if _hash(key := f"{number:04d}-{i}") % BALANCED == number % BALANCED)
