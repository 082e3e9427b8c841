"""Spectra of a stream: wherever it is cut, the segments are the same, and say what a Fourier transform says."""

from __future__ import annotations

from collections import defaultdict
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.signals import Detection, EquipmentClass, Signal

START_US = 1_700_000_000_000_000
EXAMPLES = settings().max_examples
BANDS = ((1.0, 5.0), (5.0, 15.0), (15.0, 30.0), (30.0, 50.0))


def shaken(window_s: float, lateness_s: float) -> EquipmentClass:
    """Return a class with a vibration at 100 Hz, one at 25 Hz (segments of 64), and a slow signal."""
    return EquipmentClass(
        name="shaken",
        description="",
        window_s=window_s,
        lateness_s=lateness_s,
        idle_after_s=60.0,
        silent_after_s=600.0,
        horizons_s=(),
        signals={
            "quick": Signal(unit="m/s2", range=(-1e3, 1e3), period_s=0.01, description="", bands_hz=BANDS),
            "calm": Signal(
                unit="m/s2", range=(-1e3, 1e3), period_s=0.04, description="", bands_hz=((1.0, 5.0), (5.0, 12.5))
            ),
            "slow": Signal(unit="Cel", range=(-1e3, 1e3), period_s=1.0, description=""),
        },
        detection=Detection(features=("quick.mean",)),
    )


def vibration(draw: Any, rng: Any, count: int, period_s: float) -> Any:
    t = np.arange(count) * period_s
    kind = draw(st.sampled_from(["noise", "tone", "drift", "impacts", "constant", "off"]))
    noise = rng.normal(0, 1, count)
    shapes: dict[str, Any] = {
        "noise": noise,
        "tone": 2.0 * np.sin(2 * np.pi * 0.17 / period_s * t) + 0.01 * noise,
        "drift": 5.0 * t / max(t[-1], 1.0) + 0.1 * noise,
        "impacts": 0.1 * noise + 20.0 * (rng.random(count) < 0.01),
        "constant": np.full(count, 0.3),
        "off": 700.0 + noise,
    }
    return shapes[kind]


@given(data=st.data())
def test_spectra_depend_neither_on_the_cut_nor_on_the_order(
    data: st.DataObject, arrivals: ModuleType, oracle_spectra: ModuleType
) -> None:
    equipment = shaken(data.draw(st.sampled_from([10.0, 3.0])), data.draw(st.sampled_from([1.0, 5.0, 10.0])))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    lateness_us = round(equipment.lateness_s * 1e6)
    window_us = round(equipment.window_s * 1e6)
    blocks: list[Any] = []
    expected: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for signal in ("quick", "calm", "slow"):
        period_us = round(equipment.signals[signal].period_s * 1e6)
        count = data.draw(st.sampled_from([70, 1200, 3000]), label="samples") * 10_000 // period_us + 1
        at = (
            START_US
            + data.draw(st.sampled_from([0, 4_321, 500_000, 987_654]))
            + np.arange(count, dtype=np.int64) * period_us
        )
        values = vibration(data.draw, rng, count, period_us / 1e6)
        kept = rng.random(count) >= data.draw(st.sampled_from([0.0, 0.002, 0.02]), label="missing")
        at, values = at[kept], values[kept]
        longest = data.draw(st.sampled_from([1, 64, 100, 130, 1000]), label="longest block")
        blocks += arrivals.cut(
            rng, "a", signal, at, values, lateness_us, longest, data.draw(st.sampled_from([0.0, 0.2]))
        )
        if equipment.signals[signal].bands_hz:
            n = max(64, 1_000_000 // period_us)
            samples = list(zip(at.tolist(), values.tolist(), strict=True))
            for start, x in oracle_spectra.segments(samples, n, period_us, window_us):
                expected[signal, start].append(x)
    messages = arrivals.arrange(
        rng, blocks, lateness_us, data.draw(st.sampled_from([1, 30, 300])), shuffled=data.draw(st.booleans())
    )
    often = data.draw(st.sampled_from([0.0, 0.3]), label="restarts")
    outcome = arrivals.run(
        equipment, messages, restart=lambda _: rng.random() < often, pickled=data.draw(st.booleans())
    )
    for (_, start), (_, _, features) in outcome.windows.items():
        for name, shaking in equipment.signals.items():
            if not shaking.bands_hz:
                continue
            segments = expected[name, start]
            said = oracle_spectra.features(segments, shaking.period_s, shaking.bands_hz)
            # What rounding leaves of an offset and of the other bands.
            floor = 1e-24 + 1e-28 * max((float(np.sum(x**2)) for x in segments), default=0.0)
            for feature, value in said.items():
                found = float(features[equipment.feature_index[f"{name}.{feature}"]])
                assert np.isnan(found) == np.isnan(value) or feature == "envelope", (name, feature, start, value, found)
                if feature == "envelope":
                    if said[f"band_{shaking.bands_hz[-1][0]:g}_{shaking.bands_hz[-1][1]:g}"] > 1e6 * floor:
                        assert found == pytest.approx(value, rel=1e-9, abs=1e-9), (name, feature, start)
                elif not np.isnan(value):
                    assert found == pytest.approx(value, rel=1e-9, abs=floor), (name, feature, start)


@pytest.mark.parametrize(
    "delay_us",
    [
        0,
        3_000_000,
    ],
)
def test_whole_seconds_say_what_a_fourier_transform_says(
    arrivals: ModuleType, oracle_spectra: ModuleType, delay_us: int
) -> None:
    rng = np.random.default_rng(5)
    equipment = shaken(10.0, 5.0)
    values = rng.normal(0, 1, 4000) + 3.0 * np.sin(np.arange(4000) * 1.3)
    blocks = [
        arrivals.Block("a", "quick", START_US + k * 1_000_000, 10_000, tuple(values[100 * k : 100 * k + 100]))
        for k in range(40)
    ]
    outcome = arrivals.run(equipment, arrivals.arrange(rng, blocks, delay_us, 5))
    for (_, start), (_, _, features) in outcome.windows.items():
        first = (start - START_US) // 1_000_000
        segments = [values[100 * k : 100 * k + 100] for k in range(first, first + 10)]
        for feature, value in oracle_spectra.features(segments, 0.01, BANDS).items():
            assert features[equipment.feature_index[f"quick.{feature}"]] == pytest.approx(value, rel=1e-9), feature
