"""`vigie run` as several processes: on this machine, or this machine's part of a cluster."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from prometheus_client import CollectorRegistry

from flows.cluster import Place
from flows.credits import new_account
from flows.exporter import Server
from flows.fleet import Fleet
from flows.metrics import Pipeline
from flows.recovery import Store
from flows.shown import ShownOn
from flows.site import LoadedSite, parse_address
from flows.supervise import Heartbeat, Supervisor, free_ports
from vigie.command import Failure
from vigie.live import say, unresolved
from vigie.say import counted

__all__ = ["supervise"]


def supervise(
    given: argparse.Namespace, site: LoadedSite, place: Place, stop: threading.Event, store: Store | None
) -> int:
    """Start the processes, keep them alive, and serve what they say as one."""
    if given.page:
        raise Failure("--page shows the assets of one process: leave it out, or --processes")
    several_hosts = place.processes > 1
    numbers = [place.process] if several_hosts else list(range(given.processes))
    ports = free_ports(given.processes + len(numbers))
    meet = place.addresses or tuple(f"127.0.0.1:{port}" for port in ports[: given.processes])
    with tempfile.TemporaryDirectory(prefix="vigie-") as folder, ExitStack() as held:
        account = Path(folder) / "credits"
        heartbeat = None
        if several_hosts:
            try:
                heartbeat = Heartbeat(place.process, [parse_address(one) for one in meet], account)
            except OSError as error:
                raise Failure(f"cannot reach the cluster as {meet[place.process]}: {error.strerror}") from None
            held.callback(heartbeat.close)
        commands = []
        for number, port in zip(numbers, ports[given.processes :], strict=True):
            command = [sys.executable, "-m", "vigie", "run", given.site, "--process", str(number)]
            for each in meet:
                command += ["--address", each]
            command += ["--serve", f"127.0.0.1:{port}", "--account", str(account)]
            command += ["--snapshot-interval", str(given.snapshot_interval)]
            if given.recovery is not None:
                command += ["--recovery", given.recovery, "--holds-store"]
            commands.append((number, command, f"http://127.0.0.1:{port}/metrics"))

        def prepare() -> None:
            if heartbeat is None:
                new_account(account, len(meet))
            else:
                heartbeat.renew()
            if store is not None and place.process == 0:
                store.rewind()

        # Processes that outlive the supervisor keep others from the store.
        lends = () if store is None else store.locks
        supervisor = Supervisor(commands, stop, prepare=prepare, said=say, heartbeat=heartbeat, lends=lends)
        shown = None if store is None else ShownOn(store.shown)
        address = parse_address(site.site.outputs.address)
        try:
            with Server(
                Fleet({}),
                Pipeline(CollectorRegistry()),
                address[0],
                address[1],
                page=False,
                metrics=supervisor.exposition if shown is None else lambda: shown(supervisor.exposition()),
                is_ready=lambda: all(supervisor.up),
            ) as server:
                assets = counted(len(site.register), "asset")
                print(f"vigie watches {site.site.name}: {assets} in {len(meet)} processes")
                print(f"listening on {server.url}  (Ctrl-C ends)", flush=True)
                return supervisor.run()
        except OSError as error:
            raise Failure(f"cannot listen on {address[0]}:{address[1]}: {unresolved(error)}") from None
