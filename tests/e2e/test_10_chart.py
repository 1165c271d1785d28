"""The chart's life with jobs under way: upgrade with a changed definition, uninstall, install again; and a namespaced
install.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .cluster import SYSTEM, wait
from .conftest import CHART, Chart, Place

DEFINITION = "finetunejobs.finetune-operator.io"


def test_helms_own_test_passes(chart: Chart) -> None:
    assert "Succeeded" in chart.cluster.helm("test", "finetune", "-n", SYSTEM)


def test_jobs_survive_upgrade_uninstall_and_reinstall(
    place: Place, chart: Chart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = place.cluster
    job = place.job("survivor", training__epochs=300)
    job.wait_step(5, 300)
    pods = {pod["metadata"]["uid"] for pod in job.workers()}

    newer = tmp_path / "chart"
    shutil.copytree(CHART, newer)
    definition = newer / "templates" / "crd.yaml"
    text = definition.read_text()
    assert "    - ftj\n" in text
    definition.write_text(text.replace("    - ftj\n", "    - ftj\n    - ftjs\n"))
    monkeypatch.setitem(Chart.install.__globals__, "CHART", newer)
    chart.install()
    assert "ftjs" in json.dumps(cluster.get("crd", DEFINITION)["spec"]["names"])
    step = job.status["progress"]["step"]
    job.wait_step(step + 20, 120)

    cluster.helm("uninstall", "finetune", "-n", SYSTEM, "--wait")
    assert not cluster.items("deployments", SYSTEM)
    assert job.object["metadata"]["name"] == "survivor"
    assert {pod["metadata"]["uid"] for pod in job.workers()} == pods, "jobs train on while there is no operator"

    monkeypatch.undo()
    chart.install()
    status = job.wait_succeeded(420)
    assert status["attempt"] == 1
    assert {pod["metadata"]["uid"] for pod in job.workers()} == pods
    assert "ftjs" not in json.dumps(cluster.get("crd", DEFINITION)["spec"]["names"])


@pytest.mark.nightly
def test_a_namespaced_install_has_no_cluster_role_and_runs_a_job(place: Place, chart: Chart) -> None:
    cluster = place.cluster
    chart.install(f"watch.namespaces={{{place.name}}}")
    try:
        ours = "app.kubernetes.io/part-of=finetune-operator"
        assert cluster.items("clusterroles", selector=ours) == []
        assert cluster.items("clusterrolebindings", selector=ours) == []
        assert cluster.items("roles", place.name, ours)
        status = place.job("inside").wait_succeeded(300)
        assert status["history"], "reports were taken, by their tokens' signatures alone"
    finally:
        chart.install()
    wait(
        "cluster-wide rights again",
        lambda: cluster.items("clusterroles", selector="app.kubernetes.io/part-of=finetune-operator"),
        30,
    )
