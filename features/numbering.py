"""From the names of a message to numbers, looked up once for each list of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel

__all__ = ["Numbers"]

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

    def of(
        self, names: Sequence[str], index: NDArray[np.int32] | None = None, place: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32]:
        """Return the number of each name.

        Parameters
        ----------
        names
            The dictionary; the list is kept, so it must not be changed.
        index, place
            Only the names ``index[place]`` are wanted; any other may have -1.
        """
        known = self._known.get(id(names))
        if known is None or known[0] is not names:
            numbers = np.full(max(1, len(names)), -1, np.int32)
            if len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[id(names)] = names, numbers
            if index is None:
                numbers[: len(names)] = [self._number_of(name) for name in names]
        else:
            numbers = known[1]
        if index is not None and place is not None:
            missing = np.zeros(len(numbers), np.bool_)
            if _mark(numbers, index, place, missing):
                for at in np.flatnonzero(missing).tolist():
                    numbers[at] = self._number_of(names[at])
        return numbers


@kernel
def _mark(
    numbers: NDArray[np.int32], index: NDArray[np.int32], place: NDArray[np.int64], missing: NDArray[np.bool_]
) -> bool:
    """Mark the names that occur and have no number yet; tell whether there are any."""
    some = False
    for k in place:
        if numbers[index[k]] < 0:
            missing[index[k]] = True
            some = True
    return some
