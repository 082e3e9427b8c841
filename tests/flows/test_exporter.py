from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from features.assets import Asset
from features.signals import FailureMode, Indicator, load_class
from features.telemetry import Reason, Rejected
from features.windows import Silence
from flows.exporter import Server, exposition
from flows.fleet import Fleet
from flows.metrics import ASSET_FAMILIES, STATES, Pipeline

Make = Callable[..., Any]
LIFT, BOILER = load_class("lift"), load_class("boiler")
HOSTILE = 'a"b\\c\nd{},= <img src=x onerror=alert(1)>'

GOLDEN = """\
vigie_failure_probability_ratio{asset="l1",class="lift",horizon="2h"} 0.125
vigie_failure_probability_ratio{asset="l1",class="lift",horizon="24h"} 0.3125
vigie_failure_probability_ratio{asset="l1",class="lift",horizon="7d"} 0.5
vigie_leading_failure_mode_info{asset="l1",failure_mode="door_operator"} 1
vigie_remaining_life_seconds{asset="l1",quantile="0.1"} 86400
vigie_remaining_life_seconds{asset="l1",quantile="0.5"} 172800
vigie_remaining_life_seconds{asset="l1",quantile="0.9"} 432000
vigie_health_ratio{asset="l1",failure_mode="door_operator"} 0.75
vigie_health_ratio{asset="l1",failure_mode="motor_bearing"} 0.75
vigie_health_ratio{asset="l1",failure_mode="brake"} 0.75
vigie_health_ratio{asset="l1",failure_mode="guide_shoes"} 0.75
vigie_anomaly_score{asset="l1",class="lift"} 2.5
vigie_asset_state{asset="l1",state="failing"} 1
vigie_asset_info{asset="l1",class="lift",site="S",building="B",provider="P",make="M",simulated="true"} 1
vigie_asset_households{asset="l1"} 24
vigie_asset_last_reading_timestamp_seconds{asset="l1"} 1780000000
vigie_signal_share_ratio{asset="l1",signal="door_position"} 0.5
vigie_signal_share_ratio{asset="l1",signal="motor_current"} 0.25
vigie_signal_share_ratio{asset="l1",signal="vibration_x"} 0.125
vigie_signal_value{asset="l1",signal="door_position"} 3.5
vigie_signal_value{asset="l1",signal="motor_current"} 3.5
vigie_signal_value{asset="l1",signal="vibration_x"} 3.5
vigie_signal_expected{asset="l1",signal="door_position",bound="lower"} 1
vigie_signal_expected{asset="l1",signal="door_position",bound="upper"} 2
vigie_signal_expected{asset="l1",signal="motor_current",bound="lower"} 1
vigie_signal_expected{asset="l1",signal="motor_current",bound="upper"} 2
vigie_signal_expected{asset="l1",signal="vibration_x",bound="lower"} 1
vigie_signal_expected{asset="l1",signal="vibration_x",bound="upper"} 2
vigie_episode_page{asset="l1",class="lift",failure_mode="door_operator",episode="l1/door_operator/1"} 1
vigie_page_threshold_ratio{class="lift",horizon="7d"} 0.6
"""


def pipeline() -> Pipeline:
    return Pipeline(CollectorRegistry())


def series(text: bytes) -> list[tuple[str, dict[str, str], float]]:
    return [
        (s.name, s.labels, s.value) for family in text_string_to_metric_families(text.decode()) for s in family.samples
    ]


def per_asset(text: bytes) -> Counter[str]:
    return Counter(labels["asset"] for _, labels, _ in series(text) if "asset" in labels)


@pytest.fixture
def fleet(assessed: Make, decision: Make) -> Fleet:
    """Lifts and boilers in every state, a hostile name, a silent one, open episodes and rejected input."""
    lifts = [*STATES, HOSTILE]
    boilers = ["b1", "b2"]
    register = {n: Asset(id=n, equipment="lift", households=10, building=n) for n in lifts}
    register |= {n: Asset(id=n, equipment="boiler", households=10) for n in boilers}
    fleet = Fleet({"lift": LIFT, "boiler": BOILER}, register, history=True)
    fleet.update(assessed(LIFT, lifts, state=[*STATES, "failing"]))
    fleet.update(assessed(BOILER, boilers, state=["ok", "degraded"], top=[[-1, -1, -1], [0, 5, 7]]))
    fleet.silent(Silence(["silent"], np.array([0], np.int32), np.array([0]), 0))
    fleet.decide(decision("failing"))
    fleet.decide(decision("failing", "ticket", "e2", failure_mode="brake"))
    fleet.decide(decision(HOSTILE))
    fleet.reject([Rejected(Reason.MALFORMED, 1, HOSTILE, HOSTILE.encode(), asset=HOSTILE)])
    return fleet


