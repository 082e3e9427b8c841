"""Hotelling's T2 and the residual Q about an exponentially weighted mean and covariance, for every asset of a shard."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from models.detector import ArrayDetector, Floats, Rows
from models.reference import effective, follow, least_seen, spread, standardised

__all__ = ["Hotelling"]

VERSION = 1

PRINCIPAL = 0.9
"""Share of the variance that the principal components explain; what is left is residual."""

SMALLEST = 1e-3
"""Smallest eigenvalue of a correlation matrix that is believed; features seldom seen together may give less."""

ENOUGH = 5.0
"""Independent observations with which a feature's frozen mean and spread are fixed."""

REFRESH = 64
"""Windows learnt between two decompositions of the covariance, which cost 60 microseconds; 256 once it is settled."""

SETTLED = 2048
"""Windows after which a reference hardly moves in 256."""

SWEEPS = 4
"""Gauss-Seidel sweeps by which missing features are reconstructed."""

USUAL = 3.0
"""Standard deviations of the usual range that people are shown."""


class State(NamedTuple):
    """One row an asset; D features, their D (D + 1) / 2 pairs row by row of the lower triangle."""

    learnt: NDArray[np.int32]  # (A,)
    seen: NDArray[np.int32]  # (A, D)
    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    step: NDArray[np.float64]
    last: NDArray[np.float64]
    cov: NDArray[np.float32]  # (A, pairs)
    sd: NDArray[np.float32]  # (A, D) the adaptive spread at the last refresh, 0 = not in
    form: NDArray[np.float32]  # (A, pairs) score = sqrt(z' form z)
    frozen_mean: NDArray[np.float64]
    frozen_sd: NDArray[np.float32]  # 0 = not in
    frozen_seen: NDArray[np.int32]
    frozen_form: NDArray[np.float32]


class Hotelling(ArrayDetector):
    """Says how far the features of a window lie together from what is usual for this asset, sum and pattern both.

    T2 measures the distance within the principal components, Q what they do not explain; their sum, each over its own
    limit, is one quadratic form [1]_, [2]_. Its root over its limit is the score: 1 = the alarm level, and twice the
    deviation is twice the score. High = abnormal.

    Each asset has two references. The *adaptive* one follows with `memory`. In the *frozen* one a feature is fixed at
    the end of the warm-up, or as soon as it is known, and stays until `rebaseline`. The score is the larger of both, so
    that a fast change shows against the first and slow wear against the second. A feature that is seldom seen stays out
    at first; one that has only drifted since the start counts little, however many windows there were (see
    `models.reference`). A missing feature is taken to be what the others make least abnormal, so that it counts neither
    for nor against [3]_.

    The limits are theory, for normal features; calibration to the share of healthy windows that lie above follows.
    Fails on features with several regimes: give those a condition. Costs 2 microseconds a window, and 6 D2 + 64 D bytes
    an asset.

    Parameters
    ----------
    n_features
        Number of features D.
    warm_up
        Windows before which the score is NaN.
    memory
        Windows that the adaptive reference remembers.
    above
        Share of healthy windows that may score above 1, for features that are normal and independent in time.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> detector = Hotelling(n_features=2, warm_up=200)
    >>> detector.grow(1)
    >>> row = np.zeros(1, np.int32)
    >>> for current in rng.normal(10.0, 1.0, 200):
    ...     detector.learn(row, np.array([[current, 2.0 * current + rng.normal(0.0, 0.1)]]))
    >>> detector.score(row, np.array([[10.5, 21.0]])).round(1)
    array([0.2])
    >>> detector.score(row, np.array([[10.5, 19.0]])).round(1)  # each is usual, both together are not
    array([1.9])

    References
    ----------
    .. [1] Jackson, J. and Mudholkar, G., 1979. Control procedures for residuals associated with principal component
       analysis. Technometrics 21(3), eq. 3.4 (limit of Q).
    .. [2] Yue, H. and Qin, S., 2001. Reconstruction-based fault identification using a combined index. Industrial &
       Engineering Chemistry Research 40(20), eq. 11 and 17 (combined index and its limit, after Box 1954).
    .. [3] Alcala, C. and Qin, S., 2009. Reconstruction-based contribution for process monitoring. Automatica 45(7).
    """

    def __init__(self, n_features: int, warm_up: int = 360, memory: int = 5000, above: float = 0.001) -> None:
        self.n_features = n_features
        self.warm_up = warm_up
        self.memory = memory
        self.above = above
        self._quantile = NormalDist().inv_cdf(1.0 - above)
        super().__init__(VERSION, _empty(n_features))

    @property
    def _state(self) -> State:
        return self._arrays  # type: ignore[return-value]

    def score(self, rows: Rows, x: Floats) -> Floats:
        """Return how abnormal each window is, shape ``(n,)``; NaN while its asset is warming."""
        out = np.empty(len(rows))
        _score(rows, x, self._state, self.warm_up, out)
        return out

    def learn(self, rows: Rows, x: Floats) -> None:
        """Take the windows as normal."""
        _learn(rows, x, self._state, self.warm_up, float(self.memory), self._quantile)

    def explain(self, rows: Rows, x: Floats) -> Floats:
        """Return each feature's share: the part of the index that vanishes when this feature is put right [3]_."""
        out = np.zeros((len(rows), self.n_features))
        _explain(rows, x, self._state, self.warm_up, out)
        return out

    def expected(self, rows: Rows) -> tuple[Floats, Floats]:
        """Return lower and upper end of the usual range, three deviations about the frozen mean, NaN where unknown."""
        sd = self._state.frozen_sd[rows].astype(np.float64)
        sd[sd == 0.0] = np.nan
        mean = self._state.frozen_mean[rows]
        return mean - USUAL * sd, mean + USUAL * sd


