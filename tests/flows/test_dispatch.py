"""Dispatch: each episode pages once, whatever comes twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.signals import load_class
from flows.dispatch import Dispatcher
from models.assessment import Candidate

LIFT = load_class("lift")
OPENED = Candidate("lift-1/brake/1", "lift-1", "lift", "brake", 100, 100, 110, "ticket", "open", 0.4, "It wears.")
RAISED = replace(OPENED, rung="page", window_start_us=200, at_us=210, probability=0.7)
ENDED = replace(OPENED, rung="none", outcome="failed", window_start_us=300, at_us=310)
NEXT = replace(RAISED, episode="lift-1/brake/2", opened_us=400, window_start_us=400)


def test_an_episode_climbs_and_closes() -> None:
    decisions = Dispatcher(LIFT).step([OPENED, RAISED, ENDED])
    assert [d.rung for d in decisions] == ["ticket", "page", "closed"]
    assert {d.episode for d in decisions} == {"lift-1/brake/1"}
    assert decisions[1].probability == 0.7
    assert decisions[1].window_start_us == 200
    assert decisions[2].outcome == "failed"


def test_nothing_is_sent_twice_even_after_the_end() -> None:
    dispatcher = Dispatcher(LIFT)
    dispatcher.step([OPENED, RAISED])
    assert dispatcher.step([OPENED, RAISED]) == []
    dispatcher.step([ENDED])
    assert dispatcher.step([OPENED, RAISED, ENDED]) == []
    assert [d.rung for d in dispatcher.step([NEXT])] == ["page"]
    assert dispatcher.step([OPENED, RAISED, ENDED]) == []


def test_an_end_of_which_the_beginning_is_unknown_is_nothing() -> None:
    assert Dispatcher(LIFT).step([ENDED]) == []


def test_a_restart_pages_nobody_again() -> None:
    before, after = Dispatcher(LIFT), Dispatcher(LIFT)
    before.step([OPENED, RAISED])
    after.load(before.state())
    assert after.step([OPENED, RAISED]) == []
    assert [d.rung for d in after.step([ENDED])] == ["closed"]
    with pytest.raises(ValueError, match="version 0, expected 1"):
        after.load({"version": 0})


@settings(derandomize=True)
@given(st.lists(st.sampled_from([OPENED, RAISED, ENDED, NEXT]), max_size=20), st.data())
def test_splits_and_repetition_change_nothing(candidates: list[Candidate], data: st.DataObject) -> None:
    whole = Dispatcher(LIFT).step(candidates)
    cut = data.draw(st.integers(0, len(candidates)))
    parts = Dispatcher(LIFT)
    assert parts.step(candidates[:cut]) + parts.step(candidates[cut:]) == whole
    assert len({(d.episode, d.rung) for d in whole}) == len(whole)
