"""Running the dataflow: over a file to its end, or live until somebody stops it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.inputs import Source
from bytewax.testing import run_main
from prometheus_client import CollectorRegistry

from features.assets import Register
from features.signals import EquipmentClass
from flows.dispatch import Decision
from flows.exporter import Server
from flows.fleet import Fleet
from flows.kafka.wiring import kafka_source
from flows.metrics import Pipeline
from flows.monitor import Monitor, Sinks, build
from flows.show import FleetSink
from flows.simulator import fleet as simulator
from flows.simulator.source import SimulatorSource
from flows.sinks import ArchiveSink, DeadLetterSink, ScoreRows
from flows.site import KafkaInput, LoadedSite, SimulatorInput, parse_address
from flows.sources import FileSource, InputError, Message, open_check
from flows.steps import Input
from models.scoring import Scorer

__all__ = ["Live", "Scored", "live_site", "score_file"]

EPOCH = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Scored:
    """What scoring a file came to.

    Attributes
    ----------
    account
        Readings received, scored, and rejected by reason.
    windows, pages
        Rows written, and how many of them page.
    """

    account: dict[str, int]
    windows: int
    pages: int


def score_file(
    path: Path,
    equipment: EquipmentClass,
    out: Path,
    asset: str | None = None,
    dead_letters: Path | None = None,
    started: Callable[[FileSource], None] | None = None,
) -> Scored:
    """Run the dataflow over one file, and write a row for each asset and window.

    Parameters
    ----------
    path, equipment
        Telemetry, and the class of all its assets.
    out
        ``.parquet`` or ``.csv``; it appears when it is complete.
    asset
        Asset of a table without an asset column; by default the file's name without its ending.
    dead_letters
        Folder for rejected input.
    started
        Called with the source before the run, for a display of progress.

    Raises
    ------
    InputError
        If the file cannot be read; nothing is written then.
    """
    Scorer(equipment)  # refuses a detector that does not exist
    open_check(path, equipment)
    pipeline = Pipeline(CollectorRegistry())
    source = FileSource([path], equipment)
    rows = ScoreRows(out, equipment, failed=lambda: source.failure is not None)
    monitor = Monitor(
        classes={equipment.name: equipment},
        class_of=lambda name: equipment.name,
        pipeline=pipeline,
        inputs={str(path): Input(equipment, asset or asset_of(path))},
    )
    letters = None if dead_letters is None else DeadLetterSink(dead_letters, monitor.class_of)
    sinks = Sinks(scores=rows, dead_letters=letters)
    if started is not None:
        started(source)
    _run(build(monitor, {"file": source}, sinks))
    if source.failure is not None:
        raise InputError(source.failure)
    account = pipeline.account()
    return Scored(account, rows.windows, rows.pages)


@dataclass
class Live:
    """A running pipeline: the flow in this thread, the exporter in others.

    Attributes
    ----------
    classes, register
        What is watched.
    sources
        Where messages come from, by name.
    inputs
        By source name.
    address
        Where `/metrics` is served.
    page
        Serve the page beside it.
    archive, dead_letters
        Folders, or None.
    shards
        Number of shards a class.
    stop
        What ends the sources early; windows stay open then, and close where every source has ended by itself.
    told
        Called with each page, ticket and end of an episode.
    pipeline
        The pipeline's own metrics.
    """

    classes: Mapping[str, EquipmentClass]
    register: Register
    sources: Mapping[str, Source[Message]]
    inputs: Mapping[str, Input] = field(default_factory=dict)
    address: tuple[str, int] = ("127.0.0.1", 0)
    page: bool = True
    archive: Path | None = None
    dead_letters: Path | None = None
    shards: int = 16
    stop: threading.Event = field(default_factory=threading.Event)
    told: Callable[[Decision], None] = lambda decision: None
    pipeline: Pipeline = field(default_factory=lambda: Pipeline(CollectorRegistry()))

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.classes, self.register, history=self.page)

    def run(self, serving: Callable[[Server], None] = lambda server: None) -> dict[str, int]:
        """Run until the source ends; return the account of readings. `serving` is called once the server listens."""
        monitor = Monitor(
            classes=self.classes,
            class_of=self._class_of,
            pipeline=self.pipeline,
            inputs=self.inputs,
            shards=self.shards,
            now_us=lambda: time.time_ns() // 1000,
            flush=lambda: not self.stop.is_set(),
        )
        sinks = Sinks(
            metrics=FleetSink(self.fleet, self.told),
            dead_letters=None if self.dead_letters is None else DeadLetterSink(self.dead_letters, self._class_of),
            archive=None if self.archive is None else ArchiveSink(self.archive, self.classes),
        )
        flow = build(monitor, self.sources, sinks)
        with Server(self.fleet, self.pipeline, *self.address, page=self.page) as server:
            serving(server)
            server.ready = True
            _run(flow)
        return self.pipeline.account()

    def _class_of(self, asset: str) -> str | None:
        known = self.register.get(asset)
        return None if known is None else known.equipment


def _run(flow: Dataflow) -> None:
    """Run a dataflow to its end; what the machine refused comes up as the error that it was."""
    try:
        run_main(flow, epoch_interval=EPOCH)
    except BytewaxRuntimeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, OSError | KeyboardInterrupt):
            raise cause from None
        raise


def live_site(loaded: LoadedSite, stop: threading.Event, page: bool) -> Live:
    """Make the pipeline of a site; it ends when every input has ended, or when `stop` is set."""
    site, folder = loaded.site, loaded.folder
    register = dict(loaded.register)
    sources: dict[str, Source[Message]] = {}
    inputs: dict[str, Input] = {}
    pipeline = Pipeline(CollectorRegistry())
    for described in site.inputs:
        if isinstance(described, SimulatorInput):
            plan = described.plan(time.time_ns() // 1000)
            register |= simulator.Fleet(plan).register
            sources[described.name] = SimulatorSource(plan, described.speed, stop)
            inputs["simulator"] = Input(endless=True)
        elif isinstance(described, KafkaInput):
            source = kafka_source(described, folder, pipeline, stop)
            sources[described.name] = source
            equipment = loaded.classes.get(described.equipment or "")
            inputs |= {part: Input(equipment, live=True) for part in source.list_parts()}
        else:
            paths = loaded.files[described.name]
            equipment = loaded.classes.get(described.equipment or "")
            sources[described.name] = FileSource(paths, equipment, speed=described.speed, stop=stop)
            inputs |= {str(path): Input(equipment, asset_of(path), live=True) for path in paths}
    return Live(
        classes=loaded.classes,
        register=register,
        sources=sources,
        inputs=inputs,
        address=parse_address(site.outputs.address),
        page=page,
        archive=None if site.outputs.archive is None else folder / site.outputs.archive,
        dead_letters=None if site.outputs.dead_letters is None else folder / site.outputs.dead_letters,
        shards=site.shards,
        stop=stop,
        pipeline=pipeline,
    )


def asset_of(path: Path) -> str:
    """Return the asset that a file stands for by its name.

    Examples
    --------
    >>> asset_of(Path("data/lift-0001.csv.gz"))
    'lift-0001'
    """
    return path.name.partition(".")[0]
