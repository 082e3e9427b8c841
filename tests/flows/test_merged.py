"""One exposition out of several, held against the parser of Prometheus's own client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from features.signals import load_class
from flows.exposition import exposition
from flows.fleet import Fleet
from flows.merged import merged
from flows.metrics import ASSET_FAMILIES, Pipeline

CLASSES = {name: load_class(name) for name in ("lift", "boiler")}
Series = tuple[str, tuple[tuple[str, str], ...]]


def parsed(text: bytes) -> tuple[dict[str, str], dict[Series, float]]:
    """Return the type of each family and the value of each series; a series or family twice is a mistake."""
    types: dict[str, str] = {}
    values: dict[Series, float] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.name not in types, family.name
        types[family.name] = family.type
        for sample in family.samples:
            series = sample.name, tuple(sorted(sample.labels.items()))
            assert series not in values, series
            values[series] = sample.value
    return types, values


COUNTS = st.dictionaries(
    st.tuples(st.sampled_from(["rejected", "windows", "pages", "tickets"]), st.sampled_from(["late", 'a "b"\\\n c'])),
    st.integers(0, 10**12),
)
PROCESS = st.tuples(st.integers(0, 10**15), COUNTS, st.integers(0, 10**10), st.lists(st.floats(0, 3), max_size=4))


def process(drawn: tuple[int, dict[tuple[str, str], int], int, list[float]]) -> bytes:
    received, counts, at_s, seconds = drawn
    pipeline = Pipeline(CollectorRegistry())
    pipeline.count({("received", ""): received} | counts)
    pipeline.input_time.labels("in").set(at_s)
    pipeline.snapshot_time.set(at_s)
    pipeline.sink_stalled.labels("archive").set(at_s % 2)
    pipeline.state_bytes.labels("window").set(received)
    for each in seconds:
        pipeline.batch_seconds.observe(each)
    return exposition(Fleet(CLASSES), pipeline)


@given(st.lists(PROCESS, min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_counts_are_added_and_of_times_the_newest_holds(drawn: list[Any]) -> None:
    texts = [process(one) for one in drawn]
    parts = [parsed(text) for text in texts]
    types, values = parsed(merged(texts))
    assert types == parts[0][0]
    asset_families = {family.name for family in ASSET_FAMILIES}
    expected: dict[Series, float] = {}
    for series in {key for part in parts for key in part[1]}:
        found = [part[1][series] for part in parts if series in part[1]]
        added = not series[0].endswith(("_seconds", "_stalled", "_info", "_ratio")) and series[0] not in asset_families
        expected[series] = np.sum(found) if added or series[0] == "vigie_snapshot_seconds" else max(found)
    assert values.keys() == expected.keys()
    for series, value in expected.items():
        assert values[series] == np.float64(value) or np.isclose(values[series], value, rtol=1e-12), series


def test_assets_of_two_processes_stand_side_by_side(assessed: Callable[..., Any], decision: Callable[..., Any]) -> None:
    texts, fleets = [], []
    for names in (["l1", "l2"], ["l3"]):
        fleet = Fleet({"lift": CLASSES["lift"]})
        fleet.update(assessed(CLASSES["lift"], names, "degraded"))
        fleet.decide(decision(names[0]))
        fleets.append(fleet)
        texts.append(exposition(fleet, Pipeline(CollectorRegistry())))
    whole = Fleet({"lift": CLASSES["lift"]})
    for fleet, names in zip(fleets, (["l1", "l2"], ["l3"]), strict=True):
        whole.update(assessed(CLASSES["lift"], names, "degraded"))
        for episode in fleet.episodes():
            whole.decide(episode)
    assert parsed(merged(texts)) == parsed(exposition(whole, Pipeline(CollectorRegistry())))


def test_a_process_that_has_said_nothing_yet_changes_nothing(assessed: Callable[..., Any]) -> None:
    fleet = Fleet({"lift": CLASSES["lift"]})
    fleet.update(assessed(CLASSES["lift"], ["l1"]))
    text = exposition(fleet, Pipeline(CollectorRegistry()))
    assert merged([text, b""]) == text
    assert merged([]) == b""
