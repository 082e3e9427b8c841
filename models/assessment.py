"""Assessment of a shard: scored windows in, health, probability of failure, remaining life and episodes out.

Failure modes are taken to be independent: an asset keeps running as long as none of them ends in a breakdown.

While an asset is stopped or in maintenance nothing is learned and no episode opens, and its probability of failure is
not known. It comes back from maintenance as repaired: references and wear begin anew, so health is unknown for another
day. That every visit is a repair is an assumption; the technician's verdict comes with the interventions.
Probabilities are those of the wear model; their calibration on recorded failures follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from features.signals import EquipmentClass
from features.windows import ClosedWindows, Silence
from models.detector import StateError
from models.episodes import NONE, PAGE, RUNGS, TICKET, Episodes, close, episode_id, judge, new_episodes, reason
from models.health import (
    DAY_STEPS,
    Indicators,
    References,
    close_level,
    combine,
    degradation,
    gather,
    indicators_of,
    new_references,
    renew,
    step_s,
)
from models.wear import (
    ENOUGH,
    QUANTILES,
    Trend,
    failure_probability,
    limit_distances,
    new_trend,
    observe,
    remaining_life,
    reset,
    under_way,
    unsettle,
    variance_a_day,
)

if TYPE_CHECKING:
    from models.scoring import Scored

__all__ = ["STATES", "Assessed", "Assessor", "Candidate"]

VERSION = 1

STATES = ("warming", "ok", "degraded", "failing", "silent", "stopped", "maintenance")
"""States of an asset, in the order of their codes."""
WARMING, OK, DEGRADED, FAILING, _, STOPPED, MAINTENANCE = range(len(STATES))

DEGRADED_BELOW = 0.7
"""Health of any failure mode below which an asset is called degraded, episode or not."""
LEADS_FROM = 0.01
"""Probability in the paging horizon from which a failure mode is worth naming."""
TOP = 3
"""Signals that are named as the reason."""

Outcome = Literal["open", "withdrawn", "failed", "repaired"]
_OPEN, _WITHDRAWN, _FAILED, _REPAIRED = range(4)
_OUTCOMES: tuple[Outcome, ...] = ("open", "withdrawn", "failed", "repaired")
_IN_SERVICE, _STOPPED, _VISITED = 0, 1, 2
_EVENT_INTS, _EVENT_FLOATS = 6, 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """An episode that opened, changed its rung or ended.

    Attributes
    ----------
    episode
        Its id.
    asset, equipment, failure_mode
        What it is about.
    opened_us, window_start_us, at_us
        Event time at which it opened, start and end of the window in which this happened.
    rung
        What its probability asks for; ``none`` where it ended.
    outcome
        ``open``, or how it ended.
    probability
        Probability of failure in the paging horizon.
    reason
        One sentence for people.
    """

    episode: str
    asset: str
    equipment: str
    failure_mode: str
    opened_us: int
    window_start_us: int
    at_us: int
    rung: Literal["none", "ticket", "page"]
    outcome: Outcome
    probability: float
    reason: str


@dataclass(frozen=True, slots=True)
class Assessed:
    """Windows with what is known of their assets at their end; n windows, M failure modes, H failure horizons.

    Attributes
    ----------
    windows, scored
        What was assessed.
    state
        Index in `STATES`, int8 of shape ``(n,)``.
    health
        By failure mode, 1 as new to 0 failed, shape ``(n, M)``, NaN = unknown.
    leading
        Failure mode most likely to come first, int16 of shape ``(n,)``, -1 = none to speak of.
    p_fail
        Probability that any failure mode ends in a breakdown within each horizon, shape ``(n, H)``, NaN = unknown.
    rul_s
        Remaining useful life of the leading failure mode in seconds, p10, p50, p90, shape ``(n, 3)``, NaN = unknown.
    top
        Columns of the detection features by which the strongest signals speak, int16 of shape ``(n, 3)``, -1 = none:
        those of the leading failure mode first, then by share in the anomaly score.
    top_share
        Share of each of these signals in the anomaly score, shape ``(n, 3)``.
    candidates
        Episodes that opened, changed or ended.
    """

    windows: ClosedWindows
    scored: Scored
    state: NDArray[np.int8]
    health: NDArray[np.float64]
    leading: NDArray[np.int16]
    p_fail: NDArray[np.float64]
    rul_s: NDArray[np.float64]
    top: NDArray[np.int16]
    top_share: NDArray[np.float64]
    candidates: list[Candidate]


class _Terms(NamedTuple):
    """What the class asks for, as the kernel reads it."""

    stopped: NDArray[np.float64]
    maintenance: NDArray[np.float64]
    step_us: int
    horizons: NDArray[np.float64]  # in days of 24 steps
    paging: int
    ticket: float
    page: float
    feature_signal: NDArray[np.int64]  # of each detection feature
    indicator_feature: NDArray[np.int64]  # detection feature of each indicator, -1 none
    signals: int


class _Prognosis(NamedTuple):
    """What is known of each asset since its last step: state of service, open step, and by failure mode the rest."""

    service: NDArray[np.int8]
    open_step: NDArray[np.int64]
    silent: NDArray[np.bool_]
    health: NDArray[np.float64]
    probability: NDArray[np.float64]
    rul: NDArray[np.float64]  # in days of 24 steps


class _Memory(NamedTuple):
    references: References
    trend: Trend
    episodes: Episodes
    prognosis: _Prognosis


class _Out(NamedTuple):
    state: NDArray[np.int8]
    health: NDArray[np.float64]
    leading: NDArray[np.int16]
    p_fail: NDArray[np.float64]
    rul: NDArray[np.float64]
    top: NDArray[np.int16]
    top_share: NDArray[np.float64]
    events: NDArray[np.int64]
    figures: NDArray[np.float64]
    used: NDArray[np.int64]


class Assessor:
    """Health, prognosis and episodes of the assets of one shard.

    An hour of windows changes what is known once: at the first window after it. The result does not depend on how the
    windows are split into calls, as long as those of an asset come in the order of time.

    Parameters
    ----------
    equipment
        The class.

    Examples
    --------
    >>> from features.signals import load_class
    >>> Assessor(load_class("lift")).nbytes
    0
    """

    def __init__(self, equipment: EquipmentClass) -> None:
        self.equipment = equipment
        self._indicators = indicators_of(equipment)
        self._terms = _terms_of(equipment)
        self._modes = tuple(equipment.failure_modes)
        self._features = tuple(i.feature for mode in equipment.failure_modes.values() for i in mode.indicators)
        self._memory = self._new(0)
        self._assets = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return sum(array.nbytes for array in self._arrays(self._memory).values())

    def step(self, scored: Scored) -> Assessed:
        """Assess scored windows in the order of time."""
        windows = scored.windows
        self._grow(len(windows.names))
        n, modes, horizons = len(windows.rows), len(self._modes), len(self._terms.horizons)
        out = _Out(
            state=np.empty(n, np.int8),
            health=np.empty((n, modes)),
            leading=np.empty(n, np.int16),
            p_fail=np.empty((n, horizons)),
            rul=np.empty((n, len(QUANTILES))),
            top=np.empty((n, TOP), np.int16),
            top_share=np.empty((n, TOP)),
            events=np.empty((n * modes, _EVENT_INTS), np.int64),
            figures=np.empty((n * modes, _EVENT_FLOATS)),
            used=np.zeros(1, np.int64),
        )
        _assess(
            self._indicators, self._terms, self._memory, windows.rows, windows.start_us, windows.state_code,
            windows.features, scored.warming, scored.score, scored.share, out,
        )  # fmt: skip
        candidates = [self._candidate(windows, out, event) for event in range(int(out.used[0]))]
        return Assessed(
            windows, scored, out.state, out.health, out.leading, out.p_fail, out.rul, out.top, out.top_share, candidates
        )  # fmt: skip

    def silent(self, silence: Silence) -> None:
        """Mark assets that have fallen silent, until their next window; nothing that is known of them changes."""
        self._grow(len(silence.names))
        self._memory.prognosis.silent[silence.rows] = True

    def forget(self, rows: NDArray[np.int32]) -> None:
        """Make rows new: their assets have left, and others may take them; rows that were never assessed are passed."""
        rows = rows[rows < len(self._memory.prognosis.service)]
        fresh = self._arrays(self._new(1))
        for name, array in self._arrays(self._memory).items():
            array[rows] = fresh[name][0]

    def state(self) -> dict[str, Any]:
        """Return a copy of everything remembered, as a plain dict of arrays with a version."""
        arrays = {name: array[: self._assets].copy() for name, array in self._arrays(self._memory).items()}
        return {"version": VERSION, "failure_modes": list(self._modes), "indicators": list(self._features), **arrays}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned.

        Raises
        ------
        StateError
            If it is of another version, or the class has had other failure modes.
        """
        ours = VERSION, list(self._modes), list(self._features)
        theirs = state.get("version"), state.get("failure_modes"), state.get("indicators")
        if theirs != ours:
            raise StateError(
                f"the state of the assessment of {self.equipment.name!r} has version {theirs[0]}, failure modes"
                f" {theirs[1]} by {theirs[2]}; expected version {ours[0]}, {ours[1]} by {ours[2]}"
            )
        self._assets = len(state["prognosis_service"])
        self._memory = self._new(self._assets)
        for name, array in self._arrays(self._memory).items():
            array[:] = state[name]

    @staticmethod
    def _arrays(memory: _Memory) -> dict[str, NDArray[Any]]:
        parts = memory._asdict().items()
        return {f"{part}_{name}": array for part, fields in parts for name, array in fields._asdict().items()}

    def _new(self, assets: int) -> _Memory:
        modes, horizons = len(self._modes), len(self._terms.horizons)
        return _Memory(
            new_references(assets, len(self._features)),
            new_trend(assets, modes),
            new_episodes(assets, modes),
            _Prognosis(
                service=np.zeros(assets, np.int8),
                open_step=np.full(assets, -1, np.int64),
                silent=np.zeros(assets, np.bool_),
                health=np.full((assets, modes), np.nan),
                probability=np.full((assets, modes, horizons), np.nan),
                rul=np.full((assets, modes, len(QUANTILES)), np.nan),
            ),
        )

    def _grow(self, assets: int) -> None:
        self._assets = max(self._assets, assets)
        room = len(self._memory.prognosis.service)
        if assets <= room:
            return
        new = self._new(max(assets, room + room // 8))
        old = self._arrays(self._memory)
        for name, array in self._arrays(new).items():
            array[:room] = old[name]
        self._memory = new

    def _candidate(self, windows: ClosedWindows, out: _Out, event: int) -> Candidate:
        row, mode, outcome, rung, opened_us, indicator = out.events[event].tolist()
        figures = out.figures[event].tolist()
        asset = windows.names[windows.rows[row]]
        name = self._modes[mode]
        feature = self._features[indicator] if indicator >= 0 else ""
        unit = ""
        if feature:
            unit = self.equipment.features[self._indicators.column[indicator]].unit
        return Candidate(
            episode=episode_id(asset, name, opened_us),
            asset=asset,
            equipment=self.equipment.name,
            failure_mode=name,
            opened_us=opened_us,
            window_start_us=int(windows.start_us[row]),
            at_us=int(windows.end_us[row]),
            rung=RUNGS[rung],  # type: ignore[arg-type]
            outcome=_OUTCOMES[outcome],
            probability=figures[0],
            reason=reason(
                name,
                _OUTCOMES[outcome],
                self.equipment.paging_horizon,
                feature,
                unit,
                bool(indicator >= 0 and self._indicators.factor[indicator] > 0.0),
                self._terms.step_us * 1e-6 * DAY_STEPS,
                figures,
            ),
        )


def _terms_of(equipment: EquipmentClass) -> _Terms:
    states = equipment.states
    step_us = round(step_s(equipment) * 1e6)
    seen = equipment.detection.features
    signals = equipment.signal_names
    signal_of = {feature.name: feature.signal for feature in equipment.features}
    spoken = [signal_of[name.partition("@")[0]] for name in seen]
    column = []
    for mode in equipment.failure_modes.values():
        for indicator in mode.indicators:
            signal = signal_of[indicator.feature.partition("@")[0]]
            if indicator.feature in seen:
                column.append(seen.index(indicator.feature))
            else:
                column.append(spoken.index(signal) if signal in spoken else -1)
    return _Terms(
        stopped=np.array(states.stopped if states is not None else (), np.float64),
        maintenance=np.array(states.maintenance if states is not None else (), np.float64),
        step_us=step_us,
        horizons=np.array(equipment.failure_horizons_s) * 1e6 / (step_us * DAY_STEPS),
        paging=equipment.failure_horizons.index(equipment.paging_horizon),
        ticket=equipment.paging.ticket_probability,
        page=equipment.paging.page_probability,
        feature_signal=np.array([signals.index(name) for name in spoken], np.int64),
        indicator_feature=np.array(column, np.int64),
        signals=len(signals),
    )


@kernel
def _assess(
    k: Indicators,
    c: _Terms,
    memory: _Memory,
    rows: NDArray[np.int32],
    start_us: NDArray[np.int64],
    state_code: NDArray[np.float64],
    features: NDArray[np.float64],
    warming: NDArray[np.bool_],
    score: NDArray[np.float64],
    share: NDArray[np.float64],
    out: _Out,
) -> None:
    """Take the windows one by one."""
    levels = np.empty(len(k.column))
    distances = np.empty(3)
    mode_level = np.empty(3)
    by_signal = np.empty(c.signals)
    column = np.empty(c.signals, np.int64)
    modes = len(k.first) - 1
    p = memory.prognosis
    for n in range(len(rows)):
        a = rows[n]
        p.silent[a] = False
        now = _service_of(c, state_code[n])
        if now != p.service[a]:
            _change_service(k, c, memory, a, n, now, out)
        if p.service[a] == _IN_SERVICE:
            step = start_us[n] // c.step_us
            if step > p.open_step[a] >= 0:
                end_us = (p.open_step[a] + 1) * c.step_us
                for i in range(len(k.column)):
                    levels[i] = close_level(k, memory.references, a, i, p.open_step[a])
                for m in range(modes):
                    spoke = combine(k, memory.references, a, m, levels, mode_level)
                    if spoke > 0:
                        _foresee(c, memory, a, m, end_us, mode_level, spoke > 1, distances)
                        if not warming[n] and not math.isnan(p.probability[a, m, 0]):
                            _judge(k, c, memory, a, m, n, end_us, start_us[n], out)
            p.open_step[a] = step
            gather(k, memory.references, a, features[n])
        _tell(k, c, memory, a, n, warming[n], out)
        _reasons(k, c, memory, a, n, score[n], share[n], by_signal, column, out)


@kernel
def _service_of(c: _Terms, code: float) -> int:
    for value in c.maintenance:
        if code == value:
            return _VISITED
    for value in c.stopped:
        if code == value:
            return _STOPPED
    return _IN_SERVICE


@kernel
def _change_service(k: Indicators, c: _Terms, memory: _Memory, a: int, n: int, now: int, out: _Out) -> None:
    """End episodes on a stop and after a visit, and begin anew after a visit."""
    r, t, e, p = memory.references, memory.trend, memory.episodes, memory.prognosis
    modes = len(k.first) - 1
    before = p.service[a]
    if before == _VISITED and now == _STOPPED:
        return  # still in the hands of the technician: what counts is that somebody was there
    p.service[a] = now
    p.open_step[a] = -1
    for i in range(len(k.column)):
        r.windows[a, i] = 0
        r.total[a, i] = 0.0
    if now == _STOPPED:
        worst = -1
        for m in range(modes):
            if e.rung[a, m] != NONE and (
                worst < 0 or p.probability[a, m, c.paging] > p.probability[a, worst, c.paging]
            ):
                worst = m
        if worst >= 0:
            _record(k, c, memory, a, worst, n, _FAILED, out)
    if now == _IN_SERVICE:
        for m in range(modes):
            if before == _VISITED:
                if e.rung[a, m] != NONE:
                    _record(k, c, memory, a, m, n, _REPAIRED, out)
                reset(t, a, m)
                p.health[a, m] = math.nan
                for h in range(p.probability.shape[2]):
                    p.probability[a, m, h] = math.nan
                for q in range(p.rul.shape[2]):
                    p.rul[a, m, q] = math.nan
            else:
                unsettle(t, a, m)
            e.tickets[a, m] = e.pages[a, m] = 0
        if before == _VISITED:
            for i in range(len(k.column)):
                renew(r, a, i)


@kernel
def _foresee(
    c: _Terms,
    memory: _Memory,
    a: int,
    m: int,
    at_us: int,
    mode_level: NDArray[np.float64],
    seconded: bool,
    distances: NDArray[np.float64],
) -> None:
    """Learn from the level of a failure mode, and say what follows from it."""
    t, p = memory.trend, memory.prognosis
    observe(t, a, m, at_us, float(DAY_STEPS * c.step_us), mode_level[0], mode_level[1], seconded)
    p.health[a, m] = min(1.0, max(0.0, 1.0 - t.level[a, m]))
    if t.seen[a, m] < ENOUGH:
        return
    worn = t.level[a, m] - t.offset[a, m]
    variance = t.p_level[a, m] + mode_level[2]
    limit_distances(worn, variance, distances)
    wearing = under_way(worn, variance)
    drift, drift_sd, diffusion = t.drift[a, m], math.sqrt(t.p_drift[a, m]), variance_a_day(t, a, m)
    least = 0.0
    for h in range(len(c.horizons)):
        failing = failure_probability(c.horizons[h], distances, drift, drift_sd, diffusion)
        least = max(least, wearing * failing)
        p.probability[a, m, h] = least
    remaining_life(distances, drift, drift_sd, diffusion, wearing, p.rul[a, m])


@kernel
def _judge(
    k: Indicators, c: _Terms, memory: _Memory, a: int, m: int, n: int, end_us: int, window_us: int, out: _Out
) -> None:
    e, t = memory.episodes, memory.trend
    probability = memory.prognosis.probability[a, m, c.paging]
    worn = t.level[a, m] - t.offset[a, m]
    change = judge(e, a, m, end_us, window_us, c.step_us, probability, worn, c.ticket, c.page)
    if change != 0:
        _record(k, c, memory, a, m, n, _OPEN if change > 0 else _WITHDRAWN, out)


@kernel
def _record(k: Indicators, c: _Terms, memory: _Memory, a: int, m: int, n: int, outcome: int, out: _Out) -> None:
    """Write down what happens to an episode, with the figures of its reason, and close it where it ends."""
    r, t, e, p = memory.references, memory.trend, memory.episodes, memory.prognosis
    used = out.used[0]
    strongest = -1
    furthest = -math.inf
    for i in range(k.first[m], k.first[m + 1]):
        gone = degradation(r, a, i, r.adaptive[a, i])
        if gone > furthest:
            strongest, furthest = i, gone
    event, figures = out.events[used], out.figures[used]
    event[0], event[1], event[2], event[4], event[5] = n, m, outcome, e.opened_us[a, m], strongest
    for j in range(_EVENT_FLOATS):
        figures[j] = math.nan
    figures[0] = p.probability[a, m, c.paging]
    for q in range(len(QUANTILES)):
        figures[1 + q] = p.rul[a, m, q]
    if strongest >= 0:
        figures[4] = r.adaptive[a, strongest]
        figures[5] = r.frozen[a, strongest]
        figures[6] = t.drift[a, m] * (r.limit[a, strongest] - r.frozen[a, strongest])
    figures[7] = p.health[a, m]
    if outcome != _OPEN:
        close(e, a, m)
    event[3] = e.rung[a, m]
    out.used[0] += 1


@kernel
def _tell(k: Indicators, c: _Terms, memory: _Memory, a: int, n: int, warming: bool, out: _Out) -> None:
    """Write what is known of an asset at the end of a window."""
    e, p = memory.episodes, memory.prognosis
    modes = len(k.first) - 1
    out.leading[n] = -1
    for h in range(out.p_fail.shape[1]):
        out.p_fail[n, h] = math.nan
    for q in range(out.rul.shape[1]):
        out.rul[n, q] = math.nan
    least = math.inf
    rung = NONE
    leading = -1
    for m in range(modes):
        out.health[n, m] = p.health[a, m]
        if not math.isnan(p.health[a, m]):
            least = min(least, p.health[a, m])
        rung = max(rung, e.rung[a, m])
        likely = p.probability[a, m, c.paging]
        if math.isnan(likely) or (likely < LEADS_FROM and e.rung[a, m] == NONE):
            continue
        if leading < 0 or _sooner(p, c.paging, a, m, leading):
            leading = m
    if p.service[a] != _IN_SERVICE:
        out.state[n] = MAINTENANCE if p.service[a] == _VISITED else STOPPED
        return
    out.leading[n] = leading
    if leading >= 0:
        for q in range(out.rul.shape[1]):
            out.rul[n, q] = p.rul[a, leading, q] * (DAY_STEPS * c.step_us * 1e-6)
    for h in range(len(c.horizons)):
        survives = 1.0
        known = False
        for m in range(modes):
            if not math.isnan(p.probability[a, m, h]):
                known = True
                survives *= 1.0 - p.probability[a, m, h]
        if known:
            out.p_fail[n, h] = 1.0 - survives
    if rung == PAGE:
        out.state[n] = FAILING
    elif rung == TICKET or least < DEGRADED_BELOW:
        out.state[n] = DEGRADED
    elif warming or least == math.inf:
        out.state[n] = WARMING
    else:
        out.state[n] = OK


@kernel
def _sooner(p: _Prognosis, paging: int, a: int, one: int, other: int) -> bool:
    """Return whether one failure mode is likelier in the paging horizon than another; if equal, nearer."""
    gap = p.probability[a, one, paging] - p.probability[a, other, paging]
    return bool(gap > 0.0 if abs(gap) > 1e-6 else p.rul[a, one, 1] < p.rul[a, other, 1])


@kernel
def _reasons(
    k: Indicators,
    c: _Terms,
    memory: _Memory,
    a: int,
    n: int,
    score: float,
    share: NDArray[np.float64],
    by_signal: NDArray[np.float64],
    column: NDArray[np.int64],
    out: _Out,
) -> None:
    """Write the strongest signals: those of the failure mode that is under way, then by share in the score.

    Beside a failure mode, shares of a score below the alarm level are noise and give no further reason.
    """
    p, r = memory.prognosis, memory.references
    top, top_share = out.top[n], out.top_share[n]
    for signal in range(c.signals):
        by_signal[signal] = 0.0
        column[signal] = -1
    for d in range(len(share)):
        signal = c.feature_signal[d]
        if column[signal] < 0 or share[d] > share[column[signal]]:
            column[signal] = d
        by_signal[signal] += share[d]
    for place in range(len(top)):
        top[place] = -1
        top_share[place] = 0.0
    place = 0
    if out.state[n] in (FAILING, DEGRADED):
        mode = out.leading[n]
        if mode < 0:
            for m in range(len(k.first) - 1):
                if p.health[a, m] < DEGRADED_BELOW and (mode < 0 or p.health[a, m] < p.health[a, mode]):
                    mode = m
        place = _speaking(k, c, r, a, mode, by_signal, column, top, top_share)
    if place > 0 and score <= 1.0:
        return
    while place < len(top):
        best = -1
        for signal in range(c.signals):
            if column[signal] >= 0 and by_signal[signal] > 0.0 and (best < 0 or by_signal[signal] > by_signal[best]):
                best = signal
        if best < 0:
            return
        top[place], top_share[place] = column[best], by_signal[best]
        column[best] = -1
        place += 1


@kernel
def _speaking(
    k: Indicators,
    c: _Terms,
    r: References,
    a: int,
    mode: int,
    by_signal: NDArray[np.float64],
    column: NDArray[np.int64],
    top: NDArray[np.int16],
    top_share: NDArray[np.float64],
) -> int:
    """Write the signals of a failure mode's indicators, the one that has gone furthest first; return how many."""
    place = 0
    below = math.inf
    while place < len(top):
        best = -1
        furthest = -math.inf
        for i in range(k.first[mode], k.first[mode + 1]):
            gone = degradation(r, a, i, r.adaptive[a, i])
            if furthest < gone < below:
                best, furthest = i, gone
        if best < 0:
            return place
        below = furthest
        feature = c.indicator_feature[best]
        if feature < 0 or column[c.feature_signal[feature]] < 0:
            continue  # the signal is not among those that the detectors see, or has been named
        signal = c.feature_signal[feature]
        top[place], top_share[place] = feature, by_signal[signal]
        column[signal] = -1
        place += 1
    return place
