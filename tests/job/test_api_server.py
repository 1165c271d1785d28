"""A real API server accepts every child strictly, and the restricted pod security standard lets the pods in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakecluster.planning import EVERYTHING, SETTINGS, SPEC
from finetune_api.base import parse
from finetune_api.job import Spec
from finetune_operator.job.children import objects
from finetune_operator.job.observed import Resource
from finetune_operator.plan import names
from support.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
}
NAMESPACE = "planned"


@pytest.fixture(scope="module")
def restricted(control_plane: ControlPlane) -> ControlPlane:
    """A namespace that enforces the restricted standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    status, answer = control_plane.request("POST", "/api/v1/namespaces", body)
    assert status in (201, 409), answer
    return control_plane


def post(plane: ControlPlane, path: str, body: Any) -> None:
    status, answer = plane.request("POST", f"{path.format(NAMESPACE)}?dryRun=All&fieldValidation=Strict", body)
    assert status == 201, answer.get("message")


@pytest.mark.parametrize("component", [names.PREPARE, names.WORKER])
@pytest.mark.parametrize("spec", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("name", ["spam-filter", "9." + "x" * 250 + "1"], ids=["ordinary", "longest"])
def test_children_are_accepted(restricted: ControlPlane, component: str, spec: dict[str, Any], name: str) -> None:
    uid = "0a1b2c3d-1111-4222-8333-444455556666"
    job = Resource(name, NAMESPACE, uid, 1, 0.0, labels={names.QUEUE: "gpus"}, spec=parse(Spec, {**SPEC, **spec}))
    assert job.spec
    for create in objects.attempt(job, job.spec, SETTINGS, component, 1, 0, "trainer:test"):
        post(restricted, PATHS[create.kind], create.object)
        if create.kind == "Job":
            pod = json.loads(json.dumps(create.object["spec"]["template"]))
            for cluster_wide in ("priorityClassName", "runtimeClassName"):  # no such classes on this server
                pod["spec"].pop(cluster_wide, None)
            pod["spec"].setdefault("serviceAccountName", "default")  # admission sets it elsewhere
            metadata = {**pod["metadata"], "name": create.name, "namespace": NAMESPACE}
            post(
                restricted,
                "/api/v1/namespaces/{}/pods",
                {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]},
            )


def test_the_server_would_refuse_pods_of_another_kind(restricted: ControlPlane) -> None:
    """The namespace does enforce the standard: what our tests accept, it does not accept by accident."""
    job = Resource("j", NAMESPACE, "u", 1, 0.0, spec=parse(Spec, SPEC))
    assert job.spec
    found = objects.attempt(job, job.spec, SETTINGS, names.WORKER, 1, 0, "trainer:test")[-1]
    pod = json.loads(json.dumps(found.object["spec"]["template"]))
    del pod["spec"]["securityContext"]["runAsNonRoot"]
    pod["spec"]["serviceAccountName"] = "default"
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**pod["metadata"], "name": "p", "namespace": NAMESPACE},
        "spec": pod["spec"],
    }
    status, answer = restricted.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", body)
    assert status == 403
    assert "runAsNonRoot" in answer["message"]
