"""The site file: which assets, which inputs, where results go.

Relative paths are relative to the site file. Everything that can be wrong in it is said before anything starts.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from features.assets import AssetFileError, Register, load_assets
from features.signals import ClassFileError, EquipmentClass, load_class
from features.wording import parser_words
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
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"an address is host:port, such as 127.0.0.1:9300; got {text!r}")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"{host!r} cannot be the name of a host") from None
    return host.strip("[]"), int(port)


def unwritable(folder: Path) -> str | None:
    """Return why a folder cannot be written, or made; None where it can.

    Permissions do not tell: root has them all, and still makes nothing in ``/proc``. So a folder with the rest of the
    path and a file in it is made, beside what is there, and taken away again. A full disk is no reason: it gets room.

    Examples
    --------
    >>> unwritable(Path("/dev/null/rejected"))
    '/dev/null is not a folder'
    """
    place = folder
    try:
        while not (place.exists() or place.is_symlink()) and place != place.parent:
            place = place.parent
        if not place.is_dir():
            return f"{place} is not a folder"
        with tempfile.TemporaryDirectory(prefix=".vigie-", dir=place) as made:
            probe = Path(made) / folder.relative_to(place)
            probe.mkdir(parents=True, exist_ok=True)
            (probe / "probe").touch()
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return None
        return f"nothing can be written in {place} ({getattr(error, 'strerror', None) or error})"
    return None


def load_site(path: str | Path, lenient: bool = False) -> tuple[LoadedSite | None, list[str]]:
    """Load a site and everything it names; return it, or None with all that is wrong, a sentence each.

    Parameters
    ----------
    path
        The site file.
    lenient
        Leave out what a pattern matches and cannot be read, such as a file that a crash has torn, and name it: a run
        must not fail at each start because of one file among many. Where nothing would be left to read, it fails.
    """
    path = Path(path)
    site = _read(path)
    if isinstance(site, str):
        return None, [f"{path}: {site}"]
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
    reads = any(not isinstance(one, SimulatorInput) for one in site.inputs)
    if site.assets is None and reads:
        problems.append(f"{path}: $.assets: a site that reads telemetry needs a register of its assets")
    if site.assets is not None:
        try:
            register = load_assets(folder / site.assets)
            if reads and not register:
                problems.append(f"{folder / site.assets}: it names no asset")
        except AssetFileError as error:
            problems.append(str(error))
    strangers = unknown_classes(register, classes, folder / (site.assets or ""))
    if strangers:
        more = f", and so are {len(strangers) - 1} more" if len(strangers) > 1 else ""
        problems.append(f"{strangers[0]}{more}: the classes are {', '.join(sorted(classes))}")
    problems += [
        f"{path}: $.inputs: {one.name}: no class is called {one.equipment!r}: they are {', '.join(sorted(classes))}"
        for one in site.inputs
        if not isinstance(one, SimulatorInput) and one.equipment is not None and one.equipment not in classes
    ]
    left_out: list[str] = []
    files = _files(site, folder, classes, problems, left_out if lenient else problems)
    if left_out and not any(files.values()) and len(files) == len(site.inputs):
        more = f", and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        problems.append(f"no file of the site can be read: {left_out[0]}{more}")
    try:
        parse_address(site.outputs.address)
    except ValueError as error:
        problems.append(f"{path}: $.outputs.address: {error}")
    problems += [f"{path}: $.outputs.{problem}" for problem in _outputs(site.outputs, folder)]
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
    problems += [f"{path}: {problem}" for problem in _kafka(site, topics, folder)]
    brokers = [one for one in site.inputs if isinstance(one, MqttInput)]
    named = [one.equipment for one in brokers if one.equipment is not None]  # wrong ones have been told
    problems += [f"{path}: {problem}" for problem in mqtt_problems(brokers, folder, named)]
    return (None if problems else LoadedSite(site, folder, classes, register, files, tuple(left_out))), problems


def _read(path: Path) -> Site | str:
    """Read a site file; return it, or what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
        return msgspec.toml.decode(text, type=Site)
    except FileNotFoundError:
        return "there is no such site file"
    except IsADirectoryError:
        return "this is a folder: give the site file in it"
    except UnicodeDecodeError:
        return "this is not a site file: it is not text in UTF-8"
    except OSError as error:
        return f"the site file cannot be read ({error.strerror})"
    except msgspec.ValidationError as error:
        return parser_words(error, Site, msgspec.toml.decode(text))
    except msgspec.DecodeError as error:
        return f"this is not TOML: {error}"


def _outputs(outputs: Outputs, folder: Path) -> Iterator[str]:
    """Yield what is wrong with the folders of the outputs."""
    folders = {"archive": outputs.archive, "dead_letters": outputs.dead_letters}
    for key, name in folders.items():
        problem = None if name is None else unwritable(folder / name)
        if problem is not None:
            yield f"{key}: {problem}"
    if None not in folders.values() and len({(folder / str(name)).resolve() for name in folders.values()}) == 1:
        yield f"dead_letters: {outputs.dead_letters} is the folder of the archive: give it one of its own"


def _kafka(site: Site, topics: list[KafkaInput], folder: Path) -> Iterator[str]:
    """Yield what is wrong with the topics of a site."""
    for one in topics:
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
                    wide = str(error).endswith("needs the class of its assets")
                    hint = ': write class = "lift", or another, under its [[inputs]]' if wide else ""
                    (left_out if wild else problems).append(f"{error}{hint}")
        files[described.name] = paths
    return files
