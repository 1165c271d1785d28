"""The pod of an attempt: the restricted security standard by construction, secrets by reference only, all writes to
volumes.

What a user may set is the allow-list of finetune_api.pod; everything else is fixed here.
"""

from __future__ import annotations

from typing import Any

from finetune_api.job import Spec
from finetune_api.pod import EnvVar, Resources, Toleration
from finetune_api.quantity import exact_quantity
from finetune_api.workers import Prepare, Workers
from finetune_operator.job.children import run_config, scratch
from finetune_operator.job.observed import PlanSettings, Resource
from finetune_operator.plan import names

PREPARE_RESOURCES = {"requests": {"cpu": "1", "memory": "2Gi"}}
PREPARE_GRACE_SECONDS = 30
TOKEN_SECONDS = 3600
SHARED_MEMORY, SHARED_MEMORY_OF_ACCELERATORS = "64Mi", "1Gi"
"""NCCL fails on the 64 MiB that container runtimes give."""
NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""Set by Kubernetes on a node that is not ready, or not heard of."""

Json = dict[str, Any]


def template(job: Resource, spec: Spec, settings: PlanSettings, component: str, number: int, image: str) -> Json:
    """The pod template of a Job."""
    workers = spec.workers
    metadata: Json = {"labels": {**(workers.labels or {}), **names.labels(job.name, job.uid, component, number)}}
    if workers.annotations:
        metadata["annotations"] = dict(workers.annotations)
    return {"metadata": metadata, "spec": pod(job, spec, settings, component, number, image)}


def pod(job: Resource, spec: Spec, settings: PlanSettings, component: str, number: int, image: str) -> Json:
    """A core/v1 PodSpec."""
    workers = spec.workers
    name = names.child(job.name, job.uid, component, number)
    pull_secrets = dict.fromkeys((*settings.image_pull_secrets, *(s.name for s in workers.image_pull_secrets or ())))
    fields: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container(spec, settings, component, image)],
        "volumes": volumes(job, spec, settings, component, name),
    }
    if settings.fs_group is not None:
        fields["securityContext"]["fsGroup"] = settings.fs_group
    if pull_secrets:
        fields["imagePullSecrets"] = [{"name": secret} for secret in pull_secrets]
    if workers.service_account_name:
        fields["serviceAccountName"] = workers.service_account_name
    if component == names.PREPARE:
        placement: Prepare | Workers = spec.prepare
        fields["terminationGracePeriodSeconds"] = PREPARE_GRACE_SECONDS
    else:
        placement = workers
        fields["terminationGracePeriodSeconds"] = workers.termination_grace_period_seconds
        fields["subdomain"] = name
    given = placement.to_json()
    passed = ("nodeSelector", "tolerations", "affinity", "priorityClassName", "runtimeClassName", "schedulerName")
    fields.update({field: given[field] for field in passed if field in given})
    fields["tolerations"] = [
        *fields.get("tolerations", ()),
        *lost_node(workers.node_loss_seconds, placement.tolerations),
    ]
    return fields


def lost_node(seconds: int, given: tuple[Toleration, ...] | None) -> list[Json]:
    """How long the pod waits for a node that is not heard of; Kubernetes' own default is five minutes.

    Nothing is added for a taint that the user's tolerations name, be it by naming none.
    """
    named = {t.key for t in given or () if t.effect in (None, "NoExecute")}
    own = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
    return [{"key": key, **own} for key in NODE_TAINTS if not {key, None} & named]


def container(spec: Spec, settings: PlanSettings, component: str, image: str) -> Json:
    """The one container."""
    of_workers = component == names.WORKER
    resources = spec.workers.resources if of_workers else spec.prepare.resources
    policy = spec.image_pull_policy or settings.image_pull_policy
    command = [
        "python",
        "-m",
        "finetune_trainer",
        "launch" if of_workers else "prepare",
        "--config",
        run_config.CONFIG_FILE,
    ]
    fields: Json = {
        "name": names.CONTAINER,
        "image": image,
        "command": command,
        "env": environment(spec, component),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": run_config.TERMINATION_FILE,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts(spec, settings),
    }
    if policy:
        fields["imagePullPolicy"] = policy
    if resources is not None:
        fields["resources"] = resources.to_json()
    elif not of_workers:
        fields["resources"] = PREPARE_RESOURCES
    return fields


def environment(spec: Spec, component: str) -> list[Json]:
    """Environment variables; the user's come last and replace ours of the same name."""
    values: dict[str, Json] = {}

    def put(name: str, value: str) -> None:
        values[name] = {"name": name, "value": value}

    def put_secret(name: str, secret: str, *, optional: bool = False) -> None:
        reference: Json = {"name": secret, "key": name}
        if optional:
            reference["optional"] = True
        values[name] = {"name": name, "valueFrom": {"secretKeyRef": reference}}

    put("HOME", run_config.SCRATCH_DIR)
    put("TMPDIR", run_config.SCRATCH_DIR)
    put("HF_HOME", f"{run_config.SCRATCH_DIR}/huggingface")
    put("XDG_CACHE_HOME", f"{run_config.SCRATCH_DIR}/cache")
    put("PYTHONUNBUFFERED", "1")
    threads = _threads(spec, component)
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            put(name, str(threads))
    if spec.hub.endpoint:
        put("HF_ENDPOINT", spec.hub.endpoint)
    if spec.hub.token_secret:
        put_secret("HF_TOKEN", spec.hub.token_secret.name)
    if spec.storage.credentials_secret:
        put_secret("AWS_ACCESS_KEY_ID", spec.storage.credentials_secret)
        put_secret("AWS_SECRET_ACCESS_KEY", spec.storage.credentials_secret)
        put_secret("AWS_SESSION_TOKEN", spec.storage.credentials_secret, optional=True)
    for variable in spec.workers.env or ():
        values[variable.name] = _user_variable(variable)
    secret = [name for name, value in values.items() if "secretKeyRef" in value.get("valueFrom", {})]
    if secret:
        put("FINETUNE_SECRET_ENV", ",".join(secret))  # the trainer keeps their values out of every text
    return list(values.values())


