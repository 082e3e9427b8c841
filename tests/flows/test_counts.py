"""The sums agree at every moment: in each exposition, with whatever thread counting."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from features.signals import load_class
from flows.exposition import exposition
from flows.fleet import Fleet
from flows.metrics import Counts, Pipeline, Tally

REASONS = ("late", "duplicate", "out_of_range")


@contextmanager
def hasty() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def sums(text: bytes) -> tuple[float, float]:
    """Return what came in, and what became of it."""
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    became = values["vigie_readings_scored_total",] + values["vigie_readings_pending",]
    became += sum(value for key, value in values.items() if key[0] == "vigie_readings_rejected_total")
    return values["vigie_readings_total",], became


def test_they_agree_at_every_scrape_while_other_threads_count() -> None:
    pipeline, fleet = Pipeline(CollectorRegistry()), Fleet({"lift": load_class("lift")})
    over = threading.Event()
    rounds = [0, 0]

    def count(number: int) -> None:
        tally, random = Tally(pipeline), Random(number)
        while not over.is_set():
            received, late = random.randrange(10, 1000), random.randrange(3)
            tally.add(
                {("received", ""): received, ("rejected", "late"): late} if late else {("received", ""): received}
            )
            scored = random.randrange(received - late + 1)
            tally.add({("scored", ""): scored, ("windows", "lift"): 1})
            tally.add({("rejected", random.choice(REASONS)): received - late - scored})
            rounds[number] += 1

    threads = [threading.Thread(target=count, args=(number,)) for number in range(2)]
    with hasty():
        for thread in threads:
            thread.start()
        seen: list[float] = []
        while len(seen) < 150 or min(rounds) < 50:
            received, became = sums(exposition(fleet, pipeline))
            assert received == became
            account = pipeline.account()
            assert account["received"] == sum(account.values()) - account["received"]
            seen.append(received)
        over.set()
        for thread in threads:
            thread.join()
    assert seen == sorted(seen) and seen[-1] > seen[0]
    assert sums(exposition(fleet, pipeline))[0] == pipeline.account()["received"]


COUNTS = st.lists(
    st.dictionaries(
        st.sampled_from(
            [("received", ""), ("scored", ""), ("rejected", "late"), ("windows", "lift"), ("pages", "lift")]
        ),
        st.integers(1, 100),
        max_size=4,
    ),
    max_size=20,
)


@given(COUNTS, st.integers(0, 20), st.integers(1, 3))
def test_a_restart_in_any_process_counts_on(counts: list[Counts], cut: int, processes: int) -> None:
    """Steps that counted in one process go on in several, and the sum over those is that of one undisturbed run."""
    whole = Pipeline(CollectorRegistry())
    for one in counts:
        Tally(whole).add(one)
    before = [Tally(Pipeline(CollectorRegistry())) for _ in range(4)]
    for n, one in enumerate(counts[:cut]):
        before[n % 4].add(one)
    pipelines = [Pipeline(CollectorRegistry()) for _ in range(processes)]
    after = [Tally(pipelines[n % processes], tally.state()) for n, tally in enumerate(before)]
    for n, one in enumerate(counts[cut:], cut):
        after[n % 4].add(one)
    found: dict[str, int] = {}
    for pipeline in pipelines:
        for name, number in pipeline.account().items():
            found[name] = found.get(name, 0) + number
    assert found == whole.account()
    for family in ("vigie_windows_total", "vigie_pages_total"):
        values = [p.registry.get_sample_value(family, {"class": "lift"}) or 0.0 for p in pipelines]
        assert sum(values) == (whole.registry.get_sample_value(family, {"class": "lift"}) or 0.0)
