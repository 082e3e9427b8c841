"""Any order of arrival within the lateness, any cut, any shards, any restart: the windows are those of the oracle."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st

from features.signals import EquipmentClass

START_US = 1_700_000_000_000_000
Machine = Callable[..., EquipmentClass]


def telemetry(draw: Any, arrivals: ModuleType, equipment: EquipmentClass, span_us: int) -> tuple[Any, list[Any]]:
    """Draw the blocks of one to three assets over some windows, some of their samples in two blocks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    seconds = draw(st.integers(1, 90), label="seconds")
    begin_us = draw(st.sampled_from([START_US, START_US + 3_456_789, 0, 4_102_444_800_000_000]), label="begin")
    overlap = draw(st.sampled_from([0.0, 0.3]), label="overlap")
    longest = draw(st.sampled_from([1, 10, 100]), label="longest block")
    blocks: list[Any] = []
    for asset in range(draw(st.integers(1, 3), label="assets")):
        for signal in ("fast", "slow", "meter", "state"):
            nominal_us = round(equipment.signals[signal].period_s * 1e6)
            period_us = draw(st.sampled_from([nominal_us, 2 * nominal_us, nominal_us * 7 // 13, nominal_us * 10 // 9]))
            kind = draw(st.sampled_from(["regular", "jitter", "holes", "bursts", "few"]))
            at = arrivals.times(rng, begin_us, period_us, max(1, seconds * 1_000_000 // period_us), kind)
            family = "steps" if signal == "state" else draw(st.sampled_from(sorted(arrivals.VALUES)))
            values = arrivals.VALUES[family](rng, len(at))
            blocks += arrivals.cut(rng, f"asset-{asset}", signal, at, values, span_us, longest, overlap)
    return rng, blocks


def check(
    arrivals: ModuleType, oracle: ModuleType, equipment: EquipmentClass, outcome: Any, messages: list[Any]
) -> None:
    """Compare every window, horizon and rejection of a run with the oracle's."""
    ranges = {name: signal.range for name, signal in equipment.signals.items()}
    readings = [oracle.Reading(*r) for r in arrivals.readings_of(messages)]
    accepted, reasons = oracle.first_wins(readings, ranges)
    assert dict(outcome.rejected) == reasons
    window_us = round(equipment.window_s * 1e6)
    state = equipment.states.signal if equipment.states else None
    expected = oracle.windows(accepted, window_us, state)
    assert outcome.windows.keys() == expected.keys()
    for key, (samples, code, features) in outcome.windows.items():
        assert samples == expected[key].samples
        assert code == expected[key].state_code or (np.isnan(code) and np.isnan(expected[key].state_code))
        compare(oracle, equipment, features, expected[key].signals, key)
    for length_s in equipment.horizons_s:
        longer = oracle.windows(accepted, round(length_s * 1e6))
        found = {key[1:]: value for key, value in outcome.horizons.items() if key[0] == length_s}
        assert found.keys() == longer.keys()
        for key, (samples, features) in found.items():
            assert samples == longer[key].samples
            compare(oracle, equipment, features, longer[key].signals, (length_s, key))


def compare(oracle: ModuleType, equipment: EquipmentClass, features: Any, signals: Any, where: Any) -> None:
    """Compare the statistics of all signals."""
    for number, signal in enumerate(equipment.signal_names):
        found = features[13 * number : 13 * number + 13].tolist()
        if signal not in signals:
            assert found[0] == 0.0
            assert np.isnan(found[1:]).all()
            continue
        for name, value in zip(oracle.STATISTICS, found, strict=True):
            expected = signals[signal][name]
            if np.isnan(expected):
                assert np.isnan(value), (where, signal, name)
            else:
                assert abs(value - expected) <= oracle.tolerance(name, signals[signal]), (
                    where,
                    signal,
                    name,
                    expected,
                    value,
                )


@given(data=st.data())
def test_any_arrival_within_the_lateness_gives_the_windows_of_the_oracle(
    data: st.DataObject, arrivals: ModuleType, oracle: ModuleType, machine: Machine
) -> None:
    lateness_s = data.draw(st.sampled_from([0.0, 0.5, 5.0, 10.0, 23.0]), label="lateness")
    equipment = machine(window_s=data.draw(st.sampled_from([2.0, 10.0, 7.0]), label="window"), lateness_s=lateness_s)
    lateness_us = round(lateness_s * 1e6)
    rng, blocks = telemetry(data.draw, arrivals, equipment, lateness_us)
    messages = arrivals.arrange(
        rng, blocks, lateness_us,
        most=data.draw(st.sampled_from([1, 5, 200]), label="blocks a message"),
        sources=data.draw(st.sampled_from([("in",), ("one", "two", "three")]), label="partitions"),
        shuffled=data.draw(st.booleans(), label="shuffled"),
    )  # fmt: skip
    often = data.draw(st.sampled_from([0.0, 0.2, 1.0]), label="restarts")
    outcome = arrivals.run(
        equipment, messages,
        shards=data.draw(st.sampled_from([1, 2, 16]), label="shards"),
        restart=lambda number: rng.random() < often,
        pickled=data.draw(st.booleans(), label="pickled"),
        ticks=data.draw(st.booleans(), label="ticks"),
    )  # fmt: skip
    event(f"duplicates: {outcome.rejected['duplicate'] > 0}")
    check(arrivals, oracle, equipment, outcome, messages)


def test_the_order_of_blocks_inside_a_message_says_nothing(arrivals: ModuleType, machine: Machine) -> None:
    """A gateway that writes signal by signal."""
    blocks = [
        arrivals.Block("a", signal, START_US + k * 1_000_000, 1_000_000, (1.0,))
        for signal in ("fast", "slow")
        for k in range(100)
    ]
    outcome = arrivals.run(machine(), [arrivals.Message("in", tuple(blocks))])
    assert dict(outcome.rejected) == {}


def test_a_block_longer_than_the_idle_time_makes_itself_not_late(arrivals: ModuleType, machine: Machine) -> None:
    """A gateway that sends once in five minutes."""
    values = tuple(float(k) for k in range(300))
    begin_us = START_US + 17_000_000
    messages = [
        arrivals.Message("in", (arrivals.Block("a", "slow", begin_us + k * 300_000_000, 1_000_000, values),))
        for k in range(3)
    ]
    outcome = arrivals.run(machine(window_s=60.0, lateness_s=30.0, idle_after_s=180.0), messages)
    assert dict(outcome.rejected) == {}
