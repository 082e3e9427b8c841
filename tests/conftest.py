"""What every test may use: real programs, real data, and the rule that CI skips nothing that it could have."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

PATIENCE_S = 120.0
"""No condition that a run is waited for takes longer on a busy machine."""

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


class SiteRun:
    """The run of `site.toml` in a folder, with a recovery store, that may be killed and started again."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.arguments = folder, arguments
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "vigie", "run", "site.toml", "--recovery", "state", "--snapshot-interval", "1"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *self.arguments], cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self.until(lambda: "listening" in self.log.read_text())

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def freeze(self) -> None:
        """Let none of its processes take a step."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, self.log.read_text()

    def value(self, series: str) -> float:
        """Return what one series says; 0 where it is not there."""
        for line in self._metrics():
            name, _, value = line.rpartition(" ")
            if name == series:
                return float(value)
        return 0.0

    def _metrics(self) -> list[str]:
        url = self.log.read_text().partition("listening on ")[2].split()[0]
        with urllib.request.urlopen(url + "metrics", timeout=30) as answer:
            return str(answer.read().decode()).splitlines()

    def counts(self) -> Counter[str]:
        """Return the account of readings, and what was rejected for which reason."""
        found: Counter[str] = Counter()
        for line in self._metrics():
            name, _, value = line.rpartition(" ")
            if name.startswith("vigie_readings_"):
                found[name] = int(float(value))
        return found

    def until(self, met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not met():
            assert self.process is not None and self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


class Feed:
    """`vigie simulate` into a broker, with its register in a folder: it sends until it is stopped."""

    def __init__(self, folder: Path, out: str, *arguments: str) -> None:
        self.log = folder / "feed.log"
        command = [sys.executable, "-m", "vigie", "simulate", out, "--days", "1000", "--faults", "none"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--wire", "cbor", "--register", str(folder), *arguments], stdout=log, stderr=log
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """Stop it after what is under way, and return how many readings it has sent."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()
        found = re.search(r"([\d,]+) readings of .* until it was stopped", self.log.read_text())
        assert found is not None, self.log.read_text()
        return int(found[1].replace(",", ""))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def feed() -> Iterator[Callable[..., Feed]]:
    """Return a function that starts a feed; it is killed at the end of the test."""
    made: list[Feed] = []

    def make(folder: Path, out: str, *arguments: str) -> Feed:
        made.append(Feed(folder, out, *arguments))
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def site_run() -> Iterator[Callable[..., SiteRun]]:
    """Return a function that makes the run of a site; it is killed at the end of the test."""
    made: list[SiteRun] = []

    def make(folder: Path, *arguments: str) -> SiteRun:
        made.append(SiteRun(folder, *arguments))
        return made[-1]

    yield make
    for one in made:
        one.kill()


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
