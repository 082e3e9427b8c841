"""One process of the whole dataflow: reads messages from a file, writes score rows to another.

``python flow_process.py MESSAGES CLASS OUT SHARDS [PROCESS ADDRESS ADDRESS ...]``
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import msgspec
from bytewax.testing import TestingSource, cluster_main, run_main
from prometheus_client import CollectorRegistry

from features.signals import EquipmentClass
from flows.metrics import Pipeline
from flows.monitor import Monitor, build
from flows.results import Results
from flows.sinks import ScoreRows


def run(
    messages: list[Any], equipment: EquipmentClass, out: Path, shards: int, batch: int, *cluster: Any
) -> dict[str, int]:
    """Run the dataflow over messages to their end, alone or as a process of a cluster; return the account."""
    pipeline = Pipeline(CollectorRegistry())
    classes = {equipment.name: equipment}
    monitor = Monitor(classes=classes, class_of=lambda asset: equipment.name, pipeline=pipeline, shards=shards)
    rows = ScoreRows(out, equipment)
    flow = build(monitor, {"in": TestingSource(messages, batch)}, Results(classes, scores=rows))
    if cluster:
        cluster_main(flow, list(cluster[1:]), cluster[0])
    else:
        run_main(flow)
    rows.write()
    return pipeline.account()


if __name__ == "__main__":
    found, described, out, shards, process, *addresses = sys.argv[1:]
    messages = pickle.loads(Path(found).read_bytes())
    equipment = msgspec.json.decode(Path(described).read_bytes(), type=EquipmentClass)
    account = run(messages, equipment, Path(out), int(shards), 3, int(process), *addresses)
    Path(out).with_suffix(".json").write_bytes(msgspec.json.encode(account))
