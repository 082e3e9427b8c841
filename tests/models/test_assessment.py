"""The assessment of a fleet with known wear: who is paged, how early, and who is left in peace."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.signals import EquipmentClass, load_class
from features.windows import ClosedWindows, Silence
from flows import metrics
from models.assessment import STATES, Assessed, Assessor, Candidate
from models.detector import StateError
from models.scoring import Scored

WINDOW_S = 600
DAY_US = 86_400_000_000
SIGNALS = "abcdef"
MODE_SIGNALS = {"pair": "ab", "mixed": "cd", "alone": "e", "falling": "f"}


def rig() -> EquipmentClass:
    """Return a class with failure modes of two indicators and of one; degradation 1 is a change by 1 from about 1."""
    signal = {"unit": "1", "range": [-100.0, 100.0], "period_s": 1.0, "description": ""}
    indicators = {
        "pair": [{"feature": "a.mean", "fails_at": 2.0}, {"feature": "b.mean", "fails_at": 2.0}],
        "mixed": [{"feature": "c.mean", "fails_at": 2.0}, {"feature": "d.max", "fails_by": 1.0}],
        "alone": [{"feature": "e.mean", "fails_at": 2.0}],
        "falling": [{"feature": "f.mean", "direction": "down", "fails_by": 1.0}],
    }
    return msgspec.convert(
        {
            "name": "rig",
            "description": "",
            "window_s": WINDOW_S,
            "lateness_s": 0.0,
            "idle_after_s": 60.0,
            "silent_after_s": 900.0,
            "signals": {name: signal for name in SIGNALS},
            "states": {"signal": "a", "stopped": [1.0], "maintenance": [2.0]},
            "detection": {"features": [f"{name}.mean" for name in SIGNALS]},
            "failure_modes": {n: {"description": "", "advice": "", "indicators": i} for n, i in indicators.items()},
        },
        EquipmentClass,
    )


RIG = rig()
MODES = tuple(MODE_SIGNALS)
COLUMNS = [RIG.feature_index[f"{n}.{'max' if n == 'd' else 'mean'}"] for n in SIGNALS]


@dataclass(frozen=True)
class Wear:
    """Wear of one failure mode: ``((t - onset) / precursor) ** power`` with the unevenness of a gamma process."""

    asset: int
    mode: str
    onset_d: float
    precursor_d: float
    power: float

    @property
    def breakdown_us(self) -> int:
        return int((self.onset_d + self.precursor_d) * DAY_US)


def fleet(assets: int, days: int, seed: int, wear: list[Wear] | None = None) -> Iterator[Scored]:
    """Yield a day of windows at a time of assets with noise, slow noise, daily and weekly cycles and misuse spells.

    The daily cycle has up to a tenth of the way to failure, the week and the year a twentieth; a spell of misuse moves
    a failure mode by half to one and a half of that way, for 0.3 to 3.6 hours, four times an asset and year. The
    failure limit of an indicator scatters by 8 %. A worn asset stops at its breakdown, and comes back from maintenance
    as new.
    """
    rng = np.random.default_rng(seed)
    shape = (assets, len(SIGNALS))
    noise, slow = rng.uniform(0.05, 0.3, shape), rng.uniform(0.0, 0.03, shape)
    day_size, day_phase = rng.uniform(-0.1, 0.1, shape), rng.uniform(0.0, 24.0, shape)
    week, year, year_phase = (rng.uniform(low, high, shape) for low, high in ((-0.05, 0.05), (-0.05, 0.05), (0, 365)))
    limit = np.exp(0.08 * rng.standard_normal(shape))
    count = rng.poisson(4.0 * assets * days / 365)
    begins, lengths = rng.uniform(0, days * 24, count), 0.3 * 12 ** rng.random(count)
    spells = list(zip(rng.integers(0, assets, count), rng.integers(0, 4, count), begins, lengths, strict=True))
    knots = np.linspace(0.0, 1.0, 65)
    paths = [np.append(0.0, np.cumsum(rng.gamma(80.0 * np.diff(knots**w.power) + 1e-6))) for w in wear or []]
    names = [f"rig-{i}" for i in range(assets)]
    state = np.zeros(shape)
    for day in range(days):
        gone = np.empty((24, *shape))
        code = np.zeros((24, assets))
        for hour in range(24):
            state = 0.8 * state + 0.6 * slow * rng.standard_normal(shape)
            daily = day_size * np.sin(2.0 * np.pi * (hour - day_phase) / 24.0)
            yearly = year * np.sin(2.0 * np.pi * (day - year_phase) / 365.0)
            gone[hour] = state + daily + yearly + (week if day % 7 >= 5 else 0.0)
        hours = day * 24.0 + np.arange(24)
        for asset, mode, begin, length in spells:
            inside = np.clip(np.minimum(hours + 1, begin + length) - np.maximum(hours, begin), 0.0, 1.0)
            for name in MODE_SIGNALS[MODES[mode]]:
                gone[:, asset, SIGNALS.index(name)] += (0.5 + begin % 1.0) * inside
        for one, path in zip(wear or [], paths, strict=True):
            share = (hours / 24.0 - one.onset_d) / one.precursor_d
            broken = hours * 3_600_000_000 >= one.breakdown_us
            code[broken & (share < 1.0 + 0.3 / one.precursor_d), one.asset] = 1.0
            code[(code[:, one.asset] == 1.0) & (share > 1.0 + 0.2 / one.precursor_d), one.asset] = 2.0
            for name in MODE_SIGNALS[one.mode]:
                i = SIGNALS.index(name)
                gone[:, one.asset, i] += (
                    np.where(broken, 0.0, np.interp(share, knots, path / path[-1])) * limit[one.asset, i]
                )
        sign = np.where(np.array(list(SIGNALS)) == "f", -1.0, 1.0)
        x = 1.0 + sign * (gone[:, None] + noise * rng.standard_normal((24, 6, *shape)))
        n = 144 * assets
        features = np.full((n, len(RIG.features)), np.nan)
        features[:, COLUMNS] = x.reshape(n, -1)
        start = np.repeat(day * DAY_US + np.arange(144) * WINDOW_S * 1_000_000, assets)
        windows = ClosedWindows(
            names,
            np.tile(np.arange(assets, dtype=np.int32), 144),
            start,
            start + WINDOW_S * 1_000_000,
            np.ones(n, np.int64),
            np.repeat(code, 6, axis=0).reshape(n),
            features,
        )
        yield scored(windows)


def scored(windows: ClosedWindows, warming: bool = False, share: NDArray[np.float64] | None = None) -> Scored:
    """Return windows with a neutral score."""
    n = len(windows.rows)
    table = np.zeros((n, len(SIGNALS))) if share is None else share
    unknown = np.full((n, len(SIGNALS)), np.nan)
    return Scored(windows, unknown, np.zeros(n), np.full(n, warming), table, unknown, unknown)


def candidates_of(scored_days: Iterator[Scored], assessor: Assessor | None = None) -> list[Candidate]:
    assessor = assessor or Assessor(RIG)
    return [candidate for day in scored_days for candidate in assessor.step(day).candidates]


def lead_h(wear: Wear, found: list[Candidate]) -> float:
    """Return how many hours before the breakdown the first page of this failure came; -1 for none."""
    pages = [
        c.at_us
        for c in found
        if (c.asset, c.failure_mode, c.rung) == (f"rig-{wear.asset}", wear.mode, "page")
        and wear.onset_d * DAY_US < c.at_us <= wear.breakdown_us
    ]
    return (wear.breakdown_us - min(pages)) / 3.6e9 if pages else -1.0


def plan(precursor_d: float, powers: tuple[float, ...], onset_d: float = 20.0) -> list[Wear]:
    return [
        Wear(i, mode, onset_d + 0.1 * i, precursor_d, power)
        for i, (power, mode) in enumerate((power, mode) for power in powers for mode in MODES)
    ]


def test_the_states_are_those_of_the_metrics() -> None:
    assert STATES == metrics.STATES


def test_healthy_assets_are_left_in_peace() -> None:
    found = candidates_of(fleet(40, 90, seed=1))  # ten asset-years
    assert len([c for c in found if c.rung == "page"]) <= 10 * RIG.paging.false_pages_per_asset_year
    assert len({c.episode for c in found}) <= 10


@pytest.mark.parametrize(
    ("precursor_d", "powers", "least_h"),
    [(3.0, (1.0, 1.4), 24.0), (5.0, (1.0, 2.0, 2.6), 24.0), (14.0, (1.0, 2.0, 3.0), 36.0), (40.0, (1.4, 3.0), 48.0)],
)
def test_wear_is_paged_a_day_ahead(precursor_d: float, powers: tuple[float, ...], least_h: float) -> None:
    wear = plan(precursor_d, powers)
    found = candidates_of(fleet(len(wear), int(precursor_d) + 25, 2, wear))
    leads = [lead_h(one, found) for one in wear]
    assert min(leads) >= least_h, leads
    ends = {(c.asset, c.failure_mode) for c in found if c.outcome == "failed"}
    assert ends == {(f"rig-{one.asset}", one.mode) for one in wear}


def test_fast_wear_after_a_day_of_commissioning_is_paged_hours_ahead() -> None:
    wear = plan(2.0, (1.0, 1.4, 2.0, 2.6), onset_d=1.0)
    found = candidates_of(fleet(len(wear), 6, 3, wear))
    assert min(lead_h(one, found) for one in wear) >= 2.0


def test_the_result_does_not_depend_on_the_split_into_calls() -> None:
    wear = plan(2.0, (1.0,), onset_d=1.2)
    days = list(fleet(len(wear), 5, 4, wear))
    whole = Assessor(RIG)
    expected = [whole.step(day) for day in days]
    assert sum(len(e.candidates) for e in expected) > 4

    @settings(max_examples=5, deadline=None, derandomize=True)
    @given(st.integers(1, 400), st.integers(0, 2**31))
    def check(most: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        parts = Assessor(RIG)
        for day, want in zip(days, expected, strict=True):
            n = len(day.windows.rows)
            cuts = np.unique(np.append(np.cumsum(rng.integers(1, most + 1, n)), n))
            cuts = cuts[cuts <= n]
            got = [parts.step(cut_of(day, low, high)) for low, high in zip([0, *cuts], cuts, strict=False)]
            assert [c for g in got for c in g.candidates] == want.candidates
            for name in ("state", "health", "leading", "p_fail", "rul_s", "top", "top_share"):
                np.testing.assert_array_equal(np.concatenate([getattr(g, name) for g in got]), getattr(want, name))
        assert_same(parts.state(), whole.state())

    check()


def cut_of(day: Scored, low: int, high: int) -> Scored:
    """Return some of the windows of a call."""

    def cut(part: Any) -> Any:
        return part[low:high] if isinstance(part, np.ndarray) else part

    windows = ClosedWindows(*[cut(getattr(day.windows, f.name)) for f in fields(ClosedWindows)])
    return Scored(windows, *[cut(getattr(day, f.name)) for f in fields(Scored)[1:]])


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_probabilities_are_probabilities_and_rise_with_the_horizon() -> None:
    wear = plan(3.0, (2.0,), onset_d=2.0)
    assessor = Assessor(RIG)
    for day in fleet(len(wear), 6, 5, wear):
        result = assessor.step(day)
        known = np.isfinite(result.p_fail).all(axis=1)
        assert (known == np.isfinite(result.p_fail).any(axis=1)).all()
        assert ((result.p_fail[known] >= 0.0) & (result.p_fail[known] <= 1.0)).all()
        assert (np.diff(result.p_fail[known], axis=1) >= 0.0).all()
        health = result.health[np.isfinite(result.health)]
        assert ((health >= 0.0) & (health <= 1.0)).all()
        life = result.rul_s[np.isfinite(result.rul_s).all(axis=1)]
        assert (np.diff(life, axis=1) >= 0.0).all()
        assert (np.isnan(result.rul_s[result.leading < 0])).all()


def test_a_failing_asset_names_its_mode_its_signals_and_its_life() -> None:
    wear = [Wear(0, "pair", 3.0, 6.0, 1.5)]
    assessor = Assessor(RIG)
    share = np.tile([0.0, 0.1, 0.2, 0.0, 0.7, 0.0], (144, 1))
    for day in fleet(1, 8, 6, wear):
        loud = np.full_like(day.score, 1.5)
        result = assessor.step(Scored(day.windows, day.x, loud, day.warming, share, day.lower, day.upper))
    assert STATES[result.state[-1]] == "failing"
    assert result.leading[-1] == MODES.index("pair")
    assert result.health[-1].argmin() == MODES.index("pair")
    assert sorted(result.top[-1, :2]) == [0, 1]  # a and b, though others have larger shares
    assert result.top[-1, 2] == 4
    quiet = Scored(day.windows, day.x, day.score * 0.0, day.warming, share, day.lower, day.upper)
    again = Assessor(RIG)
    again.load(assessor.state())
    assert again.step(quiet).top[-1].tolist()[2] == -1, "below the alarm level a share is noise, and no reason"
    assert sorted(result.top_share[-1].tolist()) == [0.0, 0.1, 0.7]
    assert 0.2 * 86400 < result.rul_s[-1, 1] < 5 * 86400
    assert result.p_fail[-1, 2] > 0.9


def test_healthy_assets_name_signals_by_share_alone() -> None:
    assessor = Assessor(RIG)
    share = np.tile([0.0, 0.1, 0.2, 0.0, 0.7, 0.0], (144, 1))
    for day in fleet(1, 3, 7):
        result = assessor.step(Scored(day.windows, day.x, day.score, day.warming, share, day.lower, day.upper))
    assert STATES[result.state[-1]] == "ok"
    assert result.leading[-1] == -1
    assert result.top[-1].tolist() == [4, 2, 1]
    assert result.top_share[-1].tolist() == [0.7, 0.2, 0.1]
    assert 0.0 <= result.p_fail[-1, 2] < 0.01


def test_an_asset_warms_up_until_it_has_a_reference() -> None:
    assessor = Assessor(RIG)
    day = next(fleet(2, 1, 8))
    result = assessor.step(day)
    assert {STATES[s] for s in result.state} == {"warming"}
    assert np.isnan(result.health).all()
    assert np.isnan(result.p_fail).all()
    assert result.candidates == []


def test_nobody_is_paged_while_the_detectors_warm_up() -> None:
    wear = plan(3.0, (1.0,), onset_d=2.0)
    days = [scored(day.windows, warming=True) for day in fleet(len(wear), 8, 9, wear)]
    assert candidates_of(iter(days)) == []


def course_of(seed: int, days: int, wear: list[Wear]) -> list[Assessed]:
    assessor = Assessor(RIG)
    return [assessor.step(day) for day in fleet(1, days, seed, wear)]


def test_a_breakdown_ends_the_episode_and_a_repair_begins_anew() -> None:
    wear = [Wear(0, "alone", 3.0, 5.0, 1.5)]
    course = course_of(10, 12, wear)
    found = [c for day in course for c in day.candidates if c.failure_mode == "alone"]
    assert [(c.rung, c.outcome) for c in found][-2:] == [("page", "open"), ("none", "failed")]
    assert len({c.episode for c in found}) == 1
    assert found[-1].window_start_us == wear[0].breakdown_us
    day = course[8]  # it stops at 8.0, is in maintenance from 8.2 to 8.3
    states = [STATES[s] for s in day.state]
    assert states[0] == "stopped"
    assert "maintenance" in states
    out = np.isin(day.state, [STATES.index("stopped"), STATES.index("maintenance")])
    assert np.isnan(day.p_fail[out]).all()
    assert np.isnan(day.rul_s[out]).all()
    assert (day.leading[out] == -1).all()
    assert states[-1] == "warming"
    assert np.isnan(day.health[-1]).all()
    last = course[-1]
    assert STATES[last.state[-1]] == "ok"
    assert last.health[-1].min() > 0.85


def visited(day: Scored, first: int, last: int) -> Scored:
    """Return the day with a maintenance visit."""
    day.windows.state_code[first:last] = 2.0
    return day


def test_a_visit_in_time_ends_the_episode_as_repaired() -> None:
    assessor = Assessor(RIG)
    found: list[Candidate] = []
    for number, day in enumerate(fleet(1, 8, 11, [Wear(0, "pair", 3.0, 6.0, 1.5)])):
        found += assessor.step(visited(day, 60, 72) if number == 7 else day).candidates
    assert [(c.rung, c.outcome) for c in found][-2:] == [("page", "open"), ("none", "repaired")]
    assert found[-1].window_start_us == 7 * DAY_US + 72 * WINDOW_S * 1_000_000
    assert found[-1].episode == found[-2].episode


def test_while_out_of_service_nothing_is_learned_and_nothing_opens() -> None:
    assessor = Assessor(RIG)
    days = list(fleet(1, 4, 12))
    for day in days[:2]:
        assessor.step(day)
    for code in (1.0, 2.0):
        before = copy.deepcopy(assessor.state())
        out = days[2]
        out.windows.features[:] *= 5.0
        out.windows.state_code[:] = code
        result = assessor.step(out)
        assert result.candidates == []
        after = assessor.state()
        for name in after:
            if name.startswith(("trend", "episodes", "references_frozen", "references_adaptive", "prognosis_health")):
                np.testing.assert_array_equal(after[name], before[name])


def test_a_silent_asset_is_so_until_its_next_window() -> None:
    assessor = Assessor(RIG)
    assessor.silent(Silence(["rig-0", "rig-1"], np.array([1], np.int32), np.zeros(1, np.int64), 0))
    assert assessor.state()["prognosis_silent"].tolist() == [False, True]
    assessor.step(next(fleet(2, 1, 13)))
    assert assessor.state()["prognosis_silent"].tolist() == [False, False]


def test_a_restored_assessor_goes_on_as_if_nothing_had_happened() -> None:
    wear = plan(2.0, (1.0,), onset_d=1.2)
    days = list(fleet(len(wear), 4, 14, wear))
    first, second = Assessor(RIG), Assessor(RIG)
    for day in days[:2]:
        first.step(day)
    second.load(first.state())
    for day in days[2:]:
        assert first.step(day).candidates == second.step(day).candidates
    assert_same(first.state(), second.state())


def test_a_state_that_cannot_be_read_is_refused() -> None:
    state = Assessor(RIG).state()
    with pytest.raises(StateError, match="version 0"):
        Assessor(RIG).load(state | {"version": 0})
    with pytest.raises(StateError, match="door_operator"):
        Assessor(RIG).load(Assessor(load_class("lift")).state())


def test_assets_that_come_later_change_nothing_for_the_others() -> None:
    alone, crowd = Assessor(RIG), Assessor(RIG)
    for day in fleet(3, 3, 15):
        mine = np.flatnonzero(day.windows.rows == 0)
        own = Scored(
            ClosedWindows(["rig-0"], *[getattr(day.windows, f.name)[mine] for f in fields(ClosedWindows)[1:]]),
            *[getattr(day, f.name)[mine] for f in fields(Scored)[1:]],
        )
        one, all_of_them = alone.step(own), crowd.step(day)
        np.testing.assert_array_equal(one.health, all_of_them.health[mine])
        np.testing.assert_array_equal(one.p_fail, all_of_them.p_fail[mine])


def test_the_state_is_small_for_the_shipped_classes() -> None:
    for name in ("lift", "boiler"):
        assessor = Assessor(load_class(name))
        names = [f"x{i}" for i in range(1000)]
        assessor.silent(Silence(names, np.zeros(0, np.int32), np.zeros(0, np.int64), 0))
        assert assessor.nbytes / 1000 <= 4096


def test_candidates_speak_plainly() -> None:
    found = candidates_of(fleet(1, 9, 16, [Wear(0, "falling", 3.0, 6.0, 1.5)]))
    page = next(c for c in found if c.rung == "page")
    assert page.episode.startswith("rig-0/falling/1970-01-0")
    assert page.equipment == "rig"
    assert page.reason.startswith("f.mean is ")
    assert "below its reference" in page.reason
    assert 0.6 <= page.probability <= 1.0


def test_a_row_whose_asset_left_is_new() -> None:
    assessor, fresh = Assessor(RIG), Assessor(RIG)
    for scored in fleet(3, 12, seed=1, wear=[Wear(1, "pair", 2.0, 12.0, 1.0)]):
        assessor.step(scored)
    before = {name: np.copy(array) for name, array in assessor.state().items() if isinstance(array, np.ndarray)}
    assessor.forget(np.array([1, 9], np.int32))
    for scored in fleet(3, 1, seed=1):
        fresh.step(scored)
    fresh.forget(np.arange(3, dtype=np.int32))
    after, new = assessor.state(), fresh.state()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name][[0, 2]], array[[0, 2]])
        np.testing.assert_array_equal(after[name][1], new[name][1])
    assert np.isnan(after["prognosis_health"][1]).all() and not np.isnan(before["prognosis_health"][1]).any()
