"""The steps without the engine: dealing out, rejecting, counting."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from features.assets import shard_of
from features.signals import load_class
from features.telemetry import BLOCKS
from features.windows import ShardBatch, Step
from flows import steps
from flows.clock import NEVER
from flows.intake import Intake, Telemetry
from flows.keys import shard_key
from flows.metrics import Pipeline
from flows.sources import Message
from flows.steps import Assess, Dispatch, Retired, Score, Shard, Tick, Window
from models.assessment import Assessed

START_US = 1_700_000_000_000_000
CLASSES = {name: load_class(name) for name in ("lift", "boiler")}


def class_of(asset: str) -> str | None:
    return {"l": "lift", "b": "boiler"}.get(asset[0])


def blocks(rows: list[tuple[str, str, int, int, list[float]]]) -> pa.RecordBatch:
    names = BLOCKS.names
    return pa.RecordBatch.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=BLOCKS)


def shard() -> Shard:
    return Shard(CLASSES, class_of, 16)


def telemetry(rows: list[tuple[str, str, int, int, list[float]]], before_us: int = NEVER) -> Telemetry:
    """Return what the intake gives of blocks that come in the order of time."""
    clock = np.maximum.accumulate([max(before_us, start) for _, _, start, _, _ in rows]).astype(np.int64)
    return Telemetry("in", blocks(rows), [], clock, before_us, int(clock[-1]))


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline(CollectorRegistry())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["l1", "l2", "l3", "b1", "b2"]),
            st.sampled_from(["motor_current", "flow"]),
            st.integers(0, 1000),
            st.lists(st.floats(0, 100), min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None)
def test_every_block_goes_to_the_shard_of_its_asset_in_order(drawn: list[tuple[str, str, int, list[float]]]) -> None:
    rows = [(a, s, START_US + t * 1000, 10_000 if len(v) > 1 else 0, v) for a, s, t, v in drawn]
    deal = shard()
    found: dict[str, list[tuple[str, int, list[float]]]] = {}
    for key, (name, item) in deal(telemetry(rows)):
        if isinstance(item, Tick):
            continue
        for n in range(len(item.start)):
            asset = item.assets[item.asset[n]]
            values = item.values[item.first[n] : item.first[n] + item.count[n]].tolist()
            assert (key, name) == (shard_key(shard_of(asset, 16)), class_of(asset))
            found.setdefault(asset, []).append((item.signals[item.signal[n]], int(item.start[n]), values))
    expected: dict[str, list[tuple[str, int, list[float]]]] = {}
    for asset, signal, start, _, values in rows:
        expected.setdefault(asset, []).append((signal, start, values))
    assert found == expected, "arrival order within an asset is kept"


def test_every_shard_is_told_the_time_once_a_window() -> None:
    deal = shard()
    now, ticks = NEVER, []
    for t in (START_US, START_US + 1_000_000, START_US + 11_000_000, START_US + 12_000_000):
        told = [(key, name) for key, (name, item) in deal(telemetry([("l1", "motor_current", t, 0, [1.0])], now))
                if isinstance(item, Tick)]  # fmt: skip
        ticks.append(told)
        now = t
    keys = [shard_key(number) for number in range(16)]
    assert ticks[0] == [(key, name) for name in CLASSES for key in keys]
    assert ticks[1] == ticks[3] == [], "no window can have ended"
    assert ticks[2] == [(key, "lift") for key in keys], "ten seconds of a lift, of a boiler sixty"


def test_who_left_is_forgotten_some_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SHARDS_KNOWN", 8)
    deal = shard()
    for number in range(100):
        [*_] = deal(telemetry([(f"l{number}", "motor_current", START_US, 0, [1.0])], START_US))
    assert len(deal._number_of) <= 8


def test_the_account_balances_at_every_moment(pipeline: Pipeline) -> None:
    rng = np.random.default_rng(5)
    intake, deal = Intake(class_of, {}, pipeline), shard()
    windows: dict[tuple[str, str], Window] = {}
    for _ in range(40):
        rows = [
            (str(rng.choice(["l1", "b1", "x1"])), str(rng.choice(["motor_current", "flow", "nothing"])),
             START_US + int(rng.integers(0, 200)) * 500_000, 100_000, rng.normal(5, 50, 4).tolist())
            for _ in range(10)
        ]  # fmt: skip
        for key, (name, item) in deal(intake(Message("in", "blocks", blocks(rows)))):
            if isinstance(item, ShardBatch) or (key, name) in windows:
                windows.setdefault((key, name), Window(CLASSES[name], pipeline))
                list(windows[key, name](item))
        account = pipeline.account()
        assert account["received"] == sum(account.values()) - account["received"]
    for window in windows.values():
        list(window.end())
    account = pipeline.account()
    assert account["pending"] == 0
    assert account["received"] == sum(account.values()) - account["received"]
    assert min(account["late"], account["out_of_range"], account["unknown_signal"], account["unknown_asset"]) > 0


def batch_of(name: str, start_us: int, seconds: int = 10) -> ShardBatch:
    """Return a block of a lift's motor current, a sample a second."""
    [(_, (_, batch))] = shard()(
        Telemetry(
            "in",
            blocks([(name, "motor_current", start_us, 1_000_000, [5.0] * seconds)]),
            [],
            np.full(1, start_us + (seconds - 1) * 1_000_000),
            start_us,
            start_us,
        )
    )
    assert isinstance(batch, ShardBatch)
    return batch


