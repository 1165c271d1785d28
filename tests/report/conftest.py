"""A real HTTPS report server with a certificate of its own CA, which does what a test tells it."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.checkpoints import config


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """(CA certificate, server certificate with key) for 127.0.0.1."""
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    end = start + datetime.timedelta(hours=1)

    def build(subject: str, issuer: str, key: Any, signer: Any, ca: bool) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        made = x509.CertificateBuilder(
            named(issuer), named(subject), key.public_key(), x509.random_serial_number(), start, end
        )
        made = made.add_extension(x509.BasicConstraints(ca, None), True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
        if ca:
            made = made.add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), True)
        else:
            made = made.add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
            )
        return made.sign(signer, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    ca_file, server_file = folder / f"{name}-ca.crt", folder / f"{name}-server.pem"
    ca_file.write_bytes(build(name, name, ca_key, ca_key, True).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server_file.write_bytes(build("server", name, key, ca_key, False).public_bytes(pem) + private)
    return ca_file, server_file


class ReportServer:
    """Collects reports; `answer(number, report)` gives the status code of each request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file, self.token_file = folder / "ca.crt", folder / "token"
        self.token_file.write_text("token-1\n")
        self.reports: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.paths: list[str] = []
        self.answer: Callable[[int, dict[str, Any]], int] = lambda number, report: 200
        self.requests = 0
        self._news = threading.Condition()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start("one")

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/report?job=1"

    def start(self, authority: str) -> None:
        """Listen, on the same port as before, with a certificate of this authority."""
        ca_file, server_file = make_certificate(self.folder, authority)
        self.ca_file.write_bytes(ca_file.read_bytes())
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                report = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._news:
                    outer.requests += 1
                    number = outer.requests
                code = outer.answer(number, report)
                with outer._news:
                    if code == 200:
                        outer.reports.append(report)
                        outer.tokens.append(self.headers["Authorization"])
                        outer.paths.append(self.path)
                    outer._news.notify_all()
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that do not trust us hang up

            def get_request(self) -> Any:
                raw, address = super().get_request()
                return context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False), address

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server_file)
        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Wait until the condition holds; looked at after each request and now and then."""
        with self._news:
            for _ in range(int(seconds * 20)):
                if condition():
                    return
                self._news.wait(0.05)
        raise AssertionError(
            f"waited in vain; {self.requests} requests, reports: {[(r['sequence'], r['stage']) for r in self.reports]}"
        )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReportServer]:
    server = ReportServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def settings(server: ReportServer) -> Callable[..., Any]:
    """settings(intervalSeconds=…, …): a RunConfig that reports to the server."""

    def make(**reporting: Any) -> Any:
        to = {
            "url": server.url,
            "caFile": str(server.ca_file),
            "tokenFile": str(server.token_file),
            "intervalSeconds": 3600.0,
        }
        return config("s3://models/out", reporting=to | reporting)

    return make
