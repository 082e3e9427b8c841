"""Queues on pages against plain lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.acceptance import NONE
from features.queues import PAGE, drop, extend, insert, new_pages, pages_for, read

steps = st.lists(
    st.tuples(st.sampled_from(["extend", "insert", "drop"]), st.integers(0, 1), st.integers(0, 70)), max_size=40
)


@given(steps)
@settings(max_examples=200, deadline=None)
def test_queues_keep_their_order_and_no_page_is_lost(steps: list[tuple[str, int, int]]) -> None:
    pages = new_pages(0)
    head, tail, count = np.full(2, NONE, np.int32), np.full(2, NONE, np.int32), np.zeros(2, np.int32)
    queues: list[list[float]] = [[], []]
    value = 0.0
    for action, q, number in steps:
        if pages.free[1] < 6:
            pages = new_pages(len(pages.following) + 6, pages)
        if action == "extend":
            new = np.arange(number, dtype=np.float64) + value
            assert pages_for(count[q], number) <= 6
            extend(pages, head, tail, count, q, new)
            queues[q] += new.tolist()
        elif action == "insert":
            place = min(number, len(queues[q]))
            insert(pages, head, tail, count, q, place, value)
            queues[q].insert(place, value)
        else:
            first = min(number, len(queues[q]))
            drop(pages, head, tail, count, q, first)
            del queues[q][:first]
        value += number + 1.0
        for i in range(2):
            out = np.empty(count[i], np.float32)
            read(pages, head[i], count[i], out)
            assert out.tolist() == queues[i]
        used = sum(-(-len(some) // PAGE) for some in queues)
        assert pages.free[1] == len(pages.following) - used
