"""The benchmarks tell what they promise, and nothing is timed before all have computed the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import agreement, scale, throughput
from benchmarks.bars import Bar, print_bars
from benchmarks.profiles import Profile, asset_names, equipment_of, flat
from benchmarks.turns import Competitor, write_figures
from benchmarks.wires import message_of
from features.signals import STATISTICS
from features.wire import decode

PROMISED = {
    "lift_arrow_readings_per_s",
    "lift_json_readings_per_s",
    "boiler_arrow_readings_per_s",
    "lift_ratio_naive",
    "lift_ratio_duckdb",
    "boiler_ratio_naive",
    "boiler_ratio_duckdb",
    "two_process_ratio",
    "peak_mb",
}

TURN_TAKER = """
import sys
from benchmarks.turns import serve
serve(lambda: {"readings": 10.0, "seconds": 2.0})
"""


@pytest.mark.parametrize("name", ["lift", "boiler"])
def test_flow_database_and_yardstick_compute_the_same(name: str) -> None:
    assert agreement.disagreement(name, assets=2, windows=3) is None


def test_a_difference_is_told_in_a_sentence() -> None:
    ours = {("boiler-1", 0, "flow"): np.arange(13.0)}
    theirs = {("boiler-1", 0, "flow"): {name: float(i) for i, name in enumerate(STATISTICS)} | {"max": 4.00001}}
    [found] = agreement.differences("DuckDB", ours, theirs)
    assert str(found) == "DuckDB differs: max of flow of boiler-1 in window 0 is 4.00001 there and 4.0 here"


def test_a_window_that_the_other_does_not_have_is_a_difference() -> None:
    assert len(list(agreement.differences("DuckDB", {("b", 0, "flow"): np.ones(13)}, {}))) == 1


@pytest.mark.parametrize("wire", ["arrow", "cbor", "json", "senml"])
def test_every_wire_carries_the_same_readings(wire: str) -> None:
    profile = Profile(equipment_of("lift"), asset_names("lift", 3), message_s=2)
    message = message_of(profile.message(0), wire, "bench")
    decoded = decode(message.wire, message.payload, source="bench")  # type: ignore[arg-type]
    sent = flat(profile.message(0))
    assert decoded.rejected == []
    values = decoded.blocks.column("values").flatten().to_numpy()
    assert len(values) == len(sent.value) == profile.readings(0)
    np.testing.assert_allclose(np.sort(values), np.sort(sent.value), atol=5.1e-5)


def test_messages_follow_each_other_without_a_gap_after_a_thin_history() -> None:
    profile = Profile(equipment_of("boiler"), asset_names("boiler", 2), message_s=5, thin=3)
    begins = [profile.begin_s(number) for number in range(6)]
    assert begins == [0, 10, 20, 30, 35, 40]
    assert profile.readings(0) == 22
    assert profile.readings(4) == 2 * 5 * 10


def test_every_asset_is_in_exactly_one_partition() -> None:
    parts = [asset_names("lift", 100, part=part, parts=2) for part in range(2)]
    assert sorted(parts[0] + parts[1]) == asset_names("lift", 100)


def test_a_competitor_takes_turns() -> None:
    with Competitor(["-c", TURN_TAKER], sys.executable) as one:
        assert one.turn()["readings"] == 10.0
        assert one.turn()["seconds"] == 2.0
        assert one.close()["peak_mb"] > 0


def test_figures_have_the_names_that_were_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = {"readings": 10.0, "seconds": 2.0, "peak_mb": 1.0, "state_bytes": 5.0}

    class Still(Competitor):
        def __init__(self, *_: object) -> None: ...
        def wait_ready(self) -> dict[str, float]:
            return turn

        def begin(self) -> None: ...
        def close_input(self) -> None: ...
        def end(self) -> dict[str, float]:
            return turn | {"begun_s": 0.0, "ended_s": 2.0, "making_s": 0.0}

        close = end

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(throughput, "Competitor", Still)
    monkeypatch.setattr(agreement, "disagreement", lambda name: None)
    file = tmp_path / "figures.json"
    throughput.main(["--runs", "2", "--json", str(file)])
    figures = json.loads(file.read_text())
    assert figures.keys() >= PROMISED
    assert all(isinstance(value, float | int) for value in figures.values())


def test_a_bar_says_whether_it_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    print_bars([Bar("a", "speed", 10.0, "x"), Bar("b", "memory", 4.0, "MB", at_most=True)], {"a": 11.0, "b": 5.0})
    speed, memory = capsys.readouterr().out.splitlines()[-2:]
    assert speed.endswith(" met")
    assert memory.endswith("NOT MET")


def test_every_part_of_scale_has_a_bar_for_what_it_measures(tmp_path: Path) -> None:
    names = {bar.figure for bar in scale.BARS}
    assert {"cost_ratio_100k_to_100_assets", "exposition_100k_ms", "snapshot_overhead_ratio", "resume_s"} <= names
    write_figures(tmp_path / "figures.json", {"resume_s": 1.0})
    assert json.loads((tmp_path / "figures.json").read_text()) == {"resume_s": 1.0}


def test_the_recording_of_a_soak_repeats_without_an_overlap() -> None:
    from benchmarks.soak import Recording, lost

    batch = Profile(equipment_of("boiler"), asset_names("boiler", 2), message_s=5).message(0).batch
    recording = Recording.of([batch], {})
    first, again = (recording.message(number)[0].column("start").view(pa.int64()).to_numpy() for number in (0, 1))
    assert recording.span_us == 60_000_000
    assert (again - first == recording.span_us).all()
    assert lost({"received": 10, "scored": 5, "pending": 3, "late": 1}, 10) == 1
