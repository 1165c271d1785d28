"""How to reach the API server: by the pod's service account, or by a kubeconfig; without any Kubernetes library.

The one place that reads tokens, certificates and CA bundles; the client and Kopf's login both take what it gives. A
token in a file is rotated by the kubelet, so it is read again when the file changes. Values are never logged.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class AccessError(ValueError):
    """No usable credentials; the message says where they were looked for."""


@dataclass(frozen=True, slots=True)
class Access:
    """A server with credentials. Certificates and keys are PEM text."""

    server: str
    ca: str | None = None
    ca_path: Path | None = None  # followed instead of `ca` where the file may change
    token: str | None = field(default=None, repr=False)
    token_path: Path | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    certificate: str | None = None
    key: str | None = field(default=None, repr=False)
    insecure: bool = False

    def bearer(self) -> str | None:
        """The token as it is now."""
        return self.token_path.read_text().strip() if self.token_path else self.token

    def headers(self) -> dict[str, str]:
        """The Authorization header, if there is one."""
        token = self.bearer()
        if token:
            return {"Authorization": f"Bearer {token}"}
        if self.username and self.password:
            pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}

    def stamp(self) -> float:
        """Changes when the CA's file does: then connections must be made anew."""
        return self.ca_path.stat().st_mtime if self.ca_path else 0.0

    def tls(self) -> ssl.SSLContext | None:
        """The TLS context; None for plain HTTP, as in tests."""
        if not self.server.startswith("https://"):
            return None
        ca = self.ca_path.read_text() if self.ca_path else self.ca
        context = ssl.create_default_context(cadata=ca)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate and self.key:
            with ExitStack() as stack:  # the ssl module loads client certificates from files only
                paths = [stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".pem")) for _ in range(2)]
                for file, text in zip(paths, (self.certificate, self.key), strict=True):
                    file.write(text)
                    file.flush()
                context.load_cert_chain(paths[0].name, paths[1].name)
        return context


def load_access(env: Mapping[str, str] | None = None, service_account: Path = SERVICE_ACCOUNT) -> Access:
    """KUBECONFIG if set, else the pod's service account, else ~/.kube/config. Raises AccessError."""
    env = os.environ if env is None else env
    if env.get("KUBECONFIG"):
        return from_kubeconfig(Path(env["KUBECONFIG"].split(os.pathsep)[0]).expanduser())
    if (service_account / "token").exists():
        host, port = (
            env.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc"),
            env.get("KUBERNETES_SERVICE_PORT", "443"),
        )
        host = f"[{host}]" if ":" in host else host
        return Access(
            f"https://{host}:{port}", ca_path=service_account / "ca.crt", token_path=service_account / "token"
        )
    home = Path("~/.kube/config").expanduser()
    if home.exists():
        return from_kubeconfig(home)
    raise AccessError(
        f"no API server to talk to: KUBECONFIG is not set, and neither {service_account}/token nor {home} exists"
    )


def from_kubeconfig(path: Path) -> Access:
    """The current context of a kubeconfig. Raises AccessError for what is missing or not supported."""
    try:
        config = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise AccessError(f"KUBECONFIG {path}: cannot be read: {error}") from None
    context = _named(config, "contexts", "context", config.get("current-context"), path)
    cluster = _named(config, "clusters", "cluster", context.get("cluster"), path)
    user = _named(config, "users", "user", context.get("user"), path)
    if "exec" in user or "auth-provider" in user:
        raise AccessError(
            f"KUBECONFIG {path}: user {context.get('user')!r} logs in by a plugin; give it a token or a client"
            " certificate"
        )
    token_file = user.get("tokenFile")
    return Access(
        server=str(cluster.get("server", "")).rstrip("/"),
        ca=_pem(cluster, "certificate-authority", path),
        token=user.get("token"),
        token_path=(path.parent / token_file) if token_file else None,
        username=user.get("username"),
        password=user.get("password"),
        certificate=_pem(user, "client-certificate", path),
        key=_pem(user, "client-key", path),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )


def _named(config: dict[str, Any], kind: str, inner: str, name: str | None, path: Path) -> dict[str, Any]:
    for item in config.get(kind) or ():
        if item.get("name") == name:
            return item.get(inner) or {}
    raise AccessError(f"KUBECONFIG {path}: has no {inner} named {name!r}")


def _pem(holder: dict[str, Any], key: str, path: Path) -> str | None:
    if holder.get(f"{key}-data"):
        return base64.b64decode(holder[f"{key}-data"]).decode()
    if holder.get(key):
        return (path.parent / holder[key]).read_text()  # an absolute path stays one
    return None
