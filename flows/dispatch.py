"""Dispatch: turns the episodes that shards open into pages and tickets, once each.

One dispatcher works for all assets of a class. It follows the shards: what an episode's probability asks for is what it
gets. Ranking under the class's budget of false pages, which takes the overflow down to tickets, follows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any, Literal

from features.signals import EquipmentClass
from models.assessment import Candidate

__all__ = ["Decision", "Dispatcher"]

VERSION = 1
_LADDER = {"ticket": 1, "page": 2, "none": 3}


@dataclass(frozen=True, slots=True)
class Decision:
    """A page, a ticket or the end of an episode.

    Attributes
    ----------
    episode
        Id of the episode: the identity of the alert, so that neither a restart nor another process pages again.
    asset, equipment, failure_mode
        What it is about.
    opened_us, window_start_us
        Event time at which the episode opened, and start of the window in which this was decided.
    rung
        ``page``, ``ticket``, or ``closed``.
    probability
        Probability of failure in the paging horizon.
    outcome
        ``open``, or how it ended: ``withdrawn``, ``failed``, ``repaired``.
    reason
        One sentence for people.
    """

    episode: str
    asset: str
    equipment: str
    failure_mode: str
    opened_us: int
    window_start_us: int
    rung: Literal["page", "ticket", "closed"]
    probability: float
    outcome: str
    reason: str


class Dispatcher:
    """Decides on the candidates of one class; the same candidate twice is decided once.

    It remembers the newest episode of each asset and failure mode, and how far that has come. A candidate that comes
    again after a restart, or one whose rung does not rise, gives nothing, and so does the end of an episode that it has
    not heard of.

    Parameters
    ----------
    equipment
        The class.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from features.signals import load_class
    >>> dispatcher = Dispatcher(load_class("lift"))
    >>> opened = Candidate("e", "lift-1", "lift", "brake", 0, 0, 10, "page", "open", 0.7, "It wears.")
    >>> ended = replace(opened, rung="none", outcome="repaired")
    >>> [d.rung for d in dispatcher.step([opened, opened, ended, ended])]
    ['page', 'closed']
    """

    def __init__(self, equipment: EquipmentClass) -> None:
        self.equipment = equipment
        self._newest: dict[tuple[str, str], tuple[int, int]] = {}
        self._open: dict[str, Decision] = {}

    @property
    def open(self) -> list[Decision]:
        """The newest decision on each episode that is open, in the order in which they opened."""
        return list(self._open.values())

    def forget(self, assets: Iterable[str]) -> None:
        """Forget assets that left, with their episodes."""
        gone = set(assets)
        self._newest = {about: known for about, known in self._newest.items() if about[0] not in gone}
        self._open = {episode: decision for episode, decision in self._open.items() if decision.asset not in gone}

    def step(self, candidates: Iterable[Candidate]) -> list[Decision]:
        """Decide on candidates in their order."""
        decisions = (self._decide(candidate) for candidate in candidates)
        return [decision for decision in decisions if decision is not None]

    def _decide(self, candidate: Candidate) -> Decision | None:
        about = candidate.asset, candidate.failure_mode
        opened_us, stage = self._newest.get(about, (-(2**63), 0))
        if candidate.opened_us > opened_us:
            opened_us, stage = candidate.opened_us, 0
        reached = _LADDER[candidate.rung]
        if candidate.opened_us < opened_us or reached <= stage or (candidate.rung == "none" and stage == 0):
            return None
        self._newest[about] = opened_us, reached
        decision = Decision(
            episode=candidate.episode,
            asset=candidate.asset,
            equipment=candidate.equipment,
            failure_mode=candidate.failure_mode,
            opened_us=candidate.opened_us,
            window_start_us=candidate.window_start_us,
            rung="closed" if candidate.rung == "none" else candidate.rung,
            probability=candidate.probability,
            outcome=candidate.outcome,
            reason=candidate.reason,
        )
        if decision.rung == "closed":
            self._open.pop(decision.episode, None)
        else:
            self._open[decision.episode] = decision
        return decision

    def state(self) -> dict[str, Any]:
        """Return a copy of everything remembered, as a plain dict with a version."""
        newest = [(*about, *known) for about, known in self._newest.items()]
        return {"version": VERSION, "newest": newest, "open": [astuple(decision) for decision in self._open.values()]}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned.

        Raises
        ------
        ValueError
            If it is of another version.
        """
        if state.get("version") != VERSION:
            raise ValueError(
                f"the state of the dispatch of {self.equipment.name!r} has version {state.get('version')}, expected"
                f" {VERSION}"
            )
        self._newest = {(asset, mode): (opened_us, stage) for asset, mode, opened_us, stage in state["newest"]}
        self._open = {decision.episode: decision for decision in (Decision(*fields) for fields in state["open"])}
