"""The whole dataflow under the engine: messages, shards, order and processes change no score row."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.signals import EquipmentClass
from flows.sources import Message

START_US = 1_700_000_000_000_000
SECOND = 1_000_000
LATENESS_US = 15 * SECOND
PATIENCE_S = 120.0
Machine = Callable[..., EquipmentClass]


@pytest.fixture(scope="module")
def equipment(machine: Machine) -> EquipmentClass:
    return machine(window_s=5.0, lateness_s=15.0, idle_after_s=60.0)


@pytest.fixture(scope="module")
def blocks(arrivals: ModuleType) -> list[Any]:
    """Return half an hour of six machines, two of which wear."""
    rng = np.random.default_rng(4)
    seconds = 2000
    at = START_US + np.arange(seconds) * SECOND
    found: list[Any] = []
    for number in range(6):
        slow = 20.0 + rng.normal(0, 0.3, seconds)
        if number < 2:
            slow += 12.0 * np.clip((np.arange(seconds) / 240.0 - 3.0) / 4.0, 0.0, 1.0) ** 1.5
        for signal, values in (("slow", slow), ("fast", rng.normal(0, 1, seconds))):
            found += arrivals.cut(rng, f"m{number}", signal, at, values, 12 * SECOND, 12, overlap=0.1)
    return found


def messages_of(chain: ModuleType, arrivals: ModuleType, blocks: list[Any], seed: int, most: int) -> list[Message]:
    arranged = arrivals.arrange(np.random.default_rng(seed), blocks, LATENESS_US, most)
    return [Message("in", "blocks", chain.record_batch(message.blocks)) for message in arranged]


def rows(*paths: Path) -> pa.Table:
    order = [("window_start", "ascending"), ("asset", "ascending")]
    return pa.concat_tables([pq.read_table(path) for path in paths]).sort_by(order)


def agree(found: pa.Table, expected: pa.Table, but: tuple[str, ...] = ()) -> None:
    assert found.schema == expected.schema
    for name in expected.schema.names:
        one, other = found.column(name), expected.column(name)
        if pa.types.is_floating(other.type):
            assert one.is_null().equals(other.is_null()), name
            np.testing.assert_allclose(one.fill_null(0), other.fill_null(0), rtol=1e-9, atol=1e-12, err_msg=name)
        elif name not in but:
            assert one.equals(other), name


@pytest.fixture(scope="module")
def undisturbed(
    flow_process: ModuleType,
    chain: ModuleType,
    arrivals: ModuleType,
    blocks: list[Any],
    equipment: EquipmentClass,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[pa.Table, dict[str, int]]:
    """What a run says that gets everything in one message, with one shard."""
    path = tmp_path_factory.mktemp("flow") / "rows.parquet"
    whole = [Message("in", "blocks", chain.record_batch(arrivals.in_order(blocks)[0].blocks))]
    account = flow_process.run(whole, equipment, path, 1, 1)
    table = rows(path)
    assert table.column("page").to_numpy().sum() == 2
    assert account["received"] == account["scored"] + account["duplicate"]
    assert account["pending"] == 0
    sent = Counter((b.asset, b.signal) for b in blocks for v in b.values if v == v)
    assert account["received"] == sent.total()
    return table, account


@pytest.mark.parametrize(("shards", "most", "batch"), [(1, 30, 1), (4, 300, 1), (16, 30, 10), (16, 100_000, 1)])
def test_shards_messages_and_order_change_no_row(
    flow_process: ModuleType,
    chain: ModuleType,
    arrivals: ModuleType,
    blocks: list[Any],
    equipment: EquipmentClass,
    undisturbed: tuple[pa.Table, dict[str, int]],
    tmp_path: Path,
    shards: int,
    most: int,
    batch: int,
) -> None:
    messages = messages_of(chain, arrivals, blocks, shards + most, most)
    account = flow_process.run(messages, equipment, tmp_path / "rows.parquet", shards, batch)
    assert account == undisturbed[1]
    agree(rows(tmp_path / "rows.parquet"), undisturbed[0])


def free_address() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


def test_two_processes_change_no_row(
    chain: ModuleType,
    arrivals: ModuleType,
    blocks: list[Any],
    equipment: EquipmentClass,
    undisturbed: tuple[pa.Table, dict[str, int]],
    tmp_path: Path,
) -> None:
    (tmp_path / "messages").write_bytes(pickle.dumps(messages_of(chain, arrivals, blocks, 9, 60)))
    (tmp_path / "class").write_bytes(msgspec.json.encode(equipment))
    addresses = [free_address(), free_address()]
    script = Path(__file__).with_name("flow_process.py")
    outs = [tmp_path / f"rows-{process}.parquet" for process in range(2)]
    running = []
    try:
        for process, out in enumerate(outs):
            command: list[str | Path] = [sys.executable, script, tmp_path / "messages", tmp_path / "class"]
            log = (tmp_path / f"log-{process}").open("w")
            running.append(
                subprocess.Popen(
                    [*command, out, "16", str(process), *addresses],
                    cwd=Path(__file__).parents[2],
                    stdout=log,
                    stderr=log,
                )
            )
            log.close()
        deadline = time.monotonic() + PATIENCE_S
        for process, one in enumerate(running):
            assert one.wait(max(1.0, deadline - time.monotonic())) == 0, (tmp_path / f"log-{process}").read_text()
    finally:
        for one in running:
            one.kill()
            one.wait()
    # A page is decided where its class is dispatched, which need not be where its asset's rows are written.
    agree(rows(*outs), undisturbed[0], but=("page",))
    assert all(pq.read_metadata(out).num_rows > 0 for out in outs), "both processes have worked"
    total: Counter[str] = Counter()
    for out in outs:
        total.update(json.loads(out.with_suffix(".json").read_text()))
    assert {k: v for k, v in total.items() if v} == {k: v for k, v in undisturbed[1].items() if v}
