"""The children as the API server gets them: restricted pods, secrets by reference, the user's fields, one world."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from fakecluster.planning import EVERYTHING, SETTINGS, SPEC
from finetune_api.base import parse
from finetune_api.job import Spec
from finetune_api.run import RunConfig
from finetune_operator.job.children import image, objects
from finetune_operator.job.observed import PlanSettings, Resource
from finetune_operator.plan import names
from finetune_operator.plan.views.job import JobView

UID = "0a1b2c3d-1111-4222-8333-444455556666"


def resource(labels: dict[str, str] | None = None, **spec: Any) -> Resource:
    return Resource("spam-filter", "team", UID, 1, 0.0, labels=labels or {}, spec=parse(Spec, {**SPEC, **spec}))


def made(
    component: str = names.WORKER, labels: dict[str, str] | None = None, settings: PlanSettings = SETTINGS, **spec: Any
) -> dict[str, Any]:
    """The objects by kind."""
    job = resource(labels, **spec)
    assert job.spec
    named = image.named(job.spec, settings)
    return {c.kind: c.object for c in objects.attempt(job, job.spec, settings, component, 1, 0, named)}


def pod_of(found: dict[str, Any]) -> dict[str, Any]:
    return found["Job"]["spec"]["template"]["spec"]


def run_of(found: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate_json(found["ConfigMap"]["data"]["run.json"])


def env_of(found: dict[str, Any]) -> dict[str, Any]:
    listed = pod_of(found)["containers"][0]["env"]
    assert len({e["name"] for e in listed}) == len(listed), "each variable once"
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in listed}


@pytest.mark.parametrize("component", [names.PREPARE, names.WORKER])
@pytest.mark.parametrize("spec", [{}, EVERYTHING], ids=["plain", "everything"])
def test_pods_keep_the_restricted_standard(component: str, spec: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and more."""
    pod = pod_of(made(component, **spec))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "ports" not in container
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "projected", "secret"}
    assert all("sizeLimit" in v["emptyDir"] for v in pod["volumes"] if "emptyDir" in v)
    writable = {m["mountPath"] for c in pod["containers"] for m in c["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/tmp", "/dev/shm"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def test_secrets_come_by_reference_only() -> None:
    found = made(**EVERYTHING)
    env = env_of(found)
    assert env["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "s3", "key": "AWS_ACCESS_KEY_ID"}}
    assert env["AWS_SECRET_ACCESS_KEY"] == {"secretKeyRef": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY"}}
    assert env["AWS_SESSION_TOKEN"] == {"secretKeyRef": {"name": "s3", "key": "AWS_SESSION_TOKEN", "optional": True}}
    assert env["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}
    assert env["KEY"] == {"secretKeyRef": {"name": "k", "key": "v"}}
    assert env["MODE"] == {"configMapKeyRef": {"name": "c", "key": "m"}}
    assert set(found["ConfigMap"]["data"]) == {"run.json", "ca.crt"}
    assert not {"credentialsSecret", "tokenSecret", "env"} & set(found["ConfigMap"]["data"]["run.json"].split('"'))


def test_without_a_secret_the_default_chain_is_left_alone() -> None:
    assert not [name for name in env_of(made(storage={})) if name.startswith("AWS_")]


def test_the_users_fields_reach_the_workers() -> None:
    found = made(settings=dataclasses.replace(SETTINGS, image_pull_secrets=("shared", "mine")), **EVERYTHING)
    pod, template = pod_of(found), found["Job"]["spec"]["template"]
    workers = EVERYTHING["workers"]
    for field in (
        "nodeSelector",
        "affinity",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "serviceAccountName",
    ):
        assert pod[field] == workers[field], field
    assert pod["tolerations"] == [*workers["tolerations"], *lost_node(30)]
    assert pod["terminationGracePeriodSeconds"] == 300
    assert pod["imagePullSecrets"] == [{"name": "shared"}, {"name": "mine"}]
    assert template["metadata"]["labels"]["team"] == "nlp"
    assert template["metadata"]["annotations"] == {"note": "x"}
    (container,) = pod["containers"]
    assert container["image"] == "my/trainer:2"
    assert container["imagePullPolicy"] == "Always"
    assert container["resources"] == workers["resources"]
    assert env_of(found)["HTTPS_PROXY"] == "http://proxy:3128"
    assert env_of(found)["HF_HOME"] == "/tmp/mine"
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert volumes["scratch"]["emptyDir"] == {"sizeLimit": "20Gi"}
    assert volumes["storage-ca"]["secret"] == {"secretName": "ca", "items": [{"key": "root.pem", "path": "ca.crt"}]}


def test_the_prepare_pod_has_its_own_place_and_shares_what_the_reference_says() -> None:
    found = made(names.PREPARE, {names.QUEUE: "gpus"}, **EVERYTHING)
    pod, job = pod_of(found), found["Job"]
    assert pod["nodeSelector"] == {"pool": "cpu"}
    assert pod["tolerations"] == [*EVERYTHING["prepare"]["tolerations"], *lost_node(30)]
    assert not {"affinity", "priorityClassName", "runtimeClassName", "schedulerName", "subdomain"} & set(pod)
    assert pod["containers"][0]["resources"] == {"requests": {"cpu": "500m"}}
    assert pod["serviceAccountName"] == "trainer"
    assert pod["imagePullSecrets"] == [{"name": "mine"}]
    assert job["spec"]["template"]["metadata"]["labels"]["team"] == "nlp"
    assert job["spec"]["template"]["metadata"]["annotations"] == {"note": "x"}
    assert env_of(found)["HTTPS_PROXY"] == "http://proxy:3128"
    assert names.QUEUE not in job["metadata"]["labels"], "the prepare step stays outside Kueue"
    assert "suspend" not in job["spec"]
    assert pod["containers"][0]["command"][3] == "prepare"
    assert "Service" not in found
    assert pod_of(made(names.PREPARE))["containers"][0]["resources"] == {"requests": {"cpu": "1", "memory": "2Gi"}}


def lost_node(seconds: int, *keys: str) -> list[dict[str, Any]]:
    """The tolerations that a pod has of a node that is not heard of."""
    own = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
    return [{"key": f"node.kubernetes.io/{key}", **own} for key in keys or ("not-ready", "unreachable")]


@pytest.mark.parametrize("component", [names.PREPARE, names.WORKER])
@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], ("not-ready", "unreachable")),
        ([{"key": "gpu", "operator": "Exists"}], ("not-ready", "unreachable")),
        (
            [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoSchedule"}],
            ("not-ready", "unreachable"),
        ),
        ([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}], ("not-ready",)),
        ([{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}], ("unreachable",)),
        ([{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9}], ()),
        ([{"operator": "Exists"}], ()),
    ],
)
def test_a_lost_node_is_waited_for_as_long_as_the_job_says(
    component: str, given: list[dict[str, Any]], added: tuple[str, ...]
) -> None:
    place = {"workers": {"nodeLossSeconds": 77}, "prepare": {}}
    place["workers" if component == names.WORKER else "prepare"]["tolerations"] = given  # type: ignore[assignment]
    assert pod_of(made(component, **place))["tolerations"] == given + (lost_node(77, *added) if added else [])


@pytest.mark.parametrize(
    ("limits", "given", "size"),
    [
        ({}, None, "64Mi"),
        ({"memory": "4Gi"}, None, "64Mi"),
        ({"memory": "100Mi"}, None, str(50 * 2**20)),
        ({"nvidia.com/gpu": 1}, None, "1Gi"),
        ({"nvidia.com/gpu": 1, "memory": "2Gi"}, None, "1Gi"),
        ({"nvidia.com/gpu": 1, "memory": "1Gi"}, None, str(2**29)),
        ({"nvidia.com/gpu": 1, "memory": "1Gi"}, "900Mi", "900Mi"),
    ],
)
def test_shared_memory_leaves_half_of_the_memory_limit_to_the_trainer(
    limits: dict[str, Any], given: str | None, size: str
) -> None:
    workers = {"resources": {"limits": limits}, **({"sharedMemorySize": given} if given else {})}
    volumes = {v["name"]: v for v in pod_of(made(workers=workers))["volumes"]}
    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": size}
    volumes = {v["name"]: v for v in pod_of(made(names.PREPARE, workers=workers))["volumes"]}
    assert volumes["shared-memory"]["emptyDir"]["sizeLimit"] == "64Mi", "it has no accelerator and its own limit"


def test_one_attempt_is_one_indexed_job_that_never_restarts_a_pod() -> None:
    job = made(workers={"replicas": 5})["Job"]
    spec = job["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (5, 5, 0)
    assert (spec["completionMode"], spec["podReplacementPolicy"]) == ("Indexed", "Failed")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "ttlSecondsAfterFinished" not in spec
    assert spec["template"]["spec"]["containers"][0]["command"][3] == "launch"


def test_children_are_controlled_by_the_job_and_found_by_their_labels() -> None:
    for found in made().values():
        (owner,) = found["metadata"]["ownerReferences"]
        assert owner == {
            "apiVersion": "finetune-operator.io/v1alpha1",
            "kind": "FineTuneJob",
            "name": "spam-filter",
            "uid": UID,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        assert found["metadata"]["labels"][names.MANAGED_BY] == "finetune-operator"
    view = JobView.from_object({**made()["Job"], "metadata": {**made()["Job"]["metadata"], "uid": "u"}})
    assert view is not None
    assert (view.component, view.attempt, view.owner_uid) == (names.WORKER, 1, UID)


def test_the_service_finds_the_attempts_own_pods_before_they_are_ready() -> None:
    found = made()
    spec = found["Service"]["spec"]
    assert spec["clusterIP"] == "None"
    assert spec["publishNotReadyAddresses"] is True
    labels = found["Job"]["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"].items() <= labels.items()
    assert spec["selector"][names.ATTEMPT] == "1"
    name = found["Service"]["metadata"]["name"]
    assert pod_of(found)["subdomain"] == name == found["Job"]["metadata"]["name"]
    assert run_of(found).world.master_address == f"{name}-0.{name}"


@pytest.mark.parametrize(
    ("resources", "processes", "expected"),
    [
        (None, None, (1, "cpu", None, "64Mi")),
        ({"requests": {"cpu": "1500m"}}, None, (1, "cpu", 1, "64Mi")),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "4"}}, 2, (2, "cpu", 2, "64Mi")),
        ({"limits": {"nvidia.com/gpu": 4, "cpu": 8}}, None, (4, "cuda", 2, "1Gi")),
        ({"limits": {"amd.com/gpu": "1"}}, None, (1, "cuda", None, "1Gi")),
        ({"limits": {"nvidia.com/mig-1g.5gb": 1}}, None, (1, "cuda", None, "1Gi")),
        ({"limits": {"example.com/gpu": 1}}, None, (1, "auto", None, "1Gi")),
        ({"limits": {"cpu": "500m"}}, 4, (4, "cpu", 1, "64Mi")),
    ],
)
def test_the_world_follows_from_the_resources(resources: Any, processes: int | None, expected: tuple[Any, ...]) -> None:
    workers: dict[str, Any] = {"replicas": 2}
    workers |= {"resources": resources} if resources else {}
    workers |= {"processesPerWorker": processes} if processes else {}
    found = made(workers=workers)
    world = run_of(found).world
    shared = next(v for v in pod_of(found)["volumes"] if v["name"] == "shared-memory")["emptyDir"]["sizeLimit"]
    assert (world.processes_per_worker, world.device, world.threads_per_process, shared) == expected
    assert world.workers == 2
    threads = env_of(found).get("OMP_NUM_THREADS")
    assert threads == (str(expected[2]) if expected[2] else None)


