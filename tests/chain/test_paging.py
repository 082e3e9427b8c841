"""The whole chain with the real programs: simulated fleet, flow, Prometheus, Alertmanager, and a provider's webhook."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.signals import load_class
from flows.exporter import Server
from flows.known import Known
from flows.runs import Live
from flows.simulator.fleet import Fleet, FleetPlan
from flows.simulator.source import SimulatorSource
from flows.simulator.truth import Fault

ROOT = Path(__file__).parents[2]
START_US = 1_767_571_200_000_000
HOUR_US = 3_600_000_000


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Webhook:
    """Receives what Alertmanager sends, with the event time that the flow had reached then."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        received = self.received = []  # type: list[dict[str, Any]]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in body["alerts"]:
                    received.append({"to": self.path, "event_us": now_us(), **alert})
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])

    def __enter__(self) -> Webhook:
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def pages(self, status: str = "firing") -> list[dict[str, Any]]:
        return [a for a in self.received if a["labels"].get("severity") == "page" and a["status"] == status]


@contextmanager
def running(arguments: list[str], ready: str, log: Path) -> Iterator[None]:
    """Run a program until the block ends; the block starts when its ready address answers."""
    with log.open("wb") as file:
        process = subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT)
        try:
            for _ in range(200):
                if process.poll() is not None:
                    break
                try:
                    urllib.request.urlopen(ready, timeout=1).close()
                    break
                except (urllib.error.URLError, OSError):
                    threading.Event().wait(0.05)
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def chain(
    folder: Path, program: Callable[[str], str], exporter: int, webhook: int
) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Run Prometheus and Alertmanager with the shipped files, at a scrape a second; give a function that queries."""
    alertmanager, prometheus = free_port(), free_port()
    routes = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())
    routes["route"] |= {"group_wait": "0s", "group_interval": "1s"}
    for receiver in routes["receivers"]:
        for hook in receiver.get("webhook_configs", []):
            hook["url"] = hook["url"].replace(":9080", f":{webhook}")
            del hook["http_config"]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(routes))
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ROOT / "dashboards/rules/*.yml")]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{exporter}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def query(expression: str) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{prometheus}/api/v1/query?query={urllib.request.quote(expression)}"  # type: ignore[attr-defined]
        with urllib.request.urlopen(url, timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result

    with (
        running(
            [
                program("prometheus-alertmanager"), f"--config.file={folder}/alertmanager.yml",
                f"--storage.path={folder}/alertmanager", f"--web.listen-address=127.0.0.1:{alertmanager}",
                "--cluster.listen-address=", "--data.maintenance-interval=10s",
            ],
            f"http://127.0.0.1:{alertmanager}/-/ready",
            folder / "alertmanager.log",
        ),
        running(
            [
                program("prometheus"), f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/prometheus", f"--web.listen-address=127.0.0.1:{prometheus}",
            ],
            f"http://127.0.0.1:{prometheus}/-/ready",
            folder / "prometheus.log",
        ),
    ):  # fmt: skip
        yield query


def live(plan: FleetPlan, speed: float | None, stop: threading.Event, port: int) -> Live:
    return Live(
        classes={name: load_class(name) for name in ("lift", "boiler")},
        known=Known(Fleet(plan).register),
        sources={"simulator": SimulatorSource(plan, speed, stop)},
        address=("127.0.0.1", port),
    )


@pytest.mark.timeout(600)
def test_a_wearing_door_and_circulator_page_their_provider_once_before_they_break(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    faults = (
        Fault("lift-0002", "door_operator", START_US + 30 * HOUR_US, START_US + 100 * HOUR_US),
        Fault("boiler-0001", "circulator_bearing", START_US + 30 * HOUR_US, START_US + 104 * HOUR_US),
    )
    plan = FleetPlan(seed=3, lifts=4, boilers=2, start_us=START_US, days=115 / 24, faults=faults)
    register = Fleet(plan).register
    stop, port = threading.Event(), free_port()
    running_flow = live(plan, 5400.0, stop, port)
    with (
        Webhook(lambda: running_flow.fleet.newest_us or 0) as webhook,
        chain(tmp_path, program, port, webhook.port) as query,
    ):
        simulated: list[list[dict[str, Any]]] = []

        def look(server: Server) -> None:
            def ask() -> None:
                while not stop.wait(1.0):
                    simulated.append(query('count(asset:vigie_asset_info:last15m{simulated="true"})'))

            threading.Thread(target=ask, daemon=True).start()

        account = running_flow.run(look)
        stop.set()
        assert account["received"] == account["scored"], account
        assert simulated[-1][0]["value"][1] == str(len(register)), "every asset is known to Prometheus as simulated"
        pages = webhook.pages()
        paged = {(a["labels"]["asset"], a["labels"]["failure_mode"]): a for a in pages}
        assert set(paged) == {(fault.asset, fault.failure_mode) for fault in faults}
        assert len(pages) == len(faults), "each episode pages once"
        for fault in faults:
            alert = paged[fault.asset, fault.failure_mode]
            assert alert["event_us"] < fault.breakdown_us, "the provider hears of it before the breakdown"
            provider = register[fault.asset].provider
            assert alert["labels"]["provider"] == provider
            assert alert["to"] == "/providers/" + provider.lower().replace(" ", "-")
            assert alert["labels"]["simulated"] == "true"
            assert alert["annotations"]["runbook_url"].endswith("/VigiePredictedFailure")
            lead_h = (fault.breakdown_us - alert["event_us"]) / HOUR_US
            print(f"{fault.asset} {fault.failure_mode}: paged {lead_h:.1f} h before the breakdown")


@pytest.mark.timeout(900)
def test_a_healthy_fleet_of_20_pages_nobody_in_a_fortnight(tmp_path: Path, program: Callable[[str], str]) -> None:
    plan = FleetPlan(seed=11, lifts=12, boilers=8, start_us=START_US, days=14.0, faults="none")
    ended, port = threading.Event(), free_port()
    running_flow = live(plan, None, threading.Event(), port)
    with (
        Webhook(lambda: running_flow.fleet.newest_us or 0) as webhook,
        chain(tmp_path, program, port, webhook.port) as query,
    ):
        scraped: list[float] = []

        def look(server: Server) -> None:
            def ask() -> None:
                while not ended.wait(1.0) and len(scraped) < 3:
                    scraped.extend(float(r["value"][1]) for r in query("sum(vigie_readings_total)"))

            threading.Thread(target=ask, daemon=True).start()

        account = running_flow.run(look)
        ended.set()
        assert account["received"] == account["scored"], account
        assert account["received"] > 100e6
        assert len(scraped) >= 3 and scraped[-1] > 0, "Prometheus has seen the fleet"
        assert webhook.pages() == []
        assert running_flow.fleet.episodes() == [], "not even a ticket is open"
        for equipment in ("lift", "boiler"):
            paged = running_flow.pipeline.registry.get_sample_value("vigie_pages_total", {"class": equipment})
            assert paged in (None, 0.0), equipment
