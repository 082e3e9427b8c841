"""kill -9 of a flow, again and again, and of its broker: each message in gives one result out."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

Wait = Callable[[Callable[[], bool], str], None]
FLOW = Path(__file__).with_name("flow.py")
MESSAGES = 4_000
KILLS = 6


def has_more(broker: Any, before: int) -> bool:
    return before >= MESSAGES or len(broker.read("scores")) > before


@pytest.mark.timeout(200)
def test_each_message_in_is_one_result_out_whenever_the_flow_is_killed(broker: Any, tmp_path: Path, wait: Wait) -> None:
    broker.make("telemetry", 2)
    broker.make("scores", 4)
    chance = random.Random(1)
    names = [f"lift-{n % 40:04d}|{n}" for n in range(MESSAGES)]

    def feed() -> None:
        for first in range(0, MESSAGES, 40):
            part = names[first : first + 40]
            broker.send("telemetry", [name.encode() for name in part], first // 40 % 2)
            pause.wait(0.05)

    pause = threading.Event()
    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    killed_between = 0
    for turn in range(KILLS + 1):
        process = subprocess.Popen([sys.executable, str(FLOW), broker.address, str(tmp_path)], env=environment)
        try:
            before = len(broker.read("scores"))
            wait(partial(has_more, broker, before), "results of this run")
            if turn < KILLS:
                pause.wait(chance.uniform(0.0, 0.6))
            else:
                pause.set()
                feeder.join()
                wait(lambda: len(broker.read("scores")) >= MESSAGES, "the last results")
            killed_between += process.poll() is None
        finally:
            process.kill()
            process.wait()
    found = Counter(message.value().decode() for message in broker.read("scores"))
    assert killed_between == KILLS + 1
    assert set(found) == set(names)
    assert {name: count for name, count in found.items() if count > 1} == {}
    for number in range(4):
        mine = [m.value().decode() for m in broker.read("scores") if m.partition() == number]
        assert len(mine) > 0