def mounts(spec: Spec, settings: PlanSettings) -> list[Json]:
    """Where the volumes are seen; only /tmp and /dev/shm can be written to."""
    found: list[Json] = [
        {"name": "config", "mountPath": run_config.CONFIG_DIR, "readOnly": True},
        {"name": "scratch", "mountPath": run_config.SCRATCH_DIR},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]
    if settings.report_url:
        found.append({"name": "identity", "mountPath": run_config.IDENTITY_DIR, "readOnly": True})
    if spec.storage.ca:
        found.append({"name": "storage-ca", "mountPath": run_config.STORAGE_CA_DIR, "readOnly": True})
    return found


def volumes(job: Resource, spec: Spec, settings: PlanSettings, component: str, config_map: str) -> list[Json]:
    """run.json, scratch space, shared memory, the token with the report server's CA, and the storage's CA."""
    found: list[Json] = [
        {"name": "config", "configMap": {"name": config_map, "items": [{"key": "run.json", "path": "run.json"}]}},
        {"name": "scratch", "emptyDir": {"sizeLimit": spec.workers.scratch_size or scratch.LEAST}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory(spec, component)}},
    ]
    if settings.report_url:
        token = {"audience": job.uid, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
        sources: list[Json] = [{"serviceAccountToken": token}]
        if settings.report_ca:
            ca = {"name": config_map, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
            sources.append({"configMap": ca})
        found.append({"name": "identity", "projected": {"sources": sources}})
    authority = spec.storage.ca
    if authority:
        items = [{"key": authority.key, "path": "ca.crt"}]
        if authority.config_map:
            found.append({"name": "storage-ca", "configMap": {"name": authority.config_map, "items": items}})
        else:
            found.append({"name": "storage-ca", "secret": {"secretName": authority.secret, "items": items}})
    return found


def shared_memory(spec: Spec, component: str) -> str:
    """Size of /dev/shm. What is written there counts against the memory limit, so by itself it takes half of that at
    most.

    The prepare pod runs one process on a CPU and gets what a container has anyway.
    """
    of_workers = component == names.WORKER
    if of_workers and spec.workers.shared_memory_size:
        return spec.workers.shared_memory_size
    resources = spec.workers.resources if of_workers else spec.prepare.resources
    accelerated = of_workers and run_config.device(resources) != "cpu"
    default = SHARED_MEMORY_OF_ACCELERATORS if accelerated else SHARED_MEMORY
    limit = ((resources and resources.limits) or {}).get("memory")
    if limit is None or exact_quantity(limit) >= 2 * exact_quantity(default):
        return default
    return str(int(exact_quantity(limit) / 2))


def _threads(spec: Spec, component: str) -> int | None:
    if component == names.WORKER:
        return run_config.world(spec, "any").threads_per_process
    return run_config.threads(run_config.cpus(spec.prepare.resources or Resources(requests={"cpu": 1})))


def _user_variable(variable: EnvVar) -> Json:
    if variable.secret_key_ref:
        return {"name": variable.name, "valueFrom": {"secretKeyRef": variable.secret_key_ref.to_json()}}
    if variable.config_map_key_ref:
        return {"name": variable.name, "valueFrom": {"configMapKeyRef": variable.config_map_key_ref.to_json()}}
    return {"name": variable.name, "value": variable.value or ""}
