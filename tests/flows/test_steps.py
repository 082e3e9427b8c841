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
from features.telemetry import BLOCKS, Reason
from features.windows import NO_LIMIT, ShardBatch
from flows.metrics import Pipeline
from flows.sources import Message
from flows.steps import Decoder, Input, Reject, Shard, Telemetry, Tick, Window

START_US = 1_700_000_000_000_000
CLASSES = {name: load_class(name) for name in ("lift", "boiler")}


def class_of(asset: str) -> str | None:
    return {"l": "lift", "b": "boiler"}.get(asset[0])


def blocks(rows: list[tuple[str, str, int, int, list[float]]]) -> pa.RecordBatch:
    names = BLOCKS.names
    return pa.RecordBatch.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=BLOCKS)


def shard(pipeline: Pipeline, inputs: dict[str, Input] | None = None, now_us: int | None = None) -> Shard:
    return Shard(CLASSES, class_of, inputs or {}, 16, None if now_us is None else lambda: now_us, pipeline)


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
    deal = shard(Pipeline(CollectorRegistry()))
    found: dict[str, list[tuple[str, int, list[float]]]] = {}
    for key, (name, item) in deal(Telemetry("in", blocks(rows), [])):
        if isinstance(item, Tick):
            continue
        assert item.places is not None
        assert key == f"{name}-{shard_of(item.assets[item.asset[item.places[0]]], 16):02d}"
        for n in item.places.tolist():
            asset = item.assets[item.asset[n]]
            values = item.values[item.first[n] : item.first[n] + item.count[n]].tolist()
            assert key == f"{class_of(asset)}-{shard_of(asset, 16):02d}"
            found.setdefault(asset, []).append((item.signals[item.signal[n]], int(item.start[n]), values))
    expected: dict[str, list[tuple[str, int, list[float]]]] = {}
    for asset, signal, start, _, values in rows:
        expected.setdefault(asset, []).append((signal, start, values))
    assert found == expected, "arrival order within an asset is kept"


def test_other_shards_are_told_the_time_once_a_window(pipeline: Pipeline) -> None:
    deal = shard(pipeline)
    first = blocks([("l1", "motor_current", START_US, 0, [1.0]), ("l2", "motor_current", START_US, 0, [1.0])])
    list(deal(Telemetry("in", first, [])))
    ticks = [
        [key for key, (_, item) in deal(Telemetry("in", blocks([("l1", "motor_current", t, 0, [1.0])]), []))
         if isinstance(item, Tick)]
        for t in (START_US + 1_000_000, START_US + 11_000_000, START_US + 12_000_000)
    ]  # fmt: skip
    assert [len(keys) for keys in ticks] == [0, 2, 0]
    newest = pipeline.registry.get_sample_value("vigie_input_event_timestamp_seconds", {"input": "in"})
    assert newest == (START_US + 12_000_000) / 1e6


def test_the_future_of_a_live_input_does_not_move_its_clock(pipeline: Pipeline) -> None:
    rows = [("l1", "motor_current", START_US, 0, [1.0]), ("l1", "motor_current", START_US + 10**12, 0, [1.0])]
    deal = shard(pipeline, {"in": Input(live=True)}, START_US)
    [batch] = [i for _, (_, i) in deal(Telemetry("in", blocks(rows), [])) if isinstance(i, ShardBatch)]
    assert batch.limit_us == START_US + 60_000_000
    assert batch.clock.tolist() == [START_US, START_US]
    replay = shard(Pipeline(CollectorRegistry()))
    [batch] = [i for _, (_, i) in replay(Telemetry("in", blocks(rows), [])) if isinstance(i, ShardBatch)]
    assert batch.limit_us == NO_LIMIT


def test_unknown_assets_are_rejected_with_their_block(pipeline: Pipeline) -> None:
    decode, reject = Decoder({}, pipeline), Reject(class_of, pipeline)
    batch = blocks([("x9", "flow", START_US, 1000, [1.0, float("nan"), 2.0]), ("l1", "flow", START_US, 0, [1.0])])
    known = reject(decode(Message("in", "blocks", batch)))
    assert known.blocks.num_rows == 1
    [rejected] = known.rejected
    assert (rejected.reason, rejected.readings, rejected.asset) == (Reason.UNKNOWN_ASSET, 2, "x9")
    assert pa.ipc.open_stream(rejected.raw).read_all().num_rows == 1
    account = pipeline.account()
    assert (account["received"], account["unknown_asset"]) == (3, 2)


def test_the_account_balances_at_every_moment(pipeline: Pipeline) -> None:
    rng = np.random.default_rng(5)
    decode, reject, deal = Decoder({}, pipeline), Reject(class_of, pipeline), shard(pipeline)
    windows: dict[str, Window] = {}
    for _ in range(40):
        rows = [
            (str(rng.choice(["l1", "b1", "x1"])), str(rng.choice(["motor_current", "flow", "nothing"])),
             START_US + int(rng.integers(0, 200)) * 500_000, 100_000, rng.normal(5, 50, 4).tolist())
            for _ in range(10)
        ]  # fmt: skip
        for key, (name, item) in deal(reject(decode(Message("in", "blocks", blocks(rows))))):
            window = windows.setdefault(key, Window(CLASSES[name], pipeline))
            list(window(item))
        account = pipeline.account()
        assert account["received"] == sum(account.values()) - account["received"]
    for window in windows.values():
        list(window.end())
    account = pipeline.account()
    assert account["pending"] == 0
    assert account["received"] == sum(account.values()) - account["received"]
    assert min(account["late"], account["out_of_range"], account["unknown_signal"], account["unknown_asset"]) > 0


def test_the_age_of_an_endless_input_begins_with_the_run(pipeline: Pipeline) -> None:
    now = [100.0]
    decode = Decoder({"in": Input(endless=True)}, pipeline, lambda: now[0])

    def seen() -> float | None:
        return pipeline.registry.get_sample_value("vigie_input_last_message_timestamp_seconds", {"input": "in"})

    assert seen() == 100.0
    now[0] = 160.0
    decode(Message("in", "blocks", blocks([("l1", "flow", START_US, 0, [1.0])])))
    assert seen() == 160.0


def test_a_reading_far_ahead_of_the_rest_moves_nobodys_clock(pipeline: Pipeline) -> None:
    rows = [("l1", "motor_current", START_US + n * 1_000_000, 0, [1.0]) for n in range(20)]
    rows.insert(5, ("l2", "motor_current", START_US + 400 * 86_400_000_000, 0, [1.0]))
    deal = shard(pipeline)
    clocks = [int(i.clock.max()) for _, (_, i) in deal(Telemetry("in", blocks(rows), [])) if isinstance(i, ShardBatch)]
    assert max(clocks) == START_US + 19_000_000
