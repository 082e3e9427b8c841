"""What the commands print: counts, and progress on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["account_line", "counted", "progress"]


def counted(number: int, noun: str) -> str:
    """Return a number of things.

    Examples
    --------
    >>> counted(1, "boiler"), counted(2000, "lift")
    ('1 boiler', '2,000 lifts')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def account_line(account: dict[str, int]) -> str:
    """Say what became of the readings.

    Examples
    --------
    >>> account_line({"received": 1200, "scored": 1190, "pending": 0, "late": 3, "bad_value": 7})
    '1,200 readings in: 1,190 scored, 10 rejected (bad_value 7, late 3)'
    """
    rejected = {name: n for name, n in account.items() if name not in ("received", "scored", "pending") and n}
    reasons = ", ".join(f"{name} {n:,}" for name, n in sorted(rejected.items(), key=lambda item: -item[1]))
    text = f"{counted(account['received'], 'reading')} in: {account['scored']:,} scored"
    text += f", {sum(rejected.values()):,} rejected"
    if account["pending"]:
        text += f", {account['pending']:,} in open windows"
    return f"{text} ({reasons})" if reasons else text


@contextmanager
def progress(state: Callable[[], tuple[float, int]]) -> Iterator[None]:
    """Show share done, readings, rate and time left each second on a terminal; be silent in a pipe.

    Parameters
    ----------
    state
        Returns the share done from 0 to 1, and the readings so far.
    """
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def show() -> None:
        begun = time.monotonic()
        while not done.wait(1.0):
            share, readings = state()
            spent = time.monotonic() - begun
            left = f"{spent / share - spent:,.0f} s left" if share > 0.01 else "time left unknown"
            line = f"{share:4.0%}  {readings:,} readings  {readings / spent:,.0f}/s  {left}"
            print(f"\r{line:78}", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        print(f"\r{'':78}\r", end="", file=sys.stderr, flush=True)
