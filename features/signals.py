"""The equipment class: what a kind of machine measures, how it fails, and when somebody is woken.

A class is one TOML file. `lift` and `boiler` ship with the project; any other kind of equipment is one more file and
no code. Units are UCUM, maintenance terms are those of EN 13306, prognosis terms those of ISO 13381-1.

Names of features
-----------------
``<signal>.<statistic>``
    a statistic of `STATISTICS` over the base window, such as ``motor_current.rms``;
``<signal>.band_<low>_<high>`` and ``<signal>.band_<low>_<high>_max``
    mean and largest power of a frequency band over the window's vibration blocks; ``<signal>.envelope`` beside them;
``<cycle>.<output>``
    what a working cycle says, such as ``doors.closing_s``;
``<feature>@<condition>``
    the same feature, known only in windows in which the class's condition holds.
"""

from __future__ import annotations

import math
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from features import boiler, lift
from features.cycles import CycleKind
from features.wording import parser_words

__all__ = [
    "KINDS",
    "STATISTICS",
    "ClassFileError",
    "Condition",
    "Cycle",
    "Detection",
    "EquipmentClass",
    "FailureMode",
    "Feature",
    "Indicator",
    "Layout",
    "Paging",
    "Signal",
    "StateCodes",
    "load_class",
    "parse_duration_s",
]

KINDS: dict[str, CycleKind] = {**lift.KINDS, **boiler.KINDS}
"""Every kind of working cycle that a class file may bind to its signals."""

STATISTICS = (
    "count",
    "mean",
    "std",
    "min",
    "max",
    "peak_to_peak",
    "rms",
    "crest",
    "skewness",
    "kurtosis",
    "slope",
    "first",
    "last",
)
"""Statistics of one signal over one window, in the order of the feature columns (definitions: `features.moments`)."""

SHIPPED = Path(__file__).parent / "classes"

LARGEST_VALUE = 1e30
"""Bound of every signal's range: its fourth power is still a number."""

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|min|h|d)\Z")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

Positive = Annotated[float, Meta(gt=0)]
Seconds = Annotated[float, Meta(ge=0.001, le=1e8)]
Ratio = Annotated[float, Meta(ge=0, le=1)]


