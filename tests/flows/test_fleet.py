from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from features.assets import Asset
from features.signals import load_class
from features.telemetry import Reason, Rejected
from features.windows import Silence
from flows.fleet import LAST_REJECTED, RAW_SHOWN, Fleet
from flows.metrics import STATES
from flows.page.views import asset_view, fleet_view, rejected_view
from flows.past import POINTS

Make = Callable[..., Any]
LIFT, BOILER = load_class("lift"), load_class("boiler")
T0_US = 1_780_000_000_000_000
MIN_US = 60_000_000


def lifts(history: bool = False, **more: Any) -> Fleet:
    return Fleet({"lift": LIFT}, history=history, clock=lambda: 0.0, **more)


def test_the_newest_window_of_an_asset_stands_in_the_table(assessed: Make) -> None:
    fleet = lifts()
    fleet.update(assessed(LIFT, ["a", "b"], rows=[0, 1, 0], end_us=[T0_US, T0_US, T0_US + 1], score=[0.1, 0.2, 0.3]))
    (table,) = fleet.tables()
    assert table.ids == ["a", "b"]
    assert table.now["score"].tolist() == [0.3, 0.2]
    assert fleet.newest_us == T0_US + 1


def test_a_window_of_the_past_does_not_replace_a_newer_one(assessed: Make) -> None:
    fleet = lifts()
    fleet.update(assessed(LIFT, ["a"], score=[0.3]))
    fleet.update(assessed(LIFT, ["a"], score=[0.9], end_us=T0_US - 1))
    assert fleet.tables()[0].now["score"].tolist() == [0.3]


def test_a_feature_that_the_newest_window_does_not_know_keeps_its_last_value(assessed: Make) -> None:
    fleet = lifts()
    n = len(LIFT.detection.features)
    fleet.update(assessed(LIFT, ["a"]))
    fleet.update(assessed(LIFT, ["a"], end_us=T0_US + 1, x=np.full((1, n), np.nan), p_fail=[[np.nan] * 3]))
    now = fleet.tables()[0].now
    assert (now["x"] == 3.5).all()
    assert np.isnan(now["p_fail"]).all(), "a probability is not carried on"


def test_a_copy_of_the_table_does_not_change_any_more(assessed: Make) -> None:
    fleet = lifts()
    fleet.update(assessed(LIFT, ["a"], score=[0.3]))
    (before,) = fleet.tables()
    fleet.update(assessed(LIFT, ["a", "b"], score=[0.9, 0.9], end_us=T0_US + 1))
    assert (before.ids, before.now["score"].tolist()) == (["a"], [0.3])


def test_the_class_comes_from_the_register_or_the_caller(assessed: Make) -> None:
    classes = {"lift": LIFT, "boiler": BOILER}
    fleet = Fleet(classes, {"b": Asset(id="b", equipment="boiler")})
    fleet.update(assessed(BOILER, ["b"]))
    assert {t.equipment.name: t.ids for t in fleet.tables()} == {"lift": [], "boiler": ["b"]}
    told = Fleet(classes)
    told.update(assessed(LIFT, ["l"]), equipment="lift")
    assert {t.equipment.name: t.ids for t in told.tables()} == {"lift": ["l"], "boiler": []}
    with pytest.raises(ValueError, match="does not know the class of the asset 'x'"):
        fleet.update(assessed(LIFT, ["x"]))


def test_an_asset_that_retires_leaves_with_its_episodes_and_the_others_keep_their_values(
    assessed: Make, decision: Make
) -> None:
    fleet = lifts(history=True)
    names = [f"lift-{n}" for n in range(50)]
    fleet.update(assessed(LIFT, names, score=np.arange(50) / 10))
    fleet.decide(decision("lift-7"))
    fleet.decide(decision("lift-8"))
    for n in (7, 0, 49, 20):
        fleet.retire(f"lift-{n}")
    fleet.retire("never seen")
    (table,) = fleet.tables()
    assert len(fleet) == len(table.ids) == 46
    for asset, known, score in zip(table.ids, table.register, table.now["score"], strict=True):
        assert known.id == asset
        assert score == int(asset.removeprefix("lift-")) / 10
    assert [episode.asset for episode in fleet.episodes()] == ["lift-8"]
    fleet.update(assessed(LIFT, ["lift-0"], score=[9.0]))
    assert fleet.tables()[0].ids[-1] == "lift-0"


