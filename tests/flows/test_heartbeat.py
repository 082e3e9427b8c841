"""Hosts that tell each other that they live and what they took, on loopback and with a clock of the test's."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flows.credits import Credits
from flows.supervise import BEAT_S, SILENT_S, Heartbeat, Supervisor, free_ports


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


class Hosts:
    """Three hosts, each with its copy of the account, under one clock that goes on only when it is told to."""

    def __init__(self, folder: Path, held: ExitStack) -> None:
        self.now = 100.0
        self.addresses = [("127.0.0.1", port) for port in free_ports(3)]
        self._folder, self._held = folder, held

    def account(self, number: int) -> Path:
        return self._folder / f"account-{number}"

    def starts(self, number: int) -> Heartbeat:
        one = Heartbeat(number, self.addresses, self.account(number), lambda: self.now)
        self._held.callback(one.close)
        one.renew()
        return one

    def beat(self) -> None:
        self.now += BEAT_S


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with ExitStack() as held:
        yield Hosts(tmp_path, held)


def hears(one: Heartbeat, number: int, at: float) -> bool:
    return one._heard.get(number) == at


def test_who_falls_silent_is_noticed(hosts: Hosts) -> None:
    here, there = hosts.starts(0), hosts.starts(1)
    assert here.silent == [], "nobody is silent who never spoke"
    hosts.beat()
    until(lambda: hears(here, 1, hosts.now))
    hosts.now += SILENT_S
    until(lambda: hears(here, 1, hosts.now))
    there.close()
    hosts.now += SILENT_S
    assert here.silent == [], "just in time"
    hosts.now += 0.5
    assert here.silent == [1]
    here.renew()
    assert here.silent == [], "a new run waits for every host anew"
    hosts.starts(1)
    hosts.beat()
    until(lambda: hears(here, 1, hosts.now))


def test_what_one_host_has_taken_the_others_know(hosts: Hosts) -> None:
    here, there = hosts.starts(0), hosts.starts(1)
    sender, taker = (Credits(number, 3, hosts.account(number), limit_bytes=100) for number in (0, 1))
    sender.spend(150)
    assert not sender.free()
    taker.give_back(0, 150)
    hosts.beat()
    until(lambda: sender.under_way == 0)
    assert sender.free() and taker.under_way == 0
    here.renew()
    there.renew()
    assert [Credits(number, 3, hosts.account(number)).under_way for number in (0, 1)] == [0, 0]


def test_strangers_are_not_heard(hosts: Hosts) -> None:
    here = hosts.starts(0)
    hosts.addresses[2] = ("127.0.0.1", free_ports(1)[0])
    hosts.starts(2)
    hosts.starts(1)
    hosts.beat()
    until(lambda: hears(here, 1, hosts.now))
    assert list(here._heard) == [1]


def test_a_run_is_stopped_when_a_host_is_cut_off(hosts: Hosts) -> None:
    here, there, stop = hosts.starts(0), hosts.starts(1), threading.Event()
    said: list[str] = []
    waits = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    supervisor = Supervisor([(waits, "")], stop, said=said.append, heartbeat=here, clock=lambda: hosts.now)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        until(lambda: supervisor.up == [True])
        hosts.beat()
        until(lambda: hears(here, 1, hosts.now))
        there.close()
        hosts.now += SILENT_S + 1
        until(lambda: said != [])
    finally:
        stop.set()
        thread.join()
    assert "nothing is heard of" in said[0] and said[0].endswith("every process starts again in 1 s")
    assert supervisor.up == [False]
