"""Stops, restarts with another number of processes, and a second run on the same store."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

SPEED = 5 * 86_400 / 12
DRAIN_S = 10.0


def files(run: Any) -> int:
    return len(list((run.folder / "archive").rglob("*.parquet")))


@pytest.mark.full
@pytest.mark.timeout(400)
def test_stops_and_other_numbers_of_processes_change_nothing(run: Callable[..., Any]) -> None:
    calm = run("calm", speed=SPEED)
    calm.start()
    changed = run("changed", speed=SPEED)
    for processes, number in ((1, signal.SIGTERM), (2, signal.SIGINT), (3, signal.SIGTERM)):
        changed.arguments = ["--processes", str(processes)]
        before = files(changed)
        changed.start()
        changed.until(lambda before=before: files(changed) > before)
        changed.process.send_signal(number)
        asked = time.monotonic()
        assert changed.process.wait(60) == 0, changed.log.read_text()
        assert time.monotonic() - asked < DRAIN_S
    changed.arguments = []
    changed.start()
    changed.finish()
    calm.finish()
    expected, tables = calm.tables(), changed.tables()
    assert {name: len(rows) for name, rows in tables.items()} == {name: len(rows) for name, rows in expected.items()}
    # The longer windows too: they stayed open across every stop.
    assert all(tables[name].equals(rows) for name, rows in expected.items())
    assert changed.metrics() == calm.metrics()


def test_a_second_run_on_a_store_is_refused_in_a_sentence(run: Callable[..., Any]) -> None:
    first = run("first", speed=1.0)
    first.start()
    command = [sys.executable, "-m", "vigie", "run", "site.toml", "--recovery", "state"]
    second = subprocess.run(command, cwd=first.folder, capture_output=True, text=True)
    assert second.returncode == 1
    assert second.stderr == (
        "vigie: state: another run uses this recovery store; stop it first, or give each its own folder\n"
    )
    assert "Traceback" not in second.stderr
    first.process.send_signal(signal.SIGTERM)
    first.finish()
