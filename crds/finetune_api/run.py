"""RunConfig: all that a trainer process needs to know, written to run.json; no Kubernetes words in it.

The same file drives the prepare step, every worker of an attempt, and a run without a cluster. It never holds a secret:
credentials come by environment variables or the storage client's default chain.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from finetune_api.answering import QuestionAnswering
from finetune_api.base import Model
from finetune_api.images import ImageClassification
from finetune_api.job import Spec, TaskName
from finetune_api.masking import MaskedLm
from finetune_api.sources import Data, ModelSource
from finetune_api.tasks import TASKS
from finetune_api.tuning import Checkpoints, Evaluation, Method, Output, Training


class Identity(Model):
    """Whose run this is."""

    name: str = Field(max_length=317, description="namespace/name, for people.")
    id: str = Field(max_length=64, description="Unique and stable over all attempts (the resource's UID); owns the output.")


class World(Model):
    """How many processes, on what."""

    workers: int = Field(1, ge=1, description="Nodes of the process group; node rank comes from JOB_COMPLETION_INDEX, 0 when absent.")
    processes_per_worker: int = Field(1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads_per_process: int | None = Field(None, ge=1, description="Torch threads; cores of the pod over processes when absent.")
    master_address: str = Field("127.0.0.1", description="Host name of node 0.")
    master_port: int = Field(29500, ge=0, le=65535)
    timeout_seconds: float = Field(120.0, gt=0, description="A collective that waits longer ends the rank with PeerLost.")


class StorageAccess(Model):
    """How to reach s3:// URIs; credentials come from the environment or the default chain."""

    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    ca_file: str | None = None


class HubAccess(Model):
    """How to reach hf:// URIs; the token comes from HF_TOKEN."""

    endpoint: str | None = None


class Reporting(Model):
    """Where reports go: a URL (HTTPS POST), a file (one JSON line each), or both; also the launcher's last word."""

    url: str | None = Field(None, description="POSTed to with the token as bearer; certificate checked against ca_file.")
    ca_file: str | None = None
    token_file: str | None = Field(None, description="Re-read for each connection: it is rotated.")
    file: str | None = Field(None, description="Append a JSON line for each report.")
    interval_seconds: float = Field(5.0, gt=0, description="At least so often, and on every event.")
    termination_file: str | None = Field(None, description="Where the launcher writes its Outcome, at most 4096 bytes.")


class RunConfig(Model):
    """Everything that one attempt of a job needs."""

    version: Literal[1] = 1
    job: Identity
    attempt: int = Field(1, ge=1, description="Counts from 1; 0 is never used. The prepare step counts its own tries.")
    task: TaskName
    model: ModelSource
    data: Data
    method: Method
    masked_lm: MaskedLm | None = None
    training: Training
    question_answering: QuestionAnswering | None = None
    evaluation: Evaluation
    checkpoints: Checkpoints
    output: Output
    world: World
    image_classification: ImageClassification | None = None
    storage: StorageAccess = StorageAccess()
    hub: HubAccess = HubAccess()
    reporting: Reporting = Reporting()
    scratch: str = Field("/tmp/finetune", description="Folder for caches and temporary files.")
    scratch_bytes: int | None = Field(None, ge=0, description="Most that may lie on its volume; None: as much as there is space.")
    grace_period_seconds: int = Field(120, ge=1, description="From SIGTERM to SIGKILL; the checkpoint must be written within it.")

    @property
    def task_settings(self) -> Any:
        """What the user set for this task alone; None without, or where the task has no settings."""
        info = TASKS[self.task]
        return getattr(self, info.attribute) if info.settings else None



def run_config(
    spec: Spec,
    *,
    job: Identity,
    attempt: int,
    world: World,
    storage: StorageAccess,
    hub: HubAccess,
    reporting: Reporting,
    scratch: str = "/tmp/finetune",
    scratch_bytes: int | None = None,
) -> RunConfig:
    """The RunConfig of a spec; what the environment decides is given."""
    return RunConfig(
        job=job,
        attempt=attempt,
        task=spec.task,
        model=spec.model,
        data=spec.data,
        method=spec.method,
        training=spec.training,
        evaluation=spec.evaluation,
        checkpoints=spec.checkpoints,
        output=spec.output,
        world=world,
        storage=storage,
        hub=hub,
        reporting=reporting,
        scratch=scratch,
        scratch_bytes=scratch_bytes,
        grace_period_seconds=spec.workers.termination_grace_period_seconds,
        **{task.attribute: getattr(spec, task.attribute) for task in TASKS.values() if task.settings},
    )
