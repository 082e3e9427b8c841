"""The recovery store: one run at a time; what cannot be resumed is refused with the way out, what is damaged goes."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from features.signals import load_class
from flows.recovery import PARTS, Store, StoreError, class_form, open_store
from flows.sealed import seal

CLASSES = {name: load_class(name) for name in ("lift", "boiler")}
COMMAND = "vigie run site.toml --recovery state"


def opened(folder: Path, said: list[str] | None = None, **changed: Any) -> Store:
    arguments: dict[str, Any] = {"shards": 16, "classes": CLASSES, "command": COMMAND} | changed
    return open_store(folder, said=([] if said is None else said).append, **arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a store that a run has used."""
    folder = tmp_path / "state"
    opened(folder).close()
    return folder


def refusal(folder: Path, **changed: Any) -> str:
    with pytest.raises(StoreError) as refused:
        opened(folder, **changed)
    sentence = str(refused.value)
    assert sentence.startswith(str(folder)) and "\n" not in sentence
    return sentence


def aside(folder: Path) -> list[Path]:
    return sorted(folder.parent.glob(f"{folder.name}.aside-*"))


def test_a_store_is_made_once_and_keeps_its_identity(folder: Path) -> None:
    said: list[str] = []
    with opened(folder, said) as store:
        identity = store.id
    with opened(folder, said) as store:
        assert store.id == identity
    assert said == [] and aside(folder) == []
    assert json.loads((folder / "store.json").read_text())["shards"] == 16
    assert len(list(folder.glob("part-*.sqlite3"))) == PARTS


def test_a_second_run_is_refused(folder: Path) -> None:
    with opened(folder):
        assert refusal(folder) == (
            f"{folder}: another run uses this recovery store; stop it first, or give each its own folder"
        )
        assert refusal(folder, fresh=True).startswith(f"{folder}: another run"), "nor may it set the store aside"
        assert Store.held(folder).folder == folder, "its own processes may use it"
    opened(folder).close()


def test_whoever_inherits_the_lock_holds_the_store(folder: Path) -> None:
    """A process that outlives its supervisor still writes."""
    store = opened(folder)
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"],
        stdin=subprocess.PIPE,
        pass_fds=store.locks,
        stderr=subprocess.DEVNULL,
    ) as process:
        store.close()
        assert "another run" in refusal(folder)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)
    opened(folder).close()


def test_a_killed_run_leaves_no_lock(folder: Path) -> None:
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print(1, flush=True);"
        " input()"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", hold, str(folder / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert "another run" in refusal(folder)
        process.kill()
        process.wait(30)
    opened(folder).close()


def test_several_hosts_share_a_store_each_under_its_number(folder: Path) -> None:
    with opened(folder, process=0) as one, opened(folder, process=1) as two:
        assert one.id == two.id
        assert "another run" in refusal(folder, process=1), "each number is held once"
        assert "another run" in refusal(folder), "nor by a run of one host"
    opened(folder).close()


def test_only_the_first_of_several_hosts_sets_anything_aside(folder: Path) -> None:
    with opened(folder) as store:
        identity = store.id
    said: list[str] = []
    with opened(folder, said, process=1, fresh=True) as store:
        assert store.id == identity
    with opened(folder, said, process=0, fresh=True) as store:
        assert store.id != identity and store.made_us > 0
    assert len(said) == len(aside(folder)) == 1


def test_other_shards_are_refused(folder: Path) -> None:
    assert refusal(folder, shards=8) == (
        f"{folder}: this recovery store was written with 16 shards, the site has 8; set shards = 16 in the site file,"
        f" or, to start anew, which keeps the old store beside it: {COMMAND} --fresh"
    )
    opened(folder).close()


def test_another_form_of_a_class_is_refused(folder: Path) -> None:
    lift = msgspec.structs.replace(CLASSES["lift"], window_s=20.0)
    sentence = refusal(folder, classes=CLASSES | {"lift": lift})
    assert "the class 'lift' has other signals, windows, features or detectors" in sentence
    assert sentence.endswith(f"{COMMAND} --fresh")


def test_texts_and_thresholds_of_a_class_may_change(folder: Path) -> None:
    lift = CLASSES["lift"]
    paging = msgspec.structs.replace(lift.paging, page_probability=0.123)
    changed = msgspec.structs.replace(lift, description="Another text", paging=paging)
    assert class_form(changed) == class_form(lift) != class_form(CLASSES["boiler"])
    opened(folder, classes=CLASSES | {"lift": changed}).close()


def test_classes_may_come_and_those_that_go_are_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    opened(folder, classes={"lift": CLASSES["lift"]}).close()
    opened(folder, classes={"boiler": CLASSES["boiler"]}).close()
    assert set(json.loads((folder / "store.json").read_text())["classes"]) == {"lift", "boiler"}
    other = msgspec.structs.replace(CLASSES["lift"], window_s=20.0)
    assert "'lift'" in refusal(folder, classes={"lift": other})


def test_another_format_is_refused(folder: Path) -> None:
    meta = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(meta | {"format": 9, "whatever": 1}))
    sentence = refusal(folder)
    assert "has format 9, this release reads 1; run the release that wrote it, or, to start anew" in sentence


