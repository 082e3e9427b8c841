"""Counts do not step back from one process to the next, and balance at every scrape."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from flows import exposition as _without_created  # noqa: F401
from flows.metrics import Pipeline
from flows.shown import LONGEST_S, ShownOn


def text(*counts: dict[tuple[str, str], int]) -> bytes:
    pipeline = Pipeline(CollectorRegistry())
    for one in counts:
        pipeline.count(one)
    return generate_latest(pipeline.registry)


def account(exposition: bytes) -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
        if sample.name.startswith("vigie_readings_")
    }


def balances(shown: dict[str, float]) -> bool:
    rejected = sum(value for name, value in shown.items() if "_rejected_" in name)
    return shown["vigie_readings_total"] == (
        shown["vigie_readings_scored_total"] + shown["vigie_readings_pending"] + rejected
    )


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=12))
def test_no_counter_steps_back_and_the_account_balances(
    tmp_path_factory: object, steps: list[tuple[int, int, int, bool]]
) -> None:
    path = tmp_path_factory.mktemp("shown") / "shown.json"  # type: ignore[attr-defined]
    shown = ShownOn(path, lambda: 0.0)
    before: dict[str, float] = {}
    for received, scored, late, restarts in steps:
        if restarts:
            shown = ShownOn(path, lambda: 0.0)
        counts: dict[tuple[str, str], int] = {("received", ""): received + scored + late, ("scored", ""): scored}
        now = account(shown(text(counts | ({("rejected", "late"): late} if late else {}))))
        assert balances(now)
        assert all(now.get(name, 0.0) >= value for name, value in before.items() if "pending" not in name)
        before = now


def test_what_never_comes_again_begins_anew_after_a_while(tmp_path: Path) -> None:
    now = [0.0]
    shown = ShownOn(tmp_path / "shown.json", lambda: now[0])
    many, few = text({("received", ""): 9}), text({("received", ""): 2})
    assert shown(many) == many
    assert account(shown(few))["vigie_readings_total"] == 9.0
    now[0] = LONGEST_S
    assert shown(few) == few
    assert account(shown(text()))["vigie_readings_total"] == 2.0


def test_a_damaged_file_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "shown.json").write_bytes(b"{")
    assert ShownOn(tmp_path / "shown.json")(text()) == text()
    assert ShownOn(tmp_path / "missing" / "shown.json")(text()) == text()


def test_what_a_process_that_just_starts_has_not_told_yet_is_shown_on(tmp_path: Path) -> None:
    shown = ShownOn(tmp_path / "shown.json", lambda: 0.0)
    before = text({("received", ""): 9, ("rejected", "late"): 2}, {("windows", "lift"): 1})
    shown(before)
    for nothing in (b"", b"# HELP vigie_process_up U.\n# TYPE vigie_process_up gauge\nvigie_process_up 0\n"):
        said = shown(nothing)
        assert account(said) == account(before) and said.endswith(b"\n")
