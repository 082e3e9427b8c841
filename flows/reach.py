"""Whether the inputs that come over a network can be read: a state and a metric, and one sentence when it changes."""

from __future__ import annotations

import sys
from collections.abc import Callable

from flows.metrics import Pipeline

__all__ = ["Reach", "say"]


def say(sentence: str) -> None:
    """Tell the operator one sentence, on standard error."""
    sys.stderr.write(f"vigie: {sentence}\n")
    sys.stderr.flush()


class Reach:
    """Keeps the state of the partitions of one input.

    Partitions change together where they have one broker: the sentence is said for the first that is lost, and when all
    are back.

    Parameters
    ----------
    name
        The input, as people know it.
    pipeline
        Shows the state of each partition.
    say
        Told the sentences.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry
    >>> reach = Reach("gateways", Pipeline(CollectorRegistry()), print)
    >>> reach.down("kafka/telemetry/0", "connection refused")
    the input gateways cannot be read: connection refused
    >>> reach.down("kafka/telemetry/1", "connection refused")
    >>> reach.up("kafka/telemetry/0")
    >>> reach.up("kafka/telemetry/1")
    the input gateways is read again
    """

    def __init__(self, name: str, pipeline: Pipeline, say: Callable[[str], None] = say) -> None:
        self.name = name
        self.say = say
        self._pipeline = pipeline
        self._down: set[str] = set()

    def begin(self, part: str) -> None:
        """Show a partition as down, in silence, until its broker has answered."""
        self._pipeline.input_up.labels(part).set(0)
        self._pipeline.input_errors.labels(part)

    def up(self, part: str) -> None:
        """Show that a partition is read."""
        self._pipeline.input_up.labels(part).set(1)
        if part in self._down:
            self._down.discard(part)
            if not self._down:
                self.say(f"the input {self.name} is read again")

    def down(self, part: str, why: str) -> None:
        """Show that a partition cannot be read, and why."""
        self._pipeline.input_up.labels(part).set(0)
        if not self._down:
            self.say(f"the input {self.name} cannot be read: {why}")
        self._down.add(part)

    def error(self, part: str) -> None:
        """Count an error."""
        self._pipeline.input_errors.labels(part).inc()
