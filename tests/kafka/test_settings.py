"""What a site file says of Kafka: told to the client in its own words, and everything wrong in a sentence."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trustme

from flows.kafka.settings import KafkaInput, KafkaOutput, Sasl, Tls, client_config, problems
from flows.site import load_site

INPUT = """
name = "block 7"
assets = "assets.csv"

[[inputs]]
kind = "kafka"
name = "gateways"
brokers = ["127.0.0.1:9092"]
topic = "telemetry"
partitions = 4
"""


def site(folder: Path, text: str) -> list[str]:
    (folder / "assets.csv").write_text("id,class\nlift-1,lift\n")
    (folder / "site.toml").write_text(text)
    return [problem.replace(str(folder), "DIR") for problem in load_site(folder / "site.toml")[1]]


def test_a_site_reads_a_topic_and_writes_three(tmp_path: Path) -> None:
    output = '[outputs.kafka]\nbrokers = ["127.0.0.1:9092"]\nscores = "scores"\nrejected = "rejected"\n'
    assert site(tmp_path, INPUT + output) == []
    loaded, _ = load_site(tmp_path / "site.toml")
    assert loaded is not None
    assert loaded.site.inputs[0] == KafkaInput(
        name="gateways", brokers=("127.0.0.1:9092",), topic="telemetry", partitions=4
    )
    assert loaded.site.outputs.kafka is not None
    assert loaded.site.outputs.kafka.topics == {"scores": "scores", "rejected": "rejected"}


SECOND = INPUT.partition("[[inputs]]")[2].replace("gateways", "others")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (INPUT.replace("127.0.0.1:9092", "broker"), "$.inputs: gateways: brokers: an address is host:port, such as"),
        (INPUT + 'class = "crane"\n', "$.inputs: gateways: no class is called 'crane': they are boiler, lift"),
        (INPUT + "tls = { ca = 'ca.pem' }\n", "$.inputs: gateways: tls.ca: there is no file DIR/ca.pem"),
        (INPUT + "tls = { ca = 'assets.csv' }\n", "$.inputs: gateways: the Kafka client refuses these settings: "),
        (INPUT + "tls = { cert = 'assets.csv' }\n", "$.inputs: gateways: tls: cert and key go together"),
        (
            INPUT + "sasl = { mechanism = 'PLAIN', username = 'vigie', password_file = 'secret' }\n",
            "$.inputs: gateways: sasl.password_file: there is no file DIR/secret",
        ),
        (
            INPUT + "sasl = { mechanism = 'GSSAPI', username = 'v', password_file = 's' }\n",
            "$.inputs[0].sasl.mechanism: 'GSSAPI' is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
        ),
        (INPUT + "password = 'secret'\n", "$.inputs[0]: there is no key `password`: the keys are name, brokers, "),
        (INPUT.replace("partitions = 4\n", ""), "$.inputs[0]: the key `partitions` is missing"),
        (INPUT.replace("= 4", "= 0"), "$.inputs[0].partitions: expected a whole number of at least 1, got 0"),
        (INPUT.replace('"telemetry"', '"a topic"'), "$.inputs[0].topic: expected text that matches "),
        (INPUT + 'start = "now"\n', "$.inputs[0].start: 'now' is none of earliest, latest"),
        (INPUT + "\n[[inputs]]" + SECOND, "$.inputs: two inputs read a topic called 'telemetry'"),
        (INPUT + '[outputs.kafka]\nbrokers = ["a:1"]\n', "$.outputs.kafka: no topic is named: give scores"),
        (
            INPUT + '[outputs.kafka]\nbrokers = ["a:1"]\nscores = "x"\ndecisions = "x"\n',
            "$.outputs.kafka: scores, decisions and rejected need a topic each",
        ),
        (
            INPUT + '[outputs.kafka]\nbrokers = ["a:1"]\nscores = "telemetry"\n',
            "$.outputs.kafka: the topic 'telemetry' is read as an input, and would feed itself",
        ),
        (INPUT.replace('assets = "assets.csv"\n', ""), "$.assets: a site that reads telemetry needs a register"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(tmp_path: Path, text: str, told: str) -> None:
    found = site(tmp_path, text)
    assert len(found) == 1
    assert told in found[0]


def test_the_client_is_told_how_the_connection_is_protected(tmp_path: Path) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("vigie.example")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "vigie.key"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "vigie.pem"))
    (tmp_path / "secret").write_text("s3cret pass\nsecond line\n")
    described = KafkaInput(
        name="gateways",
        brokers=("a:9093", "b:9093"),
        topic="telemetry",
        partitions=1,
        tls=Tls(ca="ca.pem", cert="vigie.pem", key="vigie.key"),
        sasl=Sasl(mechanism="SCRAM-SHA-512", username="vigie", password_file="secret"),
    )
    assert list(problems(described, tmp_path)) == []
    config = client_config(described, tmp_path)
    assert (
        config.items()
        >= {
            "bootstrap.servers": "a:9093,b:9093",
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(tmp_path / "ca.pem"),
            "ssl.certificate.location": str(tmp_path / "vigie.pem"),
            "ssl.key.location": str(tmp_path / "vigie.key"),
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": "vigie",
            "sasl.password": "s3cret pass",
        }.items()
    )


@pytest.mark.parametrize(
    ("tls", "sasl", "protocol"), [(False, False, "PLAINTEXT"), (True, False, "SSL"), (False, True, "SASL_PLAINTEXT")]
)
def test_the_protocol_is_that_of_what_is_set(tmp_path: Path, tls: bool, sasl: bool, protocol: str) -> None:
    (tmp_path / "secret").write_text("x")
    described = KafkaOutput(
        brokers=("a:1",),
        scores="scores",
        tls=Tls() if tls else None,
        sasl=Sasl(mechanism="PLAIN", username="vigie", password_file="secret") if sasl else None,
    )
    assert client_config(described, tmp_path)["security.protocol"] == protocol


def test_a_key_that_does_not_belong_to_its_certificate_is_told_before_anything_starts(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("a.example").private_key_pem.write_to_path(str(tmp_path / "a.key"))
    authority.issue_cert("b.example").cert_chain_pems[0].write_to_path(str(tmp_path / "b.pem"))
    described = KafkaOutput(brokers=("a:1",), scores="scores", tls=Tls(cert="b.pem", key="a.key"))
    (problem,) = problems(described, tmp_path)
    assert problem.startswith("the Kafka client refuses these settings: ")


def test_no_sentence_holds_the_password(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "empty").write_text("\n")
    sasl = Sasl(mechanism="PLAIN", username="vigie", password_file="secret")
    described = KafkaOutput(brokers=("a:1",), scores="scores", sasl=sasl, tls=Tls(ca="secret"))
    found = list(problems(described, tmp_path))
    assert found and "hunter2" not in "".join(found)
    assert "hunter2" not in repr(described)
    empty = msgspec.structs.replace(described, sasl=msgspec.structs.replace(sasl, password_file="empty"), tls=None)
    assert list(problems(empty, tmp_path)) == [f"sasl.password_file: the first line of {tmp_path / 'empty'} is empty"]


def test_a_site_is_checked_without_asking_the_brokers(tmp_path: Path) -> None:
    assert site(tmp_path, INPUT.replace("127.0.0.1:9092", "192.0.2.1:9092")) == []
