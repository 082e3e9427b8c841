"""Credits: what is under way is never less than nothing, and processes share one account."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cluster import Place
from flows.credits import Credits, new_account


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1000)), max_size=60))
def test_what_is_under_way_is_what_was_sent_and_not_taken(moves: list[tuple[int, int, int]]) -> None:
    """Each move sends a batch, then another process takes the oldest batch of somebody."""
    shared = Credits(0, 3)
    accounts = [shared, Credits(1, 3), Credits(2, 3)]
    for account in accounts:
        account._account = shared._account
    under_way: list[list[int]] = [[], [], []]
    for sender, taker, nbytes in moves:
        accounts[sender].spend(nbytes)
        under_way[sender].append(nbytes)
        if under_way[taker] and nbytes % 2:
            accounts[sender].give_back(taker, under_way[taker].pop(0))
        for account, left in zip(accounts, under_way, strict=True):
            assert account.under_way == sum(left) >= 0
            assert account.free() == (sum(left) < account.limit_bytes)


def test_an_input_may_read_on_once_the_run_stops() -> None:
    stop = threading.Event()
    credits = Credits(limit_bytes=10, stop=stop)
    credits.spend(10)
    assert not credits.free()
    stop.set()
    assert credits.free()


TAKER = """
import sys
from pathlib import Path
from flows.credits import Credits
credits = Credits(1, 2, Path(sys.argv[1]))
print(credits.under_way, flush=True)
for line in sys.stdin:
    credits.give_back(0, int(line))
    credits.spend(7)
    print(credits.under_way, flush=True)
"""


def test_two_processes_share_the_account(tmp_path: Path) -> None:
    path = tmp_path / "credits"
    new_account(path, 2)
    credits = Credits(0, 2, path, limit_bytes=100)
    with subprocess.Popen(
        [sys.executable, "-c", TAKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "0\n"
        credits.spend(150)
        assert not credits.free()
        other.stdin.write("100\n")
        other.stdin.flush()
        assert other.stdout.readline() == "7\n"
        assert credits.free() and credits.under_way == 50
        credits.give_back(1, 7)
        other.stdin.write("50\n")
        other.stdin.flush()
        assert other.stdout.readline() == "7\n"
        assert credits.under_way == 0
    new_account(path, 2)
    assert Credits(0, 2, path).under_way == Credits(1, 2, path).under_way == 0


@pytest.mark.parametrize(
    ("place", "shares"),
    [
        (Place(), False),
        (Place(0, ("a:1",), Path("x")), False),
        (Place(0, ("a:1", "b:1")), False),
        (Place(1, ("a:1", "b:1"), Path("x")), True),
    ],
)
def test_only_processes_of_one_host_share_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place, shares: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    new_account(tmp_path / "x", 2)
    credits = place.credits(threading.Event())
    assert (credits is not None) == shares
    if credits is not None:
        assert credits.process == 1


def test_a_process_reads_the_partitions_of_its_shards() -> None:
    places = [Place(n, ("a:1", "b:1", "c:1")) for n in range(3)]
    assert [[n for n in range(7) if place.mine(n)] for place in places] == [[0, 3, 6], [1, 4], [2, 5]]
