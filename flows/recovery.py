"""The recovery store of a site: a folder that one run at a time may use, and that says what it was written for.

The snapshots lie in Bytewax's own files, ``part-*.sqlite3``. Beside them `store.json` says which form of state they
hold, for how many shards and which classes; `lock` is held by the run. What cannot be resumed is refused in a sentence
with the command that resolves it; what is damaged is set aside under another name, and is never in the way twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
from bytewax.recovery import RecoveryConfig, init_db_dir

from features.signals import EquipmentClass

__all__ = ["Store", "StoreError", "class_form", "open_store"]

FORMAT = 1
"""Version of the whole: raised where a release can no longer read what an earlier one wrote."""
FLOW = "monitor"
"""Name of the dataflow, the first part of the names of its steps."""
PARTS = 2
"""Files of a store: as many as have shown to help, since each is written by one process at a time."""


class StoreError(Exception):
    """A store that cannot be used; the message is one sentence with the command that resolves it."""


class _Meta(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """What `store.json` holds."""

    format: int
    id: str
    shards: int
    classes: dict[str, str]


def class_form(equipment: EquipmentClass) -> str:
    """Return a fingerprint of what the state of a class depends on: its signals, windows, features and models.

    Thresholds, texts and paging may change under a store.

    Examples
    --------
    >>> from features.signals import load_class
    >>> class_form(load_class("lift")) == class_form(load_class("lift"))
    True
    """
    modes = {name: [i.feature for i in mode.indicators] for name, mode in equipment.failure_modes.items()}
    form = (
        equipment.window_s,
        equipment.lateness_s,
        [(name, signal.period_s, signal.bands_hz) for name, signal in equipment.signals.items()],
        [feature.name for feature in equipment.features],
        equipment.horizons_s,
        [(name, cycle.kind, cycle.signals) for name, cycle in equipment.cycles.items()],
        equipment.detection.features,
        equipment.detection.detectors,
        modes,
    )
    return hashlib.sha256(msgspec.json.encode(form)).hexdigest()[:16]


class Store:
    """A recovery store that this process holds.

    Parameters
    ----------
    folder
        Where it lies.
    id
        Its identity, new for each store.
    lock
        The locked file; None where the supervisor holds it.
    """

    def __init__(self, folder: Path, id: str, lock: IO[str] | None = None) -> None:
        self.folder, self.id = folder, id
        self._lock = lock

    @classmethod
    def held(cls, folder: Path) -> Store:
        """Return the store that the supervisor of this process holds."""
        meta = _read_meta(folder)
        if meta is None:
            raise StoreError(f"{folder}: there is no recovery store")
        return cls(folder, meta.id, None)

    def config(self) -> RecoveryConfig:
        """Return what Bytewax must know."""
        return RecoveryConfig(str(self.folder))

    def resume_state(self, step: str, key: str) -> Any:
        """Return the newest state of a step and key that a restart would load; None where there is none.

        It is read while the run writes, so that an input can tell what will never be asked for again.
        """
        return self.states(step, key).get(step, {}).get(key)

    def states(self, step: str = "", key: str = "") -> dict[str, dict[str, Any]]:
        """Return the states that a restart would load, by step and key; of one step and key where they are named."""
        query = "SELECT step_id, state_key, snap_epoch, ser_change FROM snaps WHERE snap_epoch < ?"
        if step:
            query += " AND step_id = ? AND state_key = ?"
        parts = [_opened(path) for path in sorted(self.folder.glob("part-*.sqlite3"))]
        newest: dict[tuple[str, str], tuple[int, bytes | None]] = {}
        try:
            named = (_resume_epoch(parts), *((f"{FLOW}.{step}", key) if step else ()))
            for part in parts:
                for step_id, state_key, epoch, change in part.execute(query, named):
                    if epoch > newest.get((step_id, state_key), (-1, None))[0]:
                        newest[step_id, state_key] = epoch, change
        finally:
            for part in parts:
                part.close()
        found: dict[str, dict[str, Any]] = {}
        for (step_id, state_key), (_, change) in newest.items():
            if change is not None:
                found.setdefault(step_id.removeprefix(f"{FLOW}."), {})[state_key] = pickle.loads(change)
        return found

    def close(self) -> None:
        """Let others use it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_store(
    folder: Path,
    shards: int,
    classes: Mapping[str, EquipmentClass],
    command: str,
    fresh: bool = False,
    said: Callable[[str], None] = lambda sentence: None,
) -> Store:
    """Open a store, or make it; hold it until it is closed.

    Parameters
    ----------
    folder
        Where it lies.
    shards, classes
        What the run needs it to be for.
    command
        The command that was given, for the sentence that says how to start anew.
    fresh
        Set the present store aside and start anew.
    said
        Told in a sentence what was set aside.

    Raises
    ------
    StoreError
        If another run holds it, or it is of another version, number of shards or form of a class.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder / "lock")
    except OSError as error:
        raise StoreError(f"{folder}: the recovery store cannot be written ({error.strerror})") from None
    if lock is None:
        raise StoreError(f"{folder}: another run uses this recovery store; stop it first, or give each its own folder")
    try:
        if fresh and (folder / "store.json").exists():
            said(f"{folder}: the recovery store was set aside as {_set_aside(folder)}")
        damage = _damage(folder)
        if damage is not None:
            said(
                f"{folder}: the recovery store is damaged ({damage}); it was set aside as {_set_aside(folder)},"
                " and the run starts anew"
            )
        wanted = {name: class_form(c) for name, c in sorted(classes.items())}
        meta = _read_meta(folder)
        if meta is None:
            meta = _Meta(FORMAT, uuid.uuid4().hex, shards, wanted)
            init_db_dir(folder, PARTS)
            hidden = folder / "store.json.tmp"
            hidden.write_bytes(msgspec.json.format(msgspec.json.encode(meta)))
            hidden.replace(folder / "store.json")
        _check(folder, meta, shards, wanted, command)
        if meta.classes != wanted:
            grown = msgspec.structs.replace(meta, classes=meta.classes | wanted)
            (folder / "store.json").write_bytes(msgspec.json.format(msgspec.json.encode(grown)))
    except OSError as error:
        lock.close()
        raise StoreError(f"{folder}: the recovery store cannot be written ({error.strerror})") from None
    except BaseException:
        lock.close()
        raise
    return Store(folder, meta.id, lock)


def _check(folder: Path, meta: _Meta, shards: int, wanted: dict[str, str], command: str) -> None:
    anew = f"to start anew, which keeps the old store beside it: {command} --fresh"
    if meta.format != FORMAT:
        raise StoreError(
            f"{folder}: this recovery store has format {meta.format}, this release reads {FORMAT}; run the release"
            f" that wrote it, or, {anew}"
        )
    if meta.shards != shards:
        raise StoreError(
            f"{folder}: this recovery store was written with {meta.shards} shards, the site has {shards}; set"
            f" shards = {meta.shards} in the site file, or, {anew}"
        )
    for name in sorted(meta.classes.keys() & wanted.keys()):
        if meta.classes[name] != wanted[name]:
            raise StoreError(
                f"{folder}: the class {name!r} has other signals, windows, features or detectors than when this"
                f" recovery store was written; take the old class file, or, {anew}"
            )


def _locked(path: Path) -> IO[str] | None:
    """Return the file, locked until it is closed; None where somebody else has it."""
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _read_meta(folder: Path) -> _Meta | None:
    try:
        return msgspec.json.decode((folder / "store.json").read_bytes(), type=_Meta)
    except FileNotFoundError:
        return None


def _damage(folder: Path) -> str | None:
    """Return what is damaged of a store; None of one that is whole, or not there yet."""
    try:
        meta = _read_meta(folder)
    except msgspec.MsgspecError as error:
        return f"store.json: {error}"
    parts = sorted(folder.glob("part-*.sqlite3"))
    if meta is None:
        return f"store.json is missing beside {parts[0].name}" if parts else None
    if len(parts) != PARTS:
        return f"{len(parts)} of {PARTS} files part-*.sqlite3 are there"
    for path in parts:
        try:
            # Opened for writing, because a killed run leaves a log beside it that has to be played in first.
            part = sqlite3.connect(path, timeout=10.0)
            try:
                [[answer]] = part.execute("PRAGMA quick_check(1)").fetchall()
                part.execute("SELECT count(*) FROM snaps").fetchone()
            finally:
                part.close()
        except sqlite3.Error as error:
            return f"{path.name}: {error}"
        if answer != "ok":
            return f"{path.name}: {answer}"
    return None


def _set_aside(folder: Path) -> Path:
    """Move what a store holds beside it, and return where; the lock stays."""
    number = 0
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    while (aside := folder.with_name(f"{folder.name}.aside-{stamp}" + (f"-{number}" if number else ""))).exists():
        number += 1
    aside.mkdir()
    for path in sorted(folder.iterdir()):
        if path.name != "lock":
            path.replace(aside / path.name)
    return aside


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)


def _resume_epoch(parts: list[sqlite3.Connection]) -> int:
    """Return the epoch at which a restart would begin: what all workers of the last execution have reached."""
    query = "SELECT ex_num, resume_epoch, worker_count FROM exs"
    executions = [row for part in parts for row in part.execute(query)]
    if not executions:
        return 0
    last, begun, workers = max(executions)
    reached: dict[int, int] = {}
    query = "SELECT worker_index, worker_frontier FROM fronts WHERE ex_num = ?"
    for part in parts:
        for worker, frontier in part.execute(query, (last,)):
            reached[worker] = max(reached.get(worker, 0), frontier)
    return min(reached.values()) if len(reached) == workers else int(begun)
