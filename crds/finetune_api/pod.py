"""The pod fields that a job may set: an allow-list, so that no job can ask for a host path, a host network or root.

The shapes follow Kubernetes' core/v1 PodSpec, only what we pass on; every list and map is bounded, since the CRD's
immutability rules are costed by the API server at creation.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from finetune_api.base import Form, Model, Rule
from finetune_api.quantity import Quantity, exact_quantity, quantity

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_WORD = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"

Name = Annotated[
    str,
    StringConstraints(max_length=253),
    Form(
        f"^{_SUBDOMAIN}$",
        "must be the name of an object: lower-case letters, digits, - and ., starting and ending with a letter or"
        " digit",
    ),
]
Key = Annotated[
    str, StringConstraints(max_length=253), Form(r"^[-._a-zA-Z0-9]+$", "must be a key of letters, digits, -, _ and .")
]
LabelKey = Annotated[
    str,
    StringConstraints(max_length=317),
    Form(
        f"^({_SUBDOMAIN}/)?{_WORD}$",
        "must be name or prefix/name, of letters, digits, -, _ and ., such as example.org/team",
    ),
]
LabelValue = Annotated[
    str,
    StringConstraints(max_length=63),
    Form(f"^({_WORD})?$", "must be letters, digits, -, _ and ., starting and ending with a letter or digit"),
]

_STANDARD = ("cpu", "memory", "ephemeral-storage")


def _names(field: str) -> Rule:
    return Rule(
        f"!has(self.{field}) || self.{field}.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.indexOf('/') > 0)",
        "keys: must be cpu, memory, ephemeral-storage, or a device with its prefix, such as nvidia.com/gpu",
        lambda s: all(k in _STANDARD or "/" in k for k in getattr(s, field) or {}),
        field=field,
    )


def _requests_fit(resources: Resources) -> bool:
    limits = resources.limits or {}
    return all(
        exact_quantity(v) <= exact_quantity(limits[k]) for k, v in (resources.requests or {}).items() if k in limits
    )


def _devices_are_limited(resources: Resources) -> bool:
    limits = resources.limits or {}
    devices = {k: v for k, v in (resources.requests or {}).items() if "/" in k}
    return all(k in limits and exact_quantity(v) == exact_quantity(limits[k]) for k, v in devices.items())


class Resources(Model):
    """Compute resources of one pod, as in core/v1 ResourceRequirements; any extended resource may be named."""

    requests: dict[LabelKey, Quantity] | None = Field(None, max_length=16, description="What the scheduler reserves, such as cpu, memory or nvidia.com/gpu.")
    limits: dict[LabelKey, Quantity] | None = Field(None, max_length=16, description="What the pod may use at most; accelerators go here.")

    RULES = (
        _names("requests"),
        _names("limits"),
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || "
            "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
            "may not be more than limits; lower the request or raise the limit",
            _requests_fit,
            field="requests",
        ),
        Rule(
            "!has(self.requests) || self.requests.all(k, k.indexOf('/') < 0 || (has(self.limits) && k in self.limits"
            " && quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) == 0))",
            "devices such as nvidia.com/gpu go into limits; move them there",
            _devices_are_limited,
            field="requests",
        ),
        Rule(
            "!has(self.limits)"
            " || self.limits.all(k, k.indexOf('/') < 0 || quantity(string(self.limits[k])).isInteger())",
            "devices such as nvidia.com/gpu are whole; write 1, 2, …",
            lambda s: all("/" not in k or exact_quantity(v) % 1 == 0 for k, v in (s.limits or {}).items()),
            field="limits",
        ),
    )

    @property
    def accelerators(self) -> int:
        """Whole devices named by an extended resource whose name ends in /gpu (nvidia.com/gpu, amd.com/gpu)."""
        return sum(
            int(quantity(v)) for k, v in {**(self.requests or {}), **(self.limits or {})}.items() if k.endswith("/gpu")
        )


class Toleration(Model):
    """A taint that the pod tolerates (core/v1 Toleration)."""

    key: LabelKey | None = Field(None, description="The taint's key; absent, with operator Exists, matches all taints.")
    operator: Literal["Exists", "Equal"] = Field("Equal", description="How the value is compared.")
    value: LabelValue | None = Field(None, description="The taint's value, for operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="The taint's effect; absent matches all.")
    toleration_seconds: int | None = Field(None, ge=0, le=31_536_000, description="How long a NoExecute taint is tolerated, in seconds; for ever when absent.")

    RULES = (
        Rule(
            "has(self.key) || self.operator == 'Exists'",
            "set operator: Exists, or name the key of the taint",
            lambda s: s.key is not None or s.operator == "Exists",
            field="operator",
        ),
        Rule(
            "!has(self.value) || self.value == '' || self.operator == 'Equal'",
            "only operator Equal compares values; remove it",
            lambda s: not s.value or s.operator == "Equal",
            field="value",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "only for effect NoExecute; remove it",
            lambda s: s.toleration_seconds is None or s.effect == "NoExecute",
            field="tolerationSeconds",
        ),
    )


_VALUES = Rule(
    "self.operator in ['Exists', 'DoesNotExist'] ? !has(self.values) || size(self.values) == 0"
    " : has(self.values) && size(self.values) > 0",
    "Exists and DoesNotExist take no values; every other operator needs some",
    lambda s: bool(s.values) == (s.operator not in ("Exists", "DoesNotExist")),
    field="values",
)


class NodeRequirement(Model):
    """One expression about a node's labels (core/v1 NodeSelectorRequirement)."""

    key: LabelKey = Field(description="The label's key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(description="How the values are compared.")
    values: tuple[LabelValue, ...] | None = Field(None, max_length=32, description="The values, for In, NotIn, Gt and Lt.")

    RULES = (
        _VALUES,
        Rule(
            "!(self.operator in ['Gt', 'Lt']) || !has(self.values)"
            " || (size(self.values) == 1 && self.values[0].matches('^[0-9]+$'))",
            "Gt and Lt compare with exactly one whole number, in quotes",
            lambda s: (
                s.operator not in ("Gt", "Lt")
                or not s.values
                or (len(s.values) == 1 and s.values[0].isascii() and s.values[0].isdigit())
            ),
            field="values",
        ),
    )


class PodRequirement(Model):
    """One expression about pods' labels (meta/v1 LabelSelectorRequirement)."""

    key: LabelKey = Field(description="The label's key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How the values are compared.")
    values: tuple[LabelValue, ...] | None = Field(None, max_length=32, description="The values, for In and NotIn.")

    RULES = (_VALUES,)


class NodeTerm(Model):
    """Labels that a node must all have."""

    match_expressions: tuple[NodeRequirement, ...] = Field(max_length=16, min_length=1, description="Label expressions, all of which must hold.")


class NodeTerms(Model):
    """Alternatives of node labels."""

    node_selector_terms: tuple[NodeTerm, ...] = Field(max_length=8, min_length=1, description="Terms, one of which must hold.")


class PreferredNodeTerm(Model):
    """A weighted wish for a node."""

    weight: int = Field(ge=1, le=100, description="Weight among the wishes.")
    preference: NodeTerm = Field(description="The labels wished for.")


class NodeAffinity(Model):
    """Which nodes the pods must or should run on (core/v1 NodeAffinity)."""

    required_during_scheduling_ignored_during_execution: NodeTerms | None = Field(None, description="Must hold at scheduling.")
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredNodeTerm, ...] | None = Field(None, max_length=8, description="Should hold at scheduling.")