class ClassFileError(ValueError):
    """A class file that cannot be used; the message names the file, the path inside it and what to do."""


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every table of a class file: immutable, and an unknown key is an error."""


class Signal(_Table, frozen=True):
    """A measured quantity of the class.

    Attributes
    ----------
    unit
        UCUM unit of its values.
    range
        Plausible range, inclusive; a reading outside is rejected as `out_of_range`.
    period_s
        Nominal time between samples in seconds.
    description
        One line for people.
    columns
        Other names under which a wide table carries it.
    codes
        Numbers for words, where a source sends words.
    bands_hz
        Frequency bands whose power is a feature; only for signals sampled faster than twice the highest edge.
    brick, saref
        Class in Brick or SAREF4LIFT, where one exists.
    """

    unit: str
    range: tuple[float, float]
    period_s: Annotated[float, Meta(ge=1e-6, le=1e8)]
    description: str
    columns: tuple[str, ...] = ()
    codes: dict[str, float] = {}
    bands_hz: tuple[tuple[float, float], ...] = ()
    brick: str | None = None
    saref: str | None = None


class Cycle(_Table, frozen=True):
    """A working cycle: a kind of `KINDS`, the signals that play its roles, and its parameters."""

    kind: str
    signals: dict[str, str]
    parameters: dict[str, float] = {}


class Condition(_Table, frozen=True):
    """Holds in a window whose `feature` is at least `at_least` and at most `at_most`."""

    feature: str
    at_least: float = -math.inf
    at_most: float = math.inf


class Indicator(_Table, frozen=True):
    """A feature that speaks for a failure mode.

    Attributes
    ----------
    feature
        Name of the feature, with its condition.
    direction
        Whether wear moves it up or down.
    fails_at
        The factor on the asset's own reference at which the function is lost, such as 1.8 for a door that closes 1.8
        times slower than new.
    fails_by
        The same as a change in the feature's own unit, for features whose reference may be zero. Exactly one of both.
    """

    feature: str
    direction: Literal["up", "down"] = "up"
    fails_at: Positive | None = None
    fails_by: Positive | None = None


class FailureMode(_Table, frozen=True):
    """A way in which the asset fails (EN 13306, 5.2): the indicators that speak for it, and what to do."""

    description: str
    advice: str
    indicators: Annotated[tuple[Indicator, ...], Meta(min_length=1)]


class Detection(_Table, frozen=True):
    """What the anomaly detectors look at, and how they learn.

    Attributes
    ----------
    features
        Names of the features that they see.
    detectors
        Names from `models.scoring.DETECTORS`.
    warm_up
        Number of windows with data after which an asset's score is no longer neutral.
    memory
        Effective number of windows that the adaptive reference remembers.
    smoothing
        Span in windows of the exponentially weighted mean that the detectors see; 1 = none.
    healthy_above_alarm
        Share of healthy windows that may score above 1.
    """

    features: Annotated[tuple[str, ...], Meta(min_length=1)]
    detectors: Annotated[tuple[str, ...], Meta(min_length=1)] = ("hotelling", "half_space_trees", "cusum")
    warm_up: Annotated[int, Meta(ge=10)] = 360
    memory: Annotated[int, Meta(ge=10)] = 5000
    smoothing: Annotated[int, Meta(ge=1)] = 1
    healthy_above_alarm: Annotated[float, Meta(ge=1e-6, lt=1)] = 0.001


class StateCodes(_Table, frozen=True):
    """The coded signal that says whether the asset is in service."""

    signal: str
    stopped: tuple[float, ...] = ()
    maintenance: tuple[float, ...] = ()


class Paging(_Table, frozen=True):
    """When a predicted failure is a ticket, and when it wakes somebody.

    Attributes
    ----------
    horizon
        The failure horizon that decides; by default the longest.
    page_probability, ticket_probability
        Probability of failure within the horizon at which an episode pages, or becomes a ticket.
    false_pages_per_asset_year
        The budget, for display; the field's arithmetic asks for 0.21 at 2.3 breakdowns a lift-year.
    """

    horizon: str | None = None
    page_probability: Ratio = 0.6
    ticket_probability: Ratio = 0.3
    false_pages_per_asset_year: Positive = 0.21


class Layout(_Table, frozen=True):
    """How the class's wide tables look: which column is the time, which the asset, what separates, what to ignore."""

    time: str = "time"
    asset: str = "asset"
    separator: Annotated[str, Meta(pattern=r"^[ -~\t]$")] = ","
    ignore: tuple[str, ...] = ()


class Feature(Struct, frozen=True):
    """A column of the feature table.

    Attributes
    ----------
    name
        Its name, without condition.
    unit
        UCUM unit.
    signal
        The signal that it speaks for when it is a reason.
    """

    name: str
    unit: str
    signal: str


