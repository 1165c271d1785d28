"""What a manifest means on this machine: the same RunConfig as in a cluster, and a note for every field that has no
effect.

The walk is the cluster's: spec -> RunConfig -> trainer. Only what the environment decides differs: one node instead of
pods, credentials from the environment instead of Secrets. Nothing is ignored in silence (I8).
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune_api.job import Manifest, Spec
from finetune_api.run import HubAccess, Identity, Reporting, RunConfig, StorageAccess, World, run_config

Device = Literal["auto", "cpu", "cuda"]

_POD_FIELDS = (
    "resources",
    "shared_memory_size",
    "node_selector",
    "tolerations",
    "affinity",
    "priority_class_name",
    "runtime_class_name",
    "scheduler_name",
    "image_pull_secrets",
    "service_account_name",
    "labels",
    "annotations",
    "scratch_size",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run may use of this machine."""

    cores: int
    processes: int | None = None  # None: as many as the manifest's workers have in all
    device: Device = "auto"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(spec: Spec) -> int:
    """How many processes the manifest's workers have in all; one for each accelerator where it does not say."""
    workers = spec.workers
    accelerators = workers.resources.accelerators if workers.resources else 0
    return workers.replicas * (workers.processes_per_worker or max(1, accelerators))


def spec_digest(spec: Spec) -> str:
    """A digest of everything in a spec that is frozen from creation: the same digest means the same job."""
    data = spec.to_json()
    for name, info in Spec.model_fields.items():
        if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("x-finetune-mutable"):
            data.pop(info.alias or name, None)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def job_id(spec: Spec, takeovers: int) -> str:
    """The identity that owns the output: the same file resumes, and each take-over is a new job."""
    return "local-" + hashlib.sha256(f"{spec.output.uri}\n{spec_digest(spec)}\n{takeovers}".encode()).hexdigest()[:32]


def local_config(
    manifest: Manifest,
    machine: Machine,
    folder: Path,
    *,
    identity: str,
    attempt: int,
    overwrite: bool,
    environment: Mapping[str, str],
) -> RunConfig:
    """The RunConfig of one attempt on this machine; its files lie in `folder`."""
    spec = manifest.spec
    if overwrite:
        spec = spec.model_copy(update={"output": spec.output.model_copy(update={"overwrite": True})})
    count = machine.processes or processes(spec)
    return run_config(
        spec,
        job=Identity(name=f"{manifest.metadata.namespace or 'local'}/{manifest.metadata.name}", id=identity),
        attempt=attempt,
        world=World(
            workers=1,
            processes_per_worker=count,
            device=machine.device,
            threads_per_process=max(1, machine.cores // count),
            master_address="127.0.0.1",
            master_port=_free_port(),
        ),
        storage=StorageAccess(
            endpoint=spec.storage.endpoint,
            region=spec.storage.region,
            path_style=spec.storage.path_style,
            ca_file=environment.get("AWS_CA_BUNDLE") if spec.storage.ca else None,
        ),
        hub=HubAccess(endpoint=spec.hub.endpoint),
        reporting=Reporting(
            file=str(folder / "reports.jsonl"), termination_file=str(folder / "outcome.json"), interval_seconds=1.0
        ),
        scratch=str(folder / "scratch"),
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


def trainer_environment(spec: Spec, environment: Mapping[str, str]) -> dict[str, str]:
    """The trainer's environment: this one, and the manifest's plain variables over it."""
    own = {v.name: v.value for v in spec.workers.env or () if v.value is not None}
    return {**environment, **own, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}


def notes(manifest: Manifest, machine: Machine, environment: Mapping[str, str]) -> Iterator[str]:
    """What differs from the cluster, one line each; only what this manifest really says."""
    spec = manifest.spec
    yield from _world_notes(spec, machine)
    yield from _credential_notes(spec, environment)
    unused = [f"workers.{_alias(spec.workers, n)}" for n in _POD_FIELDS if n in spec.workers.model_fields_set]
    unused += ["prepare"] if "prepare" in spec.model_fields_set else []
    unused += [name for name, value in (("image", spec.image), ("imagePullPolicy", spec.image_pull_policy)) if value]
    unused += ["ttlSecondsAfterFinished"] if spec.ttl_seconds_after_finished is not None else []
    unused += ["suspend"] if spec.suspend else []
    if unused:
        yield f"only a cluster uses {', '.join('spec.' + name for name in unused)}"


def _world_notes(spec: Spec, machine: Machine) -> Iterator[str]:
    wanted, count = processes(spec), machine.processes or processes(spec)
    if count > 1 or wanted > 1:
        threads = max(1, machine.cores // count)
        yield (
            f"{count} process{'es' if count > 1 else ''} on this machine instead of "
            f"{spec.workers.replicas} worker pod{'s' if spec.workers.replicas > 1 else ''}, "
            f"{threads} thread{'s' if threads > 1 else ''} each; the rows of every step are the same"
        )
    if count > machine.cores:
        yield f"more processes than the {machine.cores} cores here: --processes {machine.cores} is faster"


def _credential_notes(spec: Spec, environment: Mapping[str, str]) -> Iterator[str]:
    uris = [spec.model.uri, spec.data.train.uri, spec.output.uri]
    uris += [h.uri for h in (spec.data.validation, spec.data.test) if h and h.uri]
    uris += [each.uri for each in spec.evaluation.sets or ()]
    if spec.storage.credentials_secret and any(u.startswith("s3://") for u in uris):
        wanted = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        missing = [name for name in wanted if not environment.get(name)]
        instead = f"instead of the Secret {spec.storage.credentials_secret} (spec.storage.credentialsSecret)"
        if missing:
            verb = "are" if len(missing) > 1 else "is"
            yield (
                f"{' and '.join(missing)} {verb} not set: export them {instead}, unless a profile or a role holds them"
            )
        else:
            yield f"credentials are taken from AWS_ACCESS_KEY_ID {instead}"
    if spec.hub.token_secret and not environment.get("HF_TOKEN"):
        yield (
            f"HF_TOKEN is not set: export it instead of the Secret {spec.hub.token_secret.name} (spec.hub.tokenSecret)"
        )
    if spec.storage.ca and not environment.get("AWS_CA_BUNDLE"):
        yield "AWS_CA_BUNDLE is not set: name the file with the CA there instead of spec.storage.ca"
    for variable in spec.workers.env or ():
        if variable.value is None and variable.name not in environment:
            yield f"{variable.name} is not set: export it instead of the reference in spec.workers.env"


def _alias(model: object, name: str) -> str:
    fields = type(model).model_fields  # type: ignore[attr-defined]
    alias = fields[name].alias
    return str(alias or name)
