"""What every test may use: real programs, real data, and the rule that CI skips nothing that it could have."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

OUTSIDE = "lies outside the repository"
"""Part of the reason of a skip that CI accepts."""


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real data sets; the test is skipped where there is none."""
    folder = os.environ.get("VIGIE_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"real data {OUTSIDE}: set VIGIE_DATA to its folder")
    return Path(folder)


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Return a function that finds an installed program, or skips the test with the command that installs it."""
    packages = {
        "amtool": "prometheus-alertmanager",
        "mosquitto_pub": "mosquitto-clients",
        "promtool": "prometheus",
    }

    def find(name: str) -> str:
        # A broker lies where only root looks for programs.
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
        if path is None:
            pytest.skip(f"{name} is not installed: apt-get install {packages.get(name, name)}")
        return path

    return find


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure in CI, but for data that lie outside the repository."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if OUTSIDE not in reason:
            report.outcome = "failed"
            report.longrepr = f"CI skips nothing that it could install: {reason}"
    return report
