"""Alertmanager: everybody gets what is his, and nobody else does."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml

from flows.simulator.register import register

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy/alertmanager/alertmanager.yml"
CONFIG: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
RECEIVERS: dict[str, Any] = {receiver["name"]: receiver for receiver in CONFIG["receivers"]}


def _providers() -> dict[str, str]:
    """Return the receiver of each provider that has a route."""
    found = {}
    for route in CONFIG["route"]["routes"]:
        for matcher in route["matchers"]:
            if match := re.fullmatch(r'provider="(.+)"', matcher):
                found[match[1]] = route["receiver"]
    return found


PROVIDERS = _providers()
PREDICTED = {"alertname": "VigiePredictedFailure", "asset": "lift-1", "building": "A", "episode": "e"}


def _receiver(amtool: str, **labels: str) -> str:
    done = subprocess.run(
        [amtool, "config", "routes", "test", f"--config.file={FILE}", *(f"{k}={v}" for k, v in labels.items())],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_amtool_accepts_the_configuration(program: Callable[[str], str]) -> None:
    done = subprocess.run(
        [program("amtool"), "check-config", str(FILE)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_provider_has_a_receiver_of_its_own() -> None:
    assert len(PROVIDERS) == 4
    assert len(set(PROVIDERS.values())) == len(PROVIDERS)
    urls = [hook["url"] for receiver in RECEIVERS.values() for hook in receiver.get("webhook_configs", [])]
    assert len(urls) == len(set(urls)) == len(PROVIDERS) + 2


def test_the_providers_of_the_simulated_fleet_are_those_with_a_route() -> None:
    fleet = register(lifts=16, boilers=8, floors=np.full(16, 6), households=np.full(8, 40.0))
    assert {asset.provider for asset in fleet.values()} == set(PROVIDERS)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("severity", ["page", "ticket", "none"])
def test_a_page_goes_to_its_provider_and_a_ticket_to_the_planner(
    program: Callable[[str], str], provider: str, severity: str
) -> None:
    expected = {"page": PROVIDERS[provider], "ticket": "planner", "none": "nobody"}[severity]
    assert _receiver(program("amtool"), **PREDICTED, provider=provider, severity=severity) == expected


@pytest.mark.parametrize("severity", ["page", "ticket"])
def test_what_is_wrong_with_vigie_itself_goes_to_operations(program: Callable[[str], str], severity: str) -> None:
    labels = {"alertname": "VigieRejectionRate", "component": "pipeline", "severity": severity}
    assert _receiver(program("amtool"), **labels) == "operations"


@pytest.mark.parametrize("provider", [{}, {"provider": "A contractor without a route"}], ids=["none", "unknown"])
def test_a_page_that_belongs_to_no_provider_with_a_route_goes_to_operations(
    program: Callable[[str], str], provider: dict[str, str]
) -> None:
    assert _receiver(program("amtool"), **PREDICTED, severity="page", **provider) == "operations"


def test_secrets_stand_in_files_of_their_own() -> None:
    for name, receiver in RECEIVERS.items():
        for hook in receiver.get("webhook_configs", []):
            assert hook["http_config"] == {"authorization": {"credentials_file": f"secrets/{name}.token"}}
            url = urlsplit(hook["url"])
            assert (url.hostname, url.username, url.query) == ("127.0.0.1", None, "")


def test_a_page_is_not_repeated_while_its_episode_is_open() -> None:
    route = CONFIG["route"]
    assert route["group_by"] == ["provider", "building", "alertname"]
    assert route["repeat_interval"] == "30d"
    retention = re.search(r"--data\.retention=(\d+)h", FILE.read_text(encoding="utf-8"))
    assert retention is not None and int(retention[1]) > 30 * 24, "what was sent must be remembered for longer"


def test_a_prediction_is_held_back_by_its_own_asset_only() -> None:
    first, second = CONFIG["inhibit_rules"]
    assert first == {
        "source_matchers": ['alertname=~"VigieAssetStopped|VigieAssetMaintenance"'],
        "target_matchers": ['alertname="VigiePredictedFailure"'],
        "equal": ["asset"],
    }
    assert second["equal"] == ["asset", "episode"]