class EquipmentClass(_Table, frozen=True, dict=True):
    """Everything that the project knows about a kind of equipment.

    Attributes
    ----------
    name, description
        How it is called, and what it is.
    window_s
        Length of a base window.
    lateness_s
        How much later than the newest reading of its asset a reading may come.
    idle_after_s
        Silence in the event time of its input partition after which an asset's windows close.
    silent_after_s
        The same, after which the asset is called silent.
    future_s
        How far ahead of the clock a reading may lie in a live run.
    horizons_s
        Longer windows, each a multiple of the one before, merged from base windows.
    failure_horizons
        Horizons of the failure probability, rising, such as ``2h``.
    time_zone
        IANA zone of naive times in files; without one a naive time is rejected.
    """

    name: str
    description: str
    window_s: Annotated[float, Meta(ge=0.001, le=86400)]
    lateness_s: Annotated[float, Meta(ge=0, le=86400)]
    idle_after_s: Seconds
    silent_after_s: Seconds
    signals: dict[str, Signal]
    detection: Detection
    future_s: Seconds = 60.0
    horizons_s: tuple[Seconds, ...] = (600.0, 3600.0, 86400.0)
    failure_horizons: Annotated[tuple[str, ...], Meta(min_length=1)] = ("2h", "24h", "7d")
    time_zone: str | None = None
    table: Layout = Layout()
    cycles: dict[str, Cycle] = {}
    conditions: dict[str, Condition] = {}
    failure_modes: dict[str, FailureMode] = {}
    states: StateCodes | None = None
    paging: Paging = Paging()

    @cached_property
    def signal_names(self) -> tuple[str, ...]:
        """Signals in the order of the file, which is their order in every array."""
        return tuple(self.signals)

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """Columns of the feature table, in order."""
        columns: list[Feature] = []
        for name, signal in self.signals.items():
            units = {
                "count": "1",
                "crest": "1",
                "skewness": "1",
                "kurtosis": "1",
                "slope": f"({signal.unit})/s",
            }
            columns += [Feature(f"{name}.{s}", units.get(s, signal.unit), name) for s in STATISTICS]
        for name, signal in self.signals.items():
            power = f"({signal.unit})2"
            for low, high in signal.bands_hz:
                columns.append(Feature(f"{name}.band_{low:g}_{high:g}", power, name))
                columns.append(Feature(f"{name}.band_{low:g}_{high:g}_max", power, name))
            if signal.bands_hz:
                columns.append(Feature(f"{name}.envelope", "1", name))
        for name, cycle in self.cycles.items():
            columns += [
                Feature(f"{name}.{output.name}", output.unit, cycle.signals[output.role])
                for output in KINDS[cycle.kind].outputs
            ]
        return tuple(columns)

    @cached_property
    def feature_index(self) -> dict[str, int]:
        """Column of each feature."""
        return {feature.name: column for column, feature in enumerate(self.features)}

    @property
    def paging_horizon(self) -> str:
        """The failure horizon that decides whether somebody is woken."""
        return self.paging.horizon or self.failure_horizons[-1]

    @cached_property
    def failure_horizons_s(self) -> tuple[float, ...]:
        """The failure horizons in seconds."""
        return tuple(parse_duration_s(text) for text in self.failure_horizons)


def parse_duration_s(text: str) -> float:
    """Return the seconds of a duration such as ``30s``, ``15min``, ``2h`` or ``7d``.

    Raises
    ------
    ValueError
        If the text is anything else.

    Examples
    --------
    >>> parse_duration_s("7d")
    604800.0
    """
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(f"a duration is a number with s, min, h or d, such as 24h; got {text!r}")
    return float(match[1]) * _SECONDS[match[2]]


