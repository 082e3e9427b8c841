"""In CI a skip that an installation could cure is a failure; data outside the repository are not."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(("ci", "outcome"), [("true", {"failed": 1, "skipped": 1}), ("", {"skipped": 2})])
def test_ci_skips_only_what_lies_outside(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: dict[str, int]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("VIGIE_DATA", raising=False)
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makepyfile("def test_tool(program): program('promtool')\ndef test_data(data): pass")
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(**outcome)
