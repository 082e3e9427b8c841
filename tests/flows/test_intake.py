"""Intake: what comes in is decoded, counted, timed, and freed of unknown assets, and a restart counts on."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from features.telemetry import BLOCKS, Reason, count_readings
from features.windows import NO_LIMIT
from features.wire import decode
from flows.clock import NEVER
from flows.credits import Credits
from flows.intake import Input, Intake, IntakeSource, Telemetry
from flows.metrics import Pipeline
from flows.sealed import unsealed
from flows.sources import Message

START_US = 1_700_000_000_000_000
Row = tuple[str, str, int, int, list[float]]


def class_of(asset: str) -> str | None:
    return {"l": "lift", "b": "boiler"}.get(asset[0])


def blocks(rows: list[Row]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(BLOCKS.names, row, strict=True)) for row in rows], schema=BLOCKS)


def message(rows: list[Row], source: str = "in", **more: Any) -> Message:
    return Message(source, "blocks", blocks(rows), **more)


def lines(count: int, bad: int = 0) -> bytes:
    rows: list[dict[str, Any]] = [
        {"asset": "l1", "signal": "flow", "time": f"2026-01-05T00:00:{n:02d}Z", "value": n} for n in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode() + b"{nothing}\n" * bad


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline(CollectorRegistry())


def test_unknown_assets_are_rejected_with_their_block(pipeline: Pipeline) -> None:
    intake = Intake(class_of, {}, pipeline)
    known = intake(
        message([("x9", "flow", START_US, 1000, [1.0, float("nan"), 2.0]), ("l1", "flow", START_US, 0, [1.0])])
    )
    assert known.blocks.num_rows == 1
    [rejected] = known.rejected
    assert (rejected.reason, rejected.readings, rejected.asset) == (Reason.UNKNOWN_ASSET, 2, "x9")
    assert pa.ipc.open_stream(rejected.raw).read_all().num_rows == 1
    account = pipeline.account()
    assert (account["received"], account["unknown_asset"], account["pending"]) == (3, 2, 1)


def test_many_blocks_of_unknown_assets_are_a_rejection_an_asset(pipeline: Pipeline) -> None:
    rows: list[Row] = [(f"x{n % 3}", f"flow-{n % 6 // 3}", START_US + n, 0, [1.0]) for n in range(600)]
    # A register that is behind, in a fleet of long names.
    names: list[Row] = [(f"l-{'long' * 50}-{n}", "flow", START_US, 0, [1.0]) for n in range(1000)]
    rejected = Intake(lambda name: "lift" if name[0] == "l" else None, {}, pipeline)(message(rows + names)).rejected
    assert [(one.asset, one.readings, one.signal) for one in rejected] == [(f"x{n}", 200, None) for n in range(3)]
    for one in rejected:
        again = decode("arrow", [one.raw], source="again")
        assert count_readings(again.blocks) == 200
        assert set(again.blocks.column("asset").to_pylist()) == {one.asset}
        assert len(one.raw) < 20_000


def test_very_many_unknown_assets_are_rejected_together(pipeline: Pipeline) -> None:
    rows: list[Row] = [(f"x{n}", "s" * 10_000, START_US + n, 0, [1.0]) for n in range(2_000)]
    rejected = Intake(class_of, {}, pipeline)(message(rows)).rejected
    assert [one.asset for one in rejected] == [*(f"x{n}" for n in range(15)), None]
    assert sum(one.readings for one in rejected) == pipeline.account()["unknown_asset"] == 2_000
    assert sum(len(one.raw) for one in rejected) < 400_000, "no name is spelled out in each row"
    assert "1,985 assets, 'x15' among them" in rejected[-1].detail


def test_a_message_stamped_ahead_of_now_does_not_lift_the_limit(pipeline: Pipeline) -> None:
    """The stamp of a message may be its producer's, whose clock is wrong by a year with that of its readings."""
    year = 366 * 86_400_000_000
    ahead = message([("l1", "flow", START_US + year, 0, [1.0])], times_us=[START_US + year])
    intake = Intake(class_of, {"in": Input(live=True)}, pipeline, now_us=lambda: START_US + 60, future_us=300_000_000)
    assert intake(ahead).limit_us == START_US + 60 + 300_000_000
    behind = message([("l1", "flow", START_US, 0, [1.0])], times_us=[START_US - 1000])
    assert intake(behind).limit_us == START_US - 1000 + 300_000_000, "by when it came, also when it is read again"


def test_what_cannot_be_decoded_is_received_and_rejected_at_once(pipeline: Pipeline) -> None:
    Intake(class_of, {}, pipeline)(Message("in", "jsonl", lines(5, bad=2)))
    account = pipeline.account()
    assert (account["received"], account["malformed"], account["pending"]) == (7, 2, 5)


def test_the_clock_of_an_input_goes_on_from_message_to_message(pipeline: Pipeline) -> None:
    intake = Intake(class_of, {}, pipeline)
    first = intake(message([("l1", "flow", START_US, 0, [1.0])]))
    assert (first.before_us, first.now_us) == (NEVER, START_US)
    second = intake(message([("l1", "flow", START_US - 5, 0, [1.0]), ("l1", "flow", START_US + 5, 0, [1.0])]))
    assert (second.before_us, second.clock.tolist(), second.now_us) == (
        START_US,
        [START_US, START_US + 5],
        START_US + 5,
    )
    other = intake(message([("x1", "flow", START_US + 9, 0, [1.0])], "other"))
    assert (other.before_us, other.now_us) == (NEVER, NEVER), "each input has its own, and unknown assets move none"
    newest = pipeline.registry.get_sample_value("vigie_input_event_timestamp_seconds", {"input": "in"})
    assert newest == (START_US + 5) / 1e6


