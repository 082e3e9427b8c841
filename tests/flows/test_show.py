"""What is shown is there again after a restart, in whichever process; who left in between is not."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from features.assets import Asset, Register
from features.signals import load_class
from features.telemetry import Reason, Rejected
from features.windows import Silence
from flows.exposition import exposition
from flows.fleet import Fleet
from flows.metrics import Pipeline
from flows.show import RejectedSink, Show
from flows.steps import Retired

Make = Callable[..., Any]
CLASSES = {name: load_class(name) for name in ("lift", "boiler")}
LIFT, BOILER = CLASSES["lift"], CLASSES["boiler"]
T0_US = 1_780_000_000_000_000


def register(lifts: str = "", boilers: str = "") -> Register:
    return {name: Asset(id=name, equipment="lift") for name in lifts} | {
        name: Asset(id=name, equipment="boiler") for name in boilers
    }


def fleet_of(known: Register | None = None) -> Fleet:
    return Fleet(CLASSES, known, clock=lambda: 0.0)


def text(fleet: Fleet) -> bytes:
    return exposition(fleet, Pipeline(CollectorRegistry()))


def again(state: Any) -> Any:
    """Return a state as the store gives it back."""
    return pickle.loads(pickle.dumps(state))


def test_a_restart_shows_every_asset_before_it_says_a_word(assessed: Make) -> None:
    before, after = fleet_of(register("ab", "c")), fleet_of(register("ab", "c"))
    for equipment, names, state in ((LIFT, ["a", "b"], "failing"), (BOILER, ["c"], "ok")):
        show, shown = Show(equipment, before), Show(equipment, after)
        list(show(assessed(equipment, names, state)))
        shown.load(again(show.state()))
        assert shown.state()["names"] == names, "and the next snapshot holds them too"
    assert text(after) == text(before)
    assert after.newest_us == before.newest_us


def test_shards_of_one_process_may_run_in_another(assessed: Make) -> None:
    """Each shard remembers its own assets, so that any number of processes shares them out anew."""
    whole, one, two = fleet_of(), fleet_of(), fleet_of()
    shards = [Show(LIFT, whole) for _ in range(3)]
    for shard, names in zip(shards, (["a", "b"], ["c"], ["d", "e"]), strict=True):
        list(shard(assessed(LIFT, names, "degraded")))
    for shard, fleet in zip(shards, (one, two, one), strict=True):
        Show(LIFT, fleet).load(again(shard.state()))
    assert sorted(one.tables()[0].ids + two.tables()[0].ids) == whole.tables()[0].ids
    assert one.tables()[0].ids == ["a", "b", "d", "e"]


@pytest.mark.parametrize("now", [register("b"), register("b", "a"), {}])
def test_who_left_in_between_is_not_shown(assessed: Make, now: Register) -> None:
    show = Show(LIFT, fleet_of(register("ab")))
    list(show(assessed(LIFT, ["a", "b"], end_us=[T0_US + 1, T0_US])))
    after = fleet_of(now)
    Show(LIFT, after).load(again(show.state()))
    assert [table.ids for table in after.tables()] == [["b"] if "b" in now else [], []]


def test_silence_is_shown_and_remembered(assessed: Make) -> None:
    before, after = fleet_of(), fleet_of()
    show = Show(LIFT, before)
    list(show(assessed(LIFT, ["a", "b"])))
    list(show(Silence(["a", "b"], np.array([1], np.int32), np.array([T0_US]), T0_US)))
    Show(LIFT, after).load(again(show.state()))
    assert b'vigie_asset_state{asset="b",state="silent"} 1' in text(after)
    assert text(after) == text(before)


def test_who_leaves_is_gone_at_the_next_scrape_and_of_its_class_only(assessed: Make, decision: Make) -> None:
    fleet = fleet_of()
    show = Show(LIFT, fleet)
    list(show(assessed(LIFT, ["a", "b"])))
    list(Show(BOILER, fleet)(assessed(BOILER, ["c"])))
    fleet.decide(decision("a"))
    list(Show(BOILER, fleet)(Retired(["a"], np.zeros(1, np.int32))))
    assert b'"a"' in text(fleet), "no boiler is called a"
    list(show(Retired(["a"], np.zeros(1, np.int32))))
    assert b'"a"' not in text(fleet)
    assert show.state()["names"] == ["b"]


def test_an_asset_changes_its_class_while_windows_are_on_their_way(assessed: Make, decision: Make) -> None:
    """The register says boiler; the lift's last windows, its decisions and its leave arrive afterwards."""
    fleet = fleet_of(register("ab"))
    lift, boiler = Show(LIFT, fleet), Show(BOILER, fleet)
    list(lift(assessed(LIFT, ["a", "b"])))
    fleet.decide(decision("a"))
    fleet.reload(register("b", "a"))
    assert fleet.tables()[0].ids == ["b"] and fleet.episodes() == []
    list(lift(assessed(LIFT, ["a", "b"], end_us=T0_US + 1)))
    fleet.decide(decision("a"))
    assert fleet.tables()[0].ids == ["b"] and fleet.episodes() == []
    list(boiler(assessed(BOILER, ["a"])))
    fleet.decide(decision("a", equipment="boiler"))
    list(lift(Silence(["a", "b"], np.array([0], np.int32), np.array([T0_US]), T0_US)))
    list(lift(Retired(["a"], np.zeros(1, np.int32))))
    assert [table.ids for table in fleet.tables()] == [["b"], ["a"]]
    assert len(fleet) == 2 and len(fleet.episodes()) == 1


