"""Where panels stand."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from grafana_foundation_sdk.builders import bargauge, dashboard, stat, table, timeseries
from grafana_foundation_sdk.models import dashboard as models

__all__ = ["COLUMNS", "Line", "arrange"]

COLUMNS = 24
"""Width of Grafana's grid."""

PanelBuilder = stat.Panel | table.Panel | timeseries.Panel | bargauge.Panel
Line = tuple[PanelBuilder, ...]
"""Panels side by side."""


def arrange(board: dashboard.Dashboard, sections: Sequence[tuple[str, Sequence[tuple[int, Line]]]]) -> models.Dashboard:
    """Place panels and return the dashboard: a title row a section, under it lines of equally wide panels.

    The SDK's own layout can put a panel past the last column and leaves query letters empty, so both are set here.

    Parameters
    ----------
    board
        The dashboard to fill.
    sections
        Title, and lines of a height in grid units and the panels side by side.

    Examples
    --------
    >>> from dashboards.defaults import board, number
    >>> two = number("A", "short", "."), number("B", "short", ".")
    >>> made = arrange(board("x", "X", "An example."), [("Now", [(4, two)])])
    >>> [(panel.grid_pos.x, panel.grid_pos.y, panel.grid_pos.w) for panel in made.panels]
    [(0, 0, 24), (0, 1, 12), (12, 1, 12)]
    """
    y = number_of = 0
    for title, lines in sections:
        number_of += 1
        place = models.GridPos(h=1, w=COLUMNS, x=0, y=y)
        board.with_row(dashboard.Row(title).id(number_of).grid_pos(place))
        y += 1
        for height, panels in lines:
            width = COLUMNS // len(panels)
            for n, panel in enumerate(panels):
                number_of += 1
                panel.id(number_of).grid_pos(models.GridPos(h=height, w=width, x=n * width, y=y))
                board.with_panel(panel)
            y += height
    made = board.build()
    for one in made.panels or []:
        for letter, target in zip(ascii_uppercase, getattr(one, "targets", None) or (), strict=False):
            target.ref_id = letter
    return made
