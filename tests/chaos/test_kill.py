"""A run that is killed again and again ends as one that nobody disturbed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pyarrow as pa
import pytest

KILLS = int(os.environ.get("VIGIE_KILLS", "2"))
"""How often each kind of run is killed; `make chaos` takes a hundred."""
SPEED = 5 * 86_400 / 10
"""Five days in ten seconds."""


def ended(run: Any) -> tuple[dict[str, pa.Table], list[str]]:
    run.finish()
    return run.tables(), run.metrics()


@pytest.mark.timeout(300 + 60 * KILLS)  # of which 200 are for compiling, where nothing has been compiled yet
@pytest.mark.parametrize("processes", [1, 2])
def test_kill_at_random_moments_changes_nothing(run: Callable[..., Any], processes: int) -> None:
    calm = run("calm", "--processes", str(processes), speed=SPEED)
    calm.start()
    random = Random(processes)
    made = 0
    runs: list[Any] = []
    while made < KILLS:
        # A run that ends before all kills are made is followed by one from the beginning, on a store of its own.
        runs.append(
            run(f"killed-{len(runs)}", "--processes", str(processes), "--snapshot-interval", "0.5", speed=SPEED)
        )
        kills = killed_at_random(runs[-1], random, KILLS - made)
        assert kills > 0, "a run ends before it is killed once: nothing is tested"
        made += kills
    assert made == KILLS
    expected_tables, expected_metrics = ended(calm)
    assert any("vigie_pages_total" in line and not line.endswith(" 0.0") for line in expected_metrics), "no asset paged"
    for killed in runs:
        tables, metrics = ended(killed)
        assert metrics == expected_metrics
        assert tables.keys() == expected_tables.keys()
        for name, rows in expected_tables.items():
            assert len(tables[name]) == len(rows), f"rows of {name}"
            different = [c for c in rows.column_names if not tables[name].column(c).equals(rows.column(c))]
            assert not different, f"columns of {name} that differ"


def killed_at_random(run: Any, random: Random, most: int) -> int:
    """Kill a run at most so many times, and leave it running or ended; return how many signals ended it."""
    kills = 0
    while kills < most:
        run.start()
        # A moment of the run, from its first message on; pace is by the clock, so a moment is a time.
        time.sleep(random.uniform(0.0, 2.0))
        run.kill()
        if run.process.returncode != -signal.SIGKILL:
            break  # It had ended by itself.
        kills += 1
    run.start()
    return kills