def test_reloading_the_register_forgets_who_left_and_renews_the_rest(assessed: Make) -> None:
    fleet = lifts(register={name: Asset(id=name, equipment="lift") for name in "abc"})
    fleet.update(assessed(LIFT, ["a", "b", "c"]))
    fleet.reload({"a": Asset(id="a", equipment="lift", building="new"), "b": Asset(id="b", equipment="boiler")})
    (table,) = fleet.tables()
    assert [(a.id, a.building) for a in table.register] == [("a", "new")]


def test_what_a_silent_asset_would_say_is_not_known(assessed: Make) -> None:
    fleet = lifts()
    fleet.update(assessed(LIFT, ["a", "b"], state="failing"))
    fleet.silent(Silence(["a", "b", "c"], np.array([1, 2], np.int32), np.array([T0_US, T0_US]), T0_US + MIN_US))
    now = fleet.tables()[0].now
    assert [STATES[state] for state in now["state"]] == ["failing", "silent", "silent"]
    assert np.isnan(now["p_fail"][1:]).all()
    assert np.isnan(now["rul_s"][1:]).all()
    assert now["end_us"].tolist() == [T0_US] * 3
    fleet.update(assessed(LIFT, ["a", "b"], rows=[1], end_us=T0_US + MIN_US))
    assert STATES[fleet.tables()[0].now["state"][1]] == "ok", "it speaks again"


def test_an_episode_changes_its_rung_and_closes(decision: Make) -> None:
    fleet = lifts()
    fleet.decide(decision("a", "ticket"))
    fleet.decide(decision("a", "page"))
    assert [episode.rung for episode in fleet.episodes()] == ["page"]
    fleet.decide(decision("a", "closed"))
    assert fleet.episodes() == []


def test_the_past_is_the_mean_of_time_steps_that_double_when_the_points_are_full(assessed: Make) -> None:
    fleet = lifts(history=True)
    n = len(LIFT.detection.features)
    step_us = 10_000_000
    for k in range(4 * POINTS):
        x = np.full((1, n), float(k))
        x[0, 1] = np.nan
        fleet.update(assessed(LIFT, ["a"], end_us=(k + 1) * step_us, x=x))
    past = fleet.past("a")
    assert past is not None
    times_us, values = past
    assert len(times_us) <= POINTS
    assert (np.diff(times_us) > 0).all()
    assert times_us[-1] == 4 * POINTS * step_us - 1
    np.testing.assert_allclose(values[:, 1], 4 * np.arange(len(times_us)) + 1.5)
    assert np.isnan(values[:, 2]).all(), "never known"
    assert (values[:, 0] == 0.5).all(), "the paging probability"


def test_the_past_is_bounded_and_reaches_back_thirty_days(assessed: Make) -> None:
    fleet = lifts(history=True)
    hour_us = 3600 * 1_000_000
    ends = (1 + np.arange(24 * 90)) * hour_us
    for part in np.array_split(ends, 7):
        fleet.update(assessed(LIFT, ["a"], rows=[0] * len(part), end_us=part.tolist()))
    past = fleet.past("a")
    assert past is not None
    assert len(past[0]) == POINTS
    assert 29 * 24 * hour_us <= past[0][-1] - past[0][0] <= 61 * 24 * hour_us


def test_an_asset_costs_less_than_8_kb(assessed: Make) -> None:
    fleet = lifts(history=True)
    names = [f"lift-{n}" for n in range(1000)]
    fleet.update(assessed(LIFT, names))
    (table,) = fleet._classes.values()
    assert table.past is not None
    assert table.now.dtype.itemsize + table.past.dtype.itemsize < 8192
    assert fleet.nbytes < 1.6 * 8192 * 1000, "with room to grow, which takes no memory until it is written"
    assert lifts().past("lift-1") is None


def test_rejected_input_is_counted_by_reason_and_only_the_last_is_kept() -> None:
    fleet = lifts()
    fleet.reject([Rejected(Reason.LATE, 5, "in", b"\xff" * 10_000) for _ in range(200)])
    fleet.reject([Rejected(Reason.MALFORMED, 1, "in", b"{", asset="<b>", detail="no JSON")])
    assert fleet.rejected == {"late": 1000, "malformed": 1}
    kept = fleet.rejections()
    assert len(kept) == LAST_REJECTED
    assert (kept[0].reason, kept[0].raw, kept[0].asset) == ("malformed", "{", "<b>")
    assert len(kept[1].raw) == 4 * RAW_SHOWN, "each byte as \\xff"
    view = rejected_view(fleet)
    assert view.readings == 1001
    assert view.reasons[0].words == "came after its window was closed"