def test_run_json_names_what_the_container_finds() -> None:
    found = made(**EVERYTHING)
    run = run_of(found)
    mounts = {m["mountPath"] for m in pod_of(found)["containers"][0]["volumeMounts"]}
    assert run.job.id == UID
    assert run.job.name == "team/spam-filter"
    assert run.attempt == 1
    assert run.grace_period_seconds == 300
    assert run.storage.model_dump(by_alias=False) == {
        "endpoint": "https://s3.test",
        "region": "eu",
        "path_style": False,
        "ca_file": "/etc/finetune-storage-ca/ca.crt",
    }
    assert run.hub.endpoint == "https://mirror.test"
    assert run.reporting.url == "https://reports.finetune-system.svc:8443/v1/namespaces/team/jobs/spam-filter/report"
    for path in (run.reporting.token_file, run.reporting.ca_file, run.storage.ca_file):
        assert path
        assert path.rpartition("/")[0] in mounts
    assert run.reporting.termination_file == pod_of(found)["containers"][0]["terminationMessagePath"]
    token = next(v for v in pod_of(found)["volumes"] if v["name"] == "identity")["projected"]["sources"][0][
        "serviceAccountToken"
    ]
    assert token == {"audience": UID, "expirationSeconds": 3600, "path": "token"}
    assert run.scratch.startswith("/tmp/")