def load_class(name_or_path: str | Path) -> EquipmentClass:
    """Load a shipped class by name, or any class by the path of its TOML file.

    Raises
    ------
    ClassFileError
        If the file is missing, is not TOML, has an unknown key or a wrong type, or contradicts itself. The message is
        one sentence that names the file and the place.

    Examples
    --------
    >>> load_class("lift").signals["motor_current"].unit
    'A'
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = SHIPPED / f"{name_or_path}.toml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
            raise ClassFileError(
                f"no class is called {str(name_or_path)!r}: give one of {known}, or the path of a .toml file"
            )
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ClassFileError(f"{path}: there is no such class file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ClassFileError(f"{path}: the class file cannot be read ({error})") from None
    try:
        equipment = msgspec.toml.decode(text, type=EquipmentClass)
    except msgspec.ValidationError as error:
        raise ClassFileError(f"{path}: {parser_words(error, EquipmentClass, msgspec.toml.decode(text))}") from None
    except msgspec.DecodeError as error:
        raise ClassFileError(f"{path}: this is not TOML: {error}") from None
    for problem in _contradictions(equipment):
        raise ClassFileError(f"{path}: {problem}")
    return equipment


def _contradictions(c: EquipmentClass) -> list[str]:
    """List what the types cannot say, each with its path inside the file."""
    found: list[str] = []
    found += [
        f"a name has small letters, digits and _: {n!r}" for n in (c.name, *c.signals, *c.cycles) if not _NAME.match(n)
    ]
    found += [f"$.cycles.{n}: a signal has the same name" for n in c.cycles if n in c.signals]
    for name, signal in c.signals.items():
        if not signal.range[0] < signal.range[1]:
            found.append(f"$.signals.{name}.range: the first number must be below the second")
        if not max(map(abs, signal.range)) <= LARGEST_VALUE:
            found.append(f"$.signals.{name}.range: must lie in -{LARGEST_VALUE:g} to {LARGEST_VALUE:g}")
        for low, high in signal.bands_hz:
            if not 0 <= low < high <= 0.5 / signal.period_s:
                found.append(
                    f"$.signals.{name}.bands_hz: [{low}, {high}] does not lie in 0 to {0.5 / signal.period_s:g} Hz"
                )
    previous = c.window_s
    for horizon in c.horizons_s:
        if horizon < previous or abs(horizon / previous - round(horizon / previous)) > 1e-9:
            found.append(f"$.horizons_s: {horizon:g} s is not a whole multiple of {previous:g} s")
        previous = horizon
    if c.lateness_s > 1000 * c.window_s:
        found.append("$.lateness_s: must be at most a thousand windows")
    if c.idle_after_s < c.window_s + c.lateness_s:
        found.append("$.idle_after_s: must be at least window_s + lateness_s")
    if c.time_zone is not None:
        try:
            ZoneInfo(c.time_zone)
        except (KeyError, ValueError, OSError):
            found.append(f"$.time_zone: no IANA time zone is called {c.time_zone!r}")
    try:
        seconds = [parse_duration_s(text) for text in c.failure_horizons]
    except ValueError as error:
        found.append(f"$.failure_horizons: {error}")
    else:
        if seconds != sorted(set(seconds)):
            found.append("$.failure_horizons: must rise")
        if c.paging_horizon not in c.failure_horizons:
            found.append(f"$.paging.horizon: {c.paging.horizon!r} is none of {list(c.failure_horizons)}")
    for name, cycle in c.cycles.items():
        kind = KINDS.get(cycle.kind)
        if kind is None:
            found.append(f"$.cycles.{name}.kind: {cycle.kind!r} is none of {sorted(KINDS)}")
            continue
        if set(cycle.signals) != set(kind.roles):
            found.append(f"$.cycles.{name}.signals: {cycle.kind} needs exactly the roles {list(kind.roles)}")
        found += [
            f"$.cycles.{name}.signals.{r}: no signal is called {s!r}"
            for r, s in cycle.signals.items()
            if s not in c.signals
        ]
        known = dict(kind.parameters)
        found += [
            f"$.cycles.{name}.parameters.{p}: {cycle.kind} has only {sorted(known)}"
            for p in cycle.parameters
            if p not in known
        ]
    if found:
        return found
    where = [("$.detection.features", f) for f in c.detection.features]
    where += [(f"$.conditions.{n}.feature", condition.feature) for n, condition in c.conditions.items()]
    for name, mode in c.failure_modes.items():
        for number, indicator in enumerate(mode.indicators):
            place = f"$.failure_modes.{name}.indicators[{number}]"
            where.append((f"{place}.feature", indicator.feature))
            if (indicator.fails_at is None) == (indicator.fails_by is None):
                found.append(f"{place}: give exactly one of fails_at and fails_by")
            elif indicator.fails_at is not None and (indicator.fails_at > 1) != (indicator.direction == "up"):
                found.append(f"{place}.fails_at: above 1 for direction up, below 1 for direction down")
    for place, feature in where:
        name, _, condition = feature.partition("@")
        if name not in c.feature_index:
            found.append(f"{place}: no feature is called {name!r}")
        if condition and (condition not in c.conditions or "@" in c.conditions[condition].feature):
            found.append(f"{place}: no condition is called {condition!r}")
    if c.states is not None and c.states.signal not in c.signals:
        found.append(f"$.states.signal: no signal is called {c.states.signal!r}")
    return found
