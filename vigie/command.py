"""The command line: reads arguments, calls one room, prints. Each room is loaded only when it is called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

__all__ = ["Failure", "main"]


class Failure(Exception):
    """Something that the user can mend, said in one sentence; the command ends with the status, 1 unless said."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, 1 for a failure told in a sentence, 2 for bad usage.

    Examples
    --------
    >>> main(["--version"])
    vigie 0.1.0
    0
    """
    parser = _parser()
    try:
        given = parser.parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    run: Callable[[argparse.Namespace], int] = given.run
    try:
        return run(given)
    except Failure as failure:
        print(f"vigie: {failure}", file=sys.stderr)
        return failure.status
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vigie",
        description="Tells which lift and which boiler will fail next, early enough to act.",
        epilog="example: vigie demo --duration 60",
    )
    parser.add_argument("--version", action="version", version=f"vigie {version('vigie')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = _command(
        commands, "demo", "the whole pipeline on a simulated fleet, with a page", "vigie demo --duration 60"
    )
    demo.add_argument("--duration", type=_positive, metavar="S", help="end by itself after so many seconds")
    demo.add_argument("--address", type=_address, default=("127.0.0.1", 9300), metavar="HOST:PORT", help="of the page")
    demo.add_argument("--lifts", type=_count, default=16, metavar="N", help="simulated lifts (default: 16)")
    demo.add_argument("--boilers", type=_count, default=8, metavar="N", help="simulated boilers (default: 8)")
    demo.add_argument(
        "--seed", type=_count, default=1, metavar="N", help="the same seed gives the same fleet (default: 1)"
    )
    demo.add_argument(
        "--speed", type=_positive, default=7200.0, metavar="X", help="seconds simulated a second (default: 7200)"
    )
    demo.set_defaults(run=_demo)

    run = _command(commands, "run", "the dataflow of a site", "vigie run site.toml --page --recovery state/")
    run.add_argument("site", metavar="SITE.toml", help="the site file")
    run.add_argument("--page", action="store_true", help="serve the page at / beside /metrics")
    run.add_argument(
        "--recovery", metavar="DIR", default=os.environ.get("BYTEWAX_RECOVERY_DIRECTORY"),
        help="keep a snapshot there each minute, and go on from it after a stop or a crash",
    )  # fmt: skip
    run.add_argument(
        "--snapshot-interval", type=_positive, metavar="S",
        default=float(os.environ.get("BYTEWAX_SNAPSHOT_INTERVAL", "60")),
        help="seconds between snapshots (default: 60)",
    )  # fmt: skip
    run.add_argument("--fresh", action="store_true", help="set the present recovery store aside and start anew")
    run.add_argument(
        "--processes",
        type=_processes,
        default=1,
        metavar="N",
        help="processes on this machine, kept alive (default: 1)",
    )
    run.add_argument(
        "--address", type=_address, action="append", default=[], metavar="HOST:PORT",
        help="a cluster of several machines: where each process listens for the others, once for each, in their order",
    )  # fmt: skip
    run.add_argument("--process", type=_count, metavar="I", help="which of the --address is this one, from 0")
    # Between the supervisor and its processes.
    run.add_argument("--serve", type=_address, help=argparse.SUPPRESS)
    run.add_argument("--account", help=argparse.SUPPRESS)
    run.add_argument("--holds-store", action="store_true", help=argparse.SUPPRESS)
    run.set_defaults(run=_run)

    score = _command(
        commands, "score", "the same dataflow over a file, a row for each asset and window",
        "vigie score lift.csv --class lift --out scores.parquet",
    )  # fmt: skip
    score.add_argument("input", metavar="INPUT", help="telemetry: .csv, .parquet, .arrow or .jsonl")
    score.add_argument("--class", dest="equipment", required=True, metavar="C", help="lift, boiler, or a class file")
    score.add_argument("--out", default="scores.parquet", metavar="FILE", help="scores as .parquet or .csv")
    score.add_argument("--asset", metavar="ID", help="asset of a table without an asset column (default: file's name)")
    score.add_argument("--dead-letters", metavar="DIR", help="keep rejected input there, with its raw bytes")
    score.set_defaults(run=_score)

    simulate = _command(
        commands, "simulate", "a fleet with known faults, as files or into a topic",
        "vigie simulate fleet/ --lifts 5 --boilers 3 --days 14 --faults natural",
    )  # fmt: skip
    simulate.add_argument("out", metavar="OUT", help="a folder, or kafka://HOST:PORT/TOPIC")
    simulate.add_argument("--lifts", type=_count, default=2, metavar="N", help="lifts (default: 2)")
    simulate.add_argument("--boilers", type=_count, default=1, metavar="N", help="boilers (default: 1)")
    simulate.add_argument("--days", type=_positive, default=1.0, metavar="D", help="days (default: 1)")
    simulate.add_argument("--seed", type=_count, default=0, metavar="N", help="the same seed gives the same bytes")
    simulate.add_argument(
        "--start", default="2026-01-05T00:00:00Z", metavar="TIME", help="first moment, ISO 8601, or now"
    )
    simulate.add_argument("--faults", choices=["none", "natural", "demo"], default="natural", help="default: natural")
    simulate.add_argument("--mode", choices=["burst", "continuous"], default="burst", help="default: burst")
    simulate.add_argument("--format", choices=["parquet", "arrow", "jsonl", "csv"], default="parquet", dest="wire")
    simulate.add_argument(
        "--wire", choices=["arrow", "json", "senml", "senml-cbor", "cbor"], default="arrow", dest="message",
        help="form of the messages of a topic (default: arrow)",
    )  # fmt: skip
    simulate.add_argument("--speed", type=_positive, metavar="X", help="seconds simulated a second, into a topic")
    simulate.add_argument(
        "--partitions", type=_positive_count, default=16, metavar="N", help="of a topic that is new (default: 16)"
    )
    simulate.add_argument("--register", metavar="DIR", help="with a topic: folder for assets.csv and truth.csv")
    simulate.set_defaults(run=_simulate)

    check = _command(commands, "check", "everything that can be wrong in a site's files", "vigie check site.toml")
    check.add_argument("site", metavar="SITE.toml", help="the site file")
    check.set_defaults(run=_check)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", epilog=f"example: {example}"
    )


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 1000000, got {text!r}")
    return int(text)


def _processes(text: str) -> int:
    count = _count(text)
    if not 1 <= count <= 64:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 64, got {text!r}")
    return count


def _positive_count(text: str) -> int:
    count = _count(text)
    if count == 0:
        raise argparse.ArgumentTypeError("expected a whole number from 1")
    return count


def _address(text: str) -> tuple[str, int]:
    from flows.site import parse_address

    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _demo(given: argparse.Namespace) -> int:
    from vigie.live import demo

    return demo(given)


def _run(given: argparse.Namespace) -> int:
    from vigie.live import run

    return run(given)


def _score(given: argparse.Namespace) -> int:
    from vigie.files import score

    return score(given)


def _simulate(given: argparse.Namespace) -> int:
    from vigie.files import simulate

    return simulate(given)


def _check(given: argparse.Namespace) -> int:
    from flows.site import SimulatorInput, load_site
    from vigie.say import counted

    site, problems = load_site(given.site)
    for problem in problems:
        print(problem, file=sys.stderr)
    if site is None:
        return 1
    files = sum(map(len, site.files.values()))
    simulated = sum(one.lifts + one.boilers for one in site.site.inputs if isinstance(one, SimulatorInput))
    things = ((len(site.register) + simulated, "asset"), (len(site.site.inputs), "input"), (files, "file"))
    print(f"{given.site}: {', '.join(counted(*one) for one in things)}: nothing is wrong")
    return 0
