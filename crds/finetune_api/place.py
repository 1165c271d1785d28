"""Where a job runs: its pods with the allow-list of fields that a user may set, its storage and its hub."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_api.base import Keyed, Model, Rule
from finetune_api.pod import (
    Affinity,
    EnvVar,
    Key,
    LabelKey,
    LabelValue,
    Name,
    ObjectRef,
    QuantityText,
    Resources,
    Toleration,
    exact_quantity,
)
from finetune_api.uris import Endpoint, Region


class Prepare(Model):
    """The pod that checks everything before a worker is asked for."""

    resources: Resources | None = Field(None, description="Its resources; 1 CPU and 2Gi when absent.")
    node_selector: dict[LabelKey, LabelValue] | None = Field(None, max_length=16, description="Labels that its node must have.")
    tolerations: tuple[Toleration, ...] | None = Field(None, max_length=16, description="Taints that it tolerates.")


def _shared_memory_fits(workers: Workers) -> bool:
    limit = (workers.resources.limits or {}).get("memory") if workers.resources else None
    return limit is None or workers.shared_memory_size is None or exact_quantity(workers.shared_memory_size) < exact_quantity(limit)


class Workers(Model):
    """The pods that train, and the pod fields that a job may set. Labels, annotations, env, image pull secrets and service account hold for the prepare pod too."""

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
            "!has(self.labels) || self.labels.all(k, !k.contains('finetune-operator.io/') && !k.startsWith('batch.kubernetes.io/') && k != 'app.kubernetes.io/managed-by')",
            "the prefixes finetune-operator.io/ and batch.kubernetes.io/ and app.kubernetes.io/managed-by are the operator's; choose other keys",
            lambda s: not any("finetune-operator.io/" in k or k.startswith("batch.kubernetes.io/") or k == "app.kubernetes.io/managed-by" for k in s.labels or {}),
            field="labels",
        ),
        Rule(
            "!has(self.sharedMemorySize) || !has(self.resources) || !has(self.resources.limits) || !('memory' in self.resources.limits) || "
            "quantity(self.sharedMemorySize).isLessThan(quantity(string(self.resources.limits['memory'])))",
            "is held in memory and must be less than resources.limits.memory; raise the limit",
            _shared_memory_fits,
            field="sharedMemorySize",
        ),
    )


class CertificateAuthority(Model):
    """A CA bundle in PEM, in a ConfigMap or Secret of the job's namespace."""

    config_map: Name | None = Field(None, description="Name of the ConfigMap.")
    secret: Name | None = Field(None, description="Name of the Secret.")
    key: Key = Field("ca.crt", description="Key within it.")

    RULES = (
        Rule("has(self.configMap) != has(self.secret)", "set exactly one of configMap and secret", lambda s: (s.config_map is None) != (s.secret is None)),
    )


class Storage(Model):
    """The S3-compatible storage of all s3:// URIs. Without credentialsSecret the default chain is used: service account, instance profile or environment."""

    endpoint: Endpoint | None = Field(None, description="URL of the S3 server; AWS when absent.")
    region: Region | None = Field(None, description="Region; us-east-1 when absent.")
    path_style: bool | None = Field(None, description="Put the bucket into the path, not the host name; true when an endpoint is set and this is absent.")
    credentials_secret: Name | None = Field(None, description="Secret in the job's namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if needed, AWS_SESSION_TOKEN.")
    ca: CertificateAuthority | None = Field(None, description="CA of the endpoint's certificate, if it is not a public one.")


class Hub(Model):
    """The Hugging Face hub, for hf:// URIs."""

    endpoint: Endpoint | None = Field(None, description="URL of the hub or of a mirror (HF_ENDPOINT); huggingface.co when absent.")
    token_secret: ObjectRef | None = Field(None, description="Secret in the job's namespace with the key HF_TOKEN, for gated and private repositories.")
