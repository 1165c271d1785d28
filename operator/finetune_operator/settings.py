"""The operator's settings, from its environment.

Every setting is one variable FINETUNE_*; the chart sets them. A wrong value stops the operator at once and names the
variable.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from finetune_operator.job.observed import PlanSettings

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class SettingsError(ValueError):
    """A variable of the environment is missing or wrong; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The operator's settings; times in seconds."""

    trainer_image: str
    trainer_image_pull_policy: str = "IfNotPresent"
    trainer_image_pull_secrets: tuple[str, ...] = ()
    report_url: str  # base, https://<service>.<namespace>.svc:8443
    report_port: int = 8443
    report_cert_dir: Path = Path("/etc/finetune-operator/tls")  # tls.crt, tls.key, ca.crt
    # A Secret in our own namespace to keep a certificate of our own in, for these names; empty: the folder holds one
    # already.
    report_secret: str = ""
    report_names: tuple[str, ...] = ()
    report_ca_days: int = 3650
    report_auth: Literal["auto", "tokenreview", "jwt"] = (
        "auto"  # auto: TokenReview; JWT in namespaced mode, or when refused
    )
    # At most one status write a job in this time, but for transitions. Less than the trainers' 5 s between reports, so
    # that each of these is written at once, and none of a busier trainer waits longer than 5 s.
    report_write_seconds: float = 4.0
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    namespace: str = "default"  # the operator's own
    identity: str = "operator"  # holder of the lease
    # Where the lease of all namespaces lies: the same for every operator of the cluster. Those of single namespaces lie
    # in these.
    lease_namespace: str = "default"
    lease_name: str = "finetune-operator"
    lease_seconds: float = 15.0
    metrics_port: int = 8080
    metrics_max_jobs: int = 500  # jobs with training series
    probe_port: int = 8081
    log_level: str = "INFO"
    log_format: Literal["json", "text"] = "json"
    workers: int = 8  # reconciles at once
    relist_seconds: float = 300.0
    stall_seconds: float = 120.0  # a due key older than this, with no watch event since, fails the probe

    @property
    def clusterwide(self) -> bool:
        return not self.watch_namespaces

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read FINETUNE_* variables. Raises SettingsError naming the variable."""
        read = _Reader(os.environ if env is None else env)
        namespace = read.text("NAMESPACE", _own_namespace())
        settings = cls(
            trainer_image=read.required(
                "TRAINER_IMAGE", "the image that trains, such as registry/finetune-trainer:0.1.0"
            ),
            trainer_image_pull_policy=read.choice(
                "TRAINER_IMAGE_PULL_POLICY", "IfNotPresent", ("Always", "IfNotPresent", "Never")
            ),
            trainer_image_pull_secrets=read.items("TRAINER_IMAGE_PULL_SECRETS"),
            report_url=read.required(
                "REPORT_URL", "the report Service's base URL, such as https://finetune-reports.finetune-system.svc:8443"
            ).rstrip("/"),
            report_port=read.port("REPORT_PORT", 8443),
            report_cert_dir=Path(read.text("REPORT_CERT_DIR", "/etc/finetune-operator/tls")),
            report_secret=read.text("REPORT_SECRET", ""),
            report_names=read.items("REPORT_NAMES"),
            report_ca_days=int(read.number("REPORT_CA_DAYS", 3650, least=1)),
            report_auth=read.choice("REPORT_AUTH", "auto", ("auto", "tokenreview", "jwt")),  # type: ignore[arg-type]
            report_write_seconds=read.number("REPORT_WRITE_SECONDS", 4.0, least=0.1),
            watch_namespaces=read.items("WATCH_NAMESPACES"),
            namespace=namespace,
            identity=f"{namespace}/{read.text('POD_NAME', f'{socket.gethostname()}-{os.getpid()}')}",
            lease_namespace=read.text("LEASE_NAMESPACE", namespace),
            lease_name=read.text("LEASE_NAME", "finetune-operator"),
            lease_seconds=read.number("LEASE_SECONDS", 15.0, least=2),
            metrics_port=read.port("METRICS_PORT", 8080),
            metrics_max_jobs=int(read.number("METRICS_MAX_JOBS", 500, least=0)),
            probe_port=read.port("PROBE_PORT", 8081),
            log_level=read.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"), fold=str.upper),
            log_format=read.choice("LOG_FORMAT", "json", ("json", "text")),  # type: ignore[arg-type]
            workers=int(read.number("WORKERS", 8, least=1)),
            relist_seconds=read.number("RELIST_SECONDS", 300.0, least=1),
            stall_seconds=read.number("STALL_SECONDS", 120.0, least=1),
        )
        if urlsplit(settings.report_url).scheme != "https":
            raise SettingsError("FINETUNE_REPORT_URL: must start with https://, tokens travel on it")
        if settings.report_secret and not settings.report_names:
            raise SettingsError(
                "FINETUNE_REPORT_NAMES: must hold the names of the report server, where REPORT_SECRET is set"
            )
        return settings

    def plan_settings(self, report_ca: str | None) -> PlanSettings:
        """What planning needs to know. `report_ca` is the PEM that signs the report server's certificate."""
        return PlanSettings(
            trainer_image=self.trainer_image,
            image_pull_policy=self.trainer_image_pull_policy,
            image_pull_secrets=self.trainer_image_pull_secrets,
            report_url=self.report_url,
            report_ca=report_ca,
        )


def _own_namespace() -> str:
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else "default"


class _Reader:
    """Typed reads of FINETUNE_* variables."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, name: str, default: str) -> str:
        return self._env.get(f"FINETUNE_{name}", "").strip() or default

    def required(self, name: str, what: str) -> str:
        value = self.text(name, "")
        if not value:
            raise SettingsError(f"FINETUNE_{name}: is not set; it must hold {what}")
        return value

    def items(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.text(name, "").split(",") if part.strip())

    def choice(self, name: str, default: str, allowed: tuple[str, ...], fold=lambda text: text) -> str:  # type: ignore[no-untyped-def]
        value = str(fold(self.text(name, default)))
        if value not in allowed:
            raise SettingsError(f"FINETUNE_{name}: {value!r} is not one of {', '.join(allowed)}")
        return value

    def number(self, name: str, default: float, *, least: float) -> float:
        text = self.text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            raise SettingsError(f"FINETUNE_{name}: {text!r} is not a number") from None
        if not least <= value < float("inf"):
            raise SettingsError(f"FINETUNE_{name}: must be at least {least:g}, not {text}")
        return value

    def port(self, name: str, default: int) -> int:
        text = self.text(name, str(default))
        if not text.isdigit() or not 0 <= int(text) <= 65535:
            raise SettingsError(f"FINETUNE_{name}: {text!r} is not a port (0 to 65535)")
        return int(text)