def test_fresh_sets_the_store_aside(folder: Path) -> None:
    before, said = Store.held(folder).id, list[str]()
    with opened(folder, said, shards=8, fresh=True) as store:
        assert store.id != before
    [old] = aside(folder)
    assert said == [f"{folder}: the recovery store was set aside as {old}"]
    assert Store.held(old).id == before
    with opened(folder, said, shards=4, fresh=True):
        assert len(aside(folder)) == 2, "none takes the name of another"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:9000] = os.urandom(8900)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("part-0.sqlite3", Path.unlink, "1 of 2 files part-*.sqlite3 are there"),
        ("part-1.sqlite3", cut, "part-1.sqlite3: "),
        ("part-0.sqlite3", scribble, "part-0.sqlite3: "),
        ("part-0.sqlite3", lambda path: path.write_bytes(b""), "part-0.sqlite3: no such table"),
        ("store.json", lambda path: path.write_text('{"format": 1'), "store.json: "),
        ("store.json", lambda path: path.write_text("[]"), "store.json: "),
        ("store.json", Path.unlink, "store.json is missing beside part-0.sqlite3"),
    ],
)
def test_what_is_damaged_is_named_set_aside_and_never_in_the_way_twice(
    folder: Path, name: str, damage: Callable[[Path], object], words: str
) -> None:
    damage(folder / name)
    said: list[str] = []
    with opened(folder, said) as store:
        assert store.states() == {}
    [old] = aside(folder)
    [sentence] = said
    assert words in sentence and sentence.endswith(f"it was set aside as {old}, and the run starts anew")
    assert (old / name).exists() == (damage is not Path.unlink)
    opened(folder, said).close()
    assert len(said) == 1


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    assert "the recovery store cannot be written (File exists)" in refusal(tmp_path / "state")
    with pytest.raises(StoreError, match="there is no recovery store"):
        Store.held(tmp_path / "nothing")


def snaps(folder: Path, *rows: tuple[str, str, int, Any]) -> None:
    with sqlite3.connect(folder / "part-0.sqlite3") as part:
        part.executemany(
            "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES (?, ?, ?, ?)",
            [(step, key, epoch, None if state is None else pickle.dumps(state)) for step, key, epoch, state in rows],
        )
    part.close()


def reached(folder: Path, execution: int, begun: int, *frontiers: int | None) -> None:
    with sqlite3.connect(folder / "part-1.sqlite3") as part:
        part.execute("INSERT INTO exs (ex_num, worker_count, resume_epoch) VALUES (?, ?, ?)",
                     (execution, len(frontiers), begun))  # fmt: skip
        part.executemany(
            "INSERT INTO fronts (ex_num, worker_index, worker_frontier) VALUES (?, ?, ?)",
            [(execution, worker, at) for worker, at in enumerate(frontiers) if at is not None],
        )
    part.close()


@pytest.mark.parametrize("place", [0, 40, -20, -1])
def test_one_bit_of_a_snapshot_sets_the_store_aside(folder: Path, place: int) -> None:
    """SQLite keeps no checksum of what it holds: to its own check such a store is whole."""
    state = seal({"version": 1, "sums": np.arange(10.0)})
    snaps(folder, ("monitor.window", "k", 4, {"of": "0.1.0"}), ("monitor.window", "lift/0", 5, state))
    reached(folder, 0, 1, 6)
    opened(folder).close()
    with sqlite3.connect(folder / "part-0.sqlite3") as part:
        [[blob]] = part.execute("SELECT ser_change FROM snaps WHERE state_key = 'lift/0'").fetchall()
        damaged = bytearray(blob)
        damaged[place] ^= 4
        part.execute("UPDATE snaps SET ser_change = ? WHERE state_key = 'lift/0'", (bytes(damaged),))
    part.close()
    said: list[str] = []
    opened(folder, said).close()
    [sentence] = said
    assert "part-0.sqlite3: the snapshot of monitor.window lift/0 is not what was written" in sentence
    opened(folder, said).close()
    assert len(said) == 1


def test_what_no_restart_would_load_is_not_given(folder: Path) -> None:
    snaps(
        folder,
        ("monitor.window", "k", 3, "old"),
        ("monitor.window", "k", 4, "newest"),
        ("monitor.window", "k", 5, "of an epoch that one worker has not reached"),
        ("monitor.window", "gone", 3, "state"),
        ("monitor.window", "gone", 4, None),
    )
    store = Store.held(folder)
    assert store.resume_state("window", "k") is None, "no run has begun"
    reached(folder, 0, 1, 6, 5)
    assert store.resume_state("window", "k") == "newest"
    assert store.states() == {"window": {"k": "newest"}}
    reached(folder, 1, 4, 9, None)
    assert store.resume_state("window", "k") == "old", "a worker that has said nothing stands where it began"


def test_what_a_killed_run_has_written_ahead_is_removed(folder: Path) -> None:
    """Later runs number their epochs from where they resume, and would take it for their own."""
    snaps(folder, ("monitor.window", "k", 4, "kept"), ("monitor.window", "k", 6, "ahead"))
    reached(folder, 0, 1, 5)
    opened(folder, process=1).close()
    reached(folder, 1, 5, 8)
    assert Store.held(folder).resume_state("window", "k") == "ahead"
    with sqlite3.connect(folder / "part-1.sqlite3") as part:
        part.execute("DELETE FROM exs WHERE ex_num = 1")
        part.execute("DELETE FROM fronts WHERE ex_num = 1")
    part.close()
    opened(folder).close()
    reached(folder, 1, 5, 8)
    assert Store.held(folder).resume_state("window", "k") == "kept"
