"""`vigie run` as several processes: on this machine, or this machine's part of a cluster."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from pathlib import Path

from prometheus_client import CollectorRegistry

from flows.cluster import Place
from flows.credits import new_account
from flows.exporter import Server
from flows.fleet import Fleet
from flows.metrics import Pipeline
from flows.site import LoadedSite, parse_address
from flows.supervise import Heartbeat, Supervisor, free_ports
from vigie.command import Failure
from vigie.live import say

__all__ = ["supervise"]


def supervise(given: argparse.Namespace, site: LoadedSite, place: Place, stop: threading.Event) -> int:
    """Start the processes, keep them alive, and serve what they say as one."""
    if given.page:
        raise Failure("--page shows the assets of one process: leave it out, or --processes")
    heartbeat = None
    local = place.addresses
    numbers = list(range(given.processes))
    if place.processes > 1:
        numbers = [place.process]
        own, *others = _own_first(place)
        heartbeat = Heartbeat(own, others)
    ports = free_ports(given.processes + len(numbers))
    if not local:
        local = tuple(f"127.0.0.1:{port}" for port in ports[: given.processes])
    serves = ports[given.processes :]
    with tempfile.TemporaryDirectory(prefix="vigie-") as folder:
        account = Path(folder) / "credits"
        commands = []
        for number, port in zip(numbers, serves, strict=True):
            command = [sys.executable, "-m", "vigie", "run", given.site, "--process", str(number)]
            for each in local:
                command += ["--address", each]
            command += ["--serve", f"127.0.0.1:{port}", "--snapshot-interval", str(given.snapshot_interval)]
            if place.processes == 1:
                command += ["--account", str(account)]
            if given.recovery is not None:
                command += ["--recovery", given.recovery, "--holds-store"]
            commands.append((command, f"http://127.0.0.1:{port}/metrics"))
        supervisor = Supervisor(
            commands, stop, prepare=lambda: new_account(account, len(local)), said=say, heartbeat=heartbeat
        )
        address = parse_address(site.site.outputs.address)
        try:
            with Server(
                Fleet({}),
                Pipeline(CollectorRegistry()),
                address[0],
                address[1],
                page=False,
                metrics=supervisor.exposition,
                is_ready=lambda: all(supervisor.up),
            ) as server:
                print(f"vigie watches {site.site.name}: {len(site.register)} assets in {len(local)} processes")
                print(f"listening on {server.url}  (Ctrl-C ends)", flush=True)
                return supervisor.run()
        except OSError as error:
            raise Failure(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from None
        finally:
            if heartbeat is not None:
                heartbeat.close()


def _own_first(place: Place) -> list[tuple[str, int]]:
    addresses = [parse_address(address) for address in place.addresses]
    return [addresses[place.process], *addresses[: place.process], *addresses[place.process + 1 :]]
