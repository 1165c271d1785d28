"""The children of a job as plain Kubernetes objects: built once, made by POST, never rendered again.

One attempt is a ConfigMap with run.json, an Indexed Job, and for workers a headless Service. All are controlled by the
FineTuneJob, so that deleting it leaves none behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from finetune_api import API_VERSION, KIND
from finetune_api.job import Spec
from finetune_operator.job.children import pod, run_config
from finetune_operator.job.observed import PlanSettings, Resource
from finetune_operator.plan import names
from finetune_operator.plan.plan import Create, Delete
from finetune_operator.plan.views.job import JobView
from finetune_operator.plan.views.service import ServiceView

Json = dict[str, Any]


def attempt(
    job: Resource, spec: Spec, settings: PlanSettings, component: str, number: int, restarts_used: int, image: str
) -> tuple[Create, ...]:
    """All objects of an attempt, in the order in which they must be made: the Job comes last."""
    name = names.child(job.name, job.uid, component, number)
    metadata = {
        "name": name,
        "namespace": job.namespace,
        "labels": names.labels(job.name, job.uid, component, number),
        "ownerReferences": [owner(job)],
    }
    run = run_config.build(job, spec, settings, component, number)
    found = [config_map(metadata, run.model_dump_json(by_alias=True, exclude_none=True), settings.report_ca)]
    if component == names.WORKER:
        found.append(service(metadata))
    found.append(batch_job(metadata, job, spec, settings, component, number, restarts_used, image))
    return tuple(map(Create, found))


def removal(name: str, component: str, job_uid: str | None) -> tuple[Delete, ...]:
    """Delete all objects of an attempt. The Job goes last: as long as it is there, a crash in between is made good."""
    first = (Delete("Service", name),) if component == names.WORKER else ()
    return (*first, Delete("ConfigMap", name), Delete("Job", name, job_uid))


def idle_services(services: Iterable[ServiceView], jobs: Iterable[JobView]) -> list[ServiceView]:
    """The Services of attempts that have ended."""
    ended = {job.name for job in jobs if job.terminal}
    return [service for service in services if service.name in ended]


def owner(job: Resource) -> Json:
    """The controller reference of every child."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": job.name,
        "uid": job.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def config_map(metadata: Json, run_json: str, report_ca: str | None) -> Json:
    """run.json, and the CA of the report server."""
    data = {"run.json": run_json}
    if report_ca:
        data["ca.crt"] = report_ca
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def service(metadata: Json) -> Json:
    """Names for the workers, from before they are ready: they look for each other while they start."""
    selector = {key: metadata["labels"][key] for key in (names.JOB_UID, names.COMPONENT, names.ATTEMPT)}
    ports = [{"name": "master", "port": run_config.MASTER_PORT, "protocol": "TCP"}]
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def batch_job(
    metadata: Json,
    job: Resource,
    spec: Spec,
    settings: PlanSettings,
    component: str,
    number: int,
    restarts_used: int,
    image: str,
) -> Json:
    """The Job: never restarts a pod, since only the operator decides on restarts."""
    replicas = spec.workers.replicas if component == names.WORKER else 1
    queue = {k: v for k, v in job.labels.items() if k.startswith(names.KUEUE)} if component == names.WORKER else {}
    annotations = {names.RESTARTS_USED: str(restarts_used)}
    if settings.report_ca:
        annotations[names.CA_DIGEST] = ca_digest(settings.report_ca)
    fields: Json = {
        "completionMode": "Indexed",
        "completions": replicas,
        "parallelism": replicas,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "template": pod.template(job, spec, settings, component, number, image),
    }
    if names.QUEUE in queue:
        fields["suspend"] = True
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "labels": {**queue, **metadata["labels"]}, "annotations": annotations},
        "spec": fields,
    }


def ca_digest(report_ca: str | None) -> str:
    """What tells one CA from another in a Job's annotation; empty without a CA."""
    return hashlib.sha256(report_ca.encode()).hexdigest()[:16] if report_ca else ""
