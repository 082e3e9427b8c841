"""The recovery store of a site: a folder that one run at a time may use, and that says what it was written for.

The snapshots lie in Bytewax's own files, ``part-*.sqlite3``. Beside them `store.json` says which form of state they
hold, for how many shards and which classes; `lock` is held by the run, and where several hosts share a store, `lock-0`
and so on by each of them. What cannot be resumed is refused in a sentence with the command that resolves it; what is
damaged is set aside under another name, and is never in the way twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import pickle
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from bytewax.recovery import RecoveryConfig, init_db_dir

from features.signals import EquipmentClass
from flows.sealed import sound, unsealed

__all__ = ["FLOW", "Store", "StoreError", "class_form", "open_store"]

FORMAT = 1
"""Version of the whole: raised where a release can no longer read what an earlier one wrote."""
FLOW = "monitor"
"""Name of the dataflow, the first part of the names of its steps."""
PARTS = 2
"""Files of a store: each is written by one process at a time, so two processes need not take turns."""


class StoreError(Exception):
    """A store that cannot be used; the message is one sentence with the command that resolves it."""


class _Meta(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """What `store.json` holds."""

    format: int
    id: str
    made_us: int
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
    locks
        Descriptors of its locked files, none where the supervisor holds them; a process that inherits them holds the
        store too.
    held
        What closes them.
    """

    def __init__(self, folder: Path, id: str, locks: Sequence[int] = (), held: ExitStack | None = None) -> None:
        self.folder, self.id, self.locks = folder, id, locks
        self._held = held or ExitStack()

    @classmethod
    def held(cls, folder: Path) -> Store:
        """Return the store that the supervisor of this process holds."""
        meta = _read_meta(folder)
        if meta is None:
            raise StoreError(f"{folder}: there is no recovery store")
        return cls(folder, meta.id)

    @property
    def made_us(self) -> int:
        """When the store was made, in microseconds since 1970: no result of it is older."""
        meta = _read_meta(self.folder)
        return 0 if meta is None else meta.made_us

    @property
    def shown(self) -> Path:
        """Where the counts that were shown last are kept."""
        return self.folder / "shown.json"

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
                found.setdefault(step_id.removeprefix(f"{FLOW}."), {})[state_key] = unsealed(pickle.loads(change))
        return found

    def rewind(self) -> None:
        """Remove what a killed run has written beyond the epoch at which the next run resumes; before each start.

        The next run counts its epochs on from there. Once it has passed the number of an epoch of the killed run, the
        engine would take a snapshot of that one for its own, of each step and key that has written none in between.
        """
        parts = [sqlite3.connect(path, timeout=10.0) for path in sorted(self.folder.glob("part-*.sqlite3"))]
        try:
            epoch = _resume_epoch(parts)
            for part in parts:
                with part:
                    part.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (epoch,))
        finally:
            for part in parts:
                part.close()

    def close(self) -> None:
        """Let others use it."""
        self._held.close()

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
    process: int | None = None,
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
    process
        Number of this process, where several hosts share the store; each number is held once.
    said
        Told in a sentence what was set aside.

    Raises
    ------
    StoreError
        If another run holds it, or it is of another version, number of shards or form of a class.
    """
    held = ExitStack()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # To set a store aside nobody else may hold it.
        alone = process is None or (fresh and process == 0)
        locks = [_locked(folder / "lock", held, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)]
        if process is not None:
            locks.append(_locked(folder / f"lock-{process}", held))
        setting_up = ExitStack()
        if None not in locks:
            _locked(folder / "lock-setup", setting_up, waits=True)
    except OSError as error:
        held.close()
        raise StoreError(f"{folder}: the recovery store cannot be written ({error.strerror})") from None
    if None in locks:
        held.close()
        raise StoreError(f"{folder}: another run uses this recovery store; stop it first, or give each its own folder")
    # Of several hosts the first looks after what they share.
    first = not process
    try:
        if fresh and first and (folder / "store.json").exists():
            said(f"{folder}: the recovery store was set aside as {_set_aside(folder)}")
        damage = _damage(folder) if first else None
        if damage is not None:
            said(
                f"{folder}: the recovery store is damaged ({damage}); it was set aside as {_set_aside(folder)},"
                " and the run starts anew"
            )
        wanted = {name: class_form(c) for name, c in sorted(classes.items())}
        meta = _read_meta(folder)
        if meta is None:
            meta = _Meta(FORMAT, uuid.uuid4().hex, time.time_ns() // 1000, shards, wanted)
            init_db_dir(folder, PARTS)
            _write_meta(folder, meta)
        _check(folder, meta, shards, wanted, command)
        if meta.classes != wanted:
            _write_meta(folder, msgspec.structs.replace(meta, classes=meta.classes | wanted))
        store = Store(folder, meta.id, [lock for lock in locks if lock is not None], held)
        if first:
            store.rewind()
    except OSError as error:
        held.close()
        raise StoreError(f"{folder}: the recovery store cannot be written ({error.strerror})") from None
    except BaseException:
        held.close()
        raise
    finally:
        setting_up.close()
    return store


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


def _locked(path: Path, held: ExitStack, kind: int = fcntl.LOCK_EX, waits: bool = False) -> int | None:
    """Lock a file until `held` is closed, and return its descriptor; None where somebody else has it."""
    file = held.enter_context(path.open("a", encoding="utf-8"))
    try:
        fcntl.flock(file, kind | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return None
    return file.fileno()


def _write_meta(folder: Path, meta: _Meta) -> None:
    hidden = folder / "store.json.tmp"
    hidden.write_bytes(msgspec.json.format(msgspec.json.encode(meta)))
    hidden.replace(folder / "store.json")


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
                unsound = _unsound(part)
            finally:
                part.close()
        except sqlite3.Error as error:
            return f"{path.name}: {error}"
        if answer != "ok":
            return f"{path.name}: {answer}"
        if unsound is not None:
            return f"{path.name}: the snapshot of {unsound} is not what was written"
    return None


def _unsound(part: sqlite3.Connection) -> str | None:
    """Return the step and key of a snapshot that is not what was written; None where all are."""
    for step, key, change in part.execute("SELECT step_id, state_key, ser_change FROM snaps"):
        try:
            whole = change is None or sound(pickle.loads(change))
        except Exception:  # damaged bytes ask pickle for anything
            whole = False
        if not whole:
            return f"{step} {key}"
    return None


def _set_aside(folder: Path) -> Path:
    """Move what a store holds beside it, and return where; the lock stays."""
    number, folder = 0, folder.resolve()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    while (aside := folder.with_name(f"{folder.name}.aside-{stamp}" + (f"-{number}" if number else ""))).exists():
        number += 1
    aside.mkdir()
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("lock"):
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
