"""What is too much waits: a full disk under the archive, and shards that are slower than their inputs."""

from __future__ import annotations

import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features.assets import shard_of
from features.signals import load_class
from features.telemetry import BLOCKS
from flows.credits import Credits, new_account
from flows.keys import shard_key, worker_of


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of 200 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def metric(url: str, series: str) -> float:
    with urllib.request.urlopen(url + "metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series + " ")), 0.0)


def url_of(run: Any) -> str:
    return str(run.log.read_text()).partition("listening on ")[2].split()[0]


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_full_disk_under_the_archive_loses_nothing_and_says_so(run: Callable[..., Any], small_disk: Path) -> None:
    calm = run("calm", speed=5 * 86_400 / 12)
    calm.start()
    full = run("full", "--snapshot-interval", "1", speed=5 * 86_400 / 12)
    (full.folder / "archive").symlink_to(small_disk)
    full.start()
    url = url_of(full)
    full.until(lambda: metric(url, 'vigie_sink_stalled{sink="archive"}') == 1.0)
    windows = metric(url, 'vigie_windows_total{class="lift"}')
    # The flow goes on: what cannot be written waits, and pages are not late for it.
    full.until(lambda: metric(url, 'vigie_windows_total{class="lift"}') > windows)
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    full.until(lambda: metric(url, 'vigie_sink_stalled{sink="archive"}') == 0.0)
    full.finish()
    calm.finish()
    expected, tables = calm.tables(), full.tables()
    assert {name: len(rows) for name, rows in tables.items()} == {name: len(rows) for name, rows in expected.items()}
    assert all(tables[name].equals(rows) for name, rows in expected.items())


ASSET = next(name for name in (f"lift-{number}" for number in range(100)) if shard_of(name, 2) == 1)
MESSAGE_BYTES = 300 * (48 + 8 * 100)
LIMIT = 2_000_000
MESSAGES = 60


def _message(number: int) -> pa.RecordBatch:
    """Return 300 seconds of one accelerometer, of an asset of shard 1: the other process."""
    start = (1_767_571_200 + number * 300 + np.arange(300)) * 1_000_000
    values = np.random.default_rng(number).normal(0.0, 0.1, 300 * 100)
    return pa.RecordBatch.from_arrays(
        [
            pa.DictionaryArray.from_arrays(pa.array(np.zeros(300, np.int32)), pa.array([ASSET])),
            pa.DictionaryArray.from_arrays(pa.array(np.zeros(300, np.int32)), pa.array(["vibration_x"])),
            pa.array(start).cast(pa.timestamp("us", tz="UTC")),
            pa.array(np.full(300, 10_000)),
            pa.ListArray.from_arrays(pa.array(np.arange(301, dtype=np.int32) * 100), pa.array(values)),
        ],
        schema=BLOCKS,
    )


def _ports() -> list[str]:
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def _process(number: int, addresses: list[str], account: Path, gate: Any, told: Any) -> None:
    """Run one of two processes: the first reads, the second holds the shards, behind a gate."""
    from bytewax._bytewax import cluster_main
    from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
    from prometheus_client import CollectorRegistry

    from flows import monitor, steps
    from flows.metrics import Pipeline
    from flows.sources import Message

    lent = Credits(number, 2, account, limit_bytes=LIMIT)

    class Partition(StatefulSourcePartition[Message, int]):
        sent = 0

        def next_batch(self) -> list[Message]:
            if self.sent == MESSAGES:
                raise StopIteration
            self.sent += 1
            told.put(lent.under_way)
            return [Message("in", "blocks", _message(self.sent))]

        def snapshot(self) -> int:
            return self.sent

    class Source(FixedPartitionedSource[Message, int]):
        def list_parts(self) -> list[str]:
            return ["in"] if number == 0 else []

        def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Partition:
            return Partition()

    class Gated(steps.Window):
        def __call__(self, item: Any) -> Any:
            gate.wait()
            return super().__call__(item)

    monitor.Window = Gated  # type: ignore[attr-defined]
    lift = load_class("lift")
    pipeline = Pipeline(CollectorRegistry())
    watched = monitor.Monitor({"lift": lift}, lambda name: "lift", pipeline, shards=2, credits=lent)
    cluster_main(monitor.build(watched, {"in": Source()}), addresses, number)
    told.put((number, pipeline.account()))


@pytest.mark.timeout(240)
def test_an_input_waits_for_shards_in_another_process(tmp_path: Path) -> None:
    assert worker_of(shard_key(1), 2) == 1
    account = tmp_path / "credits"
    new_account(account, 2)
    context = get_context("fork")
    gate, told = context.Event(), context.Queue()
    arguments = (_ports(), account, gate, told)
    processes = [context.Process(target=_process, args=(number, *arguments)) for number in range(2)]
    for process in processes:
        process.start()
    try:
        # The input stops by itself: nothing comes any more although most has not been sent.
        under_way = [told.get(timeout=120)]
        while under_way[-1] < LIMIT - MESSAGE_BYTES:
            under_way.append(told.get(timeout=60))
        gate.set()
        accounts: dict[int, dict[str, int]] = {}
        while len(accounts) < 2:
            item = told.get(timeout=120)
            if isinstance(item, tuple):
                accounts[item[0]] = item[1]
            else:
                under_way.append(item)
    finally:
        for process in processes:
            process.join(30)
            process.kill()
    assert len(under_way) == MESSAGES
    assert max(under_way) < LIMIT + MESSAGE_BYTES
    assert accounts[0]["received"] == accounts[1]["scored"] == MESSAGES * 300 * 100
