"""Writes every dashboard as the JSON that Grafana reads: ``python -m dashboards.build deploy/grafana/dashboards``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.fleet import fleet

__all__ = ["BOARDS", "build", "main"]

BOARDS: dict[str, Callable[[], Dashboard]] = {"fleet": fleet}
"""Dashboards by the name of their file."""


def build() -> dict[str, str]:
    """Return the JSON of every dashboard by file name, the same bytes each time.

    Examples
    --------
    >>> list(build())
    ['fleet.json']
    """
    return {
        f"{name}.json": json.dumps(board(), cls=JSONEncoder, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
        for name, board in BOARDS.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files into a folder and name each."""
    parser = argparse.ArgumentParser(
        prog="python -m dashboards.build",
        description="Write every dashboard as JSON.",
        epilog="Example: python -m dashboards.build deploy/grafana/dashboards",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write to; it is made if it is missing")
    folder: Path = parser.parse_args(arguments).folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in build().items():
            (folder / name).write_text(text, encoding="utf-8")
            print(folder / name)
    except OSError as error:
        parser.exit(1, f"{folder}: the dashboards cannot be written ({error})\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
