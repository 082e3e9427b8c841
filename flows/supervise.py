"""Several processes as one run: started together, restarted together, and scraped as one.

A process that dies takes the others with it, since each holds a part of every snapshot: all start again from the last
one, after a pause that doubles from one failure to the next. Meanwhile what each has last said is shown on, so that no
alert ends because its process is starting again.

Processes on several hosts have no supervisor in common. Each host's tells those of the others that it lives, by a
datagram to the port of each; where one falls silent the run is restarted, because a connection that was cut is
not noticed by itself for many minutes.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows import metrics
from flows.credits import new_account
from flows.merged import merged

__all__ = ["HOPELESS", "Heartbeat", "Pauses", "Supervisor", "free_ports", "stop_when_orphaned"]

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
HOPELESS = 3
"""Exit code of a process that would fail again however often it is started."""
STEADY_S = 120.0
"""A run that has lasted so long was no failed start: the next pause is the first again."""
DRAIN_S = 10.0
"""How long processes have to end by themselves before they are killed."""
SHOWN_ON_S = 300.0
"""How long the last exposition of a process that is gone is shown on: longer than a restart, shorter than a lie."""
ANSWER_S = 5.0
"""How long a process has to answer a scrape; Prometheus gives up after 10."""
BEAT_S = 0.2
"""Time between datagrams: a host's inputs may run ahead of another by what they read in it."""
SILENT_S = 10.0
"""A host that was there and has not been heard for so long is cut off."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Reaches the processes whatever proxy the environment names."""


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody uses."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class Pauses:
    """How long to wait before the next start.

    Examples
    --------
    >>> pauses = Pauses()
    >>> [pauses.after(3.0) for _ in range(8)], pauses.after(3600.0)
    ([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0], 1.0)
    """

    _next_s: float = FIRST_PAUSE_S

    def after(self, lasted_s: float) -> float:
        """Return the pause after a run that has lasted so long."""
        if lasted_s >= STEADY_S:
            self._next_s = FIRST_PAUSE_S
        pause_s = self._next_s
        self._next_s = min(LONGEST_PAUSE_S, 2.0 * pause_s)
        return pause_s


_MARK = b"vigie 1 "


class Heartbeat:
    """Tells the other hosts of a cluster that this one lives and what it has taken of what they sent.

    It hears which of them have fallen silent, and keeps their rows of the account of credits up to date.

    Parameters
    ----------
    process
        Number of this host's process.
    addresses
        Host and port of every process of the cluster; the datagrams use the same numbers as the connections.
    account
        This host's copy of the account, `flows.credits`.
    clock
        Monotonic clock in seconds.
    """

    def __init__(
        self,
        process: int,
        addresses: Sequence[tuple[str, int]],
        account: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process, self._account, self._clock = process, account, clock
        places = [(socket.gethostbyname(host), port) for host, port in addresses]
        self._number = {place: number for number, place in enumerate(places) if number != process}
        self._shape = (len(places), len(places) + 1)
        self._heard: dict[int, float] = {}
        self._rows: NDArray[np.int64] = np.zeros(self._shape, np.int64)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(places[process])
        self._socket.settimeout(BEAT_S / 4)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="vigie-heartbeat", daemon=True)
        self._thread.start()

    @property
    def silent(self) -> list[int]:
        """Processes that were heard once and are not any more."""
        now = self._clock()
        return sorted(number for number, at in self._heard.copy().items() if now - at > SILENT_S)

    def renew(self) -> None:
        """Begin a new account, in which nothing is spent, and wait for every host anew."""
        new_account(self._account, self._shape[0])
        self._rows = np.memmap(self._account, np.int64, "r+", shape=self._shape)
        self._heard.clear()

    def close(self) -> None:
        """Fall silent."""
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _beat(self) -> None:
        due = self._clock()
        while not self._over.is_set():
            if self._clock() >= due:
                due = self._clock() + BEAT_S
                for other in self._number:
                    with contextlib.suppress(OSError):
                        self._socket.sendto(_MARK + self._rows[self._process].tobytes(), other)
            with contextlib.suppress(OSError):
                data, sender = self._socket.recvfrom(65_536)
                number = self._number.get(sender)
                if number is not None and len(data) == len(_MARK) + 8 * self._shape[1] and data.startswith(_MARK):
                    self._heard[number] = self._clock()
                    self._rows[number] = np.frombuffer(data, np.int64, offset=len(_MARK))