def test_the_exposition_of_one_failing_lift_is_the_golden_text(assessed: Make, decision: Make) -> None:
    asset = Asset(
        id="l1", equipment="lift", site="S", building="B", provider="P", make="M", households=24, simulated=True
    )
    fleet = Fleet({"lift": LIFT}, {"l1": asset})
    fleet.update(assessed(LIFT, ["l1"], state="failing"))
    fleet.decide(decision("l1"))
    lines = exposition(fleet, pipeline()).decode().splitlines(keepends=True)
    assert "".join(line for line in lines if 'asset="' in line or "threshold_ratio{" in line) == GOLDEN


def test_each_family_has_its_help_and_type_once_and_in_order(fleet: Fleet) -> None:
    text = exposition(fleet, pipeline()).decode()
    for kind in ("HELP", "TYPE"):
        found = re.findall(rf"^# {kind} (\S+)", text, re.MULTILINE)
        assert len(found) == len(set(found))
        assert found[-len(ASSET_FAMILIES) :] == [family.name for family in ASSET_FAMILIES]
    assert "_created" not in text
    assert text.endswith("\n")
    names = [name for name, _, _ in series(text.encode())]
    assert {family.name for family in ASSET_FAMILIES} <= set(names)


def test_promtool_accepts_the_exposition(fleet: Fleet, program: Callable[[str], str]) -> None:
    result = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=exposition(fleet, pipeline()),
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout + result.stderr == b""


def test_no_series_stands_twice(fleet: Fleet) -> None:
    found = [(name, tuple(labels.items())) for name, labels, _ in series(exposition(fleet, pipeline()))]
    assert len(found) == len(set(found))


def test_a_hostile_name_comes_back_as_it_was(fleet: Fleet) -> None:
    states = [labels for name, labels, _ in series(exposition(fleet, pipeline())) if name == "vigie_asset_state"]
    assert {"asset": HOSTILE, "state": "failing"} in states


def test_series_an_asset_stay_within_their_limits(fleet: Fleet) -> None:
    counts = per_asset(exposition(fleet, pipeline()))
    for asset, n in counts.items():
        assert n <= (20 if asset in ("ok", "warming", "b1") else 30), asset
    assert counts["failing"] == 30, "all that an asset can have"


def test_a_class_with_many_failure_modes_and_horizons_stays_within_the_limits_too(
    assessed: Make, decision: Make
) -> None:
    mode = FailureMode(description="d", advice="a", indicators=(Indicator(feature="doors.closing_s", fails_at=2.0),))
    many = msgspec.structs.replace(LIFT, failure_modes={f"m{n}": mode for n in range(12)})
    fleet = Fleet({"lift": many})
    health = np.tile(np.linspace(1.0, 0.1, 12), (2, 1))
    fleet.update(assessed(many, ["good", "bad"], state=["ok", "failing"], health=health))
    for n in range(5):
        fleet.decide(decision("bad", episode=f"e{n}"))
        fleet.decide(decision("good", "ticket", episode=f"f{n}"))
    text = exposition(fleet, pipeline())
    counts = per_asset(text)
    assert counts["good"] <= 20
    assert counts["bad"] <= 30
    shown = {labels["failure_mode"] for name, labels, _ in series(text) if name == "vigie_health_ratio"}
    assert shown == {"m8", "m9", "m10", "m11"}, "the worst"


def test_an_asset_that_left_is_gone_at_the_next_scrape(fleet: Fleet) -> None:
    assert per_asset(exposition(fleet, pipeline()))["failing"]
    fleet.retire("failing")
    assert not per_asset(exposition(fleet, pipeline()))["failing"]


