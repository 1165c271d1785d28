"""The pods of a job: how many, their resources, and the allow-list of pod fields that a user may set."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_api import GROUP
from finetune_api.base import Keyed, Model, Rule
from finetune_api.pod import Affinity, EnvVar, LabelKey, LabelValue, Name, ObjectRef, Resources, Toleration
from finetune_api.quantity import QuantityText, exact_quantity


class Prepare(Model):
    """The pod that checks everything before a worker is asked for."""

    resources: Resources | None = Field(None, description="Its resources; 1 CPU and 2Gi when absent.")
    node_selector: dict[LabelKey, LabelValue] | None = Field(None, max_length=16, description="Labels that its node must have.")
    tolerations: tuple[Toleration, ...] | None = Field(None, max_length=16, description="Taints that it tolerates.")


def _reserved(label: str) -> bool:
    return f"{GROUP}/" in label or label.startswith("batch.kubernetes.io/") or label == "app.kubernetes.io/managed-by"


def _shared_memory_fits(workers: Workers) -> bool:
    limit = (workers.resources.limits or {}).get("memory") if workers.resources else None
    return (
        limit is None
        or workers.shared_memory_size is None
        or exact_quantity(workers.shared_memory_size) < exact_quantity(limit)
    )


class Workers(Model):
    """The pods that train, and the pod fields that a job may set.

    Labels, annotations, env, image pull secrets and service account hold for the prepare pod too.
    """

    replicas: int = Field(1, ge=1, le=512, description="How many pods train together.")
    processes_per_worker: int | None = Field(None, ge=1, le=64, description="Processes in each pod; one for each accelerator, else one, when absent.")
    resources: Resources | None = Field(None, description="Resources of each worker pod; accelerators go into limits, as nvidia.com/gpu: 1.")
    shared_memory_size: QuantityText | None = Field(None, description="Size of /dev/shm, held in memory and counted against the memory limit; 1Gi with accelerators, 64Mi else, but half of the limit at most, when absent.")
    scratch_size: QuantityText | None = Field(None, description="Most disk that /tmp and the caches may use, in the prepare pod too; when absent 10Gi, and for the workers three times the model's files and 4Gi where that is more.")
    termination_grace_period_seconds: int = Field(120, ge=15, le=86_400, description="Time to write a checkpoint when the pod is told to stop.")
    node_loss_seconds: int = Field(30, ge=0, le=86_400, description="How long the pods, the prepare pod too, wait for a node that is not heard of before the job goes on elsewhere: their toleration of the taints node.kubernetes.io/not-ready and unreachable, where tolerations name none.")
    node_selector: dict[LabelKey, LabelValue] | None = Field(None, max_length=16, description="Labels that the workers' nodes must have.")
    tolerations: tuple[Toleration, ...] | None = Field(None, max_length=16, description="Taints that the workers tolerate.")
    affinity: Affinity | None = Field(None, description="Where the workers may run.")
    priority_class_name: Name | None = Field(None, description="Priority class of the workers.")
    runtime_class_name: Name | None = Field(None, description="Runtime class of the workers, such as nvidia.")
    scheduler_name: Name | None = Field(None, description="Scheduler of the workers.")
    image_pull_secrets: Annotated[tuple[ObjectRef, ...], Field(max_length=8), Keyed("name")] | None = Field(None, description="Secrets for private registries.")
    service_account_name: Name | None = Field(None, description="Service account of the pods, for workload identity; its token is not mounted.")
    labels: dict[LabelKey, LabelValue] | None = Field(None, max_length=32, description="More labels for the pods.")
    annotations: dict[LabelKey, Annotated[str, StringConstraints(max_length=4096)]] | None = Field(None, max_length=32, description="More annotations for the pods.")
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), Keyed("name")] | None = Field(None, description="More environment variables for the containers, such as HTTPS_PROXY.")

    RULES = (
        Rule(
            f"!has(self.labels) || self.labels.all(k, !k.contains('{GROUP}/') && !k.startsWith('batch.kubernetes.io/')"
            " && k != 'app.kubernetes.io/managed-by')",
            f"the prefixes {GROUP}/ and batch.kubernetes.io/ and app.kubernetes.io/managed-by are the operator's;"
            " choose other keys",
            lambda s: not any(map(_reserved, s.labels or ())),
            field="labels",
        ),
        Rule(
            "!has(self.sharedMemorySize) || !has(self.resources) || !has(self.resources.limits)"
            " || !('memory' in self.resources.limits)"
            " || quantity(self.sharedMemorySize).isLessThan(quantity(string(self.resources.limits['memory'])))",
            "is held in memory and must be less than resources.limits.memory; raise the limit",
            _shared_memory_fits,
            field="sharedMemorySize",
        ),
    )