def test_without_a_register_an_asset_moves_with_its_telemetry(assessed: Make) -> None:
    fleet = fleet_of()
    fleet.update(assessed(LIFT, ["a"]), "lift")
    fleet.update(assessed(BOILER, ["a"]), "boiler")
    assert [table.ids for table in fleet.tables()] == [[], ["a"]] and len(fleet) == 1


def test_a_page_of_an_asset_that_left_during_a_stop_is_not_shown_again(decision: Make) -> None:
    """The dispatch resumes with it before any shard says that the asset has left."""
    fleet = fleet_of(register("b"))
    fleet.decide(decision("a"))
    fleet.decide(decision("b"))
    assert [episode.asset for episode in fleet.episodes()] == ["b"]
    fleet.reload(register("", "b"))
    assert fleet.episodes() == [], "nor one of an asset that is another's business now"


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("window"), st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)),
        st.tuples(st.just("silent"), st.lists(st.sampled_from("abcd"), min_size=1, max_size=2, unique=True)),
        st.tuples(st.just("retire"), st.lists(st.sampled_from("abcd"), min_size=1, max_size=2, unique=True)),
    ),
    max_size=12,
)


@given(CHANGES, st.integers(0, 12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_restart_at_any_moment_changes_nothing(
    assessed: Make, changes: list[tuple[str, list[str]]], cut: int
) -> None:
    names = list("abcd")

    def play(show: Show, first: int, some: list[tuple[str, list[str]]]) -> None:
        for n, (what, which) in enumerate(some, first):
            rows = [names.index(name) for name in which]
            if what == "window":
                list(show(assessed(LIFT, names, rows=rows, end_us=T0_US + n, score=[n / 8.0] * len(rows))))
            elif what == "silent":
                list(show(Silence(names, np.array(rows, np.int32), np.full(len(rows), T0_US), T0_US)))
            else:
                list(show(Retired(which, np.array(rows, np.int32))))

    whole, before, after = fleet_of(), fleet_of(), fleet_of()
    play(Show(LIFT, whole), 0, changes)
    first, second = Show(LIFT, before), Show(LIFT, after)
    play(first, 0, changes[:cut])
    second.load(again(first.state()))
    play(second, cut, changes[cut:])
    assert sorted(text(after).splitlines()) == sorted(text(whole).splitlines())


def test_rejected_input_is_shown_with_its_bytes() -> None:
    fleet = fleet_of()
    part = RejectedSink(fleet).build("noted", 0, 1)
    part.write_batch([Rejected(Reason.LATE, 3, "topic", b"\xff{", "lift-1")])
    [shown] = fleet.rejections()
    assert (shown.reason, shown.readings, shown.raw) == ("late", 3, "\\xff{")
    assert fleet.rejected["late"] == 3
