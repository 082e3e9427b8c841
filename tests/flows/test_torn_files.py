"""A file that a crash has torn is named and left out; it fails no start, and the check still tells of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.telemetry import BLOCKS
from flows.site import load_site

SITE = 'name = "S"\nassets = "assets.csv"\n[[inputs]]\nkind = "files"\nname = "gateway"\npaths = ["{paths}"]\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"asset": "l1", "signal": "motor_current", "start": 0, "period_us": 0, "values": [1.0]}]
    pq.write_table(pa.Table.from_pylist(rows, schema=BLOCKS), tmp_path / "whole.parquet")
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-20])
    (tmp_path / "assets.csv").write_text("id,class\nl1,lift\n")
    return tmp_path


def test_a_torn_file_of_a_pattern_is_left_out_and_named(folder: Path) -> None:
    (folder / "site.toml").write_text(SITE.format(paths="*.parquet"))
    loaded, problems = load_site(folder / "site.toml", lenient=True)
    assert loaded is not None and problems == []
    assert [path.name for path in loaded.files["gateway"]] == ["whole.parquet"]
    [sentence] = loaded.left_out
    assert "torn.parquet: this is not a whole Parquet file" in sentence
    assert load_site(folder / "site.toml")[1] == [sentence], "vigie check tells of it"


def test_a_torn_file_that_is_asked_for_by_name_is_refused(folder: Path) -> None:
    (folder / "site.toml").write_text(SITE.format(paths="torn.parquet"))
    loaded, problems = load_site(folder / "site.toml", lenient=True)
    assert loaded is None and "torn.parquet" in problems[0]
