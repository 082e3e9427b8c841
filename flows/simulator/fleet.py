"""A fleet that does not exist: lifts and boilers from a seed, whose telemetry and true history are both known.

Examples
--------
>>> fleet = Fleet(FleetPlan(lifts=2, boilers=1, start_us=1_767_600_000_000_000, days=1.0))
>>> sorted(fleet.register)
['boiler-0001', 'lift-0001', 'lift-0002']
>>> blocks = fleet.step(fleet.plan.start_us + 600_000_000)
>>> blocks.schema.names
['asset', 'signal', 'start', 'period_us', 'values']
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.assets import Register
from features.signals import load_class
from features.telemetry import empty_blocks
from flows.simulator.blocks import Cells, as_batch, lay_out, new_blocks
from flows.simulator.boiler import BOILER_SIGNALS, list_boilers, new_boilers, run_boilers
from flows.simulator.draws import tables
from flows.simulator.lift import LIFT_SIGNALS, cut, fill_lifts, list_lifts
from flows.simulator.register import as_rows, boiler_params, lift_params, register
from flows.simulator.timetable import SLOT_S, Slot, plan_slot
from flows.simulator.truth import Fault, History, Truth
from flows.simulator.weather import outdoor_celsius, utc_offset_s

__all__ = ["Fault", "Fleet", "FleetPlan", "Truth"]

SIGNALS = tuple(dict.fromkeys(LIFT_SIGNALS + BOILER_SIGNALS))
"""Signals of a batch in the order of their codes; both classes share `controller_state`."""

STATE_VERSION = 1
_SECOND_US = 1_000_000
_DAY_US = 86_400 * _SECOND_US
_FOREVER_US = 2**60
_WARM_UP_SLOTS = 3
_BLOCK_S = 30  # of a boiler's report: within the lateness of its class, though signals come one after the other
_LONGEST_STEP_S = 6 * 3600


@dataclass(frozen=True)
class FleetPlan:
    """What is simulated.

    Attributes
    ----------
    lifts, boilers
        Number of assets of each class.
    start_us
        Event time of the beginning in microseconds since 1970.
    days
        Length, or None for an endless run.
    seed
        Everything is a function of it; a larger fleet with the same seed begins with the same assets.
    mode
        `burst`: a lift's gateway sends what it recorded around each trip, a boiler's reports once a minute; both send
        `controller_state` each minute. `continuous`: every second.
    sampled_trips
        Largest number of trips a day whose signals a lift's gateway records in burst mode, or None for all.
    faults
        `none`, `natural` (2.3 breakdowns an asset and year), `demo` (a lift and a boiler break within days, one asset
        falls silent, one sensor is off; again every five days), or the wear processes that are asked for.
    rate_scale
        Factor on the number of natural events a year.
    wear_scale
        Factor on the length of natural precursors.
    """

    lifts: int
    boilers: int
    start_us: int
    days: float | None = None
    seed: int = 0
    mode: Literal["burst", "continuous"] = "burst"
    sampled_trips: int | None = None
    faults: Literal["none", "natural", "demo"] | tuple[Fault, ...] = "none"
    rate_scale: float = 1.0
    wear_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.lifts < 0 or self.boilers < 0:
            raise ValueError(f"a fleet has no fewer than 0 assets, got {self.lifts} lifts and {self.boilers} boilers")
        if self.days is not None and not self.days > 0:
            raise ValueError(f"a plan is longer than 0 days, got {self.days}")
        if self.rate_scale <= 0 or self.wear_scale <= 0:
            raise ValueError("rate_scale and wear_scale are above 0")
        if self.sampled_trips is not None and self.sampled_trips < 0:
            raise ValueError(f"sampled_trips is a number of trips a day, or None for all; got {self.sampled_trips}")
        if isinstance(self.faults, tuple):
            unknown = {fault.asset for fault in self.faults} - set(self.asset_ids)
            if unknown:
                raise ValueError(f"the plan has no asset {sorted(unknown)[0]!r}")

    @property
    def end_us(self) -> int:
        """Event time of the end; of an endless plan beyond any time."""
        return _FOREVER_US if self.days is None else self.start_us + int(self.days * _DAY_US)

    @property
    def asset_ids(self) -> list[str]:
        """Every asset, lifts first."""
        names = [f"lift-{i + 1:04d}" for i in range(self.lifts)]
        return names + [f"boiler-{i + 1:04d}" for i in range(self.boilers)]


class Fleet:
    """The simulated fleet of a plan.

    What it says depends on the plan alone, never on how the time is cut into steps. Costs about 10 ns a reading in
    bursts of lifts and 15 ns a reading of boilers on one core; memory goes with the readings of a step.

    Parameters
    ----------
    plan
        What is simulated.

    Attributes
    ----------
    register
        The assets, each marked as simulated.
    time_us
        Event time reached.
    """

    def __init__(self, plan: FleetPlan) -> None:
        self.plan = plan
        self.time_us = plan.start_us
        lifts, boilers = lift_params(plan.seed, plan.lifts), boiler_params(plan.seed, plan.boilers)
        self._lifts = as_rows(lifts, lifts._fields)
        self._boilers = as_rows(boilers, boilers._fields)
        self.register: Register = register(plan.lifts, plan.boilers, lifts.floors, boilers.households)
        ids = plan.asset_ids
        self._asset_names = pa.array(ids, pa.utf8())
        self._signal_names = pa.array(SIGNALS, pa.utf8())
        self._lift_history, self._boiler_history = self._histories(ids[: plan.lifts], ids[plan.lifts :])
        self._bounds = {
            name: np.array([load_class(name).signals[s].range for s in signals], np.float64)
            for name, signals in (("lift", LIFT_SIGNALS), ("boiler", BOILER_SIGNALS))
        }
        self._tables = tables(plan.seed)
        sites = [lifts.site, boilers.site]
        self._sites = 1 + max((int(site.max()) for site in sites if len(site)), default=0)
        self._weather_days: dict[int, NDArray[np.float64]] = {}
        self._slots: dict[int, Slot] = {}
        self._loads: tuple[int, NDArray[np.float64], NDArray[np.float64]] | None = None
        self._step_s = _BLOCK_S if plan.mode == "burst" else 1
        self._lift_done = self._lift_clock(plan.start_us, up=True)
        self._boiler_done = self._boiler_clock(plan.start_us, up=True)
        first = int(self._lift_done.min()) // SLOT_S if plan.lifts else 0
        self._thermal = np.zeros((plan.lifts, 3))
        self._thermal_slot = first
        for number in range(first - _WARM_UP_SLOTS, first):
            if plan.lifts:
                self._thermal = self._plan_slot(number, self._thermal).thermal_after
        self._boiler_state = new_boilers(self._boilers, self._weather(plan.start_us // 3_600_000_000, 1)[:, 0])

    @property
    def truth(self) -> list[Truth]:
        """What really happens, in the order of the onset: all of a finite plan, or what is known so far."""
        found = self._lift_history.truth + self._boiler_history.truth
        return sorted(found, key=lambda t: (t.onset_us, t.asset, t.kind))

    def step(self, until_us: int) -> pa.RecordBatch:
        """Return what the gateways send from the last time until `until_us`, in the order of event time.

        A lift's report of a trip comes when the trip is over, or 30 s of it are full; until then its heartbeat waits
        too. Readings that are not complete at `until_us` come with the next step.
        """
        until_us = min(until_us, self.plan.end_us)
        if until_us <= self.time_us:
            return empty_blocks()
        lifts = self._list_lifts(until_us)
        boilers = self._list_boilers(until_us)
        parts = [cells for _, cells in lifts] + [cells for _, _, cells in boilers]
        self.time_us = until_us
        if not parts:
            return empty_blocks()
        places, n_blocks, n_values = lay_out(parts)
        out = new_blocks(n_blocks, n_values)
        for (slot, cells), place in zip(lifts, places, strict=False):
            ambient = self._weather(slot.number * (SLOT_S // 3600), SLOT_S // 3600 + 2)
            fill_lifts(
                self.plan.seed, slot, self._lifts, ambient, self._tables, self._bounds["lift"], cells, place, out
            )
        codes = (len(LIFT_SIGNALS), SIGNALS.index("controller_state"), self.plan.lifts)
        for (events, weather, cells), place in zip(boilers, places[len(lifts) :], strict=True):
            run_boilers(
                self.plan.seed,
                self._boilers,
                self._boiler_state,
                events,
                weather,
                self._tables,
                self._bounds["boiler"],
                codes,
                self._step_s,
                cells,
                place,
                out,
            )
        return as_batch(out, self._asset_names, self._signal_names)

    def advance(self, until_us: int, readings: int = 400_000) -> pa.RecordBatch:
        """Return what `step` returns, but stop early, at about `readings`; `time_us` tells how far it came."""
        return self.step(min(until_us, self._reach(readings)))

    def stream(self, until_us: int, readings: int = 400_000) -> Iterator[pa.RecordBatch]:
        """Yield what `step` returns in batches of about `readings`, so that memory stays small."""
        until_us = min(until_us, self.plan.end_us)
        while self.time_us < until_us:
            batch = self.advance(until_us, readings)
            if batch.num_rows:
                yield batch

    def _reach(self, readings: int) -> int:
        """Return the time until which there will be about so many readings; at least one second ahead."""
        continuous = self.plan.mode == "continuous"
        steady = 10.02 * self.plan.boilers + (331.0 if continuous else 0.05) * self.plan.lifts  # readings a second
        span_s = min(max(readings / max(steady, 1e-9), 1.0), float(_LONGEST_STEP_S))
        if not continuous and self.plan.lifts:
            number = int(self._lift_done.min()) // SLOT_S
            ends, load = self._load(number)
            now_s = self.time_us / _SECOND_US
            first = int(np.searchsorted(ends, now_s, side="right"))
            before = float(load[first - 1]) if first else 0.0
            # At the end of each report: what has come until then.
            sent = load[first:] - before + steady * (ends[first:] - now_s)
            full = int(np.searchsorted(sent, readings))
            if full < len(sent):
                span_s = min(span_s, max(float(ends[first + full]) - now_s, 1.0))
            # Beyond the slot nothing is planned yet: go to its end and look again.
            span_s = min(span_s, max((number + 1) * SLOT_S + 1.0 - now_s, 1.0))
        return self.time_us + int(span_s * _SECOND_US)

    def _load(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return when the reports of a slot end, in order, and how many readings have come until then."""
        if self._loads is None or self._loads[0] != number:
            reports = self._slot(number).reports
            ends = number * SLOT_S + reports.end[reports.sampled].astype(np.float64)
            size = 331.0 * (reports.end - reports.begin)[reports.sampled]
            order = np.argsort(ends, kind="stable")
            self._loads = (number, ends[order], np.cumsum(size[order]))
        return self._loads[1:]

    def state(self) -> dict[str, Any]:
        """Return all that is not a function of plan and time, as a plain dict of arrays."""
        return {
            "version": STATE_VERSION,
            "time_us": self.time_us,
            "lift_done": self._lift_done.copy(),
            "boiler_done": self._boiler_done.copy(),
            "thermal": self._thermal.copy(),
            "thermal_slot": self._thermal_slot,
            "boilers": self._boiler_state.copy(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue where a fleet of the same plan stood when it gave this `state`.

        Raises
        ------
        ValueError
            If the state is of another version or another fleet.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"the simulator's state has version {state.get('version')}, expected {STATE_VERSION}: begin afresh"
            )
        if len(state["lift_done"]) != self.plan.lifts or len(state["boiler_done"]) != self.plan.boilers:
            raise ValueError("the simulator's state is that of a fleet of another size: begin afresh")
        self.time_us = int(state["time_us"])
        self._lift_done = state["lift_done"].copy()
        self._boiler_done = state["boiler_done"].copy()
        self._thermal = state["thermal"].copy()
        self._thermal_slot = int(state["thermal_slot"])
        self._boiler_state = state["boilers"].copy()
        self._slots = {}
        self._loads = None

    def _histories(self, lifts: list[str], boilers: list[str]) -> tuple[History, History]:
        plan = self.plan
        span = (plan.start_us, plan.end_us, plan.faults, plan.rate_scale, plan.wear_scale)
        return (
            History(plan.seed, "lift", lifts, SIGNALS, *span, demo_silence=plan.lifts >= 3),
            History(plan.seed, "boiler", boilers, BOILER_SIGNALS, *span, demo_silence=plan.lifts < 3),
        )

    def _lift_clock(self, time_us: int, up: bool = False) -> NDArray[np.int64]:
        """Return the whole seconds that have ended on each lift's clock."""
        shifted = time_us - self._lifts["offset_us"]
        clock: NDArray[np.int64] = (-(-shifted // _SECOND_US) if up else shifted // _SECOND_US).astype(np.int64)
        return clock

    def _boiler_clock(self, time_us: int, up: bool = False) -> NDArray[np.int64]:
        """Return the second up to which each boiler's reports are complete."""
        shifted = time_us - self._boilers["offset_us"]
        clock: NDArray[np.int64] = (-(-shifted // _SECOND_US) if up else shifted // _SECOND_US).astype(np.int64)
        if self._step_s > 1:
            phase = self._boilers["phase_s"]
            into = clock - phase
            clock = phase + 60 * (-(-into // 60) if up else into // 60)
        return clock

    def _list_lifts(self, until_us: int) -> list[tuple[Slot, Cells]]:
        if not self.plan.lifts:
            return []
        continuous = self.plan.mode == "continuous"
        done = self._lift_done
        until = np.maximum(self._lift_clock(until_us), done)
        last = int(until.max()) // SLOT_S
        found = []
        for number in range(int(done.min()) // SLOT_S, last + 1):
            slot = self._slot(number)
            if not continuous:
                inside = until // SLOT_S == number
                until = np.where(inside, np.maximum(cut(slot, self._lifts, until), done), until)
            cells = list_lifts(slot, self._lifts, done, until, continuous)
            if len(cells.asset):
                found.append((slot, cells))
        self._lift_done = until
        for number in [n for n in self._slots if n < int(until.min()) // SLOT_S]:
            self._thermal, self._thermal_slot = self._slots.pop(number).thermal_after, number + 1
        return found

    def _slot(self, number: int) -> Slot:
        """Return a slot, planned once; slots are asked for in order."""
        if number not in self._slots:
            before = self._slots.get(number - 1)
            thermal = self._thermal if before is None else before.thermal_after
            self._slots[number] = self._plan_slot(number, thermal)
        return self._slots[number]

    def _plan_slot(self, number: int, thermal: NDArray[np.float64]) -> Slot:
        begin_us = number * SLOT_S * _SECOND_US
        events = self._lift_history.events(begin_us - _SECOND_US, begin_us + (SLOT_S + 2) * _SECOND_US)
        sampled = self.plan.sampled_trips if self.plan.mode == "burst" else None
        return plan_slot(self.plan.seed, number, self._lifts, events, thermal, sampled)

    def _list_boilers(self, until_us: int) -> list[tuple[Any, tuple[int, Any, Any], Cells]]:
        if not self.plan.boilers:
            return []
        done = self._boiler_done
        until = np.maximum(self._boiler_clock(until_us), done)
        self._boiler_done = until
        if not (until > done).any():
            return []
        begin, end = int(done.min()), int(until.max())
        events = self._boiler_history.events(begin * _SECOND_US, (end + 61) * _SECOND_US)
        first_hour = begin // 3600 - 1
        hours = end // 3600 + 3 - first_hour
        local = np.array([utc_offset_s(h) for h in range(first_hour, first_hour + hours)], np.int64)
        weather = (first_hour, self._weather(first_hour, hours), local)
        return [(events, weather, list_boilers(self._boilers, events, done, until, self._step_s))]

    def _weather(self, first_hour: int, hours: int) -> NDArray[np.float64]:
        """Return the outdoor temperature of each site from an hour on; days are kept, as they are asked for often."""
        days = range(first_hour // 24, (first_hour + hours - 1) // 24 + 1)
        for day in days:
            if day not in self._weather_days:
                if len(self._weather_days) > 40:
                    self._weather_days.clear()
                self._weather_days[day] = outdoor_celsius(self.plan.seed, self._sites, 24 * day, 24)
        for day in days:  # again: the cache may have been emptied on the way
            if day not in self._weather_days:
                self._weather_days[day] = outdoor_celsius(self.plan.seed, self._sites, 24 * day, 24)
        joined = np.concatenate([self._weather_days[day] for day in days], axis=1)
        at = first_hour - 24 * days[0]
        return np.ascontiguousarray(joined[:, at : at + hours])
