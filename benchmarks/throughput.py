"""Speed and memory of the whole flow, telemetry in to metrics out, against what else one could take.

Each figure is the median of alternating runs; ratios are taken pair by pair, on the same machine, in one call. Before
anything is timed, all must have computed the same features. The time in which the benchmark makes a message is not
counted.

    python benchmarks/throughput.py --runs 5 --json figures.json
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import agreement
from benchmarks.bars import Bar, print_bars
from benchmarks.turns import CLOCKS, Competitor, Result, by_clock, median_ratio, rate, write_figures
from benchmarks.wires import WIRES
from features.signals import load_class
from flows.warmup import compile_kernels

CHILD = ("-m", "benchmarks.competitors")


@dataclass(frozen=True, slots=True)
class Load:
    """How much of a profile each competitor gets; a turn takes a second or two on one core."""

    assets: int
    warm: int
    arrow: int
    batch: int
    naive_assets: int
    naive: int


LOADS = {
    # 83,000 readings a second: turns of 60 million readings, batches of 10 million.
    "lift": Load(assets=250, warm=26, arrow=72, batch=12, naive_assets=5, naive=30),
    # 50,000 readings a second: turns of 18 million readings, batches of 6 million.
    "boiler": Load(assets=5000, warm=78, arrow=36, batch=12, naive_assets=100, naive=36),
}
MESSAGES = {"cbor": 48, "json": 12, "senml": 5}
"""Messages of the lift profile in a turn, by wire form."""


def flow(name: str, wire: str, messages: int, *more: str) -> Competitor:
    """Start this flow on a profile."""
    load = LOADS[name]
    numbers = ["--assets", str(load.assets), "--warm", str(load.warm), "--messages", str(messages)]
    return Competitor([*CHILD, "flow", "--class", name, "--wire", wire, *numbers, *more])


def rival(name: str, equipment: str, assets: int, messages: int) -> Competitor:
    """Start one of the others."""
    numbers = ["--assets", str(assets), "--messages", str(messages)]
    return Competitor([*CHILD, name, "--class", equipment, *numbers])


def alternate(competitors: Mapping[str, Competitor], runs: int, clock: str = "wall") -> dict[str, list[Result]]:
    """Give each a turn, so many times; wait first until all are warm, so that nobody warms up in another's turn."""
    for one in competitors.values():
        one.wait_ready()
    results: dict[str, list[Result]] = {name: [] for name in competitors}
    for _ in range(runs):
        for name, one in competitors.items():
            results[name].append(by_clock(one.turn(), clock))
    return results


def profile(
    name: str, wires: Sequence[str], runs: int, clock: str = "wall"
) -> tuple[dict[str, float], list[tuple[str, list[Result]]]]:
    """Measure one profile; return the figures, and the results by competitor for the table."""
    load = LOADS[name]
    with contextlib.ExitStack() as stack:
        competitors = {"arrow": flow(name, "arrow", load.arrow)}
        competitors |= {wire: flow(name, wire, MESSAGES[wire]) for wire in wires}
        competitors["duckdb"] = rival("duckdb", name, load.assets, load.batch)
        competitors["naive"] = rival("naive", name, load.naive_assets, load.naive)
        for one in competitors.values():
            stack.enter_context(one)
        results = alternate(competitors, runs, clock)
        state = competitors["arrow"].close()["state_bytes"] / load.assets
    figures = {f"{name}_{wire}_readings_per_s": median_rate(results[wire]) for wire in ("arrow", *wires)}
    figures |= {f"{name}_{other}_readings_per_s": median_rate(results[other]) for other in ("duckdb", "naive")}
    figures[f"{name}_ratio_duckdb"] = median_ratio(results["arrow"], results["duckdb"])
    figures[f"{name}_ratio_naive"] = median_ratio(results["arrow"], results["naive"])
    figures[f"{name}_state_bytes_per_asset"] = state
    figures[f"{name}_peak_mb"] = max(result["peak_mb"] for result in results["arrow"])
    return figures, list(results.items())


