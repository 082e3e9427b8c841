"""The site file: which assets, which inputs, where results go.

Relative paths are relative to the site file. Everything that can be wrong in it is said before anything starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from features.assets import AssetFileError, Register, load_assets
from features.signals import ClassFileError, EquipmentClass, load_class
from flows.kafka.settings import KafkaInput, KafkaOutput
from flows.kafka.settings import problems as kafka_problems
from flows.known import unknown_classes
from flows.mqtt.settings import MqttInput
from flows.mqtt.settings import problems as mqtt_problems
from flows.simulator.fleet import FleetPlan
from models.scoring import Scorer

__all__ = [
    "FileInput",
    "KafkaInput",
    "KafkaOutput",
    "LoadedSite",
    "MqttInput",
    "Outputs",
    "SimulatorInput",
    "Site",
    "load_site",
    "parse_address",
    "unwritable",
]

SHIPPED_CLASSES = ("lift", "boiler")


class FileInput(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="files"):
    """Recorded telemetry.

    Attributes
    ----------
    name
        Name of the input.
    paths
        Files, or patterns such as ``telemetry/*.parquet``.
    equipment
        Class of wide tables; `class` in the file.
    speed
        Multiple of the recorded speed; without it as fast as it goes.
    """

    name: str
    paths: Annotated[tuple[str, ...], Meta(min_length=1)]
    equipment: Annotated[str | None, Meta()] = msgspec.field(default=None, name="class")
    speed: Annotated[float, Meta(gt=0)] | None = None


class SimulatorInput(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="simulator"):
    """A simulated fleet; its assets join the register and are labelled as simulated."""

    name: str
    lifts: Annotated[int, Meta(ge=0)] = 10
    boilers: Annotated[int, Meta(ge=0)] = 5
    seed: int = 0
    speed: Annotated[float, Meta(gt=0)] = 1.0
    mode: Literal["burst", "continuous"] = "burst"
    faults: Literal["none", "natural", "demo"] = "natural"

    def plan(self, start_us: int) -> FleetPlan:
        """Return the endless plan that starts at a time in microseconds since 1970."""
        return FleetPlan(
            seed=self.seed,
            lifts=self.lifts,
            boilers=self.boilers,
            start_us=start_us,
            mode=self.mode,
            faults=self.faults,
        )


class Outputs(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where results go; what is not named is not written.

    Attributes
    ----------
    address
        Host and port of `/metrics`, and of the page with ``--page``.
    archive
        Folder of the Parquet archive of features, scores and rejected input.
    dead_letters
        Folder of rejected input with its raw bytes.
    kafka
        Topics of scores, decisions and rejected input.
    """

    address: str = "127.0.0.1:9300"
    archive: str | None = None
    dead_letters: str | None = None
    kafka: KafkaOutput | None = None


class Site(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A site file, as it is written."""

    name: str
    inputs: Annotated[tuple[FileInput | KafkaInput | MqttInput | SimulatorInput, ...], Meta(min_length=1)]
    assets: str | None = None
    classes: tuple[str, ...] = ()
    shards: Annotated[int, Meta(ge=1, le=4096)] = 16
    outputs: Outputs = Outputs()


class LoadedSite(Struct, frozen=True):
    """A site with everything that its file names.

    Attributes
    ----------
    site
        The file itself.
    folder
        Where it lies.
    classes, register
        Loaded classes and assets.
    files
        Paths of each file input by its name.
    left_out
        A sentence for each file of a pattern that cannot be read: the run goes on without it.
    """

    site: Site
    folder: Path
    classes: dict[str, EquipmentClass]
    register: Register
    files: dict[str, list[Path]]
    left_out: tuple[str, ...] = ()


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> parse_address("127.0.0.1:9300")
    ('127.0.0.1', 9300)
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"an address is host:port, such as 127.0.0.1:9300; got {text!r}")
    return host.strip("[]"), int(port)


def unwritable(folder: Path) -> str | None:
    """Return why a folder cannot be written, or made; None where it can.

    Examples
    --------
    >>> unwritable(Path("/dev/null/rejected"))
    '/dev/null is not a folder'
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"{place} is not a folder"
    return None if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written"


def load_site(path: str | Path, lenient: bool = False) -> tuple[LoadedSite | None, list[str]]:
    """Load a site and everything it names; return it, or None with all that is wrong, a sentence each.

    Parameters
    ----------
    path
        The site file.
    lenient
        Leave out what a pattern matches and cannot be read, such as a file that a crash has torn, and name it: a run
        must not fail at each start because of one file among many.
    """
    path = Path(path)
    try:
        site = msgspec.toml.decode(path.read_text(encoding="utf-8"), type=Site)
    except FileNotFoundError:
        return None, [f"{path}: there is no such site file"]
    except (OSError, UnicodeDecodeError) as error:
        return None, [f"{path}: the site file cannot be read ({error})"]
    except msgspec.ValidationError as error:
        return None, [f"{path}: {error}"]
    except msgspec.DecodeError as error:
        return None, [f"{path}: this is not TOML: {error}"]
    folder = path.resolve().parent
    problems: list[str] = []
    classes: dict[str, EquipmentClass] = {}
    for name in (*SHIPPED_CLASSES, *(str(folder / one) for one in site.classes)):
        try:
            equipment = load_class(name)
            Scorer(equipment)  # refuses a detector that does not exist
        except ClassFileError as error:
            problems.append(str(error))
        else:
            classes[equipment.name] = equipment
    register: Register = {}
    if site.assets is not None:
        try:
            register = load_assets(folder / site.assets)
        except AssetFileError as error:
            problems.append(str(error))
    problems += unknown_classes(register, classes, site.assets or "")
    left_out: list[str] = []
    files = _files(site, folder, classes, problems, left_out if lenient else problems)
    try:
        parse_address(site.outputs.address)
    except ValueError as error:
        problems.append(f"{path}: $.outputs.address: {error}")
    for key in ("archive", "dead_letters"):
        name = getattr(site.outputs, key)
        problem = None if name is None else unwritable(folder / name)
        if problem is not None:
            problems.append(f"{path}: $.outputs.{key}: {problem}")
    names = [one.name for one in site.inputs]
    problems += [
        f"{path}: $.inputs: two inputs are called {name!r}" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    simulators = [one for one in site.inputs if isinstance(one, SimulatorInput)]
    if len(simulators) > 1:
        problems.append(f"{path}: $.inputs: only one input can be a simulator, its assets would have the same ids")
    for one in simulators:
        known = sorted(register.keys() & set(one.plan(0).asset_ids))
        if known:
            problems.append(f"{path}: $.inputs: the register has an asset {known[0]!r}, as the simulated fleet does")
    topics = [one for one in site.inputs if isinstance(one, KafkaInput)]
    problems += [f"{path}: {problem}" for problem in _kafka(site, topics, folder, classes)]
    brokers = [one for one in site.inputs if isinstance(one, MqttInput)]
    problems += [f"{path}: {problem}" for problem in mqtt_problems(brokers, folder, classes)]
    if (files or topics or brokers) and not register:
        problems.append(f"{path}: $.assets: a site that reads telemetry needs a register of its assets")
    return (None if problems else LoadedSite(site, folder, classes, register, files, tuple(left_out))), problems


def _kafka(site: Site, topics: list[KafkaInput], folder: Path, classes: dict[str, EquipmentClass]) -> Iterator[str]:
    """Yield what is wrong with the topics of a site."""
    for one in topics:
        if one.equipment is not None and one.equipment not in classes:
            yield f"$.inputs: {one.name}: no class is called {one.equipment!r}"
        yield from (f"$.inputs: {one.name}: {problem}" for problem in kafka_problems(one, folder))
    # A topic's name is that of its partitions in the recovery store, and in the metrics.
    for topic in sorted({one.topic for one in topics if [t.topic for t in topics].count(one.topic) > 1}):
        yield f"$.inputs: two inputs read a topic called {topic!r}"
    if site.outputs.kafka is not None:
        yield from (f"$.outputs.kafka: {problem}" for problem in kafka_problems(site.outputs.kafka, folder))
        for topic in sorted({one.topic for one in topics} & set(site.outputs.kafka.topics.values())):
            yield f"$.outputs.kafka: the topic {topic!r} is read as an input, and would feed itself"


def _files(
    site: Site, folder: Path, classes: dict[str, EquipmentClass], problems: list[str], left_out: list[str]
) -> dict[str, list[Path]]:
    from flows.sources import InputError, open_check

    files: dict[str, list[Path]] = {}
    for described in site.inputs:
        if not isinstance(described, FileInput):
            continue
        if described.equipment is not None and described.equipment not in classes:
            problems.append(f"$.inputs: {described.name}: no class is called {described.equipment!r}")
            continue
        paths: list[Path] = []
        for pattern in described.paths:
            whole = folder / pattern
            wild = any(c in pattern for c in "*?[")
            # A pattern may be absolute, which Path.glob of a folder refuses.
            found = sorted(Path(whole.anchor).glob(str(whole.relative_to(whole.anchor)))) if wild else [whole]
            if not found:
                problems.append(f"$.inputs: {described.name}: no file matches {pattern!r}")
            for one in found:
                try:
                    open_check(one, classes.get(described.equipment or ""))
                    paths.append(one)
                except InputError as error:
                    (left_out if wild else problems).append(str(error))
        files[described.name] = paths
    return files