def test_churn_of_ten_thousand_assets_leaves_nothing_behind(assessed: Make) -> None:
    fleet = Fleet({"lift": LIFT})
    for generation in range(3):
        names = [f"lift-{generation}-{n}" for n in range(10_000)]
        fleet.update(assessed(LIFT, names))
        assert set(re.findall(rb'asset="([^"]*)"', exposition(fleet, pipeline()))) == {name.encode() for name in names}
        for name in names:
            fleet.retire(name)
    assert b'asset="' not in exposition(fleet, pipeline())
    assert len(fleet) == 0


def test_what_cannot_be_known_has_no_series(assessed: Make) -> None:
    fleet = Fleet({"lift": LIFT})
    unknown = {
        "p_fail": [[np.nan, 0.0, 1.0]],
        "rul_s": [[np.nan, np.inf, -np.inf]],
        "health": np.full((1, 4), np.nan),
        "score": [0.0],
        "lower": np.full((1, 15), np.nan),
    }
    fleet.update(assessed(LIFT, ["a"], state="degraded", **unknown))
    found = series(exposition(fleet, pipeline()))
    probabilities = {labels["horizon"]: v for n, labels, v in found if n == "vigie_failure_probability_ratio"}
    assert probabilities == {"24h": 0.0, "7d": 1.0}, "0 is a statement"
    names = {name for name, labels, _ in found if labels.get("asset") == "a"}
    assert "vigie_anomaly_score" in names
    assert not names & {"vigie_remaining_life_seconds", "vigie_health_ratio", "vigie_asset_households"}
    assert {labels["bound"] for name, labels, _ in found if name == "vigie_signal_expected"} == {"upper"}


def test_the_same_signal_is_never_named_twice(assessed: Make) -> None:
    fleet = Fleet({"lift": LIFT})
    fleet.update(assessed(LIFT, ["a"], state="failing", top=[[9, 10, 7]], top_share=[[0.5, 0.3, 0.1]]))
    shares = [
        labels["signal"] for n, labels, _ in series(exposition(fleet, pipeline())) if n == "vigie_signal_share_ratio"
    ]
    assert shares == ["door_position", "motor_current"]


def test_a_scrape_while_the_dataflow_writes_is_whole(assessed: Make) -> None:
    fleet = Fleet({"lift": LIFT})
    names = [f"lift-{n}" for n in range(200)]
    stop = threading.Event()

    def write() -> None:
        generation = 0
        while not stop.is_set():
            generation += 1
            value = float(generation)
            fleet.update(assessed(LIFT, names, end_us=generation, score=[value] * 200, rul_s=np.full((200, 3), value)))
            fleet.retire(names[generation % 200])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            found = series(exposition(fleet, pipeline()))
            scores = {labels["asset"]: v for n, labels, v in found if n == "vigie_anomaly_score"}
            lives = {labels["asset"]: v for n, labels, v in found if n == "vigie_remaining_life_seconds"}
            assert scores == lives
            assert len(set(scores.values())) <= 1, "one state of the table"
    finally:
        stop.set()
        writer.join()


def test_an_episode_of_another_process_has_its_series_here(decision: Make) -> None:
    fleet = Fleet({"lift": LIFT})
    fleet.decide(decision("elsewhere"))
    assert per_asset(exposition(fleet, pipeline())) == {"elsewhere": 1}


# ---- the server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def server(fleet: Fleet) -> Iterator[Server]:
    with Server(fleet, pipeline()) as server:
        yield server


def get(
    server: Server, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def raw(server: Server, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/api/fleet", "application/json"),
        ("/api/rejected", "application/json"),
        ("/api/assets/failing", "application/json"),
    ],
)
def test_every_route_answers_with_its_kind_and_safe_headers(server: Server, path: str, kind: str) -> None:
    status, headers, body = get(server, path)
    assert (status, headers["content-type"]) == (200, kind)
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"
    head_status, head_headers, head_body = get(server, path, "HEAD")
    assert (head_status, head_body) == (200, b"")
    assert body
    assert "content-length" in head_headers


def test_metrics_are_the_exposition(server: Server) -> None:
    assert get(server, "/metrics")[2] == exposition(server.fleet, server.pipeline)


