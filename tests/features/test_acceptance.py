"""The memory of accepted times against a plain set."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.acceptance import NONE, accept_run, before, expand, forget, insert, is_accepted, new_pool, newest

actions = st.lists(
    st.one_of(
        st.tuples(st.just("sample"), st.integers(0, 60), st.just(0), st.just(1)),
        st.tuples(st.just("run"), st.integers(0, 60), st.integers(1, 7), st.integers(1, 9)),
        st.tuples(st.just("forget"), st.integers(0, 120), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(actions)
@settings(max_examples=300, deadline=None)
def test_a_time_is_remembered_until_it_is_forgotten(actions: list[tuple[str, int, int, int]]) -> None:
    run, pool, head = np.zeros(3, np.int64), new_pool(4), NONE
    accepted: set[int] = set()
    forgotten = -1
    for action, time, step, count in actions:
        if pool.free[1] < 2:
            pool = new_pool(2 * len(pool.first), pool)
        if action == "sample":
            if time >= forgotten and not is_accepted(run, pool, head, time):
                head = insert(run, pool, head, time)
                accepted.add(time)
        elif action == "run":
            first = max(time, forgotten, newest(run) + 1)
            head = accept_run(run, pool, head, first, step if count > 1 else 0, count)
            accepted |= {first + i * step for i in range(count)}
        else:
            forgotten = max(forgotten, time)
            head = forget(run, pool, head, forgotten)
        remembered = sorted(t for t in accepted if t >= forgotten)
        assert not remembered or newest(run) == max(accepted)
        for t in range(130):
            if t >= forgotten:
                assert is_accepted(run, pool, head, t) == (t in remembered)
                assert before(run, pool, head, max(0, forgotten), t) == sum(r < t for r in remembered)
        times = np.empty(600, np.int64)
        found = expand(run, pool, head, max(0, forgotten), 100, times)
        assert times[:found].tolist() == [r for r in remembered if r < 100]
    head = forget(run, pool, head, 10**6)
    assert head == NONE and run[2] == 0
    assert pool.free[1] == len(pool.first), "no node is lost"


def test_a_regular_stream_is_one_run() -> None:
    run, pool, head = np.zeros(3, np.int64), new_pool(4), NONE
    for block in range(1000):
        head = accept_run(run, pool, head, block * 1_000_000, 10_000, 100)
    assert pool.free[1] == 4, "it takes no node"
    assert is_accepted(run, pool, head, 999_990_000)
    assert not is_accepted(run, pool, head, 999_995_000)