def test_without_a_report_server_no_token_is_asked_for() -> None:
    found = made(settings=PlanSettings(trainer_image="t:1"))
    assert run_of(found).reporting.url is None
    assert "identity" not in {v["name"] for v in pod_of(found)["volumes"]}
    assert set(found["ConfigMap"]["data"]) == {"run.json"}


def test_a_job_for_a_queue_is_made_suspended_and_keeps_kueues_labels() -> None:
    found = made(labels={names.QUEUE: "gpus", "kueue.x-k8s.io/priority-class": "low", "mine": "x"})
    assert found["Job"]["spec"]["suspend"] is True
    labels = found["Job"]["metadata"]["labels"]
    assert (labels[names.QUEUE], labels["kueue.x-k8s.io/priority-class"]) == ("gpus", "low")
    assert "mine" not in labels
    assert "suspend" not in made()["Job"]["spec"]


def test_the_largest_world_still_has_valid_names_and_plain_json() -> None:
    job = dataclasses.replace(resource(workers={"replicas": 512}), name="9." + "x" * 250 + "1")
    assert job.spec
    for create in objects.attempt(job, job.spec, SETTINGS, names.WORKER, 9_999_999, 0, "trainer:test"):
        assert len(create.name) <= 52
        assert json.loads(json.dumps(create.object)) == create.object


