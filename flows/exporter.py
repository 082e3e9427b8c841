"""The exporter: an HTTP server with the fleet as Prometheus and people read it, and whether the process lives."""

from __future__ import annotations

import contextlib
import gzip
import ipaddress
import socket
import sys
import threading
from collections.abc import Callable, Collection
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from flows.exposition import exposition
from flows.fleet import Fleet
from flows.metrics import Pipeline
from flows.page.views import asset_view, fleet_view, rejected_view

__all__ = ["Server", "exposition"]

CONNECTIONS = 64
"""Connections served at once; a further one is closed, so that nobody can exhaust the threads of the process."""

IDLE_S = 30.0
"""Seconds after which a connection without a request is closed; longer than the usual scrape interval."""

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server:
    """Serves the page at ``/``, and beside it ``/metrics``, ``/healthz``, ``/readyz`` and the page's ``/api``.

    It has no log-in: on an address other than loopback, everybody who reaches it reads the fleet. Nothing can be
    changed through it.

    Parameters
    ----------
    fleet, pipeline
        What it shows.
    address, port
        Where it listens; port 0 takes a free one, see `port`.
    hosts
        Further names by which a reverse proxy may ask on loopback. There the header Host must be one of these or a name
        of loopback, so that no foreign site reads the page through a browser on this machine (DNS rebinding).
    page
        Serve the page and its API; without it only the machine's routes.
    metrics, is_ready
        What `/metrics` and `/readyz` say; by default what the fleet and the pipeline give.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry
    >>> from features.signals import load_class
    >>> with Server(Fleet({"lift": load_class("lift")}), Pipeline(CollectorRegistry())) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self,
        fleet: Fleet,
        pipeline: Pipeline,
        address: str = "127.0.0.1",
        port: int = 0,
        hosts: Collection[str] = (),
        page: bool = True,
        metrics: Callable[[], bytes] | None = None,
        is_ready: Callable[[], bool] | None = None,
    ) -> None:
        self.fleet = fleet
        self.pipeline = pipeline
        self.page = page
        self.metrics = metrics or (lambda: exposition(fleet, pipeline))
        self.ready: bool = False
        """Set once the flow runs; `/readyz` also says yes as soon as a window was scored."""
        self.is_ready = is_ready or (lambda: self.ready or fleet.newest_us is not None)
        loopback = address == "localhost" or (_is_ip(address) and ipaddress.ip_address(address).is_loopback)
        self.hosts = frozenset({"localhost", "127.0.0.1", "[::1]", *hosts}) if loopback else None
        self._http = _Listener(address, port, self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), name="vigie-http", daemon=True)

    @property
    def port(self) -> int:
        """Port on which it listens."""
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        """Address of the page."""
        host = str(self._http.server_address[0])
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"

    def start(self) -> Server:
        """Serve in a thread of its own until `close`."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop, and close every connection."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class _Listener(ThreadingHTTPServer):
    """A thread a connection, at most `CONNECTIONS`; knows its sockets, so that closing leaves none open."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: str, port: int, owner: Server) -> None:
        self.owner = owner
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._serving: dict[socket.socket, threading.Thread] = {}
        self._guard = threading.Lock()
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        """Bind without asking the name service who this machine is, as `HTTPServer` would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, or close it when there are too many."""
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        with self._guard:
            full = len(self._serving) >= CONNECTIONS
            if not full:
                self._serving[request] = thread
        if full:
            super().shutdown_request(request)
        else:
            thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that has ended."""
        with self._guard:
            self._serving.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what went wrong, unless the client only went away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Close the listening socket and every connection."""
        super().server_close()
        with self._guard:
            serving = list(self._serving.items())
        for connection, thread in serving:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=2.0)


class _Handler(BaseHTTPRequestHandler):
    """One connection; every answer is complete before its first byte is sent."""

    server: _Listener
    server_version = "vigie"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body that nobody reads must not become the next request
        try:
            self._route()
        except _Refused as refused:
            self._text(refused.status, refused.sentence)

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that cannot be parsed, or whose method is none of ours."""
        self.close_connection = True
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are served here")
        else:
            self._text(HTTPStatus(code), HTTPStatus(code).phrase.lower())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a scrape every few seconds is no news."""

    def _route(self) -> None:
        owner = self.server.owner
        if owner.hosts is not None and _host(self.headers.get("Host")) not in owner.hosts:
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, "this server answers to localhost and 127.0.0.1 only")
        try:
            url = urlsplit(self.path)
        except ValueError:
            raise _Refused(HTTPStatus.BAD_REQUEST, "this is not an address") from None
        path = url.path
        if path == "/metrics":
            self._send(HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, owner.metrics())
        elif path == "/healthz":
            self._text(HTTPStatus.OK, "alive")
        elif path == "/readyz":
            if owner.is_ready():
                self._text(HTTPStatus.OK, "ready")
            else:
                self._text(HTTPStatus.SERVICE_UNAVAILABLE, "not ready: no window has been scored yet")
        elif owner.page and path in _FILES:
            name, kind = _FILES[path]
            file = resources.files("flows.page").joinpath(name)
            self._send(HTTPStatus.OK, kind, file.read_bytes())
        elif owner.page and path.startswith("/api/"):
            self._json(path, url.query)
        else:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address")

    def _json(self, path: str, query: str) -> None:
        fleet = self.server.owner.fleet
        answer: object
        if path == "/api/fleet":
            try:
                asked = {name: values[-1] for name, values in parse_qs(query, max_num_fields=20).items()}
            except ValueError:
                raise _Refused(HTTPStatus.BAD_REQUEST, "there are too many parameters") from None
            answer = fleet_view(
                fleet,
                search=asked.get("search", "")[:200],
                state=asked.get("state", ""),
                equipment=asked.get("class", ""),
                page=_integer(asked, "page", 1),
                size=_integer(asked, "size", 50),
                sort=asked.get("sort", "risk"),
            )
        elif path == "/api/rejected":
            answer = rejected_view(fleet)
        elif path.startswith("/api/assets/"):
            answer = asset_view(fleet, unquote(path.removeprefix("/api/assets/")))
            if answer is None:
                raise _Refused(HTTPStatus.NOT_FOUND, "the fleet has no such asset")
        else:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        self._send(HTTPStatus.OK, "application/json", msgspec.json.encode(answer))

    def _text(self, status: HTTPStatus, sentence: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{sentence}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if self.close_connection:
            self.send_header("Connection", "close")
        if len(body) > 1000 and self._takes_gzip():
            body = gzip.compress(body, compresslevel=1, mtime=0)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _takes_gzip(self) -> bool:
        """On loopback there is nothing to save: compressing costs more than it spares."""
        headers = getattr(self, "headers", None)
        if headers is None or ipaddress.ip_address(self.client_address[0].partition("%")[0]).is_loopback:
            return False
        return any(
            part.strip().lower() in ("gzip", "gzip;q=1.0", "gzip;q=1", "*")
            for part in headers.get("Accept-Encoding", "").split(",")
        )


class _Refused(Exception):
    """A request that gets a status and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def _host(header: str | None) -> str:
    """Return the host of the header without its port; a client without one (HTTP/1.0) is no browser."""
    if header is None:
        return "localhost"
    host = header.strip().lower()
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def _integer(asked: dict[str, str], name: str, otherwise: int) -> int:
    text = asked.get(name, "")
    if not text:
        return otherwise
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise _Refused(HTTPStatus.BAD_REQUEST, f"{name} must be a whole number")
    return int(text)
