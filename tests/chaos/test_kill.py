"""A run that is killed again and again ends as one that nobody disturbed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pyarrow as pa
import pytest

KILLS = int(os.environ.get("VIGIE_KILLS", "2"))
"""Moments at which each run is killed; `make chaos` takes a hundred."""
SPEED = 5 * 86_400 / 10
"""Five days in ten seconds."""


def ended(run: Any) -> tuple[dict[str, pa.Table], list[str]]:
    run.finish()
    return run.tables(), run.metrics()


@pytest.mark.timeout(60 + 60 * KILLS)
@pytest.mark.parametrize("processes", [1, 2])
def test_kill_at_random_moments_changes_nothing(run: Callable[..., Any], processes: int) -> None:
    calm = run("calm", "--processes", str(processes), speed=SPEED)
    calm.start()
    killed = run("killed", "--processes", str(processes), "--snapshot-interval", "0.5", speed=SPEED)
    random = Random(processes)
    for _ in range(KILLS):
        killed.start()
        # A moment of the run, from its first message on; pace is by the clock, so a moment is a time.
        time.sleep(random.uniform(0.0, 2.0))
        if killed.process.poll() is not None:
            break
        killed.kill()
    killed.start()
    tables, metrics = ended(killed)
    expected_tables, expected_metrics = ended(calm)
    assert metrics == expected_metrics
    assert any("vigie_pages_total" in line and not line.endswith(" 0.0") for line in metrics), "some asset paged"
    assert tables.keys() == expected_tables.keys()
    for name, rows in expected_tables.items():
        assert len(tables[name]) == len(rows), f"rows of {name}"
        different = [c for c in rows.column_names if not tables[name].column(c).equals(rows.column(c))]
        assert not different, f"columns of {name} that differ"
