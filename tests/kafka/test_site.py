"""A site that drinks from a topic and answers into others: killed, its broker too, and everything once all the same."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from features.signals import load_class
from flows.warmup import compile_kernels

KILLS = int(os.environ.get("VIGIE_KILLS", "2"))
"""How often a site is killed, and every tenth time its broker too; `make chaos` takes a hundred."""
PARTITIONS = 4
SPEED = 1_500 / KILLS
"""Simulated seconds a second. The broker's disk is one file that it writes anew each second: 0.1 to 0.2 days fit."""

SITE = """
name = "Kafka"
assets = "assets.csv"
shards = {partitions}
[[inputs]]
kind = "kafka"
name = "telemetry"
brokers = ["{broker}"]
topic = "telemetry"
partitions = {partitions}
group = "vigie"
start = "earliest"
[outputs]
address = "127.0.0.1:0"
[outputs.kafka]
brokers = ["{broker}"]
scores = "scores"
rejected = "rejected"
"""


@pytest.mark.timeout(300 + 30 * KILLS)
@pytest.mark.parametrize("processes", [1, 2] if "VIGIE_KILLS" in os.environ else [2])
def test_every_reading_is_scored_or_rejected_once(
    broker: Any,
    site_run: Callable[..., Any],
    feed: Callable[..., Any],
    wait: Callable[[Callable[[], bool], str], None],
    tmp_path: Path,
    processes: int,
) -> None:
    compile_kernels([load_class("lift"), load_class("boiler")])
    for topic in ("telemetry", "scores", "rejected"):
        broker.make(topic, PARTITIONS)
    (tmp_path / "site.toml").write_text(SITE.format(broker=broker.address, partitions=PARTITIONS))
    fed = feed(tmp_path, f"kafka://{broker.address}/telemetry", "--lifts", "3", "--boilers", "3", "--speed", str(SPEED))
    wait((tmp_path / "truth.csv").exists, "the register")
    # What no gateway should send: of an asset that nobody knows, and no telemetry at all.
    stranger = b'{"asset": "nobody", "signal": "flow", "start": 1767571200, "period_s": 1, "values": [1, 2, 3]}'
    json_type = {"content-type": b"application/json"}
    site = site_run(tmp_path, "--processes", str(processes))
    try:
        random = Random(processes)
        for number in range(KILLS):
            site.start()
            time.sleep(random.uniform(0.2, 2.0))
            if number % 10 == 0:
                # This broker acknowledges before it saves: nothing may come between its saving and its end.
                fed.freeze()
                site.freeze()
                broker.kill()
                fed.thaw()
                site.thaw()
                broker.start()
                before = broker.messages("telemetry", PARTITIONS)
                wait(partial(has_more, broker, before), "the feed to go on")
            broker.send("telemetry", [stranger, b"\x00"], headers=json_type)
            site.kill()
            assert fed.running, fed.log.read_text()
        site.start()
        sent = fed.stop()
        # Three readings of nobody, and a record that counts as one.
        expected = sent + 4 * KILLS
        site.until(lambda: site.counts()["vigie_readings_total"] >= expected)
        site.until(lambda: sum(_rejected(site.counts()).values()) >= 4 * KILLS)
        site.stop()
        # What had been read is done with; what is still open stays so, and is counted.
        site.start()
        account = site.counts()
        site.stop()
    finally:
        site.kill()
    rejected = _rejected(account)
    assert account["vigie_readings_total"] == expected
    assert rejected == {"unknown_asset": 3 * KILLS, "malformed": KILLS}
    scored = account["vigie_readings_scored_total"]
    assert expected == scored + account["vigie_readings_pending"] + sum(rejected.values())
    scores = broker.read("scores")
    ids = [dict(message.headers())["id"] for message in scores]
    assert len(ids) == len(set(ids))
    assert sum(json.loads(message.value())["samples"] for message in scores) == scored
    refused: Counter[str] = Counter()
    for message in broker.read("rejected"):
        row = json.loads(message.value())
        refused[row["reason"]] += row["readings"]
    assert refused == rejected


def has_more(broker: Any, before: int) -> bool:
    return bool(broker.messages("telemetry", PARTITIONS) > before)


def _rejected(counts: Counter[str]) -> Counter[str]:
    prefix = 'vigie_readings_rejected_total{reason="'
    return Counter({k[len(prefix) : -2]: n for k, n in counts.items() if k.startswith(prefix) and n})
