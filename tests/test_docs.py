"""What the operator reads is complete: every metric, every key of a site file, every option of a run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flows.kafka.settings import KafkaInput, KafkaOutput
from flows.metrics import series_types
from flows.mqtt.settings import MqttInput
from flows.site import FileInput, Outputs, SimulatorInput, Site, load_site
from vigie.command import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
SITES = sorted((ROOT / "deploy").glob("*.toml"))


def test_every_metric_is_told() -> None:
    for name, kind in series_types().items():
        plain = re.sub(r"_(bucket|count|sum)$", "", name) if kind == "histogram" else name
        assert f"`{plain}`" in TEXT, plain


def test_no_metric_is_told_that_does_not_exist() -> None:
    known = set(series_types()) | {re.sub(r"_(bucket|count|sum)$", "", name) for name in series_types()}
    assert set(re.findall(r"\bvigie_[a-z_]+", TEXT)) <= known


@pytest.mark.parametrize("struct", [Site, FileInput, KafkaInput, MqttInput, SimulatorInput, Outputs, KafkaOutput])
def test_every_key_of_a_site_file_is_told(struct: Any) -> None:
    for field in msgspec.structs.fields(struct):
        assert re.search(rf"[`.]{field.encode_name}\b", TEXT), field.encode_name


def test_every_option_of_a_run_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "--help"])
    for option in set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}:
        assert option in TEXT, option


def test_the_site_files_in_the_text_are_read() -> None:
    inputs: dict[str, Any] = {"files": FileInput, "kafka": KafkaInput, "mqtt": MqttInput}
    found = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)]
    for one in found:
        for described in one.get("inputs", []):
            msgspec.convert(described, inputs.pop(described["kind"]))
        if "outputs" in one:
            msgspec.convert(one["outputs"], Outputs)
    assert not inputs


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.name)
def test_the_site_files_that_are_delivered_are_right(path: Path) -> None:
    assert load_site(path)[1] == []
