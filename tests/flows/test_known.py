"""The register of a run follows its file; a bad file changes nothing and is named."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from features.assets import Asset, Register, load_assets
from features.signals import load_class
from flows.known import SETTLED, Known, unknown_classes

CLASSES = {name: load_class(name) for name in ("lift", "boiler")}
HEADER = "id,class,provider\n"


class File:
    """An asset file whose every version has a time of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._time_ns = 1_700_000_000_000_000_000

    def write(self, *rows: str) -> None:
        self._time_ns += 1_000_000_000
        self.path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
        os.utime(self.path, ns=(self._time_ns, self._time_ns))


@pytest.fixture
def file(tmp_path: Path) -> File:
    file = File(tmp_path / "assets.csv")
    file.write("l1,lift,Northlift", "b1,boiler,Warm")
    return file


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def known(file: File, said: list[str]) -> Known:
    simulated = {"s1": Asset(id="s1", equipment="lift", simulated=True)}
    return Known(load_assets(file.path) | simulated, file.path, simulated, CLASSES, said.append)


def test_assets_come_go_and_change_class(file: File, known: Known, said: list[str]) -> None:
    heard: list[Register] = []
    known.changed(heard.append)
    known.look()
    assert (known.version, heard, said) == (0, [], [])
    file.write("l2,lift,Northlift", "b1,lift,Warm")
    known.look()
    assert [known.class_of(name) for name in ("l1", "l2", "b1", "s1")] == [None, "lift", "lift", "lift"]
    assert known.version == 1
    assert heard == [known.register]
    assert said == [f"{file.path}: 2 assets, 1 new, 1 gone"]
    known.look()
    assert known.version == 1, "the same file is read once"


def test_shards_look_once_more_when_every_process_has_read_the_file(file: File, known: Known) -> None:
    file.write("l1,lift,Northlift")
    versions = []
    for _ in range(SETTLED + 3):
        known.look()
        versions.append(known.version)
    assert versions == [1] * SETTLED + [2] * 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["l1,lift,Northlift", "l1,lift,Northlift"], "line 3"),
        (["l1,lift,Northlift", "l2,lift"], "line 3"),
        (["l1,lift,Northlift", "c1,chiller,Cold"], "'c1' is of class 'chiller', which no class file has"),
        (["l1,lift,Northlift,surplus"], "line 2"),
    ],
)
def test_a_bad_file_is_refused_whole(file: File, known: Known, said: list[str], rows: list[str], words: str) -> None:
    before = known.register
    file.write(*rows)
    known.look()
    assert known.register is before and known.version == 0
    [sentence] = said
    assert str(file.path) in sentence and words in sentence
    assert sentence.endswith("; the assets stay as they were") and "\n" not in sentence
    known.look()
    assert len(said) == 1, "it is said once"
    file.write("l3,lift,Northlift")
    known.look()
    assert known.class_of("l3") == "lift" and known.version == 1


def test_a_file_that_is_away_for_a_moment_changes_nothing(file: File, known: Known, said: list[str]) -> None:
    text = file.path.read_text()
    file.path.unlink()
    known.look()
    assert (known.version, said, known.class_of("l1")) == (0, [], "lift")
    file.path.write_text(text)
    known.look()
    assert known.class_of("l1") == "lift"


def test_classes_that_no_file_has_are_named() -> None:
    register = {"c1": Asset(id="c1", equipment="chiller"), "l1": Asset(id="l1", equipment="lift")}
    [sentence] = unknown_classes(register, CLASSES, "assets.csv")
    assert sentence == "assets.csv: the asset 'c1' is of class 'chiller', which no class file has"


def test_it_is_watched_from_a_thread_that_ends_with_the_run(
    file: File, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.known.POLL_S", 0.001)
    heard = threading.Event()
    known.changed(lambda register: heard.set())
    threads = threading.active_count()
    with known.watched(threading.Event()):
        file.write("l9,lift,Northlift")
        assert heard.wait(30)
    assert threading.active_count() == threads
    assert known.class_of("l9") == "lift"


def test_without_a_file_nothing_is_watched() -> None:
    known = Known({"l1": Asset(id="l1", equipment="lift")})
    threads = threading.active_count()
    with known.watched(threading.Event()):
        assert threading.active_count() == threads
        known.look()
    assert known.version == 0
