"""Episodes: opened by what persists, raised once, ended by what ends them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.episodes import (
    CALM_STEPS,
    NONE,
    PAGE,
    PAGE_WORN,
    PERSISTENCE,
    TICKET,
    TICKET_WORN,
    close,
    episode_id,
    judge,
    new_episodes,
    reason,
)

STEP_US = 3_600_000_000
WORN = 0.5


class Case:
    """One failure mode of one asset."""

    def __init__(self) -> None:
        self.e = new_episodes(1, 1)
        self.step = 0

    @property
    def rung(self) -> int:
        return int(self.e.rung[0, 0])

    def see(self, probability: float, worn: float = WORN) -> int:
        self.step += 1
        at = self.step * STEP_US
        change = judge(self.e, 0, 0, at, at + 1, STEP_US, probability, worn, 0.3, 0.6)
        if change < 0:
            close(self.e, 0, 0)
        return change


def test_a_spike_wakes_nobody() -> None:
    case = Case()
    for _ in range(10):
        assert [case.see(1.0) for _ in range(PERSISTENCE - 1)] == [0] * (PERSISTENCE - 1)
        assert case.see(0.0) == 0
    assert case.rung == NONE


def test_what_persists_opens_as_a_ticket_and_rises_once() -> None:
    case = Case()
    assert [case.see(0.4) for _ in range(PERSISTENCE)] == [0] * (PERSISTENCE - 1) + [1]
    assert case.rung == TICKET
    opened = int(case.e.opened_us[0, 0])
    assert opened == PERSISTENCE * STEP_US + 1
    assert [case.see(0.7) for _ in range(PERSISTENCE + 20)].count(1) == 1
    assert case.rung == PAGE
    assert case.e.opened_us[0, 0] == opened
    # The rung does not fall with the probability.
    assert [case.see(0.4) for _ in range(50)] == [0] * 50
    assert case.rung == PAGE


def test_a_trend_that_has_gone_nowhere_wakes_nobody() -> None:
    case = Case()
    assert not any(case.see(1.0, TICKET_WORN) for _ in range(50))
    assert case.rung == NONE
    for _ in range(50):
        case.see(1.0, PAGE_WORN)
    assert case.rung == TICKET


def test_it_is_withdrawn_after_a_calm_day_and_not_before() -> None:
    case = Case()
    for _ in range(PERSISTENCE):
        case.see(0.9)
    for _ in range(3):
        assert not any(case.see(0.1) for _ in range(CALM_STEPS))
        case.see(0.2)
    found = [case.see(0.1) for _ in range(CALM_STEPS + 1)]
    assert found == [0] * CALM_STEPS + [-1]
    assert case.rung == NONE


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)), max_size=120))
def test_within_an_episode_the_rung_only_rises(seen: Sequence[tuple[float, float]]) -> None:
    case = Case()
    before = NONE
    for probability, worn in seen:
        change = case.see(probability, worn)
        if change == 1:
            assert case.rung > before
        elif change == -1:
            assert before > NONE
            assert case.rung == NONE
        else:
            assert case.rung == before
        before = case.rung
        assert (case.e.opened_us[0, 0] >= 0) == (case.rung > NONE)


def test_the_id_is_a_function_of_asset_mode_and_opening() -> None:
    one = episode_id("lift-1", "brake", 1_767_225_600_000_000)
    assert one == episode_id("lift-1", "brake", 1_767_225_600_000_000)
    others = {
        episode_id("lift-2", "brake", 1_767_225_600_000_000),
        episode_id("lift-1", "doors", 1_767_225_600_000_000),
        episode_id("lift-1", "brake", 1_767_225_660_000_000),
    }
    assert len(others | {one}) == 4


NAN = float("nan")


@pytest.mark.parametrize(
    ("outcome", "relative", "figures", "words"),
    [
        ("open", True, [0.7, 2.0, 3.0, 5.0, 4.0, 2.0, 0.06, 0.4], ["2 times its", "rising 3 % a day", "2 to 5 days"]),
        ("open", False, [0.7, 0.2, 0.5, 0.9, 12.0, 2.0, 2.5, 0.4], ["10 mm above", "2.5 mm a day", "4.8 to 22 hours"]),
        ("open", False, [0.4, 5.0, 9.0, NAN, 1.0, 2.0, -0.1, 0.8], ["1 mm below", "falling", "5 days or later"]),
        ("open", False, [0.4, NAN, NAN, NAN, NAN, NAN, NAN, 0.8], ["health of brake is 0.80", "40 % within 7d"]),
        ("failed", False, [0.7] + 7 * [NAN], ["stopped", "70 % within 7d"]),
        ("withdrawn", False, [0.02] + 6 * [NAN] + [0.97], ["no longer", "2 %", "0.97"]),
        ("repaired", False, 8 * [NAN], ["maintenance", "repaired"]),
    ],
)  # fmt: skip
def test_the_reason_is_one_sentence_with_units(
    outcome: str, relative: bool, figures: list[float], words: list[str]
) -> None:
    said = reason("brake", outcome, "7d", "levelling.error_mm", "mm", relative, 86400.0, figures)
    assert said.endswith(".")
    assert "nan" not in said.split()
    for word in words:
        assert word in said


def test_temperatures_differ_in_kelvin() -> None:
    figures = [0.7, 2.0, 3.0, 5.0, 50.0, 30.0, 1.0, 0.4]
    said = reason("brake", "open", "7d", "brake_temperature.max", "Cel", False, 86400.0, figures)
    assert "20 K above its reference (50 °C instead of 30 °C)" in said
