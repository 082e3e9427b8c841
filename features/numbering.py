"""From the names of a message to numbers, looked up once for each list of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Numbers"]

UNKNOWN = -2
"""A name that has not been looked up."""
KEPT = 4
"""Lists of names that are remembered: one for each input that sends the same list with every message."""


class Numbers:
    """Numbers of the names in a message's dictionary; the same list of names again costs nothing.

    Parameters
    ----------
    number_of
        Gives the number of a name.

    Examples
    --------
    >>> numbers = Numbers(len)
    >>> numbers.of(["b", "boiler"]).tolist()
    [1, 6]
    """

    def __init__(self, number_of: Callable[[str], int]) -> None:
        self._number_of = number_of
        self._known: dict[int, tuple[Sequence[str], NDArray[np.int32]]] = {}

    def clear(self) -> None:
        """Forget everything: numbers have changed."""
        self._known.clear()

    def of(self, names: Sequence[str], wanted: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
        """Return the number of each name, or of those that are wanted by their index.

        The list of names is kept, so it must not be changed.
        """
        known = self._known.get(id(names))
        if known is None or known[0] is not names:
            if len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            known = self._known[id(names)] = names, np.full(len(names), UNKNOWN, np.int32)
        numbers = known[1]
        if wanted is None:
            wanted = np.arange(len(names), dtype=np.int32)
        found = numbers[wanted]
        missing = found == UNKNOWN
        if missing.any():
            for index in np.unique(wanted[missing]).tolist():
                numbers[index] = self._number_of(names[index])
            found = numbers[wanted]
        return found