@pytest.mark.parametrize("component", [names.PREPARE, names.WORKER])
def test_the_trainer_is_told_which_variables_come_from_secrets(component: str) -> None:
    env = env_of(made(component, **EVERYTHING))
    secret = {name for name, value in env.items() if isinstance(value, dict) and "secretKeyRef" in value}
    assert secret
    assert set(env["FINETUNE_SECRET_ENV"].split(",")) == secret


def test_a_report_server_without_a_ca_of_its_own_and_pods_without_a_group() -> None:
    found = made(settings=dataclasses.replace(SETTINGS, report_ca=None, fs_group=None))
    spec = pod_of(found)
    assert "fsGroup" not in spec["securityContext"]
    identity = next(v for v in spec["volumes"] if v["name"] == "identity")
    assert [next(iter(source)) for source in identity["projected"]["sources"]] == ["serviceAccountToken"]
    assert set(found["ConfigMap"]["data"]) == {"run.json"}


def test_the_storages_ca_may_stand_in_a_config_map() -> None:
    spec = pod_of(made(storage={"endpoint": "https://s3.test", "ca": {"configMap": "roots", "key": "a.pem"}}))
    volume = next(v for v in spec["volumes"] if v["name"] == "storage-ca")
    assert volume["configMap"] == {"name": "roots", "items": [{"key": "a.pem", "path": "ca.crt"}]}
