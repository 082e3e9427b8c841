"""Plain words for what a class file and a decoder name: features, units, reasons."""

from __future__ import annotations

import re

from features.signals import KINDS, EquipmentClass
from features.telemetry import Reason

__all__ = ["feature_words", "reason_words", "unit_words"]

STATISTIC_WORDS = {
    "count": "number of readings",
    "mean": "average",
    "std": "spread",
    "min": "lowest",
    "max": "highest",
    "peak_to_peak": "lowest to highest",
    "rms": "effective value",
    "crest": "peaks against the effective value",
    "skewness": "lopsidedness",
    "kurtosis": "spikiness",
    "slope": "trend",
    "first": "first value",
    "last": "last value",
}

UNIT_WORDS = {
    "1": "",
    "Cel": "°C",
    "m/s2": "m/s²",
    "(m/s2)2": "(m/s²)²",
    "uA": "µA",
    "/h": "per hour",
    "W.h/m3": "Wh/m³",
    "m3/h": "m³/h",
    "bar/d": "bar a day",
    "mm/s": "mm/s",
    "%": "%",
}

REASON_WORDS: dict[str, str] = {
    Reason.MALFORMED: "could not be read: not the agreed format",
    Reason.BAD_VALUE: "the value is not a number",
    Reason.BAD_TIME: "the time could not be read",
    Reason.NAIVE_TIME: "the time has no time zone, and the class sets none",
    Reason.UNKNOWN_ASSET: "the register does not know this asset",
    Reason.UNKNOWN_SIGNAL: "the class does not know this signal",
    Reason.OUT_OF_RANGE: "outside the plausible range of its signal",
    Reason.FUTURE: "lies in the future: check the clock of the gateway",
    Reason.LATE: "came after its window was closed",
    Reason.DUPLICATE: "was already there",
    Reason.OVERRATE: "more readings than the signal can have",
}


def unit_words(ucum: str) -> str:
    """Return a UCUM unit as people write it.

    Examples
    --------
    >>> unit_words("Cel"), unit_words("(A)/s"), unit_words("1")
    ('°C', 'A per s', '')
    """
    if ucum in UNIT_WORDS:
        return UNIT_WORDS[ucum]
    rate = re.fullmatch(r"\(([^()]*)\)/s", ucum)
    return f"{unit_words(rate[1])} per s".strip() if rate else ucum


def feature_words(equipment: EquipmentClass, name: str) -> str:
    """Return what a feature measures, in words for people.

    Examples
    --------
    >>> from features.signals import load_class
    >>> lift = load_class("lift")
    >>> feature_words(lift, "motor_current.max")
    "Root mean square of the drive's current, per mains period: highest"
    >>> feature_words(lift, "vibration_x.band_1_5_max@moving")
    'Car acceleration, side to side: strongest at 1 to 5 Hz, while moving'
    """
    base, _, condition = name.partition("@")
    owner, _, part = base.partition(".")
    if owner in equipment.cycles:
        outputs = KINDS[equipment.cycles[owner].kind].outputs
        words = next((output.description for output in outputs if output.name == part), base)
    else:
        signal = equipment.signals.get(owner)
        words = signal.description if signal else owner
        band = re.fullmatch(r"band_([^_]+)_([^_]+?)(_max)?", part)
        if band:
            words += f": {'strongest' if band[3] else 'power'} at {band[1]} to {band[2]} Hz"
        elif part == "envelope":
            words += ": repeated knocks"
        else:
            words += f": {STATISTIC_WORDS.get(part, part)}"
    return f"{words}, while {condition.replace('_', ' ')}" if condition else words


def reason_words(reason: str) -> str:
    """Return why input was rejected, in words for people.

    Examples
    --------
    >>> reason_words("late")
    'came after its window was closed'
    """
    return REASON_WORDS.get(reason, reason)
