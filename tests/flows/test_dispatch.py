"""Dispatch: each episode pages once, whatever comes twice."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from features.signals import load_class
from flows.dispatch import Decision, Dispatcher
from flows.metrics import Pipeline
from flows.steps import Dispatch, Retired
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


def test_a_restart_knows_the_episodes_that_are_open() -> None:
    before, after = Dispatcher(LIFT), Dispatcher(LIFT)
    other = replace(RAISED, asset="lift-2", episode="lift-2/brake/1")
    before.step([OPENED, RAISED, other])
    assert [(d.episode, d.rung) for d in before.open] == [("lift-1/brake/1", "page"), ("lift-2/brake/1", "page")]
    after.load(pickle.loads(pickle.dumps(before.state())))
    assert after.open == before.open and after.state() == before.state()
    after.step([ENDED])
    assert [d.asset for d in after.open] == ["lift-2"]


def test_who_left_is_forgotten_with_its_episodes() -> None:
    dispatcher = Dispatcher(LIFT)
    dispatcher.step([RAISED, replace(RAISED, asset="lift-2", episode="lift-2/brake/1")])
    dispatcher.forget(["lift-1", "nobody"])
    assert [d.asset for d in dispatcher.open] == ["lift-2"]
    assert [d.rung for d in dispatcher.step([RAISED])] == ["page"], "an asset of this name is a new one"


def test_the_step_counts_and_tells_and_does_both_again_after_a_restart() -> None:
    told: list[Decision] = []
    pipeline = Pipeline(CollectorRegistry())
    step = Dispatch(LIFT, pipeline, told.append)
    assert [d.rung for c in (OPENED, RAISED, ENDED, NEXT) for d in step(c)] == ["ticket", "page", "closed", "page"]
    assert [d.rung for d in told] == ["ticket", "page", "closed", "page"]
    after, shown = Pipeline(CollectorRegistry()), list[Decision]()
    resumed = Dispatch(LIFT, after, shown.append)
    resumed.load(pickle.loads(pickle.dumps(step.state())))
    assert [d.episode for d in shown] == [NEXT.episode], "an open page is shown again, and not sent"
    for registry in (pipeline.registry, after.registry):
        assert registry.get_sample_value("vigie_pages_total", {"class": "lift"}) == 2.0
        assert registry.get_sample_value("vigie_tickets_total", {"class": "lift"}) == 1.0
    assert [*resumed(NEXT)] == []
    assert [*resumed(Retired(["lift-1"], np.zeros(1, np.int32)))] == []
    assert resumed.state()["dispatcher"]["open"] == []
