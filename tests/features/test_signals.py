"""Class files: what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.signals import KINDS, STATISTICS, ClassFileError, load_class, parse_duration_s

GOOD = """
name = "pump"
description = "A pump"
window_s = 10.0
lateness_s = 5.0
idle_after_s = 60.0
silent_after_s = 600.0

[signals.power]
description = "Electric power"
unit = "W"
range = [0.0, 1000.0]
period_s = 1.0

[detection]
features = ["power.mean"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "pump.toml"
    path.write_text(text)
    return path


def test_a_class_needs_a_file_and_no_code(tmp_path: Path) -> None:
    pump = load_class(write(tmp_path, GOOD))
    assert pump.signal_names == ("power",)
    assert [f.name for f in pump.features] == [f"power.{s}" for s in STATISTICS]
    assert pump.failure_horizons_s == (7200.0, 86400.0, 604800.0)
    assert pump.paging_horizon == "7d"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("window_s", "windows"), r"there is no key `windows`: did you mean `window_s`\?"),
        (("period_s = 1.0", 'period_s = "fast"'), r"\$.signals.power.period_s: expected a number, got 'fast'"),
        (
            ("period_s = 1.0", "period_s = 0.0"),
            r"\$.signals.power.period_s: expected a number of at least 1e-06, got 0.0",
        ),
        (("range = [0.0, 1000.0]", "range = [5.0, 1.0]"), r"\$.signals.power.range: the first number must be below"),
        (("power.mean", "power.meen"), r"\$.detection.features: no feature is called 'power.meen'"),
        (("power.mean", "power.mean@running"), r"no condition is called 'running'"),
        (("idle_after_s = 60.0", "idle_after_s = 6.0"), r"\$.idle_after_s: must be at least"),
        (('name = "pump"', 'name = "Pump 1"'), r"a name has small letters"),
        (('name = "pump"', 'name = "pump"\ntime_zone = "Paris"'), r"no IANA time zone is called 'Paris'"),
        (('name = "pump"', 'name = "pump"\nfailure_horizons = ["7d", "2h"]'), r"\$.failure_horizons: must rise"),
        (('name = "pump"', 'name = "pump"\nhorizons_s = [15.0]'), r"15 s is not a whole multiple of 10 s"),
        (('name = "pump"', "name = pump"), r"this is not TOML"),
        (("[detection]", "[states]\nsignal = 'mode'\n[detection]"), r"\$.states.signal: no signal is called 'mode'"),
        (
            ("[detection]", "[cycles.c]\nkind = 'orbit'\nsignals = {}\n[detection]"),
            r"\$.cycles.c.kind: 'orbit' is none of",
        ),
        (
            ("[detection]", "[cycles.c]\nkind = 'difference'\nsignals = {warm='power'}\n[detection]"),
            r"\$.cycles.c.signals: difference needs exactly the roles \['warm', 'cold'\]",
        ),
        (
            (
                "[detection]",
                "[failure_modes.f]\ndescription=''\nadvice=''\nindicators=[{feature='power.mean'}]\n[detection]",
            ),
            r"\$.failure_modes.f.indicators\[0\]: give exactly one of fails_at and fails_by",
        ),
    ],
)
def test_a_wrong_class_file_is_refused_with_its_place(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    path = write(tmp_path, text)
    with pytest.raises(ClassFileError, match=words) as caught:
        load_class(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_class_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(ClassFileError, match=r"give one of boiler, lift"):
        load_class("elevator")
    with pytest.raises(ClassFileError, match="there is no such class file"):
        load_class(tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["lift", "boiler"])
def test_shipped_classes_use_every_kind_of_their_file(name: str) -> None:
    equipment = load_class(name)
    assert all(mode.advice.endswith(".") for mode in equipment.failure_modes.values())
    assert len(equipment.failure_modes) >= 4
    assert len(equipment.features) == len(equipment.feature_index), "names are unique"


def test_every_kind_of_cycle_has_its_own_code() -> None:
    codes = [kind.code for kind in KINDS.values()]
    assert len(set(codes)) == len(codes)
    used = {cycle.kind for name in ("lift", "boiler") for cycle in load_class(name).cycles.values()}
    assert used == set(KINDS)


@pytest.mark.parametrize("text", ["", "7", "d7", "7 d", "-1h", "1w"])
def test_a_duration_needs_number_and_unit(text: str) -> None:
    with pytest.raises(ValueError, match="a duration is a number with"):
        parse_duration_s(text)


def test_one_signal_may_play_two_roles(tmp_path: Path) -> None:
    import numpy as np

    from features.windows import ShardBatch, ShardWindows

    cycle = "[cycles.c]\nkind = 'difference'\nsignals = {warm='power', cold='power'}\n[detection]"
    shard = ShardWindows(load_class(write(tmp_path, GOOD.replace("[detection]", cycle).replace("= 1.0", "= 0.05"))))
    n = 5000
    none, ones, times = np.zeros(n, np.int32), np.ones(n, np.int64), np.arange(n) * 50_000
    values = np.full(n, 7.0)
    step = shard.push(
        ShardBatch(["a"], ["power"], none, none, times, 0 * ones, np.arange(n), ones, times, values, "test")
    )
    closed = np.concatenate([c.features for c in step.closed])
    assert (closed[:, shard.equipment.feature_index["c.mean"]] == 0.0).all()


@pytest.mark.parametrize(
    "change",
    [
        ("window_s = 10.0", "window_s = 1e12"),
        ("window_s = 10.0", "window_s = inf"),
        ("lateness_s = 5.0", "lateness_s = 86000.0"),
        ("idle_after_s = 60.0", "idle_after_s = inf"),
        ("period_s = 1.0", "period_s = 1e-300"),
    ],
)
def test_values_that_no_machine_could_hold_are_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    with pytest.raises(ClassFileError):
        load_class(write(tmp_path, text))
