"""run.json of a try: what the spec says, with what the cluster decides (world, reporting, paths) added.

It holds no secret (invariant I7): credentials reach the container as environment variables from a Secret.
"""

from __future__ import annotations

from finetune_api.job import Spec
from finetune_api.pod import quantity
from finetune_api.run import HubAccess, Identity, Reporting, RunConfig, StorageAccess, World, run_config
from finetune_operator.plan import names
from finetune_operator.plan.observed import PlanSettings, Resource

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


def build(job: Resource, spec: Spec, settings: PlanSettings, component: str, number: int) -> RunConfig:
    """RunConfig of the workers' attempt `number`, or of the prepare step's try `number` (which sees the same world)."""
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
    )


def world(spec: Spec, service: str) -> World:
    """The process group: one process for each accelerator, else one a pod; found through the headless Service."""
    workers = spec.workers
    accelerators = workers.resources.accelerators if workers.resources else 0
    processes = workers.processes_per_worker or max(1, accelerators)
    return World(
        workers=workers.replicas,
        processes_per_worker=processes,
        device="cuda" if accelerators else "cpu",
        threads_per_process=threads(cpus(workers.resources), processes),
        master_address=f"{service}-0.{service}",
        master_port=MASTER_PORT,
    )


def cpus(resources: object) -> float | None:
    """Cores that a container may count on: its CPU limit, else its request; None where it names neither."""
    for amounts in (getattr(resources, "limits", None), getattr(resources, "requests", None)):
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
