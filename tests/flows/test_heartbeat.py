"""Hosts that tell each other that they live, on loopback and with a clock of the test's."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from flows.supervise import BEAT_S, SILENT_S, Heartbeat, Supervisor, free_ports


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


class Clock:
    """Goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def addresses() -> list[tuple[str, int]]:
    return [("127.0.0.1", port) for port in free_ports(3)]


@pytest.fixture
def opened() -> Iterator[Callable[..., Heartbeat]]:
    with ExitStack() as held:

        def make(*arguments: object) -> Heartbeat:
            one = Heartbeat(*arguments)  # type: ignore[arg-type]
            held.callback(one.close)
            return one

        yield make


def name(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def test_who_falls_silent_is_noticed(addresses: list[tuple[str, int]], opened: Callable[..., Heartbeat]) -> None:
    one, two, three = addresses
    clock = Clock()
    here = opened(one, [two, three], clock)
    assert here.silent == [] and here.missing == sorted(map(name, (two, three))), "nobody is silent who never spoke"
    there = Heartbeat(two, [one], clock)
    until(lambda: here.missing == [name(three)])
    clock.now += SILENT_S
    until(lambda: here._heard[two] == clock.now)
    assert here.silent == []
    there.close()
    clock.now += SILENT_S
    assert here.silent == [], "just in time"
    clock.now += 0.5
    assert here.silent == [name(two)] and here.missing == sorted(map(name, (two, three)))
    here.forget()
    assert here.silent == [], "a new run waits for every host anew"
    back = opened(two, [one], clock)
    until(lambda: here.missing == [name(three)])
    assert back.silent == []


def test_a_beat_a_second(addresses: list[tuple[str, int]], opened: Callable[..., Heartbeat]) -> None:
    one, two, _ = addresses
    clock = Clock()
    here = opened(one, [two], clock)
    there = opened(two, [one], clock)
    until(lambda: here._heard.get(two) == 100.0 and there._heard.get(one) == 100.0)
    clock.now += BEAT_S
    until(lambda: here._heard[two] == there._heard[one] == 101.0)


def test_strangers_are_not_heard(addresses: list[tuple[str, int]], opened: Callable[..., Heartbeat]) -> None:
    one, two, three = addresses
    here = opened(one, [two], Clock())
    opened(three, [one], Clock())
    opened(two, [one], Clock())
    until(lambda: here.missing == [])
    assert list(here._heard) == [two]


def test_a_run_is_stopped_when_a_host_is_cut_off(
    addresses: list[tuple[str, int]], opened: Callable[..., Heartbeat]
) -> None:
    one, two, _ = addresses
    clock, stop = Clock(), threading.Event()
    said: list[str] = []
    heartbeat = opened(one, [two], clock)
    there = Heartbeat(two, [one], clock)
    waits = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    supervisor = Supervisor([(waits, "")], stop, said=said.append, heartbeat=heartbeat, clock=clock)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        until(lambda: supervisor.up == [True])
        clock.now += BEAT_S
        until(lambda: heartbeat.missing == [])
        there.close()
        clock.now += SILENT_S + 1
        until(lambda: said != [])
    finally:
        stop.set()
        thread.join()
    assert said == [
        f"nothing is heard of {name(two)} any more: the run was stopped after 12 s; every process starts again in 1 s"
    ]
    assert supervisor.up == [False]
