"""Running the dataflow: over a file to its end, or live until somebody stops it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from bytewax._bytewax import cluster_main, run_main
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.inputs import Source
from prometheus_client import CollectorRegistry

from features.assets import Asset
from features.signals import EquipmentClass
from flows.cluster import Place
from flows.dispatch import Decision
from flows.exporter import Server, exposition
from flows.fleet import Fleet
from flows.intake import Input
from flows.kafka.sink import KafkaSink
from flows.kafka.wiring import kafka_sinks, kafka_source
from flows.known import Known
from flows.memory import keep_freed_memory
from flows.metrics import Pipeline
from flows.monitor import Monitor, build
from flows.mqtt.client import MqttClient
from flows.mqtt.settings import MqttInput
from flows.mqtt.wiring import committed_in, mqtt_client, mqtt_source
from flows.recovery import Store
from flows.results import Results
from flows.shown import ShownOn
from flows.simulator import fleet as simulator
from flows.simulator.source import SimulatorSource
from flows.sinks import ArchiveSink, DeadLetterSink, ScoreRows
from flows.site import KafkaInput, LoadedSite, SimulatorInput, parse_address
from flows.sources import FileSource, InputError, Message, name_of, open_check
from models.detector import StateError
from models.scoring import Scorer

__all__ = ["EPOCH", "Live", "Scored", "live_site", "score_file"]

EPOCH = timedelta(seconds=60)
"""Time between snapshots: what a restart replays at most."""


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
    OSError
        If the rows, or the rejected input, cannot be written.
    """
    Scorer(equipment)  # refuses a detector that does not exist
    open_check(path, equipment)
    pipeline = Pipeline(CollectorRegistry())
    source = FileSource([path], equipment)
    rows = ScoreRows(out, equipment)
    monitor = Monitor(
        classes={equipment.name: equipment},
        class_of=lambda name: equipment.name,
        pipeline=pipeline,
        inputs={str(path): Input(equipment, asset or asset_of(path))},
    )
    letters = None if dead_letters is None else DeadLetterSink(dead_letters, monitor.class_of)
    if started is not None:
        started(source)
    _run(build(monitor, {"file": source}, Results(monitor.classes, scores=rows, dead_letters=letters)))
    if source.failure is not None:
        raise InputError(source.failure)
    rows.write()
    if letters is not None:
        letters.check()
    account = pipeline.account()
    return Scored(account, rows.windows, rows.pages)


@dataclass
class Live:
    """A running pipeline: the flow in this thread, the exporter in others.

    Attributes
    ----------
    classes, known
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
        Number of shards.
    stop
        What ends the sources early; windows stay open then, and close where every source has ended by itself.
    told
        Called with each page, ticket and end of an episode.
    store
        Where snapshots are kept, and where the run resumes; None without.
    place
        Which process of a cluster this is.
    clients
        What fills spools while the flow runs.
    epoch
        Time between snapshots.
    kafka
        Topics of results, by output.
    pipeline
        The pipeline's own metrics.
    """

    classes: Mapping[str, EquipmentClass]
    known: Known
    sources: Mapping[str, Source[Message]]
    inputs: Mapping[str, Input] = field(default_factory=dict)
    address: tuple[str, int] = ("127.0.0.1", 0)
    page: bool = True
    archive: Path | None = None
    dead_letters: Path | None = None
    shards: int = 16
    stop: threading.Event = field(default_factory=threading.Event)
    told: Callable[[Decision], None] = lambda decision: None
    store: Store | None = None
    place: Place = field(default_factory=Place)
    clients: Sequence[MqttClient] = ()
    epoch: timedelta = EPOCH
    kafka: Mapping[str, KafkaSink] = field(default_factory=dict)
    pipeline: Pipeline = field(default_factory=lambda: Pipeline(CollectorRegistry()))

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.classes, self.known.register, history=self.page)
        self.known.changed(self.fleet.reload)

    def run(self, serving: Callable[[Server], None] = lambda server: None) -> dict[str, int]:
        """Run until the source ends; return the account of readings. `serving` is called once the server listens."""
        credits = self.place.credits(self.stop)
        monitor = Monitor(
            classes=self.classes,
            class_of=self.known.class_of,
            pipeline=self.pipeline,
            inputs=self.inputs,
            shards=self.shards,
            now_us=lambda: time.time_ns() // 1000,
            flush=lambda: not self.stop.is_set(),
            changed=lambda: self.known.version,
            fleet=self.fleet,
            told=self.told,
            recovering=self.store is not None,
            credits=credits,
        )
        archive, letters = self._kept()
        results = Results(self.classes, archive=archive, dead_letters=letters, kafka=self.kafka)
        flow = build(monitor, self.sources, results)
        with ExitStack() as held:
            shown = None if self.store is None or self.place.serves else ShownOn(self.store.shown)
            own = partial(exposition, self.fleet, self.pipeline)
            server = held.enter_context(
                Server(
                    self.fleet,
                    self.pipeline,
                    *self.address,
                    page=self.page,
                    metrics=own if shown is None else lambda: shown(own()),
                )
            )
            held.enter_context(self.known.watched(self.stop))
            for client in self.clients:
                held.callback(client.stop)
                client.start()
            for client in self.clients:
                held.callback(client.leave)
            for name, described in self.inputs.items():
                if described.endless:  # one that never delivers is as old as the run
                    self.pipeline.input_seen.labels(name).set(time.time())
            serving(server)
            server.ready = True
            _run(flow, self.epoch, self.store, self.place)
        for sink in (archive, letters):
            if sink is not None:
                sink.check()
        return self.pipeline.account()

    def _kept(self) -> tuple[ArchiveSink | None, DeadLetterSink | None]:
        """Return what keeps results and rejected input for ever."""
        store = "" if self.store is None else self.store.id
        archive = letters = None
        if self.archive is not None:
            archive = ArchiveSink(self.archive, self.pipeline, self.stop, store)
        if self.dead_letters is not None:
            letters = DeadLetterSink(self.dead_letters, self.known.class_of, self.pipeline, self.stop, store)
        return archive, letters


