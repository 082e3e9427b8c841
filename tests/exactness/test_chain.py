"""From messages to pages: order, cuts, shards and restarts change no state, no episode, no page and no count."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from features.signals import EquipmentClass, load_class
from flows.sources import Message

START_US = 1_700_000_000_000_000
SECOND = 1_000_000
EXAMPLES = settings().max_examples
Machine = Callable[..., EquipmentClass]


@lru_cache
def fleet(seconds: int) -> tuple[tuple[str, str, Any, Any], ...]:
    """Return the series of four machines: one wears, one wears and is mended, one is moody, one falls silent."""
    rng = np.random.default_rng(11)
    at = START_US + np.arange(seconds) * SECOND
    day = np.arange(seconds) / 240.0
    series = []
    for asset in ("wears", "mended", "moody", "silent"):
        slow = 20.0 + rng.normal(0, 0.3, seconds)
        if asset in ("wears", "mended"):
            slow += 10.0 * np.clip((day - 3.0) / 4.0, 0.0, 1.2) ** 1.5
        if asset == "moody":
            slow += 6.0 * (np.arange(seconds) // 200 % 5 == 4)
        state = np.zeros(seconds)
        if asset == "mended":
            state[int(6.0 * 240) : int(6.3 * 240)] = 2.0
        if asset == "wears":
            state[int(7.5 * 240) :] = 1.0
        kept = at < START_US + (seconds // 3 if asset == "silent" else seconds) * SECOND
        series.append((asset, "slow", at[kept], slow[kept]))
        series.append((asset, "fast", at[kept] + 123_456, rng.normal(0, 1.0, seconds)[kept]))
        series.append((asset, "state", at[kept][::10], state[kept][::10]))
    return tuple(series)


def worn(machine: Machine) -> EquipmentClass:
    return machine(window_s=5.0, lateness_s=15.0, idle_after_s=60.0)


def run(
    chain: ModuleType, equipment: EquipmentClass, messages: list[Any], shards: int, restart: Any, pickled: bool
) -> Any:
    one = chain.Chain({"machine": equipment}, lambda asset: "machine", shards)
    for number, message in enumerate(messages):
        one.push(Message(message.source, "blocks", chain.record_batch(message.blocks)), pickled)
        if restart(number):
            one.restart()
    return one.end()


def blocks_of(arrivals: ModuleType, rng: Any, seconds: int, longest: int) -> list[Any]:
    return [
        block
        for asset, signal, at, values in fleet(seconds)
        for block in arrivals.cut(rng, asset, signal, at, values, 12 * SECOND, longest, missing=False)
    ]


@pytest.fixture(scope="module")
def undisturbed(chain: ModuleType, arrivals: ModuleType, machine: Machine) -> Any:
    """What a run says that gets every block in order, in one process and shard."""
    blocks = arrivals.in_order(blocks_of(arrivals, np.random.default_rng(0), 2200, 12))[0].blocks
    messages = [arrivals.Message("in", blocks[i : i + 50]) for i in range(0, len(blocks), 50)]
    known = run(chain, worn(machine), messages, 1, lambda number: False, False)
    assert any(one[2] == "page" for one in known.decisions)
    assert {one[3] for one in known.candidates} >= {"open", "failed"}
    assert known.silences
    return known


def agree(known: Any, expected: Any) -> None:
    assert known.samples == expected.samples
    assert known.candidates == expected.candidates
    assert known.decisions == expected.decisions
    assert known.silences == expected.silences
    assert known.account == expected.account
    for key, states in expected.states.items():
        assert known.states[key] == states, key
        np.testing.assert_allclose(known.figures[key], expected.figures[key], rtol=1e-9, atol=1e-12, err_msg=str(key))


@given(data=st.data())
@settings(max_examples=max(4, EXAMPLES // 5), phases=[Phase.generate])
def test_states_episodes_and_pages_depend_on_no_arrival(
    data: st.DataObject, chain: ModuleType, arrivals: ModuleType, machine: Machine, undisturbed: Any
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    blocks = blocks_of(arrivals, rng, 2200, data.draw(st.sampled_from([4, 12]), label="longest block"))
    most = data.draw(st.sampled_from([40, 200, 5000]), label="blocks a message")
    messages = arrivals.arrange(rng, blocks, 15 * SECOND, most, shuffled=data.draw(st.booleans(), label="shuffled"))
    often = data.draw(st.sampled_from([0.0, 0.1]), label="restarts")
    known = run(
        chain, worn(machine), messages,
        data.draw(st.sampled_from([1, 4, 16]), label="shards"),
        lambda number: rng.random() < often,
        data.draw(st.booleans(), label="pickled"),
    )  # fmt: skip
    agree(known, undisturbed)


READINGS = st.lists(
    st.tuples(
        st.sampled_from(["lift-1", "boiler-1", "boiler-2", "stranger"]),
        st.sampled_from(["motor_current", "vibration_x", "flow", "nothing"]),
        st.one_of(st.integers(0, 300).map(lambda k: START_US + k * 500_000), st.sampled_from([-1, 0, 2**61])),
        st.sampled_from([0, 10_000, 100_000, -3]),
        st.lists(
            st.one_of(st.floats(-50.0, 500.0), st.sampled_from([float("nan"), float("inf")])), min_size=1, max_size=8
        ),
    ),
    min_size=1,
    max_size=12,
)


@given(data=st.data())
def test_every_reading_is_scored_or_rejected_and_the_account_says_so_at_every_moment(
    data: st.DataObject, chain: ModuleType, arrivals: ModuleType
) -> None:
    classes = {name: load_class(name) for name in ("lift", "boiler")}

    def class_of(asset: str) -> str | None:
        name = asset.partition("-")[0]
        return name if name in classes else None

    one = chain.Chain(classes, class_of, data.draw(st.sampled_from([1, 4])))
    sent = 0
    for rows in data.draw(st.lists(READINGS, min_size=1, max_size=8)):
        blocks = [arrivals.Block(*row[:4], tuple(row[4])) for row in rows]
        sent += sum(1 for block in blocks for value in block.values if value == value)
        one.push(Message(data.draw(st.sampled_from(["p", "q"])), "blocks", chain.record_batch(blocks)))
        assert one.pipeline.account()["received"] == sent
        if data.draw(st.booleans()):
            one.restart()
            one.check()
            assert one.pipeline.account()["received"] == sent
    known = one.end()
    assert known.account["received"] == sent
