"""What an anomaly detector promises: it judges a window against the asset's own past, and only then learns from it.

A detector works on a whole shard at once: `score(rows, x)` and `learn(rows, x)` take one window for each of some of its
assets. Assets never influence one another. `models.checks` holds the contract as tests that every detector must pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayDetector", "Detector", "StateError"]

Rows = NDArray[np.int32]
Floats = NDArray[np.float64]
S = TypeVar("S", bound=NamedTuple)


class StateError(ValueError):
    """A stored state that this version cannot read; the message says what to do."""


class Detector(Protocol):
    """Scores windows of many assets; high = abnormal, 1 = the class's alarm level.

    The order is always: `score`, decide, then `learn` those that were normal. `score` is pure. The alarm level of a
    detector comes from the asset's own warm-up and from theory; calibration to the share of healthy windows that the
    class file asks for follows, and is not claimed here.

    Attributes
    ----------
    nbytes
        Bytes of the state of all assets; bounded for each asset, however many windows it has seen.
    """

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        ...

    def grow(self, assets: int) -> None:
        """Make room for `assets` assets; those that were there keep their state, new ones know nothing."""
        ...

    def score(self, rows: Rows, x: Floats) -> Floats:
        """Return how abnormal each window is, shape ``(n,)``; NaN while its asset is warming.

        Parameters
        ----------
        rows
            Row of each window's asset, shape ``(n,)``.
        x
            Features, shape ``(n, n_features)``, NaN = missing, which counts neither for nor against.
        """
        ...

    def learn(self, rows: Rows, x: Floats) -> None:
        """Take the windows as normal. An asset occurs at most once in `rows`."""
        ...

    def explain(self, rows: Rows, x: Floats) -> Floats:
        """Return each feature's share in the score, shape ``(n, n_features)``, >= 0, a row sums to 1 or is all 0."""
        ...

    def rebaseline(self, rows: Rows) -> None:
        """Forget the assets, which were repaired: they warm up again, and what they then show is normal."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the state as a dict of arrays with a ``version``."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Take a state that `state` returned.

        Raises
        ------
        StateError
            If it is of another version or another shape.
        """
        ...


class ArrayDetector:
    """A detector whose whole state is a tuple of arrays with one row an asset.

    Parameters
    ----------
    version
        Version of the state's form.
    fresh
        The state of no asset: a named tuple of arrays of shape ``(0, ...)``.
    fill
        What an asset that has seen nothing holds in each of them; 0 where not named.
    """

    def __init__(self, version: int, fresh: tuple[NDArray[Any], ...], fill: dict[str, float] | None = None) -> None:
        self._version = version
        self._fill = fill or {}
        self._assets = 0
        self._arrays = fresh

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return sum(a.nbytes for a in self._arrays)

    def _fields(self) -> Iterable[str]:
        return cast(Any, self._arrays)._fields  # type: ignore[no-any-return]

    def grow(self, assets: int) -> None:
        """Make room for `assets` assets."""
        room = len(self._arrays[0])
        if assets > room:
            # A shard that gains assets one by one must not copy its state for each of them; a large one grows by less.
            room = max(assets, room + room // 8)
            grown = []
            for name, a in zip(self._fields(), self._arrays, strict=True):
                longer = np.zeros((room, *a.shape[1:]), a.dtype)
                longer[: len(a)] = a
                if self._fill.get(name, 0):
                    longer[len(a) :] = self._fill[name]
                grown.append(longer)
            self._arrays = cast(Any, type(self._arrays))(*grown)
        self._assets = max(assets, self._assets)

    def rebaseline(self, rows: Rows) -> None:
        """Forget the assets."""
        for name, a in zip(self._fields(), self._arrays, strict=True):
            a[rows] = self._fill.get(name, 0)

    def state(self) -> dict[str, Any]:
        """Return the state as a dict of arrays with a ``version``."""
        arrays = zip(self._fields(), self._arrays, strict=True)
        return {"version": self._version, **{name: a[: self._assets].copy() for name, a in arrays}}

    def load(self, state: dict[str, Any]) -> None:
        """Take a state that `state` returned."""
        if state.get("version") != self._version:
            raise StateError(
                f"{type(self).__name__} reads state version {self._version}, got {state.get('version')}: "
                "reset the recovery store of this site"
            )
        arrays = []
        for name, mine in zip(self._fields(), self._arrays, strict=True):
            theirs = np.array(state[name], mine.dtype)
            if theirs.shape[1:] != mine.shape[1:]:
                raise StateError(
                    f"{type(self).__name__}: {name} has shape {theirs.shape[1:]} an asset, expected {mine.shape[1:]}: "
                    "the class file has changed, reset the recovery store of this site"
                )
            arrays.append(theirs)
        self._arrays = cast(Any, type(self._arrays))(*arrays)
        self._assets = len(arrays[0])
