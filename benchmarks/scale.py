"""What grows with the fleet, and what a restart and a scrape cost: each figure beside the bar that it is held to.

``cost``
    a reading of 100,000 boilers against one of 100, in messages of as many readings; memory of the large fleet;
``scrape``
    processor time that 100,000 series take, and how long the flow stands still for a scrape, one a second;
``snapshots``
    10,000 lifts with a recovery store against without, at the default interval; after a kill, the time to the first
    message that is dealt with, and until a minute of input has been replayed;
``latency``
    10,000 lifts live, ten gateways, a snapshot a minute: from when the reading is due that passes a window's end and
    the lateness, to its metric, the time of a scrape included.

    python benchmarks/scale.py --only latency --json figures.json
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bars import Bar, print_bars
from benchmarks.turns import CLOCKS, Competitor, Result, by_clock, rate, write_figures
from features.signals import load_class
from flows.warmup import compile_kernels

INTERVAL_S = 60.0
"""Seconds between snapshots by default."""

TURN_S = 12.0
"""A turn holds exactly one snapshot: of the epoch that ended while the process waited for its turn."""

THIN_WINDOWS = 12
"""Windows of history, enough for detectors that are ready after ten."""


def flow(equipment: str, assets: int, message_s: int, *more: object) -> Competitor:
    """Start this flow with a short history, a fleet of any size in messages of any length."""
    windows = {"lift": THIN_WINDOWS, "boiler": 6 * THIN_WINDOWS}[equipment]
    numbers = {"--class": equipment, "--assets": assets, "--message-s": message_s, "--thin": windows, "--warm": windows}
    options = [str(part) for option in numbers.items() for part in option]
    return Competitor(["-m", "benchmarks.competitors", "flow", *options, *map(str, more)])


def cost(runs: int, clock: str) -> dict[str, float]:
    """Measure a reading in a large fleet against one in a small fleet."""
    with flow("boiler", 100_000, 1, "--messages", 60) as large, flow("boiler", 100, 1000, "--messages", 60) as small:
        pairs = [(by_clock(small.turn(), clock), by_clock(large.turn(), clock)) for _ in range(runs)]
        peak_mb = large.last["peak_mb"]
        state = large.close()["state_bytes"] / 100_000
    return {
        "cost_ratio_100k_to_100_assets": statistics.median(rate(s) / rate(b) for s, b in pairs),
        "boilers_100k_readings_per_s": statistics.median(rate(b) for _, b in pairs),
        "boilers_100_readings_per_s": statistics.median(rate(s) for s, _ in pairs),
        "boilers_100k_peak_mb": peak_mb,
        "state_bytes_per_boiler": state,
    }


def scrape(runs: int, clock: str) -> dict[str, float]:
    """Measure the exposition, and what scrapes do to the flow."""
    stalls, expositions = [], []
    with flow("boiler", 7000, 1, "--seconds", 10, "--serve") as one:
        port = int(one.wait_ready()["port"])
        for _ in range(runs):
            alone = one.turn()
            with scraped(lambda: port):
                beside = one.turn()
            stalls.append(beside["stall_s"] - alone["stall_s"])
            expositions += [r["exposition_s"] * 100_000 / r["series"] for r in (alone, beside)]
    return {
        "exposition_100k_ms": 1e3 * statistics.median(expositions),
        "scrape_stall_p99_ms": 1e3 * statistics.median(stalls),
    }


@contextlib.contextmanager
def scraped(port: Callable[[], int | None], every_s: float = 1.0) -> Iterator[list[float]]:
    """Scrape a port of loopback meanwhile, once it is known; yield the list of the seconds that each scrape takes."""
    over, spent = threading.Event(), list[float]()

    def run() -> None:
        while not over.wait(every_s):
            known = port()
            if known is None:
                continue
            begun = time.perf_counter()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{known}/metrics", timeout=60) as answer:
                    answer.read()
            except OSError:
                return  # the flow has ended
            spent.append(time.perf_counter() - begun)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield spent
    finally:
        over.set()
        thread.join()


def snapshots(runs: int, clock: str) -> dict[str, float]:
    """Measure what snapshots cost, and what they spare."""
    timed = ("--seconds", TURN_S, "--epoch", TURN_S + 3.0)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stored = ("--store", folder)
        plain = stack.enter_context(flow("lift", 10_000, 1, *timed))
        safe = stack.enter_context(flow("lift", 10_000, 1, *timed, *stored))
        plain.wait_ready(), safe.wait_ready()
        time.sleep(TURN_S + 3.0)  # the epoch ends before the first turn
        pairs = [(plain.turn(), safe.turn()) for _ in range(runs)]
        state = plain.close()["state_bytes"] / 10_000
        safe.kill()
        begun = time.perf_counter()
        again = stack.enter_context(flow("lift", 10_000, 1, "--messages", round(INTERVAL_S), *stored))
        opened_s = again.wait_ready()["opened_s"]
        ready_s = time.perf_counter() - begun
        replayed = again.turn()
    slower = statistics.median(rate(one) / rate(other) for one, other in pairs) - 1.0
    resume_s = opened_s + replayed["first_s"]
    return {
        "snapshot_overhead_ratio": slower * TURN_S / INTERVAL_S,
        "state_bytes_per_lift": state,
        "resume_s": resume_s,
        "restart_s": ready_s + replayed["first_s"],
        "replay_s": opened_s + replayed["seconds"],
    }


def latency(runs: int, clock: str) -> dict[str, float]:
    """Measure a live fleet for three minutes, with a snapshot each, scraped each second."""
    command = ["-m", "benchmarks.live", "--assets", "10000", "--seconds", "180"]
    with Competitor(command) as one:
        port = int(one.wait_ready()["port"])
        with scraped(lambda: port) as spent:
            result: Result = one.turn()
    spent.sort()
    scrape_s = spent[int(0.99 * len(spent))]
    return {
        "latency_p50_s": result["p50_s"] + statistics.median(spent),
        "latency_p99_s": result["p99_s"] + scrape_s,
        "latency_windows": result["windows"],
        "latency_behind_s": result["behind_s"],
    }


PARTS = {"cost": cost, "scrape": scrape, "snapshots": snapshots, "latency": latency}

BARS = [
    Bar("boilers_100k_readings_per_s", "100,000 boilers, Arrow to metrics", None, "M/s", 1e-6),
    Bar("boilers_100_readings_per_s", "100 boilers, Arrow to metrics", None, "M/s", 1e-6),
    Bar("cost_ratio_100k_to_100_assets", "cost of a reading, 100,000 against 100", 1.5, "x", at_most=True),
    Bar("boilers_100k_peak_mb", "peak memory of 100,000 boilers", 4000, "MB", at_most=True),
    Bar("state_bytes_per_boiler", "state of a boiler, of 100,000", 16_000, "B", at_most=True),
    Bar("state_bytes_per_lift", "state of a lift, of 10,000", 24_000, "B", at_most=True),
    Bar("exposition_100k_ms", "exposition of 100,000 series, processor", 100, "ms", at_most=True),
    Bar("scrape_stall_p99_ms", "stall by a scrape of them, p99", 150, "ms", at_most=True),
    Bar("snapshot_overhead_ratio", "snapshots of 10,000 lifts, a minute apart", 0.05, "", at_most=True),
    Bar("resume_s", "resume, to the first message dealt with", 5, "s", at_most=True),
    Bar("replay_s", "resume and replay of a minute", 30, "s", at_most=True),
    Bar("restart_s", "the same from the start of the process", 30, "s", at_most=True),
    Bar("latency_p50_s", "last reading to metric, 10,000 lifts, p50", None, "s"),
    Bar("latency_p99_s", "last reading to metric, 10,000 lifts, p99", 1, "s", at_most=True),
]


def main() -> None:
    """Measure and print; with --json, write the figures for machines too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one flat object of figures")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part alone; may be given again")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="for the cost of a reading (default: wall)")
    given = parser.parse_args()
    # Once, before several processes would each do the same.
    compile_kernels(load_class(name) for name in ("lift", "boiler"))
    figures: dict[str, float] = {}
    for name in given.only or PARTS:
        figures |= PARTS[name](given.runs, given.clock)
    each = [figures[name] for name in ("state_bytes_per_lift", "state_bytes_per_boiler") if name in figures]
    if each:
        figures["state_bytes_per_asset"] = max(each)
    print_bars(BARS, figures)
    write_figures(given.json, figures)


if __name__ == "__main__":
    main()
