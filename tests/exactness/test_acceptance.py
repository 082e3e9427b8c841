"""Which readings count: an oracle takes them one by one, and what it accepts is what the windows hold."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from features.signals import EquipmentClass

START_US = 1_700_000_000_000_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 86_400 * SECOND
LATEST = 7_258_118_400_000_000
EXAMPLES = settings().max_examples
Machine = Callable[..., EquipmentClass]

moments = st.one_of(
    st.integers(0, 60).map(lambda k: START_US + k * 500_000),
    st.integers(0, 400).map(lambda k: START_US + k * 100_000),
    st.integers(0, 40).map(lambda k: START_US + k * 10 * SECOND),
    st.integers(0, 2_000_000_000).map(lambda us: START_US + us),
    st.sampled_from(
        [
            0,
            -DAY,
            -1,
            -2 * SECOND,
            -(2**62),
            2**62,
            START_US - DAY,
            START_US + 900 * SECOND,
            LATEST - 3600 * SECOND,
            LATEST + 1,
        ]
    ),
)
numbers = st.one_of(
    st.floats(-100.0, 100.0),
    st.sampled_from([0.0, 1.0, 2.0, float("nan"), float("inf"), float("-inf"), 1e4, 1.0000001e4, -1e300]),
)
blocks = st.tuples(
    st.sampled_from(["a", "a", "b", "c"]),
    st.sampled_from(["fast", "slow", "slow", "state", "nothing"]),
    moments,
    st.sampled_from([0, -5, 1, 50_000, 100_000, 300_000, SECOND]),
    st.one_of(st.lists(numbers, min_size=1, max_size=6), st.integers(20, 60).map(lambda n: [1.0] * n)),
)
messages = st.tuples(st.lists(blocks, min_size=1, max_size=5), st.sampled_from(["p", "q"]), st.booleans())


def judge(oracle: ModuleType, equipment: EquipmentClass, limit_us: int) -> Any:
    signals = equipment.signals
    return oracle.Acceptance(
        round(equipment.window_s * 1e6),
        round(equipment.lateness_s * 1e6),
        round(equipment.idle_after_s * 1e6),
        round(equipment.silent_after_s * 1e6),
        {name: signal.range for name, signal in signals.items()},
        {name: int(4 * equipment.window_s / signal.period_s) + 16 for name, signal in signals.items()},
        limit_us,
    )


@given(data=st.data())
@settings(max_examples=2 * EXAMPLES)
def test_every_reading_is_judged_as_the_oracle_judges_it(
    data: st.DataObject, arrivals: ModuleType, oracle: ModuleType, machine: Machine
) -> None:
    equipment = machine(lateness_s=data.draw(st.sampled_from([0.0, 5.0, 10.0, 30.0])))
    limit_us = data.draw(st.sampled_from([2**62, START_US + 120 * SECOND]))
    judged = judge(oracle, equipment, limit_us)
    going = arrivals.Run(equipment, shards=data.draw(st.sampled_from([1, 3])), limit_us=limit_us)
    for drawn, source, ticks in data.draw(st.lists(messages, min_size=3, max_size=25)):
        some = [arrivals.Block(a, s, t, p if len(v) > 1 else 0, tuple(v)) for a, s, t, p, v in drawn]
        # No time that is out of the question moves a clock, as in the step that deals blocks out.
        sane = (0, min(limit_us, START_US + DAY))
        clock = going.clock.get(source, -(2**62))
        clocks = []
        for block in some:
            clock = max(clock, block.last_us if sane[0] <= block.last_us <= sane[1] else clock)
            clocks.append(clock)
        judged.message(some, source, clocks)
        going.push(arrivals.Message(source, tuple(some)), ticks=False, clocks=clocks)
        if ticks:
            judged.tick(source, clock)
            going.tick(source, clock)
            going.check()
        if data.draw(st.booleans()):
            going.restart()
    outcome = going.end()
    for reason in judged.reasons:
        event(reason)
    assert dict(outcome.rejected) == dict(judged.reasons)
    assert set(outcome.silences) == set(judged.silences)
    expected = oracle.windows(judged.accepted, round(equipment.window_s * 1e6), "state")
    assert {key: n for key, (n, _, _) in outcome.windows.items()} == {key: w.samples for key, w in expected.items()}
    names = equipment.signal_names
    for key, (_, _, features) in outcome.windows.items():
        for signal, statistics in expected[key].signals.items():
            place = 13 * names.index(signal)
            for name in oracle.EXACT:
                assert features[place + oracle.STATISTICS.index(name)] == statistics[name], (key, signal, name)