def peers(name: str, python: str, runs: int) -> tuple[dict[str, float], list[tuple[str, list[Result]]]]:
    """Check and measure Pathway and PyFlink on a prefix, where they are installed for an interpreter."""
    load, figures, rows = LOADS[name], dict[str, float](), []
    with contextlib.ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory()), "readings.parquet")
        found = {}
        for peer in PEERS:
            differs = agreement.peer_disagreement(name, peer, python)
            if differs is None:
                print(f"{PEERS[peer]} is not installed for {python}: it is left out")
            elif differs:
                raise SystemExit(differs)
            else:
                found[peer] = agreement.peer_command(peer, file, name)
        if not found:
            return {}, []
        agreement.write_readings(name, file, assets=3, messages=load.naive // 2)
        competitors = {peer: stack.enter_context(Competitor(command, python)) for peer, command in found.items()}
        competitors["arrow"] = stack.enter_context(flow(name, "arrow", load.arrow))
        results = alternate(competitors, runs)
    for peer in found:
        figures[f"{name}_{peer}_readings_per_s"] = median_rate(results[peer])
        figures[f"{name}_ratio_{peer}"] = median_ratio(results["arrow"], results[peer])
        rows.append((peer, results[peer]))
    return figures, rows


def median_rate(results: Sequence[Result]) -> float:
    """Return the median of readings a second."""
    return statistics.median(rate(result) for result in results)


def two_processes(runs: int) -> dict[str, float]:
    """Measure two processes against one on the same input, partitioned like the shards."""
    load, ports = LOADS["lift"], free_ports(2)
    addresses = ";".join(f"127.0.0.1:{port}" for port in ports)
    parts = ("--parts", "2")
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(flow("lift", "arrow", load.arrow, *parts))
        one.wait_ready()
        two = [
            stack.enter_context(
                flow("lift", "arrow", load.arrow, *parts, "--addresses", addresses, "--process", str(process))
            )
            for process in range(2)
        ]
        ones, twos = [], []
        for process in two:
            process.wait_ready()
        for _ in range(runs):
            ones.append(one.turn())
            for process in two:
                process.begin()
            twos.append(together([process.end() for process in two]))
        for process in two:
            process.close_input()
        for process in two:
            process.close()
    return {"two_process_ratio": median_ratio(twos, ones)}


def together(results: Sequence[Result]) -> Result:
    """Return what several processes did at the same time as one result; what took to make messages is the slowest's."""
    begun, ended = min(r["begun_s"] for r in results), max(r["ended_s"] for r in results)
    return {
        "readings": sum(r["readings"] for r in results),
        "seconds": ended - begun - max(r["making_s"] for r in results),
    }


def free_ports(count: int) -> list[int]:
    """Return free ports of loopback."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


BARS = [
    Bar("lift_arrow_readings_per_s", "lift, Arrow to metrics", 50e6, "M/s", 1e-6),
    Bar("lift_ratio_naive", "  times plain Bytewax + river", 200, "x"),
    Bar("lift_ratio_duckdb", "  times DuckDB's batch, one thread", 2.0, "x"),
    Bar("lift_cbor_readings_per_s", "lift, CBOR typed arrays", 30e6, "M/s", 1e-6),
    Bar("lift_json_readings_per_s", "lift, JSON blocks", 10e6, "M/s", 1e-6),
    Bar("lift_senml_readings_per_s", "lift, SenML JSON", 3e6, "M/s", 1e-6),
    Bar("boiler_arrow_readings_per_s", "boiler, Arrow to metrics", 10e6, "M/s", 1e-6),
    Bar("boiler_ratio_duckdb", "  times DuckDB's batch, one thread", 0.8, "x"),
    Bar("two_process_ratio", "two processes against one", 1.7, "x"),
    Bar("lift_state_bytes_per_asset", "state of a lift", 24_000, "B", at_most=True),
    Bar("boiler_state_bytes_per_asset", "state of a boiler", 16_000, "B", at_most=True),
]


def print_table(rows: Iterator[tuple[str, str, list[Result]]]) -> None:
    """Print what each competitor did."""
    print(f"{'profile':8} {'competitor':34} {'M readings/s, core':>19} {'(least to most)':>18} {'peak MB':>8}")
    for name, competitor, results in rows:
        rates = sorted(rate(result) / 1e6 for result in results)
        peak = max(result["peak_mb"] for result in results)
        spread = f"({rates[0]:.2f} to {rates[-1]:.2f})"
        title = TITLES.get(competitor, competitor)
        print(f"{name:8} {title:34} {statistics.median(rates):19.2f} {spread:>18} {peak:8,.0f}")


PEERS = {"pathway": "Pathway", "pyflink": "PyFlink"}

TITLES = {
    "pathway": "Pathway, windowby, no score",
    "pyflink": "PyFlink, Table API, no score",
    "arrow": "this flow, Arrow",
    "cbor": "this flow, CBOR typed arrays",
    "json": "this flow, JSON blocks",
    "senml": "this flow, SenML JSON",
    "duckdb": "DuckDB, base features, one thread",
    "naive": "plain Bytewax + river",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Check, measure, print; with --json, write the figures for machines too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one flat object of figures")
    parser.add_argument("--only", choices=("check", "lift", "boiler", "processes"), help="one part alone")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="processor: rates by processor time, where the machine is busy with other things (default: wall)",
    )
    parser.add_argument(
        "--peers",
        metavar="PYTHON",
        help="also Pathway and PyFlink, as installed for this interpreter; 1 is the one that runs this",
    )
    given = parser.parse_args(arguments)
    # Once, before several processes would each do the same.
    compile_kernels(load_class(name) for name in ("lift", "boiler"))
    parts = [given.only] if given.only else ["check", "lift", "boiler", "processes"]
    if "check" in parts:
        for name in LOADS:
            found = agreement.disagreement(name)
            if found is not None:
                raise SystemExit(str(found))
        print("all compute the same base features within 1e-6, on both profiles", flush=True)
    figures: dict[str, float] = {}
    rows: list[tuple[str, str, list[Result]]] = []
    for name, wires in (("lift", tuple(WIRES)), ("boiler", ())):
        if name in parts:
            measured, results = profile(name, wires, given.runs, given.clock)
            figures |= measured
            rows += [(name, competitor, of_one) for competitor, of_one in results]
            if given.peers:
                measured, results = peers(name, sys.executable if given.peers == "1" else given.peers, given.runs)
                figures |= measured
                rows += [(name, competitor, of_one) for competitor, of_one in results]
    if "processes" in parts:
        figures |= two_processes(given.runs)
    print_table(iter(rows))
    peaks = [value for name, value in figures.items() if name.endswith("_peak_mb")]
    if peaks:
        figures["peak_mb"] = max(peaks)
    print_bars(BARS, figures)
    write_figures(given.json, figures)


if __name__ == "__main__":
    main()
