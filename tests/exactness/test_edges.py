"""Cases by hand: clock steps, borders of time and value, rates, silence and return, several partitions."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

from features.signals import EquipmentClass, load_class

START_US = 1_700_000_000_000_000
SECOND = 1_000_000
Machine = Callable[..., EquipmentClass]


def singles(arrivals: ModuleType, times: Any, signal: str = "slow", value: float = 1.0, asset: str = "a") -> list[Any]:
    return [arrivals.Block(asset, signal, int(t), 0, (value,)) for t in times]


def one_by_one(arrivals: ModuleType, blocks: list[Any], source: str = "in") -> list[Any]:
    return [arrivals.Message(source, (block,)) for block in blocks]


def test_a_clock_that_steps_back_makes_late_what_it_has_told_before(arrivals: ModuleType, machine: Machine) -> None:
    before = START_US + np.arange(120) * SECOND
    again = START_US + (60 + np.arange(120)) * SECOND
    outcome = arrivals.run(machine(), one_by_one(arrivals, singles(arrivals, [*before, *again], value=2.0)))
    # At 119 s, 5 s late: what lies before 110 s is late, what has been told is a duplicate, the rest goes on.
    assert dict(outcome.rejected) == {"late": 50, "duplicate": 10}
    assert outcome.scored == 180


def test_a_clock_that_steps_forward_leaves_a_hole_and_no_more(arrivals: ModuleType, machine: Machine) -> None:
    times = [*(START_US + np.arange(30) * SECOND), *(START_US + (5000 + np.arange(30)) * SECOND)]
    outcome = arrivals.run(machine(), one_by_one(arrivals, singles(arrivals, times)))
    assert not outcome.rejected
    assert sorted((start - START_US) // SECOND for _, start in outcome.windows) == [0, 10, 20, 5000, 5010, 5020]


def test_a_clock_a_year_ahead_and_back_costs_what_came_before(arrivals: ModuleType, machine: Machine) -> None:
    """The asset's own watermark follows it: only a live run can tell such a reading by the wall clock."""
    year = 31_536_000 * SECOND
    blocks = singles(arrivals, [START_US, START_US + year, START_US + SECOND])
    outcome = arrivals.run(machine(), one_by_one(arrivals, blocks))
    assert dict(outcome.rejected) == {"late": 1}
    outcome = arrivals.run(machine(), one_by_one(arrivals, blocks), limit_us=START_US + 60 * SECOND)
    assert dict(outcome.rejected) == {"future": 1}
    assert outcome.windows["a", START_US][0] == 2


def test_of_two_readings_of_one_time_the_first_wins_whatever_carries_them(
    arrivals: ModuleType, machine: Machine
) -> None:
    first = arrivals.Block("a", "slow", START_US, SECOND, (1.0, 2.0, float("nan"), 4.0, 5.0))
    second = arrivals.Block("a", "slow", START_US + 2 * SECOND, SECOND, (30.0, 40.0, 50.0, 60.0))
    for messages in (
        [arrivals.Message("in", (first, second))],
        [arrivals.Message("in", (first,)), arrivals.Message("other", (second,))],
        one_by_one(arrivals, [first, *singles(arrivals, [START_US + 2 * SECOND], value=30.0), second]),
    ):
        outcome = arrivals.run(machine(), messages, restart=lambda number: True)
        repeated = 3 if len(messages) == 3 else 2
        assert dict(outcome.rejected) == {"duplicate": repeated}
        _, _, features = outcome.windows["a", START_US]
        assert features[13:26].tolist()[:2] == [6.0, (1.0 + 2.0 + 30.0 + 4.0 + 5.0 + 60.0) / 6]


def test_an_asset_that_returns_from_silence_is_not_late(arrivals: ModuleType, machine: Machine) -> None:
    blocks = singles(arrivals, [START_US]) + singles(arrivals, START_US + np.arange(0, 3600, 10) * SECOND, asset="b")
    blocks += singles(arrivals, [START_US + 3601 * SECOND, START_US + 3600 * SECOND])
    outcome = arrivals.run(machine(), one_by_one(arrivals, blocks))
    assert not outcome.rejected
    assert outcome.silences == [("a", START_US)]
    assert {start for asset, start in outcome.windows if asset == "a"} == {START_US, START_US + 3600 * SECOND}