def test_the_future_of_a_live_input_does_not_move_its_clock(pipeline: Pipeline) -> None:
    rows: list[Row] = [("l1", "flow", START_US, 0, [1.0]), ("l1", "flow", START_US + 10**12, 0, [1.0])]
    live = Intake(class_of, {"in": Input(live=True)}, pipeline, lambda: START_US, 60_000_000)
    found = live(message(rows))
    assert found.limit_us == START_US + 60_000_000
    assert found.clock.tolist() == [START_US, START_US]
    replay = Intake(class_of, {}, pipeline, lambda: START_US, 60_000_000)
    assert replay(message(rows)).limit_us == NO_LIMIT


def test_the_future_begins_when_the_message_arrived_where_that_is_known(pipeline: Pipeline) -> None:
    intake = Intake(class_of, {"in": Input(live=True)}, pipeline, lambda: START_US + 10**9, 60)
    times = [START_US + 7, START_US + 3]
    assert intake(message([("l1", "flow", START_US, 0, [1.0])], times_us=times)).limit_us == START_US + 67
    assert intake(message([("l1", "flow", START_US, 0, [1.0])], times_us=[])).limit_us == START_US + 10**9 + 60


def test_the_age_of_an_endless_input_is_that_of_its_last_message(pipeline: Pipeline) -> None:
    now = [160.0]
    intake = Intake(class_of, {"in": Input(endless=True)}, pipeline, clock=lambda: now[0])
    intake(message([("l1", "flow", START_US, 0, [1.0])]))
    intake(message([("l1", "flow", START_US, 0, [1.0])], "files"))
    [gauge] = pipeline.input_seen.collect()
    assert [(sample.labels["input"], sample.value) for sample in gauge.samples] == [("in", 160.0)]


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(["one", "two"]),
        st.lists(st.tuples(st.sampled_from(["l1", "x1"]), st.integers(0, 10**6)), min_size=1, max_size=5),
    ),
    max_size=12,
)


@given(MESSAGES, st.integers(0, 12))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_restart_counts_on_with_the_same_clocks(drawn: list[tuple[str, list[tuple[str, int]]]], cut: int) -> None:
    messages = [message([(a, "flow", START_US + t, 0, [1.0]) for a, t in rows], source) for source, rows in drawn]
    whole = Pipeline(CollectorRegistry())
    intake = Intake(class_of, {}, whole)
    expected = [intake(one) for one in messages]
    before = Intake(class_of, {}, Pipeline(CollectorRegistry()))
    found = [before(one) for one in messages[:cut]]
    pipeline = Pipeline(CollectorRegistry())
    after = Intake(class_of, {}, pipeline, state=before.state())
    found += [after(one) for one in messages[cut:]]
    assert [(t.before_us, t.now_us, t.clock.tolist()) for t in found] == [
        (t.before_us, t.now_us, t.clock.tolist()) for t in expected
    ]
    assert pipeline.account() == whole.account()
    assert after.state() == intake.state()


class Numbers(FixedPartitionedSource[Message, dict[str, int]]):
    """Yields a message of one reading a number, and resumes after the last one."""

    def list_parts(self) -> list[str]:
        return ["in"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, int] | None
    ) -> StatefulSourcePartition[Message, dict[str, int]]:
        return _Numbers(0 if resume_state is None else resume_state["next"])


class _Numbers(StatefulSourcePartition[Message, dict[str, int]]):
    def __init__(self, number: int) -> None:
        self.number = number

    def next_batch(self) -> list[Message]:
        self.number += 1
        return [message([("l1", "flow", START_US + self.number, 0, [1.0])])]

    def snapshot(self) -> dict[str, int]:
        return {"next": self.number}


def opened(pipeline: Pipeline, state: dict[str, Any] | None = None, credits: Credits | None = None) -> Any:
    source = IntakeSource(Numbers(), lambda state: Intake(class_of, {}, pipeline, state=state), credits)
    assert source.list_parts() == ["in"]
    return source.build_part("input", "in", state)


def test_a_snapshot_holds_position_clock_and_counts_together(pipeline: Pipeline) -> None:
    part = opened(pipeline)
    for _ in range(3):
        [last] = part.next_batch()
    state = part.snapshot()
    part.next_batch()
    after = Pipeline(CollectorRegistry())
    resumed = opened(after, state)
    assert after.account()["received"] == 3
    [found] = resumed.next_batch()
    assert isinstance(found, Telemetry)
    assert (found.before_us, found.now_us) == (last.now_us, START_US + 4)
    assert after.account()["received"] == 4


def test_an_input_without_credit_waits_and_reads_nothing(pipeline: Pipeline) -> None:
    credits = Credits(limit_bytes=100)
    part = opened(pipeline, credits=credits)
    assert len(part.next_batch()) == 1 and part.next_awake() is None
    credits.spend(100)
    assert part.next_batch() == []
    assert part.next_awake() is not None and unsealed(part.snapshot())["position"] == {"next": 1}
    credits.give_back(0, 1)
    assert len(part.next_batch()) == 1 and part.next_awake() is None
