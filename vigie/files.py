"""The commands that read or write files: score, simulate."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from features.signals import ClassFileError, load_class
from vigie.command import Failure
from vigie.say import account_line, counted, progress

__all__ = ["score", "simulate"]

STRANGE = 0.9
"""Share of readings of unknown signals above which the class itself is in doubt."""


def score(given: argparse.Namespace) -> int:
    """Score a file."""
    from flows.runs import score_file
    from flows.site import unwritable
    from flows.sources import FileSource, InputError

    out = Path(given.out)
    if out.suffix not in (".parquet", ".csv"):
        raise Failure(f"--out {out}: the name must end in .parquet or .csv")
    if not out.absolute().parent.is_dir():
        raise Failure(f"--out {out}: there is no folder {out.absolute().parent}")
    if out.exists() and Path(given.input).exists() and out.samefile(given.input):
        raise Failure(f"--out {out}: this is the input itself, which would be lost: give the scores another name")
    if out.is_dir():
        raise Failure(f"--out {out}: this is a folder")
    problem = unwritable(out.absolute().parent)
    if problem is not None:
        raise Failure(f"--out {out}: {problem}")
    letters = None if given.dead_letters is None else Path(given.dead_letters)
    problem = None if letters is None else unwritable(letters)
    if problem is not None:
        raise Failure(f"--dead-letters {letters}: {problem}")
    sources: list[FileSource] = []

    def state() -> tuple[float, int]:
        return sources[0].progress() if sources else (0.0, 0)

    try:
        equipment = load_class(given.equipment)
        with progress(state):
            result = score_file(
                Path(given.input),
                equipment,
                out,
                asset=given.asset,
                dead_letters=letters,
                started=sources.append,
            )
    except (ClassFileError, InputError) as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"the output cannot be written: {error}") from None
    print(account_line(result.account))
    print(f"{counted(result.windows, 'window')}, {counted(result.pages, 'page')} -> {out}")
    strange, received = result.account.get("unknown_signal", 0), result.account["received"]
    if strange > STRANGE * received:
        print(
            f"vigie: {strange / received:.0%} of the readings are of signals that the class {equipment.name} "
            f"does not have: is --class {given.equipment} right?",
            file=sys.stderr,
        )
    return 0


def simulate(given: argparse.Namespace) -> int:
    """Write a simulated fleet."""
    from flows.simulator.fleet import FleetPlan
    from flows.simulator.target import parse_target
    from flows.simulator.write import write_fleet

    try:
        start = datetime.now(UTC) if given.start == "now" else datetime.fromisoformat(given.start)
    except ValueError:
        raise Failure(f"--start {given.start}: expected a time such as 2026-01-05T00:00:00Z") from None
    if start.tzinfo is None:
        raise Failure(f"--start {given.start}: a time needs its zone, such as 2026-01-05T00:00:00Z")
    if not 1970 <= start.year < 2200 or start.timestamp() < 0:
        raise Failure(f"--start {given.start}: expected a time from 1970 to 2199")
    if given.lifts + given.boilers == 0:
        raise Failure("there is nothing to simulate: give --lifts or --boilers")
    plan = FleetPlan(
        seed=given.seed,
        lifts=given.lifts,
        boilers=given.boilers,
        start_us=int(start.astimezone(UTC).timestamp() * 1e6),
        days=given.days,
        mode=given.mode,
        faults=given.faults,
    )
    try:
        target = parse_target(given.out)
    except ValueError as error:
        raise Failure(str(error)) from None
    if target is not None:
        from vigie.feed import feed_broker

        return feed_broker(plan, target, given)
    out = Path(given.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Failure(f"{out}: the folder is not empty")
    share = [0.0, 0.0]

    def wrote(readings: int, done: float) -> None:
        share[:] = [done, readings]

    with progress(lambda: (share[0], int(share[1]))):
        try:
            readings = write_fleet(plan, out, given.wire, wrote)
        except OSError as error:
            raise Failure(f"{out}: the fleet cannot be written: {error}") from None
    fleet = f"{counted(given.lifts, 'lift')} and {counted(given.boilers, 'boiler')}"
    print(f"{counted(readings, 'reading')} of {fleet} -> {out}")
    return 0