def _empty(d: int) -> State:
    pairs = d * (d + 1) // 2
    one = np.zeros((0, d))
    return State(
        learnt=np.zeros(0, np.int32),
        seen=np.zeros((0, d), np.int32),
        mean=one,
        var=one,
        step=one,
        last=one,
        cov=np.zeros((0, pairs), np.float32),
        sd=np.zeros((0, d), np.float32),
        form=np.zeros((0, pairs), np.float32),
        frozen_mean=one,
        frozen_sd=np.zeros((0, d), np.float32),
        frozen_seen=np.zeros((0, d), np.int32),
        frozen_form=np.zeros((0, pairs), np.float32),
    )


@kernel
def _chi2(quantile: float, degrees: float) -> float:
    """Return the quantile of a chi-squared variable (Wilson and Hilferty 1931)."""
    a = 2.0 / (9.0 * degrees)
    root = max(0.0, 1.0 - a + quantile * sqrt(a))
    return degrees * root * root * root


@kernel
def _residual_limit(values: NDArray[np.float64], quantile: float) -> float:
    """Return the limit of Q for the residual's eigenvalues [1]_."""
    t1 = values.sum()
    t2 = (values**2).sum()
    t3 = (values**3).sum()
    h = 1.0 - 2.0 * t1 * t3 / (3.0 * t2 * t2)
    if h <= 0.0:  # one dominates: chi-squared with matched moments
        return t2 / t1 * _chi2(quantile, t1 * t1 / t2)  # type: ignore[no-any-return]
    root = quantile * sqrt(2.0 * t2 * h * h) / t1 + 1.0 + t2 * h * (h - 1.0) / (t1 * t1)
    return t1 * root ** (1.0 / h)  # type: ignore[no-any-return]


