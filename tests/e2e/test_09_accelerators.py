"""An extended resource on the node stands in for a GPU: asked for by workers only, and only after the prepare step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .cluster import Cluster, Object, is_prepare
from .conftest import Place

RESOURCE = "example.com/gpu"


def patch_node(cluster: Cluster, node: str, patch: list[Object], check: bool = True) -> None:
    cluster.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(patch), check=check)


@pytest.fixture
def advertised(cluster: Cluster) -> Iterator[None]:
    """One piece of the resource on the first node."""
    node = cluster.items("nodes")[0]["metadata"]["name"]
    path = "/status/capacity/" + RESOURCE.replace("/", "~1")
    patch_node(cluster, node, [{"op": "add", "path": path, "value": "1"}])
    yield
    patch_node(cluster, node, [{"op": "remove", "path": path}], check=False)


def resources(count: int) -> dict[str, Any]:
    return {"requests": {"cpu": "100m", "memory": "400Mi"}, "limits": {"memory": "2Gi", RESOURCE: str(count)}}


def asks_for_it(pod: Object) -> bool:
    return any(RESOURCE in (container["resources"].get("limits") or {}) for container in pod["spec"]["containers"])


def test_one_is_placed_and_two_wait_with_the_schedulers_words(place: Place, advertised: None) -> None:
    fits = place.job("fits", workers__resources=resources(1))
    greedy = place.job("greedy", workers__resources=resources(2))
    status = greedy.wait("the scheduler's words", lambda status: RESOURCE in (status.get("message") or ""), 240)
    assert status["reason"] == "Unschedulable"
    assert f"Insufficient {RESOURCE}" in status["message"]
    for job in (fits, greedy):
        pods = job.pods()
        prepare = [pod for pod in pods if is_prepare(pod)]
        assert len(prepare) == 1
        assert not asks_for_it(prepare[0])
        workers = [pod for pod in pods if not is_prepare(pod)]
        assert all(asks_for_it(pod) for pod in workers)
        ended = prepare[0]["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
        assert all(pod["metadata"]["creationTimestamp"] >= ended for pod in workers), (
            "asked for before the prepare step passed"
        )
    fits.wait_succeeded(240)
    greedy.delete()