def test_silence_is_told_once(arrivals: ModuleType, machine: Machine) -> None:
    blocks = singles(arrivals, [START_US]) + singles(arrivals, [START_US + 3600 * SECOND], asset="b")
    broken = [arrivals.Block("a", "slow", START_US + 3600 * SECOND, 0, (1.0, 1.0))]
    outcome = arrivals.run(machine(), one_by_one(arrivals, [*blocks, *broken, *broken]))
    assert outcome.silences == [("a", START_US)]


def test_a_backlog_of_a_silent_asset_is_taken_after_what_was_closed(arrivals: ModuleType, machine: Machine) -> None:
    """It was offline for an hour while others were not, and sends what it has kept."""
    blocks = singles(arrivals, [START_US]) + singles(arrivals, START_US + np.arange(0, 3600, 10) * SECOND, asset="b")
    blocks += singles(arrivals, START_US + np.arange(10, 3600, 5) * SECOND)
    outcome = arrivals.run(machine(), one_by_one(arrivals, blocks))
    assert not outcome.rejected


def test_several_partitions_carry_one_asset(arrivals: ModuleType, machine: Machine) -> None:
    """Vibration over one gateway, temperature over another, an hour behind in what else it carries."""
    messages = []
    for second in range(100):
        messages.append(arrivals.Message("one", tuple(singles(arrivals, [START_US + second * SECOND], "fast"))))
        other = singles(arrivals, [START_US + (second - 3600) * SECOND], asset="b")
        messages.append(arrivals.Message("two", tuple(singles(arrivals, [START_US + second * SECOND]) + other)))
    outcome = arrivals.run(machine(), messages, shards=4, restart=lambda number: number % 7 == 0)
    assert not outcome.rejected
    assert outcome.scored == 300


def test_a_block_across_the_ends_of_windows_is_shared_out(arrivals: ModuleType, machine: Machine) -> None:
    block = arrivals.Block("a", "slow", START_US + 7_300_000, 1_700_000, tuple(float(k) for k in range(12)))
    for lateness_s in (0.0, 5.0, 30.0):
        outcome = arrivals.run(machine(lateness_s=lateness_s), [arrivals.Message("in", (block,))])
        assert {(start - START_US) // SECOND: n for (_, start), (n, _, _) in outcome.windows.items()} == {
            0: 2,
            10: 6,
            20: 4,
        }


@pytest.mark.parametrize("time", [0, 1, 7_258_118_399_999_999])
def test_the_first_and_the_last_time_that_a_clock_may_show(arrivals: ModuleType, machine: Machine, time: int) -> None:
    outcome = arrivals.run(machine(), one_by_one(arrivals, singles(arrivals, [time])))
    assert not outcome.rejected
    [(_, start)] = outcome.windows
    assert start == time // (10 * SECOND) * 10 * SECOND


def test_each_sample_of_a_block_is_judged_by_its_own_time(arrivals: ModuleType, machine: Machine) -> None:
    block = arrivals.Block("a", "slow", -2 * SECOND, SECOND, (1.0, 1.0, 1.0, 1.0))
    whole = arrivals.run(machine(), [arrivals.Message("in", (block,))])
    apart = arrivals.run(machine(), one_by_one(arrivals, singles(arrivals, [-2 * SECOND, -SECOND, 0, SECOND])))
    assert dict(apart.rejected) == {"bad_time": 2}
    assert whole.rejected == apart.rejected


def test_no_sample_beyond_the_last_time_is_taken(arrivals: ModuleType, machine: Machine) -> None:
    begin_us = 7_258_118_400_000_000 - 2 * SECOND
    block = arrivals.Block("a", "slow", begin_us, SECOND, (1.0,) * 6)
    whole = arrivals.run(machine(), [arrivals.Message("in", (block,))])
    apart = arrivals.run(machine(), one_by_one(arrivals, singles(arrivals, begin_us + np.arange(6) * SECOND)))
    assert apart.rejected["bad_time"] in (3, 4)
    assert whole.rejected == apart.rejected


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e300, -1e300])
def test_infinity_is_out_of_any_range(arrivals: ModuleType, machine: Machine, value: float) -> None:
    block = arrivals.Block("a", "meter", START_US, SECOND, (1.0, value, 3.0))
    outcome = arrivals.run(machine(), [arrivals.Message("in", (block,))])
    assert dict(outcome.rejected) == {"out_of_range": 1}
    place = 13 * machine().signal_names.index("meter")
    assert outcome.windows["a", START_US][2][place : place + 2].tolist() == [2.0, 2.0]


def test_a_class_cannot_let_infinity_in(tmp_path: Any) -> None:
    import features.signals

    text = (features.signals.SHIPPED / "boiler.toml").read_text().replace("range = [0.0, 200.0]", "range = [0.0, inf]")
    path = tmp_path / "boiler.toml"
    path.write_text(text)
    with pytest.raises(features.signals.ClassFileError, match="range"):
        load_class(path)


