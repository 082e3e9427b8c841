"""What can be wrong in the MQTT input of a site file is said before anything starts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flows.metrics import Pipeline
from flows.mqtt.settings import MqttInput, Tls, problems
from flows.mqtt.wiring import mqtt_client, mqtt_source
from flows.site import load_site
from flows.spool.writer import Spool

ASSETS = "id,class,site,building,address,provider\nlift-1,lift,north,a,street 1,acme\n"
INPUT = '[[inputs]]\nkind = "mqtt"\nname = "gateways"\nbroker = "localhost:1883"\ntopics = ["fleet/{asset}"]\n'


def described(**fields: Any) -> MqttInput:
    return MqttInput(
        **{"name": "gateways", "broker": "localhost:1883", "topics": ("fleet/+",), "spool": "spool", **fields}
    )


def site(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text('name = "north"\nassets = "assets.csv"\n' + text)
    (tmp_path / "assets.csv").write_text(ASSETS)
    return path


def test_a_site_with_a_broker_loads(tmp_path: Path) -> None:
    path = site(
        tmp_path,
        INPUT + 'spool = "spool"\nclass = "lift"\nusername = "vigie"\npassword_file = "secret"\ntls = {}\n',
    )
    (tmp_path / "secret").write_text("hush\n")
    loaded, found = load_site(path)
    assert found == []
    assert loaded is not None
    [one] = loaded.site.inputs
    assert isinstance(one, MqttInput)
    assert (one.client, one.wire, one.partitions, one.equipment, one.tls) == (
        "vigie-gateways",
        "json",
        16,
        "lift",
        Tls(),
    )


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("", "$.inputs[0]: the key `spool` is missing"),
        ('spool = "s"\nqos = 2\n', "$.inputs[0].qos: 2 is none of 0, 1"),
        (
            'spool = "s"\nspool_limit_bytes = 1\n',
            "$.inputs[0].spool_limit_bytes: expected a whole number of at least 10000000, got 1",
        ),
        ('spool = "s"\nwire = "csv"\n', "$.inputs[0].wire: 'csv' is none of arrow, cbor, json, senml, senml-cbor"),
        ('spool = "s"\npasword_file = "x"\n', "there is no key `pasword_file`: did you mean `password_file`?"),
    ],
)
def test_the_form_of_an_input_is_checked(tmp_path: Path, extra: str, sentence: str) -> None:
    loaded, found = load_site(site(tmp_path, INPUT + extra))
    assert loaded is None
    assert sentence in found[0]


def test_a_class_that_no_file_has_is_told_once(tmp_path: Path) -> None:
    path = site(tmp_path, INPUT + 'spool = "spool"\nclass = "crane"\n')
    assert load_site(path)[1] == [f"{path}: $.inputs: gateways: no class is called 'crane': they are boiler, lift"]


def test_a_site_that_reads_a_broker_needs_a_register(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('name = "north"\n' + INPUT + 'spool = "spool"\n')
    assert load_site(path)[1] == [f"{path}: $.assets: a site that reads telemetry needs a register of its assets"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"broker": "localhost"}, "broker: an address is host:port"),
        ({"topics": ("fleet/#/x",)}, "topics: 'fleet/#/x': '#' may only be the last level"),
        ({"topics": ("$share/g/fleet",)}, "shared subscriptions give up the order"),
        ({"equipment": "crane"}, "class: no class is called 'crane'"),
        ({"password_file": "secret"}, "password_file: a password needs a username"),
        ({"username": "v", "password_file": "gone"}, "password_file: there is no file"),
        ({"username": "v", "password_file": "empty"}, "is empty"),
        ({"username": "v", "password_file": "latin"}, "cannot be read (it is not UTF-8)"),
        ({"tls": Tls(cert="secret")}, "tls: cert and key go together"),
        ({"tls": Tls(ca="gone")}, "tls.ca: there is no file"),
        ({"tls": Tls(ca="secret")}, "tls.ca: "),
        ({"tls": Tls(cert="secret", key="secret")}, "tls.cert: certificate and key do not fit"),
        ({"spool": "secret"}, "is not a folder"),
        ({"spool": "made", "partitions": 8}, "partitions: the spool made was made with 4, and keeps them for life"),
        ({"spool": "broken"}, "spool.json: this cannot be read"),
    ],
)
def test_each_mistake_is_a_sentence(tmp_path: Path, fields: dict[str, Any], sentence: str) -> None:
    (tmp_path / "secret").write_text("hush\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes(b"\xff\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/spool.json").write_text("{")
    Spool(tmp_path / "made", 4).close()
    found = list(problems([described(**fields)], tmp_path, ["lift"]))
    assert len(found) == 1
    assert found[0].startswith("$.inputs: gateways: ")
    assert sentence in found[0]
    assert "hush" not in found[0]


def test_two_inputs_share_neither_spool_nor_client(tmp_path: Path) -> None:
    inputs = [described(), described(name="more", client_id="vigie-gateways", spool="./spool")]
    assert list(problems(inputs, tmp_path, [])) == [
        "$.inputs: more: spool: the input gateways writes into ./spool already",
        "$.inputs: more: client_id: 'vigie-gateways' is the client of gateways already",
    ]


def test_a_real_certificate_passes(program: Callable[[str], str], tmp_path: Path) -> None:
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-x509", "-days", "2"]
    command = [program("openssl"), *new, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    tls = Tls(ca="ca.crt", cert="ca.crt", key="ca.key")
    assert list(problems([described(tls=tls)], tmp_path, [])) == []


def test_a_description_becomes_a_client_and_a_source(tmp_path: Path) -> None:
    pipeline = Pipeline(CollectorRegistry())
    one = described(topics=("fleet/{asset}",), username="v", password_file="secret", tls=Tls(ca="ca.crt"), partitions=4)
    client = mqtt_client(one, tmp_path, pipeline)
    assert client.broker.topics == ["fleet/+"]
    assert (client.broker.host, client.broker.port, client.broker.client_id) == ("localhost", 1883, "vigie-gateways")
    assert client.broker.ca_file == tmp_path / "ca.crt"
    client.stop()
    source = mqtt_source(one, tmp_path, pipeline, recovered=True, mine=lambda n: n == 3)
    assert source.list_parts() == ["mqtt/gateways/3"]