def test_a_connection_serves_many_requests(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for _ in range(3):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"alive\n"
    connection.close()


def test_readyz_waits_for_the_first_window(assessed: Make) -> None:
    fleet = Fleet({"lift": LIFT})
    with Server(fleet, pipeline()) as server:
        assert get(server, "/readyz")[::2] == (503, b"not ready: no window has been scored yet\n")
        assert get(server, "/healthz")[0] == 200
        assert json.loads(get(server, "/api/fleet")[2])["assets"] == []
        fleet.update(assessed(LIFT, ["a"]))
        assert get(server, "/readyz")[0] == 200
    with Server(Fleet({"lift": LIFT}), pipeline()) as server:
        server.ready = True
        assert get(server, "/readyz")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "nonsense"])
def test_only_get_and_head_are_served(server: Server, method: str) -> None:
    status, headers, _ = get(server, "/metrics", method)
    assert status == 405
    assert headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/api", "/api/", "/api/nothing", "/api/assets/", "/api/assets/nobody", "/page", "/../fleet.py",
     "/..%2ffleet.py", "/page/views.py", "/__init__.py", "/%00"],
)  # fmt: skip
def test_what_is_unknown_is_not_found(server: Server, path: str) -> None:
    assert get(server, path)[0] == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("page=2&size=3", 200),
        ("page=0&size=0", 200),
        ("page=-1", 400),
        ("page=abc", 400),
        ("page=1e9", 400),
        ("size=999999999", 200),
        ("size=9999999999999999999999", 400),
        ("page=%D9%A1", 400),
        ("search=%ff%00%27%22%3Cscript%3E", 200),
        ("search=" + "a" * 30_000, 200),
        ("sort=__class__&state=%F0%9F%92%A3&class=../../etc", 200),
        ("&&&=&=;%", 200),
        ("a=1&" * 50, 400),
    ],
)
def test_a_hostile_query_never_breaks_the_server(server: Server, query: str, status: int) -> None:
    found, headers, body = get(server, f"/api/fleet?{query}")
    assert found == status
    if status == 200:
        assert json.loads(body)["states"]["failing"] == 2
    else:
        assert headers["content-type"].startswith("text/plain")
    assert get(server, "/healthz")[0] == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"\x00\xff\x00\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_request_gets_no_page_and_harms_nobody(server: Server, request_bytes: bytes) -> None:
    answer = raw(server, request_bytes)
    assert b" 200 " not in answer
    assert b"Traceback" not in answer
    assert get(server, "/healthz")[0] == 200


def test_a_body_is_never_taken_for_the_next_request(server: Server) -> None:
    hidden = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    assert raw(server, head + hidden).count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:9300", 200), ("[::1]:9300", 200), ("LOCALHOST:1", 200), ("evil.example", 421),
     ("evil.example:9300", 421), ("localhost.evil.example", 421), ("", 421)],
)  # fmt: skip
def test_on_loopback_only_names_of_loopback_are_answered(server: Server, host: str, status: int) -> None:
    assert get(server, "/api/fleet", headers={"Host": host})[0] == status


def test_a_reverse_proxy_may_be_named(fleet: Fleet) -> None:
    with Server(fleet, pipeline(), hosts=["vigie.example"]) as server:
        assert get(server, "/", headers={"Host": "vigie.example"})[0] == 200


def test_without_the_page_only_the_routes_for_machines_are_served(fleet: Fleet) -> None:
    with Server(fleet, pipeline(), page=False) as server:
        assert [get(server, path)[0] for path in ("/", "/page.js", "/api/fleet", "/metrics")] == [404, 404, 404, 200]


def test_the_api_finds_an_asset_whatever_its_name(server: Server) -> None:
    status, _, body = get(server, f"/api/assets/{quote(HOSTILE, safe='')}")
    assert status == 200
    assert json.loads(body)["id"] == HOSTILE


def test_closing_ends_open_connections_and_frees_the_port(fleet: Fleet) -> None:
    server = Server(fleet, pipeline()).start()
    idle = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    assert get(server, "/healthz")[0] == 200
    server.close()
    assert idle.recv(1) == b""
    idle.close()
    with pytest.raises(ConnectionError):
        get(server, "/healthz")
    Server(fleet, pipeline()).close()