def _run(flow: Dataflow, epoch: timedelta = EPOCH, store: Store | None = None, place: Place | None = None) -> None:
    """Run a dataflow to its end; what the machine refused comes up as the error that it was."""
    keep_freed_memory()
    recovery = None if store is None else store.config()
    try:
        if place is None or len(place.addresses) < 2:
            run_main(flow, epoch_interval=epoch, recovery_config=recovery)
        else:
            cluster_main(flow, list(place.addresses), place.process, epoch_interval=epoch, recovery_config=recovery)
    except BytewaxRuntimeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, OSError | KeyboardInterrupt | StateError):
            raise cause from None
        raise


def live_site(
    loaded: LoadedSite,
    stop: threading.Event,
    page: bool,
    store: Store | None = None,
    place: Place | None = None,
    said: Callable[[str], None] = lambda sentence: None,
) -> Live:
    """Make the pipeline of a site; it ends when every input has ended, or when `stop` is set."""
    site, folder = loaded.site, loaded.folder
    place = place or Place()
    simulated: dict[str, Asset] = {}
    sources: dict[str, Source[Message]] = {}
    inputs: dict[str, Input] = {}
    clients: list[MqttClient] = []
    pipeline = Pipeline(CollectorRegistry())
    for described in site.inputs:
        if isinstance(described, SimulatorInput):
            plan = described.plan(time.time_ns() // 1000)
            simulated = simulator.Fleet(plan).register
            sources[described.name] = SimulatorSource(plan, described.speed, stop)
            inputs["simulator"] = Input(endless=True)
        elif isinstance(described, KafkaInput):
            topic = kafka_source(described, folder, pipeline, stop, place.mine)
            sources[described.name] = topic
            equipment = loaded.classes.get(described.equipment or "")
            inputs |= {part: Input(equipment, live=True) for part in topic.list_parts()}
        elif isinstance(described, MqttInput):
            spooled = mqtt_source(described, folder, pipeline, store is not None, stop, place.local, said)
            sources[described.name] = spooled
            equipment = loaded.classes.get(described.equipment or "")
            inputs |= {part: Input(equipment, live=True) for part in spooled.list_parts()}
            if place.process == 0:
                committed = None if store is None else committed_in(store, described.name)
                clients.append(mqtt_client(described, folder, pipeline, committed, said))
        else:
            paths = loaded.files[described.name]
            equipment = loaded.classes.get(described.equipment or "")
            sources[described.name] = FileSource(paths, equipment, described.speed, stop, folder=folder, said=said)
            inputs |= {name_of(path, folder): Input(equipment, asset_of(path), live=True) for path in paths}
    path = None if site.assets is None else folder / site.assets
    made_us = None if store is None else store.made_us
    return Live(
        classes=loaded.classes,
        known=Known(loaded.register | simulated, path, simulated, loaded.classes, said),
        sources=sources,
        inputs=inputs,
        address=place.serves or parse_address(site.outputs.address),
        page=page,
        archive=None if site.outputs.archive is None else folder / site.outputs.archive,
        dead_letters=None if site.outputs.dead_letters is None else folder / site.outputs.dead_letters,
        shards=site.shards,
        stop=stop,
        store=store,
        place=place,
        kafka=kafka_sinks(site.outputs.kafka, folder, pipeline, site.shards, stop, place.mine, made_us),
        pipeline=pipeline,
        clients=clients,
    )


def asset_of(path: Path) -> str:
    """Return the asset that a file stands for by its name.

    Examples
    --------
    >>> asset_of(Path("data/lift-0001.csv.gz"))
    'lift-0001'
    """
    return path.name.partition(".")[0]
