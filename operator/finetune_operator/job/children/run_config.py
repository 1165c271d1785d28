"""run.json of an attempt: what the spec says, with what the cluster decides (world, reporting, paths) added.

It holds no secret (invariant I7): credentials reach the container as environment variables from a Secret.
"""

from __future__ import annotations

from typing import Literal

from finetune_api.job import Spec
from finetune_api.pod import Resources
from finetune_api.quantity import quantity
from finetune_api.run import HubAccess, Identity, Reporting, RunConfig, StorageAccess, World, run_config
from finetune_operator.job.children import scratch
from finetune_operator.job.observed import PlanSettings, Resource
from finetune_operator.plan import names

CONFIG_DIR = "/etc/finetune"
CONFIG_FILE = f"{CONFIG_DIR}/run.json"
IDENTITY_DIR = "/var/run/secrets/finetune"
TOKEN_FILE = f"{IDENTITY_DIR}/token"
REPORT_CA_FILE = f"{IDENTITY_DIR}/ca.crt"
STORAGE_CA_DIR = "/etc/finetune-storage-ca"
STORAGE_CA_FILE = f"{STORAGE_CA_DIR}/ca.crt"
TERMINATION_FILE = "/dev/termination-log"
SCRATCH_DIR = "/tmp"
MASTER_PORT = 29500
CUDA = ("nvidia.com/gpu", "amd.com/gpu")


def build(job: Resource, spec: Spec, settings: PlanSettings, component: str, number: int) -> RunConfig:
    """RunConfig of the workers' attempt `number`, or of the prepare step's attempt `number` (which sees the same
    world)."""
    storage = spec.storage
    return run_config(
        spec,
        job=Identity(name=f"{job.namespace}/{job.name}", id=job.uid),
        attempt=number,
        world=world(spec, names.child(job.name, job.uid, names.WORKER, number)),
        storage=StorageAccess(
            endpoint=storage.endpoint,
            region=storage.region,
            path_style=storage.path_style,
            ca_file=STORAGE_CA_FILE if storage.ca else None,
        ),
        hub=HubAccess(endpoint=spec.hub.endpoint),
        reporting=reporting(job, settings),
        scratch=f"{SCRATCH_DIR}/finetune",
        scratch_bytes=int(quantity(spec.workers.scratch_size or scratch.LEAST)),
    )


def world(spec: Spec, service: str) -> World:
    """The process group: one process for each accelerator, else one a pod; found through the headless Service."""
    workers = spec.workers
    accelerators = workers.resources.accelerators if workers.resources else 0
    processes = workers.processes_per_worker or max(1, accelerators)
    return World(
        workers=workers.replicas,
        processes_per_worker=processes,
        device=device(workers.resources),
        threads_per_process=threads(cpus(workers.resources), processes),
        master_address=f"{service}-0.{service}",
        master_port=MASTER_PORT,
    )


def device(resources: Resources | None) -> Literal["auto", "cpu", "cuda"]:
    """cuda where a GPU is asked for by a name that torch drives so (also ROCm's): a pod that finds none then fails
    rather than train on its CPU. Other extended resources leave it to the trainer to look."""
    asked = {*((resources and resources.requests) or ()), *((resources and resources.limits) or ())}
    extended = [key for key in asked if "/" in key]
    if any(key in CUDA or key.startswith("nvidia.com/mig-") for key in extended):
        return "cuda"
    return "auto" if extended else "cpu"


def cpus(resources: Resources | None) -> float | None:
    """Cores that a container may count on: its CPU limit, else its request; None where it names neither."""
    for amounts in (resources.limits, resources.requests) if resources else ():
        if amounts and "cpu" in amounts:
            return quantity(amounts["cpu"])
    return None


def threads(cores: float | None, processes: int = 1) -> int | None:
    """Threads of each process; None leaves the choice to the trainer, which then counts the node's cores."""
    return None if cores is None else max(1, int(cores / processes))


def reporting(job: Resource, settings: PlanSettings) -> Reporting:
    """Where reports go, and the files that prove who sends them."""
    if not settings.report_url:
        return Reporting(interval_seconds=settings.report_interval, termination_file=TERMINATION_FILE)
    return Reporting(
        url=f"{settings.report_url.rstrip('/')}/v1/namespaces/{job.namespace}/jobs/{job.name}/report",
        ca_file=REPORT_CA_FILE if settings.report_ca else None,
        token_file=TOKEN_FILE,
        interval_seconds=settings.report_interval,
        termination_file=TERMINATION_FILE,
    )