def test_a_restart_counts_on(pipeline: Pipeline) -> None:
    """What each step has counted is in its state, so that the sums agree across restarts."""
    window, score = Window(CLASSES["lift"], pipeline), Score(CLASSES["lift"], pipeline)
    pipeline.count({("received", ""): 60})
    done = [step for n in range(4) for step in window(batch_of("l1", START_US + n * 15_000_000, 15))]
    for step in done:
        list(score(step))
    before = pipeline.account()
    assert before["scored"] > 0 and before["pending"] > 0
    after = Pipeline(CollectorRegistry())
    window_after, score_after = Window(CLASSES["lift"], after), Score(CLASSES["lift"], after)
    window_after.load(window.state())
    score_after.load(score.state())
    after.count({("received", ""): 60})
    assert after.account() == before
    assert after.windows.labels("lift")._value.get() == pipeline.windows.labels("lift")._value.get() > 0
    assert [w.rows.tolist() for s in window_after.end() for w in s.closed] == [
        w.rows.tolist() for s in window.end() for w in s.closed
    ]
    assert after.account() == pipeline.account()


def retired(items: list[Step | Retired]) -> list[list[str]]:
    return [item.names for item in items if isinstance(item, Retired)]


def test_who_left_is_forgotten_by_every_step(pipeline: Pipeline) -> None:
    register, version = {"l1": "lift", "l2": "lift"}, [0]
    window = Window(CLASSES["lift"], pipeline, register.get, lambda: version[0])
    score, assess = Score(CLASSES["lift"], pipeline), Assess(CLASSES["lift"], pipeline)
    dispatch = Dispatch(CLASSES["lift"], pipeline)
    pipeline.count({("received", ""): 20})
    assert retired([*window(batch_of("l1", START_US)), *window(batch_of("l2", START_US))]) == []
    del register["l1"]
    assert retired([*window(Tick("in", START_US))]) == [], "nobody said that the register has changed"
    version[0] = 1
    [left, _] = window(Tick("in", START_US))
    assert isinstance(left, Retired) and (left.names, left.rows.tolist()) == (["l1"], [0])
    account = pipeline.account()
    assert (account["pending"], account["unknown_asset"]) == (10, 10), "nobody scores what was open of it"
    assert [*score(left)] == [left] and [*assess(left)] == [left] and [*dispatch(left)] == []
    assert retired([*window(Tick("in", START_US + 1))]) == [], "once"
    register["l2"] = "boiler"
    version[0] = 2
    assert retired([*window(Tick("in", START_US + 2))]) == [["l2"]], "another class is leave too"


def test_who_left_while_nothing_ran_is_forgotten_at_the_start(pipeline: Pipeline) -> None:
    before = Window(CLASSES["lift"], pipeline)
    list(before(batch_of("l1", START_US)))
    after = Window(CLASSES["lift"], Pipeline(CollectorRegistry()), lambda asset: None, lambda: 0)
    after.load(before.state())
    assert retired([*after(Tick("in", START_US))]) == [["l1"]]


def test_a_row_that_was_freed_knows_nothing_of_who_had_it(pipeline: Pipeline) -> None:
    """An asset in the row of one that left is scored and assessed like one in a new shard."""

    def shown(before: bool) -> list[tuple[object, ...]]:
        register = {"l1": "lift", "l2": "lift"}
        version = [0]
        window = Window(CLASSES["lift"], pipeline, register.get, lambda: version[0])
        score, assess = Score(CLASSES["lift"], pipeline), Assess(CLASSES["lift"], pipeline)
        seen: list[tuple[object, ...]] = []

        def feed(item: ShardBatch | Tick) -> None:
            for step in window(item):
                for scored in score(step):
                    for result in assess(scored):
                        if isinstance(result, Assessed) and result.windows.names[result.windows.rows[0]] == "l2":
                            starts = result.windows.start_us.tolist()
                            seen.append((starts, result.scored.score.tolist(), result.state.tolist()))

        if before:
            for n in range(20):
                feed(batch_of("l1", START_US + n * 10_000_000))
            del register["l1"]
            version[0] = 1
        for n in range(20, 50):
            feed(batch_of("l2", START_US + n * 10_000_000))
        return seen

    alone, after = shown(before=False), shown(before=True)
    assert len(alone) > 20 and str(after) == str(alone)
