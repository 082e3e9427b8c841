"""Competitors take turns: each lives in a process of its own, and only the one whose turn it is uses the machine.

So each warms up once, its peak of memory is its own, and what disturbs the machine disturbs all alike. A competitor
says ``ready`` when it is warm; then each line that it reads is a turn, which it answers with one line of JSON; the end
of its input is the end of it, and it may say a last line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]

PATIENCE_S = 900.0
"""Longest that a competitor may warm up or take for a turn: compiled code of a fresh machine takes minutes."""

Result = dict[str, float]


class Competitor:
    """A process that takes turns.

    Parameters
    ----------
    command
        What follows the interpreter: a script and its arguments.
    python
        The interpreter; that of another environment for peers that are installed there.
    """

    def __init__(self, command: Sequence[str], python: str = sys.executable) -> None:
        self._process = subprocess.Popen([python, *command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._command = command
        self._heard = b""
        self._ready = False
        self.last: Result = {}

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_ready(self) -> Result:
        """Wait until it is warm; return what it says then."""
        if not self._ready:
            self.last = self._answer()
            self._ready = True
        return self.last

    def begin(self) -> None:
        """Give it a turn."""
        self.wait_ready()
        assert self._process.stdin is not None
        self._process.stdin.write(b"turn\n")
        self._process.stdin.flush()

    def end(self) -> Result:
        """Wait for the end of its turn."""
        self.last = self._answer()
        return self.last

    def turn(self) -> Result:
        """Give it a turn and wait for its end."""
        self.begin()
        return self.end()

    def close_input(self) -> None:
        """Tell it to end."""
        assert self._process.stdin is not None
        self.wait_ready()
        self._process.stdin.close()

    def close(self) -> Result:
        """Let it end; return the last that it said."""
        assert self._process.stdout is not None
        self.close_input()
        heard = self._heard + self._process.stdout.read()
        rest = [line for line in heard.splitlines() if line.startswith(b"{")]
        if self._process.wait() != 0:
            raise SystemExit(f"{self._name} ended with {self._process.returncode}")
        return json.loads(rest[-1]) if rest else self.last

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Competitor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def _name(self) -> str:
        return " ".join(self._command)

    def _answer(self) -> Result:
        while True:
            line = self._line()
            if line.startswith(b"{"):  # libraries may print, too
                answer: Result = json.loads(line)
                return answer

    def _line(self) -> bytes:
        """Return its next line; a buffered reader would hide a second one from the wait for the first."""
        assert self._process.stdout is not None
        while b"\n" not in self._heard:
            if not select.select([self._process.stdout], [], [], PATIENCE_S)[0]:
                self.kill()
                raise SystemExit(f"{self._name} did not answer within {PATIENCE_S:.0f} s")
            heard = os.read(self._process.stdout.fileno(), 65536)
            if not heard:
                raise SystemExit(f"{self._name} ended with {self._process.wait()} in its turn")
            self._heard += heard
        line, _, self._heard = self._heard.partition(b"\n")
        return line


def say(answer: Mapping[str, float], out: IO[str] | None = None) -> None:
    """Say one line, from within a competitor."""
    print(json.dumps(answer), file=out or sys.stdout, flush=True)


def told(wait: bool = True) -> bool | None:
    """Return from within a competitor whether it has a turn: None for not yet, False when it shall end.

    Every line is read by itself, so that one that waits is not lost in a buffer.
    """
    if not wait and not select.select([sys.stdin.fileno()], [], [], 0.0)[0]:
        return None
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            return False
        line += byte
    return True


def serve(run: Callable[[], Result]) -> None:
    """Take turns with a function that measures one run."""
    say({"ready": 1})
    while told():
        begun = time.process_time()
        result = run()
        say({"processor_s": time.process_time() - begun, **result, "peak_mb": peak_mb()})


def peak_mb() -> float:
    """Return the most memory that this process has had, in MB of a million bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def rate(result: Result) -> float:
    """Return readings a second."""
    return result["readings"] / result["seconds"]


CLOCKS = {"wall": "seconds", "processor": "processor_s"}
"""By which clock a result counts: the processor's where the machine is busy with other things."""


def by_clock(result: Result, clock: str) -> Result:
    """Return a result whose seconds are those of a clock, where it is known.

    Examples
    --------
    >>> by_clock({"seconds": 3.0, "processor_s": 2.0}, "processor")["seconds"]
    2.0
    """
    return result | {"seconds": result.get(CLOCKS[clock], result["seconds"])}


def median_ratio(ones: Sequence[Result], others: Sequence[Result]) -> float:
    """Return the median of the ratios of rates, pair by pair.

    Examples
    --------
    >>> fast, slow = {"readings": 100.0, "seconds": 1.0}, {"readings": 10.0, "seconds": 1.0}
    >>> median_ratio([fast, fast, slow], [slow, slow, slow])
    10.0
    """
    return statistics.median(rate(one) / rate(other) for one, other in zip(ones, others, strict=True))


def write_figures(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures as one flat object, where a file is asked for."""
    if path is not None:
        path.write_text(json.dumps(dict(figures), indent=2, sort_keys=True) + "\n", encoding="utf-8")
