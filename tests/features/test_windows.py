"""The window engine against an oracle that keeps every sample and computes each window from scratch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.signals import STATISTICS, Detection, EquipmentClass, Signal
from features.telemetry import Reason
from features.windows import NO_LIMIT, ClosedWindows, ShardBatch, ShardWindows, Step

START = 1_700_000_000_000_000


def machine(lateness_s: float = 5.0) -> EquipmentClass:
    signals = {
        "fast": Signal(unit="1", range=(-1e9, 1e9), period_s=0.1, description=""),
        "slow": Signal(unit="1", range=(-1e9, 1e9), period_s=1.0, description=""),
    }
    return EquipmentClass(
        name="machine",
        description="",
        window_s=10.0,
        lateness_s=lateness_s,
        signals=signals,
        detection=Detection(features=("fast.mean",)),
        horizons_s=(60.0, 600.0),
        idle_after_s=60.0,
        silent_after_s=600.0,
    )


Block = tuple[str, str, int, int, list[float]]


def batch(blocks: list[Block], limit_us: int = NO_LIMIT, clock: int | None = None) -> ShardBatch:
    assets = sorted({b[0] for b in blocks})
    signals = ["nobody", "slow", "fast"]
    count = np.array([len(b[4]) for b in blocks], np.int64)
    start = np.array([b[2] for b in blocks], np.int64)
    period = np.array([b[3] for b in blocks], np.int64)
    end = np.maximum.accumulate(start + (count - 1) * period)
    return ShardBatch(
        assets,
        signals,
        np.array([assets.index(b[0]) for b in blocks], np.int32),
        np.array([signals.index(b[1]) for b in blocks], np.int32),
        start,
        period,
        np.concatenate(([0], np.cumsum(count)[:-1])).astype(np.int64),
        count,
        end if clock is None else np.full(len(blocks), clock),
        np.array([v for b in blocks for v in b[4]], np.float64),
        "test",
        limit_us,
    )


def rows(steps: list[Step]) -> dict[tuple[str, int], tuple[int, NDArray[np.float64]]]:
    found: dict[tuple[str, int], tuple[int, NDArray[np.float64]]] = {}
    for step in steps:
        for closed in step.closed:
            found |= by_window(closed)
    return found


def by_window(closed: ClosedWindows) -> dict[tuple[str, int], tuple[int, NDArray[np.float64]]]:
    found = {}
    for i, row in enumerate(closed.rows.tolist()):
        key = closed.names[row], int(closed.start_us[i])
        assert key not in found
        found[key] = int(closed.samples[i]), closed.features[i]
    return found


def oracle(times_us: NDArray[np.int64], values: NDArray[np.float64], start_us: int) -> dict[str, float]:
    """Statistics of one window with plain numpy, from definitions."""
    order = np.argsort(times_us)
    t, x = (times_us[order] - start_us) / 1e6, values[order]
    deviation = x - x.mean()
    variance = np.mean(deviation**2)
    rms = np.sqrt(np.mean(x**2))
    constant = x.max() == x.min()
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "count": len(x),
            "mean": x.mean(),
            "std": 0.0 if constant else np.sqrt(variance),
            "min": x.min(),
            "max": x.max(),
            "peak_to_peak": x.max() - x.min(),
            "rms": rms,
            "crest": np.abs(x).max() / rms if rms > 0 else np.nan,
            "skewness": np.nan if constant else np.mean(deviation**3) / variance**1.5,
            "kurtosis": np.nan if constant else np.mean(deviation**4) / variance**2 - 3.0,
            "slope": np.sum((t - t.mean()) * deviation) / np.sum((t - t.mean()) ** 2) if len(x) > 1 else np.nan,
            "first": x[0],
            "last": x[-1],
        }


samples = st.dictionaries(
    st.integers(0, 600),  # position on a grid of 50 ms: half a minute
    st.floats(-1e6, 1e6).map(lambda v: round(v, 3)),
    min_size=1,
    max_size=120,
)


@given(samples, st.floats(-1e8, 1e8).map(round), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_statistics_equal_the_oracle(points: dict[int, float], offset: float, random: object) -> None:
    shard = ShardWindows(machine(lateness_s=40.0))
    placed = {START + k * 50_000: v + offset for k, v in points.items()}
    order = list(placed)
    random.shuffle(order)  # type: ignore[attr-defined]
    steps = [shard.push(batch([("a", "fast", t, 0, [placed[t]])])) for t in order]
    found = rows([*steps, shard.flush()])
    assert sum(n for n, _ in found.values()) == len(points)
    for (_, start), (n, features) in found.items():
        times = np.array([t for t in placed if start <= t < start + 10_000_000], np.int64)
        values = np.array([placed[t] for t in times.tolist()])
        expected = oracle(times, values, start)
        assert n == len(times)
        scale = max(1.0, float(np.abs(values).max()))
        for column, name in enumerate(STATISTICS):
            got = features[column]
            if name in ("count", "min", "max", "first", "last"):
                assert got == expected[name]
            elif name in ("skewness", "kurtosis"):
                # Ratios of moments: as exact as the spread is against the offset.
                spread = expected["std"]
                if spread > 1e-6 * scale:
                    assert got == pytest.approx(expected[name], rel=1e-5, abs=1e-5)
            else:
                assert got == pytest.approx(expected[name], rel=1e-9, abs=1e-9 * scale, nan_ok=True), name


def stream(seconds: int, seed: int = 0, assets: int = 2) -> list[Block]:
    """Regular blocks of a second with a hole and a NaN in them."""
    rng = np.random.default_rng(seed)
    blocks: list[Block] = []
    for second in range(seconds):
        for asset in range(assets):
            if second in (7, 8) and asset == 0:
                continue
            values = rng.normal(20.0, 2.0, 10)
            if second == 11:
                values[3] = np.nan
            start = START + second * 1_000_000 + asset * 1234
            blocks.append((f"a{asset}", "fast", start, 100_000, values.tolist()))
            blocks.append((f"a{asset}", "slow", start, 0, [float(second)]))
    return blocks


@given(st.randoms(use_true_random=False), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_order_within_the_lateness_and_splits_change_nothing(random: object, pieces: int) -> None:
    blocks = stream(47)
    reference = ShardWindows(machine(lateness_s=15.0))
    expected = rows([reference.push(batch(blocks)), reference.flush()])
    # Every block moves by less than the lateness.
    jitter = {i: blocks[i][2] + random.uniform(0, 13e6) for i in range(len(blocks))}  # type: ignore[attr-defined]
    shuffled = [blocks[i] for i in sorted(jitter, key=jitter.__getitem__)]
    cut = [shuffled[i::1][:pieces] for i in range(0, len(shuffled), pieces)]
    shard = ShardWindows(machine(lateness_s=15.0))
    steps = [shard.push(batch(part)) for part in cut]
    found = rows([*steps, shard.flush()])
    assert not any(step.rejected for step in steps)
    assert found.keys() == expected.keys()
    exact = [i for i, name in enumerate(STATISTICS) if name in ("count", "min", "max", "first", "last")]
    for key, (n, features) in found.items():
        assert n == expected[key][0]
        np.testing.assert_array_equal(features[exact], expected[key][1][exact])
        np.testing.assert_allclose(features[:26], expected[key][1][:26], rtol=1e-9, atol=1e-9)


def test_the_cut_into_batches_changes_nothing_but_the_last_bits() -> None:
    blocks = stream(47)
    results = []
    for size in (1, 7, len(blocks)):
        shard = ShardWindows(machine(lateness_s=5.0))
        steps = [shard.push(batch(blocks[i : i + size])) for i in range(0, len(blocks), size)]
        results.append(rows([*steps, shard.flush()]))
    for other in results[1:]:
        assert other.keys() == results[0].keys()
        for key in other:
            np.testing.assert_allclose(other[key][1], results[0][key][1], rtol=1e-12, atol=1e-15)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(["fast", "slow", "nobody"]),
            st.integers(-50, 400),
            st.sampled_from([0, 50_000, 100_000, 300_000, -5]),
            st.lists(
                st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=12
            ),
        ),
        max_size=40,
    )
)
@settings(max_examples=150, deadline=None)
def test_every_reading_is_accepted_or_rejected(drawn: list[tuple[str, str, int, int, list[float]]]) -> None:
    shard = ShardWindows(machine())
    received = accepted = rejected = scored = 0
    for asset, signal, position, period, values in drawn:
        step = shard.push(batch([(asset, signal, START + position * 100_000, period, values)], START + 30_000_000))
        received += sum(1 for v in values if v == v)
        accepted += step.accepted
        rejected += sum(r.readings for r in step.rejected)
        scored += sum(int(c.samples.sum()) for c in step.closed)
        assert received == accepted + rejected
        assert accepted == scored + shard.pending
    scored += sum(int(c.samples.sum()) for c in shard.flush().closed)
    assert accepted == scored
    assert shard.pending == 0


def reasons(step: Step) -> dict[Reason, int]:
    found: dict[Reason, int] = {}
    for r in step.rejected:
        found[r.reason] = found.get(r.reason, 0) + r.readings
    return found


def test_a_sample_that_was_accepted_is_a_duplicate_and_the_first_wins() -> None:
    shard = ShardWindows(machine())
    shard.push(batch([("a", "fast", START, 100_000, [1.0, 2.0, 3.0])]))
    step = shard.push(batch([("a", "fast", START + 100_000, 100_000, [9.0, 9.0, 4.0])]))
    assert reasons(step) == {Reason.DUPLICATE: 2}
    assert step.accepted == 1
    [(_, features)] = rows([shard.flush()]).values()
    assert features[: len(STATISTICS)][STATISTICS.index("mean")] == pytest.approx(2.5)


def test_what_comes_after_its_window_is_late() -> None:
    shard = ShardWindows(machine())
    shard.push(batch([("a", "fast", START, 0, [1.0])]))
    step = shard.push(batch([("a", "fast", START + 15_000_000, 0, [1.0])]))
    assert [int(c.samples.sum()) for c in step.closed] == [1]
    assert reasons(shard.push(batch([("a", "fast", START + 9_000_000, 0, [1.0])]))) == {Reason.LATE: 1}
    assert reasons(shard.push(batch([("b", "fast", START + 9_000_000, 0, [1.0])]))) == {}


@pytest.mark.parametrize(
    ("value", "time", "reason"),
    [
        (1e10, START, Reason.OUT_OF_RANGE),
        (np.inf, START, Reason.OUT_OF_RANGE),
        (1.0, START + 61_000_000, Reason.FUTURE),
        (1.0, -5, Reason.BAD_TIME),
        (1.0, 2**62, Reason.BAD_TIME),
    ],
)
def test_reasons(value: float, time: int, reason: Reason) -> None:
    shard = ShardWindows(machine())
    step = shard.push(batch([("a", "fast", time, 0, [value])], limit_us=START + 60_000_000))
    assert reasons(step) == {reason: 1}
    assert b'"asset": "a"' in step.rejected[0].raw


def test_more_samples_than_the_cadence_allows_are_rejected() -> None:
    shard = ShardWindows(machine())
    step = shard.push(batch([("a", "slow", START, 1000, [1.0] * 1000)]))
    assert reasons(step)[Reason.OVERRATE] == 1000 - step.accepted
    assert 0 < step.accepted < 100


def test_silence_in_the_event_time_of_the_partition_closes_windows() -> None:
    shard = ShardWindows(machine())
    shard.push(batch([("a", "fast", START, 0, [1.0])]))
    assert shard.tick("test", START + 59_000_000).closed == []
    assert shard.tick("elsewhere", START + 500_000_000).closed == []
    [closed] = shard.tick("test", START + 61_000_000).closed
    assert closed.samples.tolist() == [1]
    assert shard.tick("test", START + 599_000_000).silence is None
    silence = shard.tick("test", START + 601_000_000).silence
    assert silence is not None
    assert silence.since_us.tolist() == [START]
    assert shard.tick("test", START + 700_000_000).silence is None, "it is told once"


def test_a_backlog_after_silence_is_not_late() -> None:
    shard = ShardWindows(machine())
    shard.push(batch([("a", "fast", START, 0, [1.0])]))
    shard.tick("test", START + 3_600_000_000)
    blocks: list[Block] = [("a", "fast", START + 60_000_000 + k * 1_000_000, 0, [1.0]) for k in range(100)]
    step = shard.push(batch(blocks, clock=START + 3_600_000_000))
    assert step.accepted == 100


def test_horizons_are_the_merge_of_their_windows() -> None:
    shard = ShardWindows(machine())
    blocks = stream(700, assets=1)
    steps = [shard.push(batch(blocks)), shard.flush()]
    base = rows(steps)
    values = np.array([v for b in blocks if b[1] == "fast" for v in b[4]])
    times = np.array([b[2] + i * 100_000 for b in blocks if b[1] == "fast" for i in range(10)])
    for length_s in (60.0, 600.0):
        found = {k: v for step in steps for c in step.horizons[length_s] for k, v in by_window(c).items()}
        assert sum(n for n, _ in found.values()) == sum(n for n, _ in base.values())
        for (_, start), (_, features) in found.items():
            inside = (times >= start) & (times < start + int(length_s * 1e6)) & ~np.isnan(values)
            expected = oracle(times[inside], values[inside], start)
            got = dict(zip(STATISTICS, features[:13].tolist(), strict=True))
            for name in STATISTICS:
                assert got[name] == pytest.approx(expected[name], rel=1e-8, abs=1e-9), (length_s, name)


def test_state_round_trip_in_the_middle_changes_nothing() -> None:
    blocks = stream(60)
    whole = ShardWindows(machine())
    expected = rows([whole.push(batch(blocks[:61])), whole.push(batch(blocks[61:])), whole.flush()])
    first = ShardWindows(machine())
    steps = [first.push(batch(blocks[:61]))]
    second = ShardWindows(machine())
    second.load(first.state())
    steps += [second.push(batch(blocks[61:])), second.flush()]
    found = rows(steps)
    assert found.keys() == expected.keys()
    for key in found:
        np.testing.assert_array_equal(found[key][1], expected[key][1])


def test_a_state_of_another_version_is_refused() -> None:
    shard = ShardWindows(machine())
    with pytest.raises(ValueError, match="version"):
        shard.load({"version": 99})


def test_a_pickled_batch_carries_only_its_own_samples() -> None:
    import pickle

    whole = batch(stream(30))
    part = ShardBatch(
        whole.assets, whole.signals, whole.asset[:2], whole.signal[:2], whole.start[:2], whole.period[:2],
        whole.first[4:6], whole.count[4:6], whole.clock[:2], whole.values, whole.source,
    )  # fmt: skip
    copy = pickle.loads(pickle.dumps(part))
    assert len(copy.values) == int(part.count.sum())
    for i in range(2):
        a, n = part.first[i], part.count[i]
        b = copy.first[i]
        np.testing.assert_array_equal(copy.values[b : b + n], whole.values[a : a + n])


def test_silence_in_one_signal_does_not_hold_the_others() -> None:
    shard = ShardWindows(machine())
    blocks: list[Block] = [("a", "slow", START + k * 1_000_000, 0, [1.0]) for k in range(40)]
    step = shard.push(batch(blocks))
    assert sum(len(c.rows) for c in step.closed) == 3


def test_long_blocks_of_several_signals_make_nothing_late() -> None:
    shard = ShardWindows(machine())
    values = [float(i) for i in range(60)]
    blocks: list[Block] = []
    for minute in range(3):
        start = START + minute * 60_000_000 + 3_456_789
        blocks += [("a", "slow", start, 1_000_000, values), ("a", "fast", start, 1_000_000, values)]
    step = shard.push(batch(blocks))
    assert step.rejected == []
    found = rows([step, shard.flush()])
    assert sum(n for n, _ in found.values()) == 360
    column = STATISTICS.index("mean")
    for _, features in found.values():
        assert features[column] == features[len(STATISTICS) + column], "both signals, cut alike"


def test_a_block_whose_samples_lie_further_apart_than_windows_costs_no_more_than_its_samples() -> None:
    shard = ShardWindows(machine())
    year_us = 31_536_000_000_000
    step = shard.push(batch([("a", "slow", START - 40 * year_us, year_us, [1.0] * 100)]))
    assert step.accepted + sum(r.readings for r in step.rejected) == 100
    assert step.accepted >= 60


def test_a_block_of_very_many_samples_is_taken_in_bounded_room() -> None:
    shard = ShardWindows(machine())
    step = shard.push(batch([("a", "fast", START, 1, [1.0] * 300_000)]))
    assert step.accepted + sum(r.readings for r in step.rejected) == 300_000
    assert shard.nbytes < 1_000_000
