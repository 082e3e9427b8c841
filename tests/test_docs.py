"""What the operator reads is complete: every metric, every key of a site file, every option of a run."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest

from features.assets import Asset
from features.signals import load_class
from features.wire import MessageWire, decode, decode_jsonlines
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


def test_every_column_of_the_register_is_told() -> None:
    register = TEXT.partition("## The register of assets")[2].partition("\n## ")[0]
    for field in msgspec.structs.fields(Asset):
        assert re.search(rf"^\| .*`{field.encode_name}`.* \|", register, re.MULTILINE), field.encode_name


def message(form: str, text: str) -> tuple[MessageWire, bytes, str]:
    """Return an example of the text as a message: its form, its bytes, and the class of its asset."""
    equipment = "lift" if "lift-" in text else "boiler"
    if form == "cbor-diag":
        plain = json.loads(re.sub(r"(\d+)\(h'([0-9a-f]+)'\)", r'{"tag": \1, "bytes": "\2"}', text), object_hook=tagged)
        return "cbor", cbor2.dumps(plain), equipment
    return "senml" if '"bn"' in text else "json", text.encode(), equipment


def tagged(found: dict[str, Any]) -> Any:
    return cbor2.CBORTag(found["tag"], bytes.fromhex(found["bytes"])) if "tag" in found else found


def test_the_messages_in_the_text_are_telemetry() -> None:
    examples = re.findall(r"```(json|cbor-diag)\n(.*?)```", TEXT, re.DOTALL)
    values = []
    for form, text in examples:
        wire, payload, name = message(form, text)
        decoded = decode(wire, [payload], source="docs", equipment=load_class(name))
        assert decoded.rejected == [], text
        values.append({row["signal"]: [v for v in row["values"] if v == v] for row in decoded.blocks.to_pylist()})
        assert set(values[-1]) <= set(load_class(name).signals)
    assert values == [
        {"flow": [1.5, 1.6]},
        {"flow": [1.5, 1.6], "pump_power": [210.0, 211.0, 209.5], "water_pressure": [1.8]},
        {"flow": [1.5, 1.6], "pump_power": [210.0]},
        {"vibration_z": [0.5, 1.5], "motor_current": [11.5, 11.7]},
    ]


def test_a_bare_number_and_a_value_are_read_as_the_text_says() -> None:
    start = '{"asset": "boiler-0001", "start": 0, '
    bare = decode("json", [(start + '"signals": {"flow": 1.5}}').encode()], source="docs")
    assert bare.rejected == [] and bare.blocks.to_pylist()[0]["values"] == [1.5]
    single = (start + '"signal": "flow", "value": 1.5}').encode()
    assert [(one.reason.value, one.raw) for one in decode("json", [single], source="docs").rejected] == [
        ("malformed", single)
    ]
    lines = b'{"asset": "b", "signal": "flow", "time": 0, "value": 1.5}\n{"asset": "b", "time": 1, "flow": 1.6}\n'
    assert decode_jsonlines(lines, source="docs").rejected == []


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