class LabelSelector(Model):
    """Which pods are meant (meta/v1 LabelSelector)."""

    match_labels: dict[LabelKey, LabelValue] | None = Field(None, max_length=16, description="Labels that must all be equal.")
    match_expressions: tuple[PodRequirement, ...] | None = Field(None, max_length=16, description="Expressions that must all hold.")


class PodTerm(Model):
    """Pods to be near to or far from (core/v1 PodAffinityTerm), in the job's namespace."""

    label_selector: LabelSelector = Field(description="Which pods are meant.")
    topology_key: LabelKey = Field(description="The node label that says what near means.")


class WeightedPodTerm(Model):
    """A weighted wish about other pods."""

    weight: int = Field(ge=1, le=100, description="Weight among the wishes.")
    pod_affinity_term: PodTerm = Field(description="The pods meant.")


class PodAffinity(Model):
    """Near to or far from other pods (core/v1 PodAffinity and PodAntiAffinity)."""

    required_during_scheduling_ignored_during_execution: tuple[PodTerm, ...] | None = Field(None, max_length=8, description="Must hold at scheduling.")
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodTerm, ...] | None = Field(None, max_length=8, description="Should hold at scheduling.")


class Affinity(Model):
    """Where the pods may run (core/v1 Affinity)."""

    node_affinity: NodeAffinity | None = Field(None, description="By node labels.")
    pod_affinity: PodAffinity | None = Field(None, description="Near to pods.")
    pod_anti_affinity: PodAffinity | None = Field(None, description="Far from pods.")


class KeyRef(Model):
    """A key of a Secret or ConfigMap in the job's namespace."""

    name: Name = Field(description="Name of the object.")
    key: Key = Field(description="Key within it.")


class EnvVar(Model):
    """An environment variable of the trainer's containers, such as HTTPS_PROXY."""

    name: Annotated[str, StringConstraints(max_length=128), Form(r"^[A-Za-z_][A-Za-z0-9_]*$", "must be letters, digits and _, not starting with a digit")] = Field(description="The variable's name.")
    value: str | None = Field(None, max_length=4096, description="Its value. Put secrets into secretKeyRef instead.")
    secret_key_ref: KeyRef | None = Field(None, description="Take the value from a Secret.")
    config_map_key_ref: KeyRef | None = Field(None, description="Take the value from a ConfigMap.")

    RULES = (
        Rule(
            "(has(self.value) ? 1 : 0) + (has(self.secretKeyRef) ? 1 : 0) + (has(self.configMapKeyRef) ? 1 : 0) == 1",
            "set exactly one of value, secretKeyRef and configMapKeyRef",
            lambda s: sum(x is not None for x in (s.value, s.secret_key_ref, s.config_map_key_ref)) == 1,
        ),
        Rule(
            "!self.name.startsWith('FINETUNE_') && self.name != 'JOB_COMPLETION_INDEX'",
            "FINETUNE_… and JOB_COMPLETION_INDEX are the operator's own; choose another name",
            lambda s: not s.name.startswith("FINETUNE_") and s.name != "JOB_COMPLETION_INDEX",
            field="name",
        ),
    )


class ObjectRef(Model):
    """An object in the job's namespace."""

    name: Name = Field(description="Name of the object.")