@kernel
def _decompose(
    inside: NDArray[np.bool_],
    var: NDArray[np.float64],
    cov: NDArray[np.float32],
    independent: float,
    quantile: float,
    form: NDArray[np.float32],
) -> None:
    """Write the form whose root is the score: T2 and Q over their limits, over the limit of their sum."""
    form[:] = 0.0
    chosen = np.flatnonzero(inside)
    k = len(chosen)
    if k == 0:
        return
    # Few independent observations do not tell k (k - 1) / 2 correlations: shrink them.
    keep = independent / (independent + k)
    r = np.eye(k)
    for a in range(k):
        i = chosen[a]
        for b in range(a):
            j = chosen[b]
            scale = sqrt(var[i] * var[j])
            c = cov[i * (i + 1) // 2 + j] / scale if scale > 0.0 else 0.0
            r[a, b] = keep * min(1.0, max(-1.0, c))
            r[b, a] = r[a, b]
    values, vectors = np.linalg.eigh(r)  # rising
    values = np.maximum(values, SMALLEST)
    total = values.sum()
    principal = 0
    explained = 0.0
    while explained < PRINCIPAL * total - 1e-12:
        principal += 1
        explained += values[k - principal]
    weights = np.empty(k)
    weights[k - principal :] = 1.0 / (values[k - principal :] * _chi2(quantile, float(principal)))
    if principal < k:
        weights[: k - principal] = 1.0 / _residual_limit(values[: k - principal], quantile)
    s1 = (weights * values).sum()
    s2 = ((weights * values) ** 2).sum()
    weights /= s2 / s1 * _chi2(quantile, s1 * s1 / s2) * (1.0 + k / independent)
    for a in range(k):
        i = chosen[a]
        for b in range(a + 1):
            j = chosen[b]
            form[i * (i + 1) // 2 + j] = (vectors[a] * weights * vectors[b]).sum()


@kernel
def _refresh(row: int, s: State, memory: float, quantile: float, enough: int) -> None:
    """Renew the adaptive form, and let features that are now known into the frozen reference."""
    d = s.seen.shape[1]
    inside = np.zeros(d, np.bool_)
    frozen = np.zeros(d, np.bool_)
    new = False
    least = memory
    least_frozen = memory
    for j in range(d):
        independent = effective(float(s.seen[row, j]), s.var[row, j], s.step[row, j], memory)
        sd = spread(s.mean[row, j], s.var[row, j], independent)
        inside[j] = s.seen[row, j] >= enough and sd < np.inf
        s.sd[row, j] = sd if inside[j] else 0.0
        if inside[j]:
            least = min(least, independent)
        if inside[j] and independent >= ENOUGH and s.frozen_sd[row, j] == 0.0:
            s.frozen_mean[row, j] = s.mean[row, j]
            s.frozen_sd[row, j] = sd
            s.frozen_seen[row, j] = s.seen[row, j]
            new = True
        frozen[j] = s.frozen_sd[row, j] > 0.0
        if frozen[j]:
            least_frozen = min(least_frozen, max(ENOUGH, independent))
    _decompose(inside, s.var[row], s.cov[row], least, quantile, s.form[row])
    if new:
        _decompose(frozen, s.var[row], s.cov[row], least_frozen, quantile, s.frozen_form[row])


@kernel
def _learn(
    rows: NDArray[np.int32], x: NDArray[np.float64], s: State, warm_up: int, memory: float, quantile: float
) -> None:
    d = x.shape[1]
    deviation = np.empty(d)
    weight = np.empty(d)
    for i in range(len(rows)):
        row = rows[i]
        seen = False
        for j in range(d):
            weight[j] = 0.0
            if np.isfinite(x[i, j]):
                seen = True
                deviation[j], weight[j] = follow(
                    x[i, j], memory, j, s.seen[row], s.mean[row], s.var[row], s.step[row], s.last[row]
                )
        if not seen:
            continue
        for j in range(d):
            if weight[j] > 0.0:
                for k in range(j):
                    if weight[k] > 0.0:
                        p = j * (j + 1) // 2 + k
                        w = max(weight[j], weight[k])
                        s.cov[row, p] = (1.0 - w) * (s.cov[row, p] + w * deviation[j] * deviation[k])
        s.learnt[row] += 1
        n = s.learnt[row]
        if n >= warm_up and (n - warm_up) % (REFRESH if n < SETTLED else 4 * REFRESH) == 0:
            _refresh(row, s, memory, quantile, least_seen(warm_up))


@kernel
def _standardise(
    x: NDArray[np.float64],
    mean: NDArray[np.float64],
    sd: NDArray[np.float32],
    seen: NDArray[np.int32],
    form: NDArray[np.float32],
    z: NDArray[np.float64],
    missing: NDArray[np.bool_],
) -> None:
    """Write deviations, those of missing features so that they make the index least."""
    d = len(x)
    some = False
    for j in range(d):
        missing[j] = False
        z[j] = 0.0
        if sd[j] > 0.0:
            if not np.isfinite(x[j]):
                missing[j] = True
                some = True
            else:
                z[j] = standardised(x[j] - mean[j], float(sd[j]), float(seen[j]))
    if some:
        for _ in range(SWEEPS):
            for j in range(d):
                if missing[j]:
                    z[j] -= _gradient(form, z, j) / form[j * (j + 1) // 2 + j]


@kernel
def _gradient(form: NDArray[np.float32], z: NDArray[np.float64], j: int) -> float:
    """Return element j of form z."""
    total = 0.0
    for k in range(j + 1):
        total += form[j * (j + 1) // 2 + k] * z[k]
    for k in range(j + 1, len(z)):
        total += form[k * (k + 1) // 2 + j] * z[k]
    return total


@kernel
def _index(form: NDArray[np.float32], z: NDArray[np.float64]) -> float:
    """Return z' form z."""
    total = 0.0
    for j in range(len(z)):
        inner = 0.0
        first = j * (j + 1) // 2
        for k in range(j):
            inner += form[first + k] * z[k]
        total += z[j] * (2.0 * inner + form[first + j] * z[j])
    return total


@kernel
def _both(
    x: NDArray[np.float64], row: int, s: State, z: NDArray[np.float64], other: NDArray[np.float64]
) -> tuple[float, bool]:
    """Return the larger index of both references, and whether it is the frozen one's; z becomes its deviations."""
    missing = np.empty(len(z), np.bool_)
    _standardise(x, s.mean[row], s.sd[row], s.seen[row], s.form[row], z, missing)
    adaptive = _index(s.form[row], z)
    _standardise(x, s.frozen_mean[row], s.frozen_sd[row], s.frozen_seen[row], s.frozen_form[row], other, missing)
    frozen = _index(s.frozen_form[row], other)
    if frozen > adaptive:
        z[:] = other
        return frozen, True
    return adaptive, False


@kernel
def _score(rows: NDArray[np.int32], x: NDArray[np.float64], s: State, warm_up: int, out: NDArray[np.float64]) -> None:
    z = np.empty(x.shape[1])
    other = np.empty(x.shape[1])
    for i in range(len(rows)):
        out[i] = np.nan
        if s.learnt[rows[i]] >= warm_up:
            index, _ = _both(x[i], rows[i], s, z, other)
            out[i] = sqrt(max(0.0, index))


@kernel
def _explain(rows: NDArray[np.int32], x: NDArray[np.float64], s: State, warm_up: int, out: NDArray[np.float64]) -> None:
    d = x.shape[1]
    z = np.empty(d)
    other = np.empty(d)
    for i in range(len(rows)):
        row = rows[i]
        if s.learnt[row] < warm_up:
            continue
        _, frozen = _both(x[i], row, s, z, other)
        form = s.frozen_form[row] if frozen else s.form[row]
        total = 0.0
        for j in range(d):
            own = form[j * (j + 1) // 2 + j]
            if own > 0.0 and np.isfinite(x[i, j]):
                slope = _gradient(form, z, j)
                out[i, j] = slope * slope / own
                total += out[i, j]
        if total > 0.0:
            for j in range(d):
                out[i, j] /= total
