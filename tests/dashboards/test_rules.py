"""Rules: real metrics, complete annotations, a runbook each, cases that fire and cases that stay silent."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from dashboards.defaults import RUNBOOKS
from features.signals import load_class
from flows.metrics import series_types

ROOT = Path(__file__).parents[2]
RULE_FILES = sorted((ROOT / "dashboards/rules").glob("*.yml"))
RULE_TESTS = sorted((ROOT / "tests/rules").glob("*.yml"))
RUNBOOK_FILES = sorted((ROOT / "docs/runbooks").glob("*.md"))

FOREIGN = {"up", "ALERTS"}
"""Series that Prometheus itself makes."""


def _rules() -> list[dict[str, Any]]:
    return [
        rule
        for file in RULE_FILES
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


RULES = _rules()
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}


def _names(query: str) -> set[str]:
    """Return the names of the series that a query reads."""
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(query), lambda node: nodes.append(node))
    return {node.name or "" for node in nodes if isinstance(node, promql_parser.VectorSelector)}


def _queries_of(rule: dict[str, Any]) -> list[str]:
    """Return the rule's expression and every query in its description, with names in place of `%q`."""
    description = rule.get("annotations", {}).get("description", "")
    inner = [text.replace("%q", '"x"') for text in re.findall(r"`([^`]+)`", description)]
    return [rule["expr"], *inner]


def _name(rule: dict[str, Any]) -> str:
    return str(rule.get("record") or f"{rule['alert']}-{rule['labels']['severity']}")


@pytest.mark.parametrize("rule", RULES, ids=_name)
def test_a_rule_reads_only_series_that_exist(rule: dict[str, Any]) -> None:
    for query in _queries_of(rule):
        names = _names(query)
        assert names, query
        assert names <= set(series_types()) | RECORDED | FOREIGN, query


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_recorded_name_tells_level_metric_and_operation(name: str) -> None:
    assert re.fullmatch(r"[a-z_]+:vigie_[a-z_]+:[a-z0-9_]+", name)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_recorded_series_is_read_by_somebody(name: str) -> None:
    board = (ROOT / "deploy/grafana/dashboards/fleet.json").read_text(encoding="utf-8")
    assert name in board or any(name in query for rule in ALERTS for query in _queries_of(rule))


@pytest.mark.parametrize("rule", ALERTS, ids=_name)
def test_an_alert_says_what_a_person_needs(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert re.fullmatch(r"[A-Z][^{}$]*[^.]\.", notes["summary"]), "the summary is one sentence without variables"
    assert "$labels" in notes["description"] or "$value" in notes["description"]
    assert notes["runbook_url"] == RUNBOOKS + rule["alert"]
    assert rule["labels"]["severity"] in ("page", "ticket", "none")
    assert {"for", "keep_firing_for"} <= rule.keys()


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {file.stem for file in RUNBOOK_FILES} == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("file", RUNBOOK_FILES, ids=lambda file: file.stem)
def test_a_runbook_is_complete_and_its_queries_are_real(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    summary = next(rule["annotations"]["summary"] for rule in ALERTS if rule["alert"] == file.stem)
    assert text.startswith(f"# {file.stem}\n\n{summary}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Meaning",
        "Impact",
        "Diagnosis",
        "What to do",
        "When it lies",
    ]
    queries = [line for block in re.findall(r"```promql\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert queries
    for query in queries:
        names = _names(query)
        assert names <= set(series_types()) | RECORDED | FOREIGN, query


def test_the_runbook_of_a_prediction_has_the_advice_of_the_shipped_classes() -> None:
    text = (ROOT / "docs/runbooks/VigiePredictedFailure.md").read_text(encoding="utf-8")
    for name in ("lift", "boiler"):
        for mode, said in load_class(name).failure_modes.items():
            assert f"| {name} | `{mode}` | {said.advice} |" in text


def test_every_alert_has_a_case_that_fires_and_one_that_stays_silent() -> None:
    fires: set[tuple[str, str]] = set()
    silent: set[str] = set()
    for file in RULE_TESTS:
        for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            for one in case.get("alert_rule_test", []):
                fires |= {(one["alertname"], alert["exp_labels"]["severity"]) for alert in one["exp_alerts"]}
                silent |= set() if one["exp_alerts"] else {one["alertname"]}
    assert fires == {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS}
    assert silent == {rule["alert"] for rule in ALERTS}


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules(program: Callable[[str], str]) -> None:
    _run(program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *map(str, RULE_FILES))


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_the_rules_fire_and_stay_silent_as_told(program: Callable[[str], str], file: Path) -> None:
    _run(program("promtool"), "test", "rules", str(file))


def test_promtool_accepts_the_configuration_and_finds_every_rule_file(program: Callable[[str], str]) -> None:
    done = subprocess.run(
        [program("promtool"), "check", "config", "deploy/prometheus/prometheus.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
    )
    assert f"{len(RULE_FILES)} rule files found" in done.stdout + done.stderr


def test_prometheus_scrapes_the_job_that_the_alerts_name() -> None:
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8")
    assert [job["job_name"] for job in yaml.safe_load(text)["scrape_configs"]] == ["vigie"]
    assert any('up{job="vigie"}' in rule["expr"] for rule in ALERTS)
