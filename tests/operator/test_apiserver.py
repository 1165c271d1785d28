"""What only a real API server can say: server-side apply, preconditions, adoption, tokens. No controllers run here."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fakecluster.certificates import self_signed
from fakecluster.driver import SPEC
from finetune_api import KIND
from finetune_operator.kube.access import from_kubeconfig
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import Conflict, Invalid, NotFound
from finetune_operator.kube.kinds import CONFIG_MAP, EVENT, FINETUNE_JOB, JOB, LEASE, POD, Kind
from finetune_operator.lifecycle import Operator
from finetune_operator.report_server.tokens import KeyVerifier, TokenReviewer, Unauthenticated
from finetune_operator.settings import Settings
from finetune_operator.store.key import Key
from support.control_plane import ControlPlane, free_ports

pytestmark = pytest.mark.apiserver
CRD = Path(__file__).parents[2] / "crds" / "finetune-operator.io_finetunejobs.yaml"
NAMESPACES, SERVICE_ACCOUNT = (
    Kind("Namespace", "", "v1", "namespaces", namespaced=False),
    Kind("ServiceAccount", "", "v1", "serviceaccounts"),
)


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> ControlPlane:
    control_plane.kubectl("apply", "--server-side", "-f", str(CRD))
    control_plane.kubectl(
        "wait", "--for=condition=Established", "--timeout=60s", "crd/finetunejobs.finetune-operator.io"
    )
    return control_plane


@pytest.fixture
async def kube(server: ControlPlane) -> AsyncIterator[KubeClient]:
    kube = KubeClient(from_kubeconfig(server.kubeconfig))
    yield kube
    await kube.close()


@pytest.fixture
async def namespace(kube: KubeClient) -> str:
    name = f"o-{uuid.uuid4().hex[:8]}"
    await kube.create(NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


async def make(kube: KubeClient, namespace: str, name: str = "spam-filter", **spec: Any) -> dict[str, Any]:
    body = {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": SPEC | spec,
    }
    return await kube.create(FINETUNE_JOB, namespace, body)


async def test_an_applied_status_replaces_the_last_one_and_an_equal_one_writes_nothing(
    kube: KubeClient, namespace: str
) -> None:
    job = await make(kube, namespace)
    name, at = job["metadata"]["name"], job["metadata"]["resourceVersion"]
    condition = {
        "type": "Validated",
        "status": "True",
        "reason": "Passed",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    first = await kube.apply_status(
        namespace, name, at, {"phase": "Running", "message": "m", "conditions": [condition], "goodput": 1.0}
    )
    at = first["metadata"]["resourceVersion"]
    again = await kube.apply_status(
        namespace, name, at, {"phase": "Running", "message": "m", "conditions": [condition], "goodput": 1.0}
    )
    assert again["metadata"]["resourceVersion"] == at
    last = await kube.apply_status(namespace, name, at, {"phase": "Failed", "conditions": []})
    assert {k: v for k, v in last["status"].items() if v} == {"phase": "Failed"}  # what was left out is gone
    assert last["spec"] == job["spec"]
    assert last["metadata"]["generation"] == job["metadata"]["generation"]


async def test_a_status_for_a_version_that_is_past_or_for_another_object_is_refused(
    kube: KubeClient, namespace: str
) -> None:
    first = await make(kube, namespace)
    await kube.patch(FINETUNE_JOB, namespace, "spam-filter", {"spec": {"suspend": True}})
    with pytest.raises(Conflict):
        await kube.apply_status(namespace, "spam-filter", first["metadata"]["resourceVersion"], {"phase": "Running"})
    now = await kube.get(FINETUNE_JOB, namespace, "spam-filter")
    await kube.delete(FINETUNE_JOB, namespace, "spam-filter", uid=now["metadata"]["uid"])
    second = await make(kube, namespace)
    with pytest.raises(Conflict):
        await kube.apply_status(namespace, "spam-filter", now["metadata"]["resourceVersion"], {"phase": "Running"})
    assert not (await kube.get(FINETUNE_JOB, namespace, "spam-filter")).get("status")
    await kube.delete(FINETUNE_JOB, namespace, "spam-filter", uid=second["metadata"]["uid"])
    with pytest.raises(NotFound):
        await kube.apply_status(namespace, "spam-filter", second["metadata"]["resourceVersion"], {"phase": "Running"})


async def test_a_status_that_does_not_fit_is_invalid(kube: KubeClient, namespace: str) -> None:
    job = await make(kube, namespace)
    with pytest.raises(Invalid):
        await kube.apply_status(namespace, "spam-filter", job["metadata"]["resourceVersion"], {"phase": "Dancing"})


async def test_deletes_and_patches_mean_one_very_object(kube: KubeClient, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    made = await kube.create(CONFIG_MAP, namespace, body)
    await kube.delete(CONFIG_MAP, namespace, "c", uid=str(uuid.uuid4()))  # another one: success, and nothing happens
    with pytest.raises(Conflict):
        await kube.patch(CONFIG_MAP, namespace, "c", {"data": {"a": "2"}}, uid=str(uuid.uuid4()))
    assert (await kube.get(CONFIG_MAP, namespace, "c"))["data"] == {"a": "1"}
    patched = await kube.patch(CONFIG_MAP, namespace, "c", {"data": {"a": "2"}}, uid=made["metadata"]["uid"])
    assert patched["data"] == {"a": "2"}
    await kube.delete(CONFIG_MAP, namespace, "c", uid=made["metadata"]["uid"])
    with pytest.raises(NotFound):
        await kube.get(CONFIG_MAP, namespace, "c")
    await kube.delete(CONFIG_MAP, namespace, "c", uid=made["metadata"]["uid"])  # gone already is success


async def test_lists_come_in_pages_and_find_everything_once(kube: KubeClient, namespace: str) -> None:
    for i in range(7):
        labels = {"app.kubernetes.io/managed-by": "finetune-operator"} if i % 2 else {}
        await kube.create(
            CONFIG_MAP,
            namespace,
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{i}", "labels": labels}},
        )
    found = [o["metadata"]["name"] async for o in kube.list(CONFIG_MAP, namespace, limit=2)]
    assert sorted(n for n in found if n.startswith("c")) == [f"c{i}" for i in range(7)]
    ours = [
        o["metadata"]["name"]
        async for o in kube.list(
            CONFIG_MAP, namespace, labels="app.kubernetes.io/managed-by=finetune-operator", limit=2
        )
    ]
    assert ours == ["c1", "c3", "c5"]


async def projected_token(
    kube: KubeClient, namespace: str, audience: str, pod: str = "p"
) -> tuple[str, dict[str, Any]]:
    """A token as the kubelet asks for it: of the default service account, bound to a pod."""
    with contextlib.suppress(Conflict):
        await kube.create(
            SERVICE_ACCOUNT, namespace, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        )
    spec = {
        "containers": [{"name": "trainer", "image": "none"}],
        "serviceAccountName": "default",
        "automountServiceAccountToken": False,
    }
    made = await kube.create(
        POD, namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec}
    )
    bound = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": made["metadata"]["uid"]}
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": 600, "boundObjectRef": bound},
    }
    token = Kind("TokenRequest", "", "v1", "serviceaccounts/default/token")
    answer = await kube.create(token, namespace, request)
    return answer["status"]["token"], made


@pytest.mark.parametrize("verifier", [TokenReviewer, KeyVerifier])
async def test_a_projected_token_tells_its_pod_and_serves_its_audience_only(
    kube: KubeClient, namespace: str, verifier: Any
) -> None:
    token, pod = await projected_token(kube, namespace, "job-uid")
    judge = verifier(kube)
    sender = await judge.verify(token, "job-uid")
    assert (sender.namespace, sender.pod_name, sender.pod_uid) == (namespace, "p", pod["metadata"]["uid"])
    with pytest.raises(Unauthenticated):
        await judge.verify(token, "another-uid")
    head, body, signature = token.split(".")
    with pytest.raises(Unauthenticated):
        await judge.verify(f"{head}.{body}.{signature[:-8]}AAAAAAAA", "job-uid")


async def test_the_token_of_a_deleted_pod_is_no_longer_accepted(kube: KubeClient, namespace: str) -> None:
    token, pod = await projected_token(kube, namespace, "job-uid")
    await kube.delete(POD, namespace, "p", uid=pod["metadata"]["uid"])  # at once: it has no node

    async def until_refused() -> None:
        for _ in range(60):  # the API server looks pods up in its own cache, and keeps a verdict for ten seconds
            await TokenReviewer(kube).verify(token, "job-uid")
            await asyncio.sleep(0.5)

    with pytest.raises(Unauthenticated):
        await until_refused()


async def test_the_operator_makes_the_prepare_step_once_and_survives_restarts(
    server: ControlPlane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """Twice started, the second time with everything there: one Job, one ConfigMap, one Event set; a lease released
    between.
    """
    job = await make(kube, namespace)
    self_signed(tmp_path, "reports")
    for start in range(2):
        ports = free_ports(3)
        settings = Settings(
            trainer_image="trainer:test",
            report_url="https://localhost:8443",
            report_cert_dir=tmp_path,
            watch_namespaces=(namespace,),
            lease_namespace=namespace,
            identity=f"start-{start}",
            metrics_port=ports[0],
            probe_port=ports[1],
            report_port=ports[2],
        )
        operator = Operator(settings, from_kubeconfig(server.kubeconfig))
        task = asyncio.create_task(operator.run())
        try:
            async with asyncio.timeout(40):
                while not (
                    operator.store.newest(job["metadata"]["uid"])[1]
                    and operator.store.phase(Key(KIND, namespace, "spam-filter"))
                ):
                    assert not task.done(), task.exception()
                    await asyncio.sleep(0.1)
                await asyncio.sleep(1)
        finally:
            operator.stop()
            await asyncio.wait_for(task, 20)
        lease = await kube.get(LEASE, namespace, "finetune-operator")
        assert not lease["spec"].get("holderIdentity")
    name = f"ft-spam-filter-{job['metadata']['uid'][:8]}-p1"
    assert [j["metadata"]["name"] async for j in kube.list(JOB, namespace)] == [name]
    stored = await kube.get(FINETUNE_JOB, namespace, "spam-filter")
    assert stored["status"]["phase"] == "Pending"
    managers = {(m["manager"], m.get("subresource")) for m in stored["metadata"]["managedFields"]}
    assert ("finetune-operator", "status") in managers
    assert not stored["metadata"].get("finalizers")
    assert not stored["metadata"].get("annotations")
    assert [e async for e in kube.list(EVENT, namespace, fields="type=Warning")] == []
