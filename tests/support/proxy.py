"""An HTTP/1.1 proxy before a test server: connections stay open, as with nginx, MinIO, Ceph or AWS, over TLS where
asked.

moto's own server closes every connection, which hides what goes wrong where two processes share one. `faults` plans
what goes wrong with the next requests.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen


class Proxy(ThreadingHTTPServer):
    """Forwards requests to a server. `faults` holds (method, kind), each used once.

    "503": answered so; "lost": the request is carried out and its answer dropped; "cut": half of the body is sent; any
    other kind is an S3 error code, answered with 403.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, target: str, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = target
        self.faults: list[tuple[str, str]] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.connections = 0
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)

    @property
    def endpoint(self) -> str:
        """What StorageAccess wants."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.server_port}"

    def get_request(self) -> tuple[Any, Any]:
        connection, address = self.socket.accept()
        self.connections += 1
        if self._tls:  # the handshake is made at the first read, by the connection's own thread
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may go whenever it likes."""

    def judge(self, method: str) -> str | None:
        """The fault of a request that none was planned for; tests put their own in its place."""
        return None

    def take(self, method: str) -> str | None:
        """The fault of this request, the last of `seen`."""
        for n, (wanted, kind) in enumerate(self.faults):
            if wanted == method:
                del self.faults[n]
                return kind
        return self.judge(method)


class _Forward(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("expect", "transfer-encoding")}
        self.server.seen.append((self.command, self.path, headers))
        kind = self.server.take(self.command)
        if kind not in (None, "lost", "cut"):
            self._refuse(kind or "")
            return
        headers.setdefault("Content-Type", "application/octet-stream")  # else urllib says it is a form
        request = Request(self.server.target + self.path, data=body or None, headers=headers, method=self.command)
        try:
            with urlopen(request, timeout=20) as answer:
                status, fields, data = answer.status, answer.headers, answer.read()
        except OSError as error:
            status, fields, data = error.code, error.headers, error.read()  # type: ignore[attr-defined]
        if kind == "lost":
            self._hang_up()
            return
        self.send_response(status)
        for name, value in fields.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = fields.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if kind == "cut" else data)
        if kind == "cut":
            self.wfile.flush()
            self._hang_up()

    def _refuse(self, kind: str) -> None:
        text = b"" if kind.isdigit() else f"<Error><Code>{kind}</Code><Message>no</Message></Error>".encode()
        self.send_response(int(kind) if kind.isdigit() else 403)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def proxy_before(target: str, certificate: tuple[Path, Path] | None = None) -> Iterator[Proxy]:
    """A running proxy."""
    proxy = Proxy(target, certificate)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
