"""The assets that are known: a register that follows its file while the flow runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from features.assets import AssetFileError, Register, load_assets
from features.signals import EquipmentClass

__all__ = ["Known", "unknown_classes"]

POLL_S = 2.0
"""How often the file is looked at."""
SETTLED = 5
"""Looks after a change at which shards look once more for assets that left: by then every process has read the file."""


def unknown_classes(register: Register, classes: Mapping[str, EquipmentClass], path: Path | str) -> list[str]:
    """Return a sentence for each asset of a class that no class file has."""
    return [
        f"{path}: the asset {asset.id!r} is of class {asset.equipment!r}, which no class file has"
        for asset in register.values()
        if asset.equipment not in classes
    ]


class Known:
    """The register of a run, read again when its file changes; a bad file is refused whole and the old one stays.

    Parameters
    ----------
    register
        The assets at the start.
    path
        Where they came from; None where nothing is read again.
    simulated
        Assets that do not stand in the file and stay.
    classes
        Equipment classes by name.
    said
        Told in a sentence what was read, or why not.

    Examples
    --------
    >>> from features.assets import Asset
    >>> known = Known({"l1": Asset(id="l1", equipment="lift")})
    >>> known.class_of("l1"), known.class_of("l2"), known.version
    ('lift', None, 0)
    """

    def __init__(
        self,
        register: Register,
        path: Path | None = None,
        simulated: Register | None = None,
        classes: Mapping[str, EquipmentClass] | None = None,
        said: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.register = register
        self.version = 0
        """How often the register has changed."""
        self._path, self._simulated, self._classes, self._said = path, simulated or {}, classes or {}, said
        self._listeners: list[Callable[[Register], None]] = []
        self._seen = self._stamp()
        self._settling = 0

    def class_of(self, asset: str) -> str | None:
        """Return the class of an asset, None for an unknown one."""
        known = self.register.get(asset)
        return None if known is None else known.equipment

    def changed(self, listener: Callable[[Register], None]) -> None:
        """Call somebody with each new register."""
        self._listeners.append(listener)

    def look(self) -> None:
        """Read the file again if it has changed."""
        if self._settling:
            self._settling -= 1
            self.version += self._settling == 0
        stamp = self._stamp()
        if stamp == self._seen or stamp is None or self._path is None:
            return
        self._seen = stamp
        try:
            register = load_assets(self._path)
            wrong = unknown_classes(register, self._classes, self._path)
            if wrong:
                raise AssetFileError(wrong[0])
        except AssetFileError as error:
            self._said(f"{error}; the assets stay as they were")
            return
        now = register | self._simulated
        came, went = len(now.keys() - self.register.keys()), len(self.register.keys() - now.keys())
        self.register = now
        for listener in self._listeners:
            listener(self.register)
        self.version += 1
        self._settling = SETTLED
        self._said(f"{self._path}: {len(register)} assets, {came} new, {went} gone")

    @contextmanager
    def watched(self, stop: threading.Event) -> Iterator[None]:
        """Look at the file from a thread of its own."""
        if self._path is None:
            yield
            return
        over = threading.Event()

        def watch() -> None:
            while not over.wait(POLL_S) and not stop.is_set():
                self.look()

        thread = threading.Thread(target=watch, name="vigie-assets", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when the file does; None where there is none."""
        try:
            found = None if self._path is None else self._path.stat()
        except OSError:
            return None
        return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)
