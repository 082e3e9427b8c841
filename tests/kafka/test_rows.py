"""Results as JSON: the columns of a score file, times in UTC, null for what cannot be known, the same id each time."""

from __future__ import annotations

import json
from base64 import b64decode
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from features.assets import shard_of
from features.signals import load_class
from features.telemetry import Reason, Rejected
from features.windows import ClosedWindows, Silence
from flows.dispatch import Decision
from flows.kafka.rows import RAW_LIMIT, decision_records, rejected_records, score_records
from flows.rows import score_schema
from models.assessment import Assessed
from models.scoring import Scored

LIFT = load_class("lift")
BEGIN = 1_767_571_200_000_000  # 2026-01-05T00:00:00Z


def assessed(names: list[str], starts: list[int]) -> Any:
    n, modes, horizons = len(names) * len(starts), len(LIFT.failure_modes), len(LIFT.failure_horizons)
    start = BEGIN + 10_000_000 * np.repeat(np.array(starts, np.int64), len(names))
    windows = ClosedWindows(
        names,
        np.tile(np.arange(len(names), dtype=np.int32), len(starts)),
        start,
        start + 10_000_000,
        np.full(n, 1000, np.int64),
        np.full(n, np.nan),
        np.zeros((n, len(LIFT.features))),
    )
    return Assessed(
        windows=windows,
        scored=cast("Scored", SimpleNamespace(score=np.full(n, 0.5), warming=np.zeros(n, np.bool_))),
        state=np.ones(n, np.int8),
        health=np.full((n, modes), np.nan),
        leading=np.full(n, -1, np.int16),
        p_fail=np.full((n, horizons), 0.125),
        rul_s=np.full((n, 3), np.nan),
        top=np.full((n, 3), -1, np.int16),
        top_share=np.zeros((n, 3)),
        candidates=[],
    )


def decision(rung: Any = "page") -> Decision:
    return Decision("lift-1/door/1", "lift-1", "lift", "door", BEGIN, BEGIN + 1, rung, np.nan, "open", "Slow doors.")


def test_a_score_row_has_the_columns_of_a_score_file() -> None:
    silence = object.__new__(Silence)
    results = [("lift", assessed(["lift-1"], [0, 1])), ("lift", silence), ("lift", decision())]
    ((key, records),) = score_records(results, {"lift": LIFT}, 16)
    assert key == "lift-1"
    assert records.keys == [b"lift-1", b"lift-1"]
    assert records.ids == [f"lift-1|{BEGIN}".encode(), f"lift-1|{BEGIN + 10_000_000}".encode()]
    row = json.loads(records.values[1])
    wanted = [name for name in score_schema(LIFT).names if name != "page"]
    assert list(row) == ["asset", "class", *wanted[1:]]
    assert row["window_start"] == "2026-01-05T00:00:10Z"
    assert row["window_end"] == "2026-01-05T00:00:20Z"
    assert (row["class"], row["samples"], row["anomaly_score"], row["state"]) == ("lift", 1000, 0.5, "ok")
    assert row["rul_p50_s"] is None and row["health"] is None and row["failure_mode"] is None
    assert row["top_signals"] == [] and row["p_fail_24h"] == 0.125


def test_rows_are_dealt_to_the_sink_partitions_of_their_assets() -> None:
    names = [f"lift-{n:04d}" for n in range(40)]
    parts = list(score_records([("lift", assessed(names, [0, 1]))], {"lift": LIFT}, 4))
    assert len(parts) == 4
    for key, records in parts:
        assert {shard_of(asset.decode(), 4) for asset in records.keys} == {shard_of(key, 4)}
    assert sum(len(records.keys) for _, records in parts) == 80


def test_a_decision_is_known_by_its_episode_and_rung() -> None:
    results = [("lift", decision("ticket")), ("lift", assessed(["lift-1"], [0])), ("lift", decision("page"))]
    parts = list(decision_records(results, 16))
    assert [(key, records.ids) for key, records in parts] == [
        ("lift-1", [b"lift-1/door/1|ticket"]),
        ("lift-1", [b"lift-1/door/1|page"]),
    ]
    value = json.loads(parts[0][1].values[0])
    assert value["window_start"] == "2026-01-05T00:00:00.000001Z"
    assert value["probability"] is None
    assert list(value) == ["episode", "asset", "class", "failure_mode", "opened", "window_start", "rung", "outcome",
                           "probability", "reason"]  # fmt: skip


def test_rejected_input_comes_whole_and_one_with_a_name_for_each() -> None:
    late = Rejected(Reason.LATE, 3, "kafka/telemetry/0", b"\xff{}", "lift-1", "vibration", BEGIN, "too late")
    other = Rejected(Reason.LATE, 3, "kafka/telemetry/0", b"\xff{}", "lift-1", "vibration", BEGIN + 1, "too late")
    broken = Rejected(Reason.MALFORMED, 1, "kafka/telemetry/1", b"x" * (RAW_LIMIT + 7), start_us=-5)
    parts = dict(rejected_records([late, late, other, broken], 16))
    first = json.loads(parts["lift-1"].values[0])
    assert b64decode(first.pop("raw")) == b"\xff{}"
    assert first == {
        "time": "2026-01-05T00:00:00Z", "asset": "lift-1", "signal": "vibration", "reason": "late", "readings": 3,
        "source": "kafka/telemetry/0", "detail": "too late", "raw_bytes": 3,
    }  # fmt: skip
    assert parts["lift-1"].ids[0] == parts["lift-1"].ids[1] != parts["lift-1"].ids[2]
    value = json.loads(parts["kafka/telemetry/1"].values[0])
    assert (value["asset"], value["time"], value["raw_bytes"]) == (None, None, RAW_LIMIT + 7)
    # Below what a broker takes by default, however large the message was.
    assert len(parts["kafka/telemetry/1"].values[0]) < 1_000_000
