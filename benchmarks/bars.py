"""What a figure is held to, and how that is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar that a figure shall reach.

    Attributes
    ----------
    figure
        Name of the figure.
    title
        What it is.
    bar
        What it shall reach, in the figure's own unit; None where nothing was asked for.
    unit, scale
        How it is printed.
    at_most
        Whether it shall stay below.

    Examples
    --------
    >>> Bar("resume_s", "resume", 5.0, "s", at_most=True).met(4.0)
    True
    """

    figure: str
    title: str
    bar: float | None
    unit: str
    scale: float = 1.0
    at_most: bool = False

    def met(self, value: float) -> bool | None:
        """Tell whether a figure meets the bar; None where there is none."""
        if self.bar is None:
            return None
        return value <= self.bar if self.at_most else value >= self.bar


def print_bars(bars: Sequence[Bar], figures: Mapping[str, float]) -> None:
    """Print each figure that was measured beside its bar."""
    print(f"\n{'what':44} {'measured':>12} {'bar':>14}")
    for bar in bars:
        if bar.figure not in figures:
            continue
        value = figures[bar.figure]
        said = {True: "met", False: "NOT MET", None: ""}[bar.met(value)]
        asked = "" if bar.bar is None else f"{'<' if bar.at_most else '>'}= {_number(bar.bar * bar.scale)} {bar.unit}"
        print(f"{bar.title:44} {_number(value * bar.scale):>8} {bar.unit:<3} {asked:>14}  {said}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
