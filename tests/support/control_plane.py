"""A real kube-apiserver with its etcd, for tests that need an API server's verdict and no node.

The binaries come from KUBEBUILDER_ASSETS or from where `make control-plane` puts them. RBAC is on, service-account
tokens are signed, and nothing else runs: no controllers, no scheduler, no kubelet, as in envtest. Starting takes
about five seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

TOKEN = "admin-token-of-a-throw-away-test-server"
SKIPPED = "no kube-apiserver and etcd here: `make control-plane` brings them (or set KUBEBUILDER_ASSETS)"


def cache_folder() -> Path:
    """Where `make control-plane` puts kube-apiserver, etcd and kubectl."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "finetune-operator" / "control-plane"


def find_binaries() -> Path | None:
    """The folder with kube-apiserver and etcd, or None."""
    for folder in (os.environ.get("KUBEBUILDER_ASSETS"), cache_folder()):
        if folder and all((Path(folder) / name).exists() for name in ("kube-apiserver", "etcd")):
            return Path(folder)
    return None


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; held open together, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclasses.dataclass
class ControlPlane:
    """A running API server. `token` belongs to system:masters; `ca` is the file that verifies `url`."""

    binaries: Path
    folder: Path
    url: str
    kubeconfig: Path
    ca: Path
    token: str
    api_port: int
    etcd_ports: tuple[int, int]
    _processes: dict[str, subprocess.Popen[bytes]] = dataclasses.field(default_factory=dict)

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl against this server; output is text."""
        command = [str(self.binaries / "kubectl"), *args]
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.folder / "kubectl-cache")}
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=env, check=False)
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)} failed ({done.returncode}): {done.stderr}")
        return done

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> tuple[int, dict]:
        """One request as the administrator; returns the status code and the parsed answer, also for refusals."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", content_type)
        context = ssl.create_default_context(cafile=str(self.ca))
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, _parse(answer.read())
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, _parse(refusal.read())

    def start_etcd(self) -> None:
        client, peer = self.etcd_ports
        address, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        self._start(
            "etcd",
            "--data-dir",
            str(self.folder / "etcd"),
            "--listen-client-urls",
            address,
            "--advertise-client-urls",
            address,
            "--listen-peer-urls",
            peers,
            "--initial-advertise-peer-urls",
            peers,
            "--initial-cluster",
            f"default={peers}",
            "--unsafe-no-fsync",
            "--log-level",
            "error",
        )

    def start_api_server(self) -> None:
        f = self.folder
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_ports[0]}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.api_port}",
            f"--cert-dir={f / 'certs'}",
            f"--tls-cert-file={f / 'server.crt'}",
            f"--tls-private-key-file={f / 'server.key'}",
            f"--token-auth-file={f / 'tokens.csv'}",
            f"--service-account-key-file={f / 'sa.key'}",
            f"--service-account-signing-key-file={f / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            "--watch-cache=true",
            "--v=1",
        )
        self._wait_until_ready()

    def stop_api_server(self) -> None:
        """Kill the API server as a crash would; `start_api_server` brings it back with the same data."""
        process = self._processes.pop("kube-apiserver")
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in reversed(list(self._processes.values())):
            process.kill()
            process.wait()
        self._processes.clear()

    def _start(self, name: str, *args: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(self.binaries / name), *args], stdout=log, stderr=log, cwd=self.folder
            )

    def _wait_until_ready(self, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    tail = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{name} ended with {process.returncode}:\n{tail}")
            with contextlib.suppress(OSError):
                status, _ = self.request("GET", "/readyz")
                namespace, _ = self.request("GET", "/api/v1/namespaces/default")
                if (status, namespace) == (200, 200):
                    return
            time.sleep(0.1)
        raise RuntimeError(f"kube-apiserver was not ready after {seconds:.0f} s; see {self.folder}/kube-apiserver.log")


def _parse(body: bytes) -> dict:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {"text": body.decode(errors="replace")}
    return value if isinstance(value, dict) else {"value": value}


def _write_keys(folder: Path) -> None:
    """A self-signed serving certificate, which is its own CA, and the key that signs service-account tokens."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
        form = serialization.PrivateFormat.TraditionalOpenSSL
        return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kube-apiserver")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(pem(key))
    (folder / "sa.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')


@contextlib.contextmanager
def running_control_plane(binaries: Path, folder: Path) -> Iterator[ControlPlane]:
    """Start etcd and kube-apiserver with their state in `folder`, and stop both at the end."""
    api_port, client, peer = free_ports(3)
    _write_keys(folder)
    url = f"https://127.0.0.1:{api_port}"
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [
                    {"name": "test", "cluster": {"server": url, "certificate-authority": str(folder / "server.crt")}}
                ],
                "users": [{"name": "admin", "user": {"token": TOKEN}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            }
        )
    )
    plane = ControlPlane(binaries, folder, url, kubeconfig, folder / "server.crt", TOKEN, api_port, (client, peer))
    try:
        plane.start_etcd()
        plane.start_api_server()
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One API server for the whole test session; skips with one line where the binaries are missing."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(SKIPPED)
    with running_control_plane(binaries, tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane
