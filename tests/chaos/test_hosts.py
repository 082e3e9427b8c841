"""Two hosts, each with a network of its own, one of which is cut off from the other and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HOSTS = ("vigie-test-0", "vigie-test-1")
ADDRESSES = ("10.213.7.1", "10.213.7.2")
PATIENCE_S = 180.0


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@pytest.fixture
def hosts(program: Callable[[str], str]) -> Iterator[None]:
    program("ip")
    for host in HOSTS:
        ip("netns", "del", host, check=False)
    for host in HOSTS:
        ip("netns", "add", host)
    ip("link", "add", "vigie0", "netns", HOSTS[0], "type", "veth", "peer", "name", "vigie1", "netns", HOSTS[1])
    for number, (host, address) in enumerate(zip(HOSTS, ADDRESSES, strict=True)):
        ip("-n", host, "addr", "add", f"{address}/24", "dev", f"vigie{number}")
        ip("-n", host, "link", "set", f"vigie{number}", "up")
        ip("-n", host, "link", "set", "lo", "up")
    yield
    for host in HOSTS:
        ip("netns", "del", host, check=False)


def started(folder: Path, number: int) -> subprocess.Popen[bytes]:
    command = ["ip", "netns", "exec", HOSTS[number], sys.executable, "-m", "vigie", "run", "site.toml"]
    command += ["--recovery", "state", "--snapshot-interval", "1", "--process", str(number)]
    for address in ADDRESSES:
        command += ["--address", f"{address}:2101"]
    with (folder / f"log-{number}").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


@pytest.mark.full
@pytest.mark.timeout(420)
def test_a_host_that_is_cut_off_and_comes_back_changes_nothing(hosts: None, run: Callable[..., Any]) -> None:
    calm = run("calm", speed=5 * 86_400 / 20)
    calm.start()
    cut = run("cut", speed=5 * 86_400 / 20)

    def logs() -> str:
        return "\n".join((cut.folder / f"log-{number}").read_text() for number in range(2))

    def until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, logs()
            time.sleep(0.05)

    processes = [started(cut.folder, number) for number in range(2)]
    try:
        # Some of the run is done, and its snapshots are there.
        until(lambda: len(list((cut.folder / "archive").rglob("*.parquet"))) > 20)
        ip("-n", HOSTS[1], "link", "set", "vigie1", "down")
        until(lambda: logs().count("nothing is heard of process") == 2)
        ip("-n", HOSTS[1], "link", "set", "vigie1", "up")
        for process in processes:
            assert process.wait(PATIENCE_S) == 0, logs()
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    calm.finish()
    expected, tables = calm.tables(), cut.tables()
    assert {name: len(rows) for name, rows in tables.items()} == {name: len(rows) for name, rows in expected.items()}
    for name, rows in expected.items():
        assert tables[name].equals(rows), f"the table {name} differs"
    assert cut.metrics() == calm.metrics()
