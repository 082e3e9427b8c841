"""What really happens to the fleet: what wears since when, what breaks when, what only looks like a fault.

The natural history of an asset is a chain of breakdowns, each after a healthy time and perhaps a precursor, and beside
it chains of misuse, sensor faults and silent gateways that break nothing. All is drawn from the seed, asset by asset,
so a larger fleet with the same seed begins with the same assets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flows.simulator.wear import EVENT, MISUSE, SENSOR, SILENCE, SUDDEN, WEAR, Events, wear_path

__all__ = ["BREAKDOWNS_PER_YEAR", "KINDS", "MODES", "Fault", "History", "Truth"]

KINDS = ("wear", "sudden", "misuse", "sensor", "silence")
"""Kinds of events: the codes of `flows.simulator.wear`."""
SENSOR_FAULTS = ("stuck", "spikes", "drift", "offset")
"""What a faulty sensor does."""
MODES = {
    "lift": ("door_operator", "motor_bearing", "brake", "guide_shoes"),
    "boiler": ("ignition_electrode", "exchanger_fouling", "circulator_bearing", "water_loss"),
}
"""Failure modes with a wear process, in the order of their codes."""
VARIANTS = {"lift": ("obstruction", "jumping", "overload"), "boiler": ("drawing", "throttling")}
"""Kinds of misuse."""
BREAKDOWNS_PER_YEAR = 2.3
"""1.5 million breakdowns a year of 645,000 lifts in France."""

_SHARES = {"lift": (0.45, 0.15, 0.2, 0.2), "boiler": (0.35, 0.2, 0.25, 0.2)}
_WEAR_SHARE, _SUDDEN_SHARE = 0.6, 0.3  # of the breakdowns; the rest comes from misuse
_PER_YEAR = {"lift": (4.0, 0.4, 0.8), "boiler": (1.0, 0.4, 0.8)}  # misuse, sensor faults, silence
_PRECURSOR_D = (5.0, 14.0, 40.0)  # shortest, median, longest
_PRECURSOR_SIGMA = 0.6
_REPAIR_H = 8.0
_YEAR_D = 365.25
_DAY_US = 86_400_000_000
_HOUR_US = 3_600_000_000
_NEVER = 2**62
_AHEAD_US = 60 * _DAY_US
_DEMO_CYCLE_US = 5 * _DAY_US

# Sensors that fail: signal, a value at which it sticks, the size of an offset.
_SENSORS: dict[str, tuple[tuple[str, float, float], ...]] = {
    "lift": (
        ("vibration_x", 0.0, 0.4),
        ("vibration_y", 0.0, 0.4),
        ("vibration_z", 0.0, 0.4),
        ("motor_current", 3.1, 4.0),
        ("motor_temperature", 31.0, 25.0),
        ("brake_temperature", 27.0, 30.0),
    ),
    "boiler": (
        ("supply_temperature", 52.0, 15.0),
        ("return_temperature", 41.0, 12.0),
        ("flue_temperature", 58.0, 30.0),
        ("outdoor_temperature", 9.0, 8.0),
        ("water_pressure", 1.4, 0.6),
        ("flow", 3.0, 2.0),
    ),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A wear process that is asked for: the failure mode begins to wear at `onset_us` and breaks at `breakdown_us`."""

    asset: str
    failure_mode: str
    onset_us: int
    breakdown_us: int


@dataclass(frozen=True, slots=True)
class Truth:
    """One event of the true history.

    Attributes
    ----------
    asset, equipment
        The asset and its class.
    kind
        One of `KINDS`: wear, a sudden breakdown, misuse, a sensor fault, a silent gateway.
    failure_mode
        The failure mode that wears, or empty.
    onset_us
        When it began.
    breakdown_us
        When the asset broke down, or None where it did not.
    end_us
        When it was repaired, or when it was over.
    detail
        The variant: what kind of misuse, or which signal was wrong and how.
    """

    asset: str
    equipment: str
    kind: Literal["wear", "sudden", "misuse", "sensor", "silence"]
    failure_mode: str
    onset_us: int
    breakdown_us: int | None
    end_us: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    asset: int
    kind: int
    mode: int
    detail: int
    amount: float
    onset: int
    breakdown: int
    inspect: int
    end: int
    number: int


