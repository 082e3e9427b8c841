"""Which process of a run this is, and what the processes of one host share."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from flows.credits import Credits

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a process in a run.

    Attributes
    ----------
    process
        Its number, from 0.
    addresses
        Host and port on which each process listens for the others; empty for a process on its own.
    account
        The credits that the processes of the host share; None where they share none.
    serves
        Host and port of `/metrics` where a supervisor serves the site's.

    Examples
    --------
    >>> Place(1, ("10.0.0.1:2101", "10.0.0.2:2101")).mine(3), Place().mine(3)
    (True, True)
    """

    process: int = 0
    addresses: tuple[str, ...] = ()
    account: Path | None = None
    serves: tuple[str, int] | None = None

    @property
    def processes(self) -> int:
        """Number of processes."""
        return max(1, len(self.addresses))

    @property
    def one_host(self) -> bool:
        """Whether all processes run on this host, and so read the same files."""
        return len({address.rpartition(":")[0] for address in self.addresses}) < 2

    def mine(self, number: int) -> bool:
        """Tell whether this process reads partition `number` of an input: it runs the shard of that number."""
        return number % self.processes == self.process

    def local(self, number: int) -> bool:
        """Tell the same of an input that lies on the first process's host: other hosts cannot read it."""
        return self.mine(number) if self.one_host else self.process == 0

    def credits(self, stop: threading.Event) -> Credits | None:
        """Return what the inputs of this process may have under way; None for a process on its own."""
        if self.account is None or self.processes == 1:
            return None
        return Credits(self.process, self.processes, self.account, stop=stop)
