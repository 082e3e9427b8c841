"""How late metrics show: a fleet of lifts in real time, ten gateways that send a second at a time.

The clock starts when a message is due, whether the flow was ready for it or not, and snapshots are taken meanwhile.

A competitor of one turn, see `benchmarks.turns`; `benchmarks/scale.py --only latency` runs it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from prometheus_client import CollectorRegistry

from benchmarks.engine import Flow, new_store, served
from benchmarks.profiles import START_US, THIN_S, Profile, asset_names, equipment_of
from benchmarks.turns import Result, say, told
from benchmarks.wires import message_of
from features.assets import Asset, Register
from features.signals import EquipmentClass
from flows.fleet import Fleet
from flows.metrics import Pipeline
from flows.sources import Message
from models.assessment import Assessed

GATEWAYS = 10
"""Each sends its assets' readings of a second in one Arrow message, at its own tenth of a second."""

WINDOWS = 15
"""Windows of history, made of few readings: detectors are ready before the fleet is live."""


@dataclass
class Paced:
    """What is due when.

    Attributes
    ----------
    profiles
        The assets of each gateway.
    seconds
        How long the fleet is live.
    """

    profiles: Sequence[Profile]
    seconds: int
    sent_s: dict[tuple[int, int], float] = field(default_factory=dict)
    behind_s: float = 0.0
    begun_s: float | None = None

    def due_s(self, number: int, gateway: int) -> float:
        """Return when a gateway sends a message: once its second is over; history is due at once."""
        profile = self.profiles[gateway]
        if number < profile.thin or self.begun_s is None:
            return 0.0
        return self.begun_s + (number - profile.thin + 1) + gateway / len(self.profiles)


class GatewaySource(FixedPartitionedSource[Message, dict[str, int]]):
    """Hands the messages of all gateways over when they are due."""

    def __init__(self, paced: Paced) -> None:
        self.paced = paced

    def list_parts(self) -> list[str]:
        """Return the one partition."""
        return ["gateways"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, int] | None
    ) -> StatefulSourcePartition[Message, dict[str, int]]:
        """Return the partition at its beginning."""
        return _Partition(self.paced)


class _Partition(StatefulSourcePartition[Message, dict[str, int]]):
    def __init__(self, paced: Paced) -> None:
        self._paced = paced
        self._number = 0
        self._ready: tuple[int, Message] | None = None
        self._awake: datetime | None = None

    def next_batch(self) -> list[Message]:
        paced = self._paced
        number, gateway = divmod(self._number, len(paced.profiles))
        profile = paced.profiles[gateway]
        if number == profile.thin + paced.seconds:
            raise StopIteration
        if number == profile.thin and paced.begun_s is None:
            told()
            paced.begun_s = time.perf_counter()
        if self._ready is None or self._ready[0] != self._number:
            # A gateway makes its message on a machine of its own: here before it is due.
            self._ready = self._number, message_of(profile.message(number), "arrow", "gateways")
        wait_s = paced.due_s(number, gateway) - time.perf_counter()
        if wait_s > 0:
            self._awake = datetime.now(UTC) + timedelta(seconds=wait_s)
            return []
        self._awake = None
        second = profile.begin_s(number) if number >= profile.thin else -1
        paced.sent_s[gateway, second] = paced.due_s(number, gateway)
        paced.behind_s = max(paced.behind_s, -wait_s if second >= 0 else 0.0)
        self._number += 1
        return [self._ready[1]]

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> dict[str, int]:
        return {"position": self._number}


class WatchedFleet(Fleet):
    """A fleet that notes how late each window comes, by when the reading that closes it was due."""

    def __init__(self, equipment: EquipmentClass, register: Register, paced: Paced) -> None:
        super().__init__({equipment.name: equipment}, register)
        self.late_s: list[float] = []
        self._paced, self._lateness_s = paced, round(equipment.lateness_s)
        self._gateway = {asset: g for g, profile in enumerate(paced.profiles) for asset in profile.assets}

    def update(self, assessed: Assessed, equipment: str | None = None) -> None:
        """Take windows, and note how late they are."""
        super().update(assessed, equipment)
        now, windows = time.perf_counter(), assessed.windows
        for row, end_us in zip(windows.rows.tolist(), windows.end_us.tolist(), strict=True):
            closing = (end_us - START_US) // 1_000_000 + self._lateness_s
            sent_s = self._paced.sent_s.get((self._gateway[windows.names[row]], closing))
            if sent_s is not None:
                self.late_s.append(now - sent_s)


def measure(assets: int, seconds: int) -> Result:
    """Run the fleet; return how late its windows were."""
    equipment = equipment_of("lift")
    names = asset_names("lift", assets)
    thin = round(WINDOWS * equipment.window_s) // THIN_S
    paced = Paced([Profile(equipment, names[g::GATEWAYS], 1, thin) for g in range(GATEWAYS)], seconds)
    flow = Flow(equipment, names, Pipeline(CollectorRegistry()))
    fleet = flow.fleet = WatchedFleet(equipment, {n: Asset(id=n, equipment=equipment.name) for n in names}, paced)
    with served(flow) as port, tempfile.TemporaryDirectory() as folder:
        say({"ready": 1, "port": port})
        flow.run(GatewaySource(paced), flush=False, recovery=new_store(Path(folder)))
    late_s = np.array(fleet.late_s)
    return {
        "p50_s": float(np.quantile(late_s, 0.5)),
        "p99_s": float(np.quantile(late_s, 0.99)),
        "windows": float(len(late_s)),
        "behind_s": paced.behind_s,
    }


def main() -> None:
    """Take one turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=180)
    given = parser.parse_args()
    say(measure(given.assets, given.seconds))


if __name__ == "__main__":
    main()