def stop_when_orphaned(stop: threading.Event) -> None:
    """In a process of a run: set the event when its supervisor is gone, in whatever way."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        stop.set()

    threading.Thread(target=watch, name="vigie-supervised", daemon=True).start()


@dataclass
class _Child:
    """A process of the run, where it serves, and what it has last said."""

    number: int
    command: list[str]
    url: str
    process: subprocess.Popen[bytes] | None = None
    text: bytes = b""
    said_s: float = 0.0


@dataclass
class Supervisor:
    """Keeps the processes of a run alive.

    Parameters
    ----------
    commands
        Number of each process, how it is started, and the address of its `/metrics`.
    stop
        Ends the run.
    prepare
        Called before each start.
    said
        Told in a sentence what happens.
    heartbeat
        Where the run spans hosts.
    lends
        Open files that the processes hold too, such as a lock.
    clock
        Monotonic clock in seconds.
    """

    commands: Sequence[tuple[int, list[str], str]]
    stop: threading.Event
    prepare: Callable[[], None] = lambda: None
    said: Callable[[str], None] = lambda sentence: None
    heartbeat: Heartbeat | None = None
    lends: Sequence[int] = ()
    clock: Callable[[], float] = time.monotonic
    restarts: int = 0
    _children: list[_Child] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._children = [_Child(number, command, url) for number, command, url in self.commands]

    @property
    def up(self) -> list[bool]:
        """Which processes run."""
        return [child.process is not None and child.process.poll() is None for child in self._children]

    def run(self) -> int:
        """Run until every process has ended by itself, or `stop` is set; return the exit code."""
        pauses = Pauses()
        while True:
            self._start()
            began = self.clock()
            failed = self._wait()
            if failed is None:
                return self._end()
            if self._end() == HOPELESS:
                return 1
            lasted_s = self.clock() - began
            pause_s = pauses.after(lasted_s)
            self.restarts += 1
            self.said(f"{failed} after {lasted_s:.0f} s; every process starts again in {pause_s:g} s")
            if self.stop.wait(pause_s):
                return 0

    def exposition(self) -> bytes:
        """Return the metrics of all processes as one, and the supervisor's own."""
        now = self.clock()
        with self._lock:
            for child in self._children:
                if child.process is not None and child.process.poll() is None:
                    # A process can die in the middle of its answer.
                    with (
                        contextlib.suppress(OSError, http.client.HTTPException),
                        _direct.open(child.url, timeout=ANSWER_S) as answer,
                    ):
                        child.text, child.said_s = answer.read(), now
            texts = [child.text for child in self._children if child.text and now - child.said_s < SHOWN_ON_S]
        return merged(texts) + self._own()

    def _own(self) -> bytes:
        up, restarts = metrics.PROCESS_UP, metrics.PROCESS_RESTARTS
        samples = {
            up: [
                f'{up.name}{{process="{child.number}"}} {int(lives)}'
                for child, lives in zip(self._children, self.up, strict=True)
            ],
            restarts: [f"{restarts.name} {self.restarts}"],
        }
        lines = [
            line
            for family, values in samples.items()
            for line in (f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.type}", *values)
        ]
        return "".join(f"{line}\n" for line in lines).encode()

    def _start(self) -> None:
        self.prepare()
        for child in self._children:
            # What is never written to the input says that the supervisor lives: see `stop_when_orphaned`.
            child.process = subprocess.Popen(child.command, stdin=subprocess.PIPE, pass_fds=tuple(self.lends))

    def _wait(self) -> str | None:
        """Wait for a process to die, and say which; None where all have ended well, or shall."""
        ended_s: float | None = None
        while not self.stop.wait(0.1):
            codes = [None if child.process is None else child.process.poll() for child in self._children]
            for child, code in zip(self._children, codes, strict=True):
                if code is not None and code != 0:
                    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                    return f"process {child.number} {how}"
            if all(code == 0 for code in codes):
                return None
            if 0 in codes:
                # Inputs end for all processes at once; one that leaves alone was told to.
                ended_s = self.clock() if ended_s is None else ended_s
                if self.clock() - ended_s > DRAIN_S:
                    return f"process {self._children[codes.index(0)].number} has left the others"
            if self.heartbeat is not None and (silent := self.heartbeat.silent):
                return f"nothing is heard of process {silent[0]} any more: the run was stopped"
        return None

    def _end(self) -> int:
        """Let every process end, and kill those that do not; return the worst exit code."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = self.clock() + DRAIN_S
        for process in running:
            try:
                process.wait(max(0.1, deadline - self.clock()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        # One that was told to end while it was still starting has no handler yet, and nothing to drain.
        codes = [0 if process.returncode == -signal.SIGTERM else abs(process.returncode) for process in running]
        return max(codes, default=0)
