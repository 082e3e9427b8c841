"""The commands that run until they are stopped: demo, run."""

from __future__ import annotations

import argparse
import errno
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.cluster import Place
from flows.recovery import Store, StoreError, open_store
from flows.site import LoadedSite
from flows.spool.writer import SpoolError
from flows.supervise import HOPELESS
from vigie.command import Failure
from vigie.say import account_line, counted

__all__ = ["demo", "run", "say", "stopped_by_signal", "unresolved"]


def demo(given: argparse.Namespace) -> int:
    """Run the whole pipeline on a simulated fleet."""
    from features.signals import load_class
    from flows.intake import Input
    from flows.known import Known
    from flows.runs import Live
    from flows.simulator.fleet import Fleet, FleetPlan
    from flows.simulator.source import SimulatorSource
    from flows.warmup import compile_kernels

    if given.lifts + given.boilers == 0:
        raise Failure("there is nothing to simulate: give --lifts or --boilers")
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    plan = FleetPlan(
        seed=given.seed,
        lifts=given.lifts,
        boilers=given.boilers,
        start_us=int(now.timestamp() * 1e6),
        days=None,
        faults="demo",
    )
    classes = {name: load_class(name) for name in ("lift", "boiler")}
    fleet = Fleet(plan)
    with _said_when_slow():
        compile_kernels(classes.values())
        fleet.step(plan.start_us + 600_000_000)
    with stopped_by_signal(given.duration) as stop:
        live = Live(
            classes=classes,
            known=Known(fleet.register),
            sources={"simulator": SimulatorSource(plan, given.speed, stop)},
            inputs={"simulator": Input(endless=True)},
            address=given.address,
            stop=stop,
        )
        _serve(
            live,
            f"a simulated fleet of {counted(given.lifts, 'lift')} and {counted(given.boilers, 'boiler')}, "
            f"{given.speed:,.0f} times real time",
        )
    return 0


def run(given: argparse.Namespace) -> int:
    """Run the dataflow of a site, in this process or as several."""
    from flows.runs import live_site
    from flows.site import load_site
    from flows.supervise import stop_when_orphaned
    from flows.warmup import compile_kernels

    place = _place(given)
    site, problems = load_site(given.site, lenient=True)
    if site is None:
        raise Failure("; ".join(problems))
    if place.serves is None:
        for sentence in site.left_out:
            say(f"{sentence}; the run goes on without it")
    with _said_when_slow():
        compile_kernels(site.classes.values())
    with ExitStack() as held:
        store = _store(given, site, place, held)
        stop = held.enter_context(stopped_by_signal(None))
        if given.processes > 1 or (place.processes > 1 and place.serves is None):
            from vigie.several import supervise

            return supervise(given, site, place, stop, store)
        if place.serves is not None:
            stop_when_orphaned(stop)
        try:
            live = live_site(site, stop, page=given.page, store=store, place=place, said=say)
        except SpoolError as error:
            raise Failure(str(error)) from None
        live.epoch = timedelta(seconds=given.snapshot_interval)
        _serve(live, f"{site.site.name}: {counted(len(live.known.register), 'asset')}")
    return 0


def _store(given: argparse.Namespace, site: LoadedSite, place: Place, held: ExitStack) -> Store | None:
    """Open the recovery store until `held` is closed, where there shall be one."""
    if given.recovery is None:
        return None
    folder = Path(given.recovery)
    try:
        if given.holds_store:
            return Store.held(folder)
        command = f"vigie run {given.site} --recovery {given.recovery}"
        process = place.process if place.processes > 1 else None
        store = open_store(folder, site.site.shards, site.classes, command, given.fresh, process, say)
    except StoreError as error:
        raise Failure(str(error)) from None
    return held.enter_context(store)


def _serve(live: object, what: str) -> None:
    from flows.dispatch import Decision
    from flows.exporter import Server
    from flows.runs import Live
    from models.detector import StateError

    assert isinstance(live, Live)
    known = live.known

    def serving(server: Server) -> None:
        print(f"vigie watches {what}")
        print(f"listening on {server.url}  (Ctrl-C ends)", flush=True)

    def told(decision: Decision) -> None:
        at = datetime.fromtimestamp(decision.window_start_us / 1e6, UTC)
        asset = known.register.get(decision.asset)
        to = f" to {asset.provider}" if decision.rung == "page" and asset is not None and asset.provider else ""
        what = decision.outcome if decision.rung == "closed" else decision.rung + to
        print(f"{at:%Y-%m-%d %H:%M} {decision.asset} {what}: {decision.reason}", flush=True)

    live.told = told
    try:
        account = live.run(serving)
    except StateError as error:
        raise Failure(f"{error}; to start anew add --fresh", HOPELESS if live.place.serves else 1) from None
    except socket.gaierror as error:
        raise Failure(f"cannot listen on {live.address[0]}:{live.address[1]}: {unresolved(error)}") from None
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES) and error.filename is None:
            raise Failure(f"cannot listen on {live.address[0]}:{live.address[1]}: {error.strerror}") from None
        raise Failure(str(error)) from None
    if not live.stop.is_set():
        print("every input has ended")
    print(account_line(account), flush=True)


def unresolved(error: OSError) -> str:
    """Say what an address is that no name server knows."""
    if isinstance(error, socket.gaierror):
        return f"no host is called so ({error.strerror}); 127.0.0.1 is this machine alone, 0.0.0.0 all its addresses"
    return error.strerror or str(error)


def say(sentence: str) -> None:
    """Tell the operator a sentence."""
    print(f"vigie: {sentence}", file=sys.stderr, flush=True)


def _place(given: argparse.Namespace) -> Place:
    """Return the place of this process among those that the command names."""
    addresses = tuple(f"{host}:{port}" for host, port in given.address)
    if given.processes > 1 and addresses:
        raise Failure("give --processes for several processes here, or --address for each process of a cluster")
    if given.process is not None and not 0 <= given.process < max(1, len(addresses)):
        raise Failure(f"--process counts from 0 to the last --address; got {given.process}")
    if len(addresses) > 1 and given.process is None:
        raise Failure("with several --address, --process says which of them is this one")
    if len(addresses) > 1 and given.recovery is None:
        say("without --recovery a cluster begins anew whenever one of its processes dies")
    return Place(
        given.process or 0,
        addresses if len(addresses) > 1 else (),
        None if given.account is None else Path(given.account),
        given.serve,
    )


@contextmanager
def _said_when_slow() -> Iterator[None]:
    """Say why nothing happens yet where compiling takes long: once on each machine and version."""
    text = "compiling for this machine, once: one to three minutes"
    timer = threading.Timer(3.0, lambda: print(text, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def stopped_by_signal(duration_s: float | None) -> Iterator[threading.Event]:
    """Give an event that SIGINT, SIGTERM or the end of the duration sets."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    timer = threading.Timer(duration_s, stop.set) if duration_s is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield stop
    finally:
        if timer is not None:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
