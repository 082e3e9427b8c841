"""Dashboards: fresh files, a tidy grid, real metrics, words for people."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from dashboards import defaults
from dashboards.build import build, main
from dashboards.layout import COLUMNS
from flows.metrics import STATES, series_types

ROOT = Path(__file__).parents[2]
BUILT = build()
FOLDER = ROOT / "deploy/grafana/dashboards"
PANELS = [
    pytest.param(panel, id=f"{name}:{panel['title']}")
    for name, text in BUILT.items()
    for panel in json.loads(text)["panels"]
    if panel["type"] != "row"
]
RECORDED = {
    rule["record"]
    for file in (ROOT / "dashboards/rules").glob("*.yml")
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
    if "record" in rule
}


def _nodes(expression: promql_parser.Expr) -> list[promql_parser.Expr]:
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(expression, lambda node: nodes.append(node))
    return nodes


def _parsed(query: str) -> promql_parser.Expr:
    query = query.replace("$__rate_interval", "5m").replace('"$1"', '"x"')
    return promql_parser.parse(re.sub(r"\$\{?\w+\}?", ".*", query))


def _names(expression: promql_parser.Expr) -> set[str]:
    return {node.name or "" for node in _nodes(expression) if isinstance(node, promql_parser.VectorSelector)}


def _units(panel: dict[str, Any]) -> list[str]:
    config = panel["fieldConfig"]
    properties = [p for override in config["overrides"] for p in override["properties"]]
    return [config["defaults"].get("unit"), *(p["value"] for p in properties if p["id"] == "unit")]


def test_the_files_are_those_that_the_code_writes() -> None:
    written = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.json")}
    assert written == BUILT, "run: python -m dashboards.build deploy/grafana/dashboards"


def test_the_command_writes_every_board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "new")]) == 0
    assert {file.name: file.read_text(encoding="utf-8") for file in (tmp_path / "new").iterdir()} == BUILT
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'fleet.json'}\n"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "file")])
    assert ended.value.code == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", BUILT)
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(BUILT[name])["panels"]
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < COLUMNS
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len(taken) == COLUMNS * (1 + max(y for _, y in taken)), "there is a hole"
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_letters_for_its_queries(panel: dict[str, Any]) -> None:
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == sorted(set(letters)) and all(letters)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_means_and_what_to_do(panel: dict[str, Any]) -> None:
    text = panel["description"]
    assert len(text) > 60 and text.endswith(".")
    verbs = r"check|add|ask|have|bring|take|work|send|look|wait|see|tell|give|do not|repair|wrong|broken"
    assert re.search(rf"\b({verbs})\b", text, re.IGNORECASE), "a description says what to do"


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_unit(panel: dict[str, Any]) -> None:
    units = _units(panel)
    assert all(units)
    assert set(units) <= {"none", "short", "percentunit", "s"}, "base units and ratios, as the metrics have them"


@pytest.mark.parametrize("panel", PANELS)
def test_a_query_reads_series_that_exist_through_the_chosen_data_source(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        names = _names(_parsed(target["expr"]))
        assert names and names <= set(series_types()) | RECORDED, target["expr"]


@pytest.mark.parametrize("panel", PANELS)
def test_a_rate_is_taken_of_counters_only_and_a_quantile_of_buckets(panel: dict[str, Any]) -> None:
    counted = {name for name, kind in series_types().items() if kind in ("counter", "histogram")}
    for target in panel["targets"]:
        expression = _parsed(target["expr"])
        rated: set[str] = set()
        for node in _nodes(expression):
            if isinstance(node, promql_parser.Call) and node.func.name in ("rate", "irate", "increase"):
                rated |= _names(node)
        assert _names(expression) & counted == rated, target["expr"]


@pytest.mark.parametrize("panel", [p for p in PANELS if "Now" not in str(p.id)])
def test_a_panel_on_assets_follows_the_variables(panel: dict[str, Any]) -> None:
    pipeline = re.compile(r"vigie_(readings|window|input)")
    for target in panel["targets"]:
        chosen = all(f'{name}=~"${name}"' in target["expr"] for name in ("class", "site", "building", "provider"))
        assert chosen != bool(pipeline.search(target["expr"])), target["expr"]


@pytest.mark.parametrize("name", BUILT)
def test_the_variables_take_also_what_has_no_value(name: str) -> None:
    variables = {v["name"]: v for v in json.loads(BUILT[name])["templating"]["list"]}
    assert list(variables) == ["datasource", "class", "site", "building", "provider"]
    for variable in list(variables.values())[1:]:
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".*")


def test_every_state_has_a_sign_and_a_look_of_its_own() -> None:
    assert tuple(defaults.STATE_WORDS) == STATES
    assert tuple(defaults.STATE_CURVES) == STATES
    assert len({text[0] for text, _ in defaults.STATE_WORDS.values()}) == len(STATES)
    assert len({colour for _, colour in defaults.STATE_WORDS.values()}) == len(STATES)


def test_provisioning_names_the_folder_and_the_data_source() -> None:
    folder = ROOT / "deploy/grafana/provisioning"
    boards = yaml.safe_load((folder / "dashboards/vigie.yml").read_text(encoding="utf-8"))
    assert [p["options"]["path"] for p in boards["providers"]] == ["/var/lib/grafana/dashboards/vigie"]
    source = yaml.safe_load((folder / "datasources/vigie.yml").read_text(encoding="utf-8"))["datasources"]
    assert [(s["type"], s["isDefault"]) for s in source] == [("prometheus", True)]
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert source[0]["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
