"""`vigie run` with a recovery store, and as several processes: what is refused, what a stop and a kill leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from vigie.command import main

PATIENCE_S = 120.0

SITE = """
name = "Les Lilas"
assets = "fleet/assets.csv"
shards = 4

[[inputs]]
kind = "files"
name = "gateway"
paths = ["fleet/telemetry/*"]

[outputs]
address = "127.0.0.1:0"
archive = "archive"
"""


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "fleet"
    assert main(["simulate", str(out), "--lifts", "2", "--boilers", "1", "--days", "0.1", "--faults", "none"]) == 0
    capsys.readouterr()
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main(["run", *map(str, arguments)])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    return status, printed.out, printed.err


def rows(site: Path) -> int:
    [(count,)] = (
        duckdb.connect().execute(f"select count(*) from '{site.parent}/archive/scores/**/*.parquet'").fetchall()
    )
    return int(count)


def test_what_was_read_is_not_read_again(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = site.parent / "state"
    status, said, _ = run(capsys, site, "--recovery", state)
    assert status == 0
    once, account = rows(site), said.splitlines()[-1]
    assert once > 0 and " 0 rejected" in account
    status, said, _ = run(capsys, site, "--recovery", state)
    assert (status, rows(site), said.splitlines()[-1]) == (0, once, account), "the counts go on, and no row is doubled"


def test_a_store_that_does_not_fit_is_refused_with_the_command(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = site.parent / "state"
    assert run(capsys, site, "--recovery", state)[0] == 0
    once = rows(site)
    site.write_text(SITE.replace("shards = 4", "shards = 8"))
    status, said, error = run(capsys, site, "--recovery", state)
    command = f"vigie run {site} --recovery {state} --fresh"
    assert (status, said) == (1, "") and error.count("\n") == 1
    assert "was written with 4 shards, the site has 8" in error and error.rstrip().endswith(command)
    status, _, error = run(capsys, *command.split()[2:])
    assert status == 0 and "was set aside" in error
    assert rows(site) == 2 * once, "started anew, the files are read anew"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--processes", "2", "--page"], "--page shows the assets of one process"),
        (["--processes", "2", "--address", "127.0.0.1:1"], "give --processes for several processes here, or --address"),
        (["--address", "127.0.0.1:1", "--address", "127.0.0.1:2"], "--process says which of them is this one"),
        (["--address", "127.0.0.1:1", "--address", "127.0.0.1:2", "--process", "2"], "--process counts from 0"),
        (["--process", "1"], "--process counts from 0"),
        (
            ["--address", "127.0.0.1:1", "--address", "no.such.host.invalid:2", "--process", "0"],
            "cannot reach the cluster",
        ),
        (["--recovery", "site.toml/state"], "the recovery store cannot be written"),
    ],
)
def test_what_cannot_run_is_told_in_a_sentence(
    site: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(site.parent)
    status, said, error = run(capsys, "site.toml", *arguments)
    assert (status, said) == (1, "")
    assert words in error and "Traceback" not in error


@pytest.mark.parametrize(("value", "words"), [("0", "from 1 to 64"), ("65", "from 1 to 64"), ("two", "whole number")])
def test_a_number_of_processes_is_a_number(value: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "site.toml", "--processes", value]) == 2
    assert words in capsys.readouterr().err


class Run:
    """A run of two processes over files at a pace that does not end."""

    def __init__(self, site: Path) -> None:
        self.site = site
        site.write_text(SITE.replace('name = "gateway"', 'name = "gateway"\nspeed = 60'))
        self.log = site.parent / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vigie", "run", "site.toml", "--processes", "2", "--recovery", "state"],
                cwd=site.parent, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.until(lambda: self.log.read_text().count("listening") == 3)

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    @property
    def children(self) -> list[int]:
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]


@pytest.fixture
def started(site: Path) -> Iterator[Run]:
    one = Run(site)
    yield one
    with suppress(ProcessLookupError):
        os.killpg(one.process.pid, signal.SIGKILL)
    one.process.wait()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.timeout(400)
def test_processes_do_not_outlive_their_supervisor(started: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed itself, it cannot stop them; the store is theirs until they have stopped by themselves."""
    children = started.children
    assert len(children) == 2
    os.kill(children[0], signal.SIGSTOP)
    started.process.kill()
    started.process.wait()
    try:
        status, said, error = run(capsys, started.site, "--recovery", started.site.parent / "state")
        assert (status, said) == (1, "") and "another run uses this recovery store" in error
    finally:
        os.kill(children[0], signal.SIGCONT)
    started.until(lambda: not any(map(alive, children)))


@pytest.mark.timeout(400)
def test_a_stop_drains_every_process(started: Run) -> None:
    children = started.children
    begun = time.monotonic()
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(PATIENCE_S) == 0, started.log.read_text()
    assert time.monotonic() - begun < 30.0, "ten seconds on a machine that has nothing else to do"
    assert not any(map(alive, children))
    assert "Traceback" not in started.log.read_text()