@pytest.mark.parametrize(
    ("signal", "times_nominal"),
    [
        ("vibration_x", 1.0),
        ("vibration_x", 3.9),
        ("motor_temperature", 3.9),
        ("car_speed", 1.0),
        ("car_speed", 1.2),
        ("car_speed", 3.9),
        ("car_speed", 2.0),
    ],
)
def test_a_signal_may_send_four_times_its_rate(arrivals: ModuleType, signal: str, times_nominal: float) -> None:
    lift = load_class("lift")
    period_us = int(lift.signals[signal].period_s * 1e6 / times_nominal)
    times = START_US + np.arange(60 * SECOND // period_us) * period_us
    rng = np.random.default_rng(1)
    blocks = arrivals.cut(rng, "a", signal, times, np.ones(len(times)), 5 * SECOND, 100)
    outcome = arrivals.run(lift, arrivals.in_order(blocks))
    assert not outcome.rejected


def test_how_many_readings_a_rate_allows_depends_on_no_order(arrivals: ModuleType) -> None:
    lift = load_class("lift")
    times = START_US + np.arange(1200) * 50_000
    counts = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        blocks = arrivals.cut(rng, "a", "car_speed", times, np.ones(len(times)), 5 * SECOND, 40 if seed else 1)
        messages = arrivals.arrange(rng, blocks, 10 * SECOND) if seed else arrivals.in_order(blocks)
        counts.append({key: n for key, (n, _, _) in arrivals.run(lift, messages).windows.items()})
    assert all(one == counts[0] for one in counts)


@pytest.mark.parametrize(
    "begin_us",
    [
        1_000_000,
        0,
    ],
)
def test_a_recording_may_count_its_time_from_zero(
    arrivals: ModuleType, oracle_boiler: ModuleType, begin_us: int
) -> None:
    """Files of elapsed seconds begin at 0."""
    boiler = load_class("boiler")
    on = [(begin_us + k * 1000 * SECOND, value) for k, value in enumerate([1.0, 0.0, 1.0, 0.0])]
    power = [(begin_us, 40.0), (begin_us + SECOND, 40.0)]
    flow = [(begin_us + 2 * SECOND, 1.0)]
    blocks = [
        arrivals.Block("a", signal, at, 0, (value,))
        for signal, some in (("burner_modulation", on), ("pump_power", power[:1]), ("flow", flow))
        for at, value in some
    ]
    outcome = arrivals.run(boiler, arrivals.in_order(blocks))
    window_us = 60 * SECOND
    windows = [(start, start + window_us) for _, start in sorted(outcome.windows)]
    said = {
        "burner": oracle_boiler.burner(on, windows),
        "circulation": oracle_boiler.circulation(power[:1], flow, windows),
    }
    for number, (start, _) in enumerate(windows):
        for cycle, results in said.items():
            for output, value in results[number].items():
                found = outcome.windows["a", start][2][boiler.feature_index[f"{cycle}.{output}"]]
                assert found == pytest.approx(value, rel=1e-9, nan_ok=True), (cycle, output, start)


def test_windows_that_no_signal_divides(arrivals: ModuleType, oracle: ModuleType, machine: Machine) -> None:
    equipment = machine(window_s=7.0, lateness_s=3.0)
    times = START_US + np.arange(500) * 333_333
    rng = np.random.default_rng(2)
    blocks = arrivals.cut(rng, "a", "fast", times, np.arange(500.0), 3 * SECOND, 9)
    outcome = arrivals.run(equipment, arrivals.arrange(rng, blocks, 3 * SECOND, 9))
    expected = oracle.windows([oracle.Reading("a", "fast", int(t), float(k)) for k, t in enumerate(times)], 7 * SECOND)
    assert {key: n for key, (n, _, _) in outcome.windows.items()} == {key: w.samples for key, w in expected.items()}


def test_the_state_survives_msgpack_and_nothing_but_plain_values(arrivals: ModuleType, machine: Machine) -> None:
    going = arrivals.Run(machine())
    going.push(arrivals.in_order(singles(arrivals, START_US + np.arange(40) * SECOND))[0])
    state = going.shards[0].state()
    plain = {k: v for k, v in state.items() if not isinstance(v, np.ndarray)}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plain)) == plain
    assert all(v.dtype.kind in "iufb" for v in state.values() if isinstance(v, np.ndarray))
