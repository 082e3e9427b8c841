"""The clock of an input partition: it only rises, and a wrong clock does not move it."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from features.telemetry import BLOCKS
from flows.clock import LEAP_US, NEVER, arrival_clock

START_US = 1_700_000_000_000_000


def blocks(rows: list[tuple[int, int, int]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [{"asset": "l", "signal": "s", "start": t, "period_us": p, "values": [1.0] * n} for t, p, n in rows],
        schema=BLOCKS,
    )


def test_a_block_counts_to_its_last_sample() -> None:
    assert arrival_clock(blocks([(100, 10, 5), (90, 0, 1)]), NEVER).tolist() == [140, 140]
    assert arrival_clock(blocks([(100, 10, 0)]), NEVER).tolist() == [100]


def test_one_reading_far_ahead_of_the_rest_moves_nobodys_clock() -> None:
    rows = [(START_US + n * 1_000_000, 0, 1) for n in range(20)]
    rows.insert(5, (START_US + 400 * LEAP_US, 0, 1))
    assert int(arrival_clock(blocks(rows), NEVER)[-1]) == START_US + 19_000_000


def test_a_message_that_is_ahead_as_a_whole_moves_the_clock() -> None:
    later = START_US + 30 * LEAP_US
    assert arrival_clock(blocks([(later, 0, 1)]), START_US).tolist() == [later]


def test_a_message_without_blocks_leaves_no_clock() -> None:
    assert arrival_clock(blocks([]), START_US).tolist() == []


def test_an_end_beyond_the_numbers_counts_as_none() -> None:
    assert arrival_clock(blocks([(2**62, 2**61, 8), (5, 0, 1)]), 3).tolist() == [3, 5]


@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**5), st.integers(1, 4)), max_size=30),
    st.integers(-1, 10**7),
    st.integers(0, 10**7),
    st.integers(0, 30),
)
@settings(max_examples=200, deadline=None)
def test_it_rises_stays_below_the_limit_and_does_not_mind_where_messages_end(
    rows: list[tuple[int, int, int]], before_us: int, limit_us: int, cut: int
) -> None:
    clock = arrival_clock(blocks(rows), before_us, limit_us)
    assert len(clock) == len(rows)
    expected = before_us
    for now, (start, period, count) in zip(clock.tolist(), rows, strict=True):
        end = start + (count - 1) * period
        expected = max(expected, end if end <= limit_us else NEVER)
        assert now == expected
    first = arrival_clock(blocks(rows[:cut]), before_us, limit_us)
    between = int(first[-1]) if len(first) else before_us
    rest = arrival_clock(blocks(rows[cut:]), between, limit_us)
    assert [*first.tolist(), *rest.tolist()] == clock.tolist()
