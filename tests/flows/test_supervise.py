"""Several processes as one run, with small real processes in place of the flow."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from flows.supervise import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S, Pauses, Supervisor, free_ports

PATIENCE_S = 30.0

PROCESS = """
import os, signal, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

folder, number, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
count = len(list(folder.glob(f"{number}-started-*")))

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = "vigie_readings_total"
        text = f"# HELP {name} R.\\n# TYPE {name} counter\\n{name} {10 + count}.0\\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text) + (9 if (folder / "torn").exists() else 0)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *_):
        pass

def drain(*_):
    if not (folder / "deaf").exists():
        (folder / f"{number}-drained-{os.getpid()}").touch()
        os._exit(0)

signal.signal(signal.SIGTERM, drain)
server = HTTPServer(("127.0.0.1", port), Handler)
Thread(target=server.serve_forever, daemon=True).start()
(folder / f"{number}-started-{os.getpid()}").touch()
while True:
    time.sleep(0.01)
    end = folder / f"{number}-ends"
    if end.exists():
        code = int(end.read_text() or 0)
        end.unlink()
        os._exit(code)
"""


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


class Stop(threading.Event):
    """Lets pauses pass at once, and remembers them."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None and timeout >= FIRST_PAUSE_S:
            self.pauses.append(timeout)
            return self.is_set()
        return super().wait(0.005)


class Site:
    """A supervised run of two processes in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stop = Stop()
        self.said: list[str] = []
        self.now = 0.0
        self.prepared = 0
        self.codes: list[int] = []
        commands = [
            ([sys.executable, "-S", "-c", PROCESS, str(folder), str(n), str(port)], f"http://127.0.0.1:{port}/metrics")
            for n, port in enumerate(free_ports(2))
        ]
        self.supervisor = Supervisor(
            commands, self.stop, prepare=self._prepare, said=self.said.append, clock=lambda: self.now
        )
        self.thread = threading.Thread(target=lambda: self.codes.append(self.supervisor.run()))
        self.thread.start()

    def _prepare(self) -> None:
        self.prepared += 1

    def started(self, number: int) -> list[int]:
        return [int(path.name.rpartition("-")[2]) for path in self.folder.glob(f"{number}-started-*")]

    def runs(self, times: int) -> None:
        """Wait until both processes have started so many times."""
        until(lambda: len(self.started(0)) == len(self.started(1)) == times)

    def ends(self, number: int, code: int) -> None:
        hidden = self.folder / "ends"
        hidden.write_text(str(code))
        hidden.replace(self.folder / f"{number}-ends")

    def ended(self) -> int:
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        return self.codes[0]

    def values(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.supervisor.exposition().decode())
        return {
            sample.name + "".join(sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    (tmp_path / "deaf").unlink(missing_ok=True)
    site.stop.set()
    site.ended()


def test_one_dies_and_all_start_again(site: Site) -> None:
    for times in range(1, 4):
        site.runs(times)
        assert site.supervisor.restarts == times - 1
        site.ends(1, 3)
    site.runs(4)
    assert site.prepared == 4
    assert site.stop.pauses == [1.0, 2.0, 4.0]
    assert site.said[0] == "process 1 ended with exit code 3 after 0 s; every process starts again in 1 s"
    assert len(list(site.folder.glob("0-drained-*"))) == 3, "the other one drained"
    site.now = 10.0 + STEADY_S
    process = site.supervisor._children[0].process
    assert process is not None
    process.kill()
    site.runs(5)
    assert site.stop.pauses[-1] == 1.0, "a run that has lasted begins with the shortest pause"
    assert "process 0 was killed by signal 9" in site.said[-1]


def test_a_stop_lets_every_process_drain(site: Site) -> None:
    site.runs(1)
    site.stop.set()
    assert site.ended() == 0
    assert len(list(site.folder.glob("*-drained-*"))) == 2
    assert site.supervisor.up == [False, False]


def test_a_run_whose_inputs_have_ended_ends_well(site: Site) -> None:
    site.runs(1)
    site.ends(0, 0)
    until(lambda: site.supervisor.up == [False, True])
    assert site.thread.is_alive(), "the other one still reads"
    site.ends(1, 0)
    assert site.ended() == 0
    assert site.supervisor.restarts == 0


def test_who_does_not_drain_is_killed(site: Site) -> None:
    site.runs(1)
    (site.folder / "deaf").touch()

    def hasty() -> float:
        site.now += 60.0  # the time to drain is over as soon as it is looked at
        return site.now

    site.supervisor.clock = hasty
    site.stop.set()
    assert site.ended() == signal.SIGKILL


def test_what_a_dead_process_has_last_said_is_shown_on(site: Site) -> None:
    site.runs(1)
    until(lambda: site.values().get("vigie_readings_total") == 20.0)
    assert site.values() == {
        "vigie_readings_total": 20.0, "vigie_process_up0": 1.0, "vigie_process_up1": 1.0,
        "vigie_process_restarts_total": 0.0,
    }  # fmt: skip
    site.ends(0, 0)
    until(lambda: site.supervisor.up == [False, True])
    shown = site.values()
    assert (shown["vigie_process_up0"], shown["vigie_process_up1"], shown["vigie_readings_total"]) == (0.0, 1.0, 20.0)
    site.now = 299.0
    assert site.values()["vigie_readings_total"] == 20.0
    site.now = 301.0
    assert site.values()["vigie_readings_total"] == 10.0, "some day it is history"


def test_after_a_restart_the_new_processes_speak(site: Site) -> None:
    site.runs(1)
    until(lambda: site.values().get("vigie_readings_total") == 20.0)
    site.ends(0, 1)
    site.runs(2)
    until(lambda: site.values().get("vigie_readings_total") == 22.0)
    assert site.values()["vigie_process_restarts_total"] == 1.0


def test_a_process_that_dies_in_its_answer_breaks_no_scrape(site: Site) -> None:
    site.runs(1)
    until(lambda: site.values().get("vigie_readings_total") == 20.0)
    (site.folder / "torn").touch()
    assert site.values()["vigie_readings_total"] == 20.0


def test_no_proxy_stands_between_the_supervisor_and_its_processes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    site.runs(1)
    until(lambda: site.values().get("vigie_readings_total") == 20.0)


SUPERVISED = """
import sys, threading
from flows.supervise import stop_when_orphaned
stop = threading.Event()
stop_when_orphaned(stop)
print("runs", flush=True)
stop.wait()
print("stops", flush=True)
"""


def test_a_process_stops_when_its_supervisor_is_gone() -> None:
    """However the supervisor ends, its end of the pipe is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.stdin.close()
        assert process.stdout.readline() == "stops\n"
        assert process.wait(PATIENCE_S) == 0


@given(st.lists(st.floats(0, 1000), max_size=40))
def test_pauses_double_until_a_run_has_lasted(lasted: list[float]) -> None:
    pauses, before = Pauses(), 0.0
    for seconds in lasted:
        pause = pauses.after(seconds)
        assert FIRST_PAUSE_S <= pause <= LONGEST_PAUSE_S
        assert pause == (FIRST_PAUSE_S if seconds >= STEADY_S or not before else min(2 * before, LONGEST_PAUSE_S))
        before = pause