def test_the_fleet_is_ranked_by_risk_and_unknown_comes_last(assessed: Make, decision: Make) -> None:
    fleet = lifts()
    p = [[0.0, 0.0, 0.1], [0.0, 0.1, 0.9], [np.nan] * 3, [0.0, 0.0, 0.1], [np.nan] * 3]
    fleet.update(assessed(LIFT, list("abcde"), p_fail=p, score=[0.1, 0.1, 9.0, 0.2, 0.0]))
    assert [a.id for a in fleet_view(fleet).assets] == ["b", "d", "a", "c", "e"]
    fleet.decide(decision("e", probability=0.8))
    assert [a.id for a in fleet_view(fleet).assets] == ["b", "e", "d", "a", "c"], "its open episode ranks it"
    assert fleet_view(fleet).assets[1].chances[0].probability is None, "and makes no probability of it"


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("asset", ["lift-2", "lift-10", "lift-30"]),
        ("oldest", ["lift-10", "lift-2", "lift-30"]),
        ("lead", ["lift-30", "lift-10", "lift-2"]),
        ("state", ["lift-2", "lift-30", "lift-10"]),
        ("households", ["lift-10", "lift-30", "lift-2"]),
        ("nonsense", ["lift-10", "lift-30", "lift-2"]),
    ],
)
def test_the_fleet_in_another_order(sort: str, order: list[str], assessed: Make) -> None:
    register = {
        n: Asset(id=n, equipment="lift", households=h) for n, h in (("lift-10", 9), ("lift-2", 1), ("lift-30", 4))
    }
    fleet = lifts(register=register)
    fleet.update(
        assessed(
            LIFT,
            list(register),
            state=["ok", "failing", "degraded"],
            end_us=[T0_US, T0_US + 1, T0_US + 2],
            rul_s=[[1, 20, 30], [np.nan] * 3, [1, 10, 30]],
            p_fail=[[0.1, 0.2, 0.9], [np.nan] * 3, [0.1, 0.2, 0.3]],
        )
    )
    assert [a.id for a in fleet_view(fleet, sort=sort).assets] == order


def test_the_fleet_is_searched_filtered_and_paged(assessed: Make) -> None:
    names = [f"lift-{n:03d}" for n in range(120)]
    register = {n: Asset(id=n, equipment="lift", building="Élysée" if n < "lift-010" else "Tour B") for n in names}
    fleet = lifts(register=register)
    fleet.update(assessed(LIFT, names, state=["failing"] + ["degraded"] * 2 + ["ok"] * 117))
    view = fleet_view(fleet, size=50, page=3)
    assert (view.total, view.matching, view.pages, view.page, len(view.assets)) == (120, 120, 3, 3, 20)
    assert fleet_view(fleet, page=99).page == 3
    assert fleet_view(fleet, size=10**6).size == 200
    assert fleet_view(fleet, search="  ÉLYSÉE  00").matching == 10
    assert fleet_view(fleet, search="door_operator").matching == 3, "the failure mode by its name"
    assert fleet_view(fleet, search="sill drag").matching == 3, "and in words"
    assert fleet_view(fleet, state="degraded").matching == 2
    assert fleet_view(fleet, state="attention").matching == 3
    assert fleet_view(fleet, state="nonsense").matching == 0
    assert fleet_view(fleet, equipment="lift").matching == 120
    assert fleet_view(fleet, equipment="boiler").matching == 0
    assert view.states["failing"] == 1
    assert view.registered == 120


def test_an_asset_says_why_in_words(assessed: Make, decision: Make) -> None:
    fleet = lifts(history=True)
    fleet.update(assessed(LIFT, ["a"], state="failing"))
    fleet.decide(decision("a"))
    view = asset_view(fleet, "a")
    assert view is not None
    assert view.mode is not None
    assert view.mode.advice.startswith("Clean the sill")
    assert [c.horizon for c in view.chances] == ["2h", "24h", "7d"]
    assert view.signals[0].feature == "doors.closing_s"
    assert (view.signals[0].unit, view.signals[0].share, view.signals[0].value) == ("s", 0.5, 3.5)
    assert len(view.details) == len(LIFT.detection.features)
    assert [m.name for m in view.modes] == list(LIFT.failure_modes)
    assert view.episodes[0].reason == "Closing takes 3.5 s, usual are 1 to 2 s."
    assert view.rung == "page"
    assert view.risk is not None
    assert view.risk.values == [0.5]
    assert asset_view(fleet, "nobody") is None


def test_an_asset_that_is_ok_has_no_signals_that_say_so(assessed: Make) -> None:
    fleet = lifts()
    fleet.update(assessed(LIFT, ["a"], top=[[1, 2, 3]], leading=[2]))
    (asset,) = fleet_view(fleet).assets
    assert asset.signals == []
