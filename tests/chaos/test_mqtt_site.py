"""A site that drinks from an MQTT broker: killed, its broker too, and every reading once all the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest

from features.signals import load_class
from flows.warmup import compile_kernels

KILLS = int(os.environ.get("VIGIE_KILLS", "2"))
"""How often a site is killed, two times in ten with its broker; `make chaos` takes a hundred."""
SHARDS = 4
SPEED = 1_500 / KILLS
"""Simulated seconds a second: a feed as long as the kills take."""
PATIENCE_S = 120.0

SITE = """
name = "MQTT"
assets = "assets.csv"
shards = {shards}
[[inputs]]
kind = "mqtt"
name = "gateways"
broker = "127.0.0.1:{port}"
topics = ["fleet/{{asset}}"]
client_id = "vigie-test"
wire = "json"
spool = "spool"
partitions = {shards}
[outputs]
address = "127.0.0.1:0"
archive = "archive"
dead_letters = "rejected"
"""


class Mosquitto:
    """A real broker that keeps what it acknowledged, on one port."""

    def __init__(self, program: str, folder: Path) -> None:
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.database = folder / "mosquitto.db"
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nuser root\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nautosave_interval 1\nmax_inflight_messages 0\nmax_queued_messages 0\n"
        )
        self._command = [program, "-c", str(folder / "mosquitto.conf")]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def settle(self) -> None:
        """Wait until what it acknowledged is on its disk: it saves once a second, and two saves are waited for."""
        deadline = time.monotonic() + PATIENCE_S
        for _ in range(2):
            before = self.database.stat().st_mtime_ns if self.database.exists() else 0
            while not self.database.exists() or self.database.stat().st_mtime_ns == before:
                assert time.monotonic() < deadline
                time.sleep(0.01)


@pytest.fixture
def mosquitto(program: Callable[[str], str], tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(program("mosquitto"), tmp_path / "broker")
    broker.start()
    yield broker
    broker.kill()


def publish(program: Callable[[str], str], port: int, topic: str, payload: str) -> None:
    """Publish with a client that is not ours."""
    command = [program("mosquitto_pub"), "-p", str(port), "-V", "mqttv5", "-q", "1", "-t", topic, "-m", payload]
    subprocess.run(command, check=True, timeout=PATIENCE_S)


def restart(broker: Mosquitto, *clients: Any) -> None:
    """Kill the broker while its clients send and read, and start it again."""
    # It acknowledges before it saves: nothing may come between its saving and its end.
    for client in clients:
        client.freeze()
    broker.settle()
    broker.kill()
    for client in clients:
        client.thaw()
    broker.start()


def has_more(site: Any, before: float) -> bool:
    return bool(site.value("vigie_readings_total") > before)


@pytest.mark.timeout(300 + 30 * KILLS)
@pytest.mark.parametrize("processes", [1, 2] if "VIGIE_KILLS" in os.environ else [2])
def test_every_reading_is_scored_or_rejected_once(
    mosquitto: Mosquitto,
    program: Callable[[str], str],
    site_run: Callable[..., Any],
    feed: Callable[..., Any],
    tmp_path: Path,
    processes: int,
) -> None:
    compile_kernels([load_class("lift"), load_class("boiler")])
    (tmp_path / "site.toml").write_text(SITE.format(port=mosquitto.port, shards=SHARDS))
    fleet = ["--lifts", "2", "--boilers", "2"]
    # The broker queues only for a session that it knows: the site comes first, and needs its register.
    known = [sys.executable, "-m", "vigie", "simulate", str(tmp_path / "known"), *fleet, "--days", "0.01"]
    subprocess.run(known, check=True)
    (tmp_path / "known" / "assets.csv").rename(tmp_path / "assets.csv")
    site = site_run(tmp_path, "--processes", str(processes))
    site.start()
    site.until(lambda: site.value('vigie_input_up{input="gateways"}') == 1.0)
    fed = feed(tmp_path, f"mqtt://127.0.0.1:{mosquitto.port}/fleet", *fleet, "--speed", str(SPEED))
    random = Random(processes)
    for number in range(KILLS):
        time.sleep(random.uniform(0.5, 3.0))
        if number % 10 == 0:
            restart(mosquitto, fed, site)
            before = site.value("vigie_readings_total")
            site.until(partial(has_more, site, before))
        publish(
            program,
            mosquitto.port,
            "fleet/nobody",
            '{"asset": "nobody", "signal": "flow", "start": 1, "values": [1]}',
        )
        publish(program, mosquitto.port, "fleet/nobody", "no telemetry")
        site.kill()
        if number % 10 == 1:
            # What the broker holds for a site that is not there outlives its own death too.
            restart(mosquitto, fed)
        assert fed.running, fed.log.read_text()
        site.start()
    sent = fed.stop()
    reasons = {
        'vigie_readings_rejected_total{reason="unknown_asset"}',
        'vigie_readings_rejected_total{reason="malformed"}',
    }
    # A message that came again is rejected reading by reading: as a duplicate, or late where its window is closed.
    again = [f'vigie_readings_rejected_total{{reason="{reason}"}}' for reason in ("duplicate", "late")]

    def done() -> bool:
        counts = site.counts()
        return bool(counts["vigie_readings_total"] - sum(counts[one] for one in again) >= sent + 2 * KILLS)

    site.until(done)
    site.stop()
    site.start()
    account = site.counts()
    site.stop()
    rejected = {k: n for k, n in account.items() if "_rejected_" in k and n}
    repeated = sum(rejected.pop(one, 0) for one in again)
    assert rejected == dict.fromkeys(reasons, KILLS)
    assert account["vigie_readings_total"] == sent + 2 * KILLS + repeated
    scored = account["vigie_readings_scored_total"]
    assert sent == scored + account["vigie_readings_pending"]
    with duckdb.connect() as base:
        files = f"read_parquet('{tmp_path}/archive/scores/**/*.parquet', union_by_name=true)"
        rows, different, samples = base.sql(
            f"SELECT count(*), count(DISTINCT (asset, window_start)), sum(samples) FROM {files}"
        ).fetchall()[0]
        assert rows == different and samples == scored
        refused = f"read_parquet('{tmp_path}/rejected/rejected/**/*.parquet', union_by_name=true)"
        letters = dict(base.sql(f"SELECT reason, sum(readings) FROM {refused} GROUP BY reason").fetchall())
    assert letters["unknown_asset"] == letters["malformed"] == KILLS