class History:
    """The events of the assets of one class, extended as time goes.

    Parameters
    ----------
    seed
        Seed of the fleet.
    equipment
        Its class, a key of `MODES`.
    ids
        Assets in order.
    signals
        Signals in the order of their codes.
    start_us, end_us
        Span of the plan; an endless one ends beyond any time.
    faults
        `none`, `natural`, `demo`, or the wear processes that are asked for.
    rate_scale, wear_scale
        Factors on the number of events a year and on the length of precursors.
    demo_silence
        Whether a demo's silent gateway and faulty sensor are of this class.
    """

    def __init__(
        self,
        seed: int,
        equipment: str,
        ids: Sequence[str],
        signals: Sequence[str],
        start_us: int,
        end_us: int,
        faults: str | tuple[Fault, ...],
        rate_scale: float = 1.0,
        wear_scale: float = 1.0,
        demo_silence: bool = True,
    ) -> None:
        self.equipment = equipment
        self.ids = list(ids)
        self._seed, self._faults = seed, faults
        self._signals = list(signals)
        self._start, self._end = start_us, end_us
        self._rate, self._wear = rate_scale, wear_scale
        self._demo_silence = demo_silence
        self._code = sorted(MODES).index(equipment)
        self._rows: list[_Row] = []
        self._columns: dict[str, NDArray[np.int64]] = {}
        self._known_until = start_us
        self._chain_ends = np.full((4, len(self.ids)), start_us, np.int64)
        self._rounds = [0, 0, 0, 0]
        self._cycles = 0
        self._paths: dict[_Row, NDArray[np.float64]] = {}
        if isinstance(faults, tuple):
            self._add_asked(faults)
        self.extend(end_us if end_us < _NEVER // 4 else start_us)

    def extend(self, until_us: int) -> None:
        """Draw what begins until `until_us`, and some time beyond."""
        if until_us < self._known_until - _AHEAD_US and self._columns:
            return
        horizon = min(until_us + 2 * _AHEAD_US, self._end)
        if self.ids and self._faults == "natural":
            for chain in range(4):
                while int(self._chain_ends[chain].min()) < horizon:
                    self._draw_chain(chain)
        elif self.ids and self._faults == "demo":
            while self._start + self._cycles * _DEMO_CYCLE_US < horizon:
                self._add_demo_cycle()
        self._known_until = horizon if horizon < self._end else _NEVER
        self._rows.sort(key=lambda row: (row.asset, row.onset, row.kind))
        names = ("asset", "kind", "mode", "detail", "onset", "breakdown", "inspect", "end", "number")
        self._columns = {n: np.array([getattr(row, n) for row in self._rows], np.int64) for n in names}

    @property
    def truth(self) -> list[Truth]:
        """Every event that is known and begins within the plan, in the order of its onset."""
        known = [self._as_truth(row) for row in self._rows if row.onset < self._end]
        return sorted(known, key=lambda t: (t.onset_us, t.asset, t.kind))

    def events(self, from_us: int, to_us: int) -> Events:
        """Return the events that touch a span of time, for the kernels."""
        self.extend(to_us)
        c = self._columns
        at = np.flatnonzero((c["onset"] < to_us) & (c["end"] > from_us) & (c["onset"] < self._end))
        first = np.searchsorted(c["asset"][at], np.arange(len(self.ids) + 1)).astype(np.int64)
        rows = np.zeros(len(at), EVENT)
        for name in ("kind", "mode", "detail", "onset", "breakdown", "inspect", "end"):
            rows[name] = c[name][at]
        for i, row in enumerate(at):
            rows["amount"][i] = self._rows[row].amount
            if c["kind"][row] == WEAR:
                rows["path"][i] = self._path(self._rows[row])
        return Events(first, rows)

    def _path(self, row: _Row) -> NDArray[np.float64]:
        if row in self._paths:
            return self._paths[row]
        if len(self._paths) > 4096:
            self._paths.clear()
        place = (self._code << 60) | (row.asset << 24) | row.number
        path = wear_path(np.random.Generator(np.random.Philox(key=[self._seed & (2**64 - 1), place])))
        self._paths[row] = path
        return path

    def _as_truth(self, row: _Row) -> Truth:
        mode = detail = ""
        if row.kind == WEAR:
            mode = MODES[self.equipment][row.mode]
            if mode == "water_loss":
                detail = ("leak", "vessel")[row.detail]
        elif row.kind == MISUSE:
            detail = VARIANTS[self.equipment][row.detail]
        elif row.kind == SENSOR:
            detail = f"{self._signals[row.mode]} {SENSOR_FAULTS[row.detail]}"
        return Truth(
            self.ids[row.asset],
            self.equipment,
            KINDS[row.kind],  # type: ignore[arg-type]
            mode,
            row.onset,
            row.breakdown if row.breakdown < _NEVER else None,
            row.end,
            detail,
        )

    def _add_asked(self, faults: tuple[Fault, ...]) -> None:
        index = {asset: i for i, asset in enumerate(self.ids)}
        modes = MODES[self.equipment]
        for number, fault in enumerate(faults):
            if fault.asset not in index:
                continue
            if fault.failure_mode not in modes:
                raise ValueError(
                    f"{fault.asset}: no wear process is called {fault.failure_mode!r}; a {self.equipment} has {modes}"
                )
            if not fault.onset_us < fault.breakdown_us:
                raise ValueError(f"{fault.asset}: the onset of a fault lies before its breakdown")
            self._add_wear(
                index[fault.asset], modes.index(fault.failure_mode), fault.onset_us, fault.breakdown_us, number
            )

    def _add_wear(self, asset: int, mode: int, onset: int, breakdown: int, number: int) -> None:
        inspect = breakdown + 5 * _HOUR_US
        detail = (asset + number) % 2  # water is lost by a leak or by the vessel
        self._rows.append(
            _Row(asset, WEAR, mode, detail, 1.0, onset, breakdown, inspect, inspect + _HOUR_US, 2**23 + number)
        )

    def _add_demo_cycle(self) -> None:
        """Add one round of the demo: one asset of the class wears out, one falls silent, one has a bad sensor."""
        cycle, n = self._cycles, len(self.ids)
        self._cycles += 1
        begin = self._start + cycle * _DEMO_CYCLE_US
        # Wear begins after the day in which a new asset learns its own reference.
        order, onset, breakdown = ((0, 3, 1, 2), 1.2, 3.6) if self.equipment == "lift" else ((2, 0, 3, 1), 1.2, 3.4)
        mode = order[cycle % 4]
        worn = (3 * cycle) % n
        self._add_wear(worn, mode, begin + int(onset * _DAY_US), begin + int(breakdown * _DAY_US), cycle)
        silent, wrong = (worn + 1) % n, (worn + 2) % n
        if not self._demo_silence or worn in (silent, wrong):
            return
        at = begin + int(1.25 * _DAY_US)
        self._rows.append(_Row(silent, SILENCE, 0, 0, 0.0, at, _NEVER, _NEVER, at + 6 * _HOUR_US, cycle))
        at = begin + int(0.9 * _DAY_US)
        name, _, size = _SENSORS[self.equipment][-2]
        signal = self._signals.index(name)
        self._rows.append(_Row(wrong, SENSOR, signal, 3, size, at, _NEVER, _NEVER, at + 2 * _DAY_US, cycle))

    def _draw_chain(self, chain: int) -> None:
        """Draw the next event of every asset: chain 0 are the breakdowns, then misuse, sensor faults and silence."""
        number = self._rounds[chain]
        self._rounds[chain] += 1
        place = (self._code << 60) | (1 << 59) | (chain << 40) | number
        rng = np.random.Generator(np.random.Philox(key=[self._seed & (2**64 - 1), place]))
        draws = rng.random((len(self.ids), 10))
        for asset in range(len(self.ids)):
            begin = int(self._chain_ends[chain, asset])
            row = (self._breakdown if chain == 0 else self._mishap)(chain, asset, begin, number, draws[asset])
            self._rows.append(row)
            self._chain_ends[chain, asset] = row.end

    def _breakdown(self, chain: int, asset: int, begin: int, number: int, u: NDArray[np.float64]) -> _Row:
        shortest, median, longest = _PRECURSOR_D
        precursor = float(np.clip(median * np.exp(_PRECURSOR_SIGMA * _normal(u[1], u[2])), shortest, longest))
        # The healthy time is what is left of the time between two breakdowns.
        healthy = _YEAR_D / BREAKDOWNS_PER_YEAR - _WEAR_SHARE * median * np.exp(_PRECURSOR_SIGMA**2 / 2)
        onset = begin + int(-np.log1p(-u[0]) * healthy / self._rate * _DAY_US)
        repair = int(float(np.clip(_REPAIR_H * np.exp(0.7 * _normal(u[3], u[4])), 1.5, 72.0)) * _HOUR_US)
        inspection = min(repair // 2, int((0.5 + 1.5 * u[5]) * _HOUR_US))
        kind, mode, detail, breakdown = SUDDEN, 0, 0, onset
        if u[6] < _WEAR_SHARE:
            kind = WEAR
            mode = int(np.searchsorted(np.cumsum(_SHARES[self.equipment]), u[7] * 0.999999, side="right"))
            detail = int(u[8] < 0.5)
            breakdown = onset + max(1, int(precursor * self._wear * _DAY_US))
        elif u[6] >= _WEAR_SHARE + _SUDDEN_SHARE:
            kind = MISUSE
            detail = int(u[7] * len(VARIANTS[self.equipment]))
            breakdown = onset + int((0.05 + 1.5 * u[8]) * _HOUR_US)
        end = breakdown + repair
        return _Row(asset, kind, mode, detail, 0.5 + u[9], onset, breakdown, end - inspection, end, number)

    def _mishap(self, chain: int, asset: int, begin: int, number: int, u: NDArray[np.float64]) -> _Row:
        per_year = _PER_YEAR[self.equipment][chain - 1] * self._rate
        onset = begin + int(-np.log1p(-u[0]) * _YEAR_D / per_year * _DAY_US)
        mode, detail, amount = 0, 0, 0.5 + u[3]
        if chain == 1:
            kind, hours = MISUSE, 0.3 * 12 ** u[1]
            detail = int(u[2] * len(VARIANTS[self.equipment]))
        elif chain == 2:
            kind, hours = SENSOR, 12.0 * 20 ** u[1]
            name, stuck, size = _SENSORS[self.equipment][int(u[2] * len(_SENSORS[self.equipment]))]
            mode, detail = self._signals.index(name), int(u[4] * len(SENSOR_FAULTS))
            amount = stuck if detail == 0 else size * amount * (1.0 if u[5] < 0.5 else -1.0)
        else:
            kind, hours = SILENCE, 1.0 * 14 ** u[1]
        end = onset + int(hours * _HOUR_US)
        return _Row(asset, kind, mode, detail, float(amount), onset, _NEVER, _NEVER, end, number)


def _normal(u: float, v: float) -> float:
    return float(np.sqrt(-2.0 * np.log1p(-u)) * np.cos(2.0 * np.pi * v))
