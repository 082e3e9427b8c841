"""Keys that say the worker: where the engine really sends them, and how evenly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.keys import BALANCED, shard_key, worker_of
from flows.supervise import free_ports

FLOW = """
import sys
from pathlib import Path
import bytewax.operators as op
from bytewax._bytewax import cluster_main
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition

process, out, *addresses = sys.argv[1:]
keys = Path(out).joinpath("keys").read_text().split()

class Once(StatelessSourcePartition):
    def __init__(self, items):
        self.items = items
    def next_batch(self):
        if not self.items:
            raise StopIteration
        items, self.items = self.items, []
        return items

class Keys(DynamicSource):
    def build(self, step_id, worker_index, worker_count):
        return Once(keys if worker_index == 0 else [])

class Seen(StatelessSinkPartition):
    def __init__(self, worker):
        self.file = Path(out).joinpath(f"worker-{worker}").open("w")
    def write_batch(self, items):
        self.file.writelines(f"{key} {where}\\n" for key, where in items)
    def close(self):
        self.file.close()

class Workers(DynamicSink):
    def build(self, step_id, worker_index, worker_count):
        return Seen(worker_index)

flow = Dataflow("keys")
stream = op.map("keyed", op.input("in", flow, Keys()), lambda key: (key, 1))
stream = op.stateful_map("where", stream, lambda state, value: (state, process))
op.output("out", stream, Workers())
cluster_main(flow, addresses, int(process))
"""


def test_the_engine_sends_a_key_where_the_hash_says(tmp_path: Path) -> None:
    """Three processes: the worker of each key is the one that the engine chooses."""
    keys = [*map(shard_key, range(64)), "a", "é" * 9, *(f"{n:08d}" for n in range(16))]
    (tmp_path / "keys").write_text("\n".join(keys))
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FLOW, str(number), str(tmp_path), *addresses],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for number in range(3)
    ]
    try:
        for process in processes:
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 0, said.decode()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    where = dict(
        line.split() for number in range(3) for line in (tmp_path / f"worker-{number}").read_text().splitlines()
    )
    assert where == {key: str(worker_of(key, 3)) for key in keys}


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("shards", [16, 64, 1024])
def test_shards_are_spread_evenly(workers: int, shards: int) -> None:
    """Shard n runs on worker n % workers, so that no worker has two shards more than another."""
    assert BALANCED % workers == 0
    assert [worker_of(shard_key(n), workers) for n in range(shards)] == [n % workers for n in range(shards)]


def test_the_names_are_for_ever() -> None:
    """They are recovery keys: a store that was written yesterday knows no others."""
    keys = [shard_key(n) for n in range(5)]
    assert keys == ["0000-203", "0001-4", "0002-13", "0003-166", "0004-202"]
    assert len({shard_key(n) for n in range(1024)}) == 1024


@given(st.text(max_size=40), st.integers(1, 64))
def test_every_text_has_one_worker(key: str, workers: int) -> None:
    assert 0 <= worker_of(key, workers) == worker_of(key, workers) < workers
