"""What the outside sees of a job: a real Prometheus finds its series, and nobody finds a secret's value anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .cluster import SYSTEM, Cluster, env, wait
from .conftest import BUCKET, Place
from .storage import SECRET_KEY, free_port


@pytest.fixture
def prometheus(cluster: Cluster, chart: Any, tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus that scrapes our operator through a port-forward."""
    binary = env("PROMETHEUS") or shutil.which("prometheus")
    if not binary:
        pytest.skip("no prometheus on PATH or in PROMETHEUS")
    target, port = free_port("127.0.0.1"), free_port("127.0.0.1")
    forward = subprocess.Popen(
        ["kubectl", "port-forward", "-n", SYSTEM, "service/finetune-operator-metrics", f"{target}:8080"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    scrape = {"job_name": "finetune", "honor_labels": True, "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
    (tmp_path / "prometheus.yml").write_text(
        json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]})
    )
    with open(tmp_path / "prometheus.log", "wb") as log:
        server = subprocess.Popen(
            [
                binary,
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for process in (server, forward):
            process.terminate()
            process.wait(timeout=15)


def query(server: str, expression: str) -> list[dict[str, Any]]:
    try:
        with urllib.request.urlopen(
            f"{server}/api/v1/query?query={urllib.parse.quote(expression)}", timeout=5
        ) as answer:
            return json.loads(answer.read())["data"]["result"]
    except OSError as error:
        raise AssertionError(str(error)) from None


def test_prometheus_finds_the_series_of_operator_and_job(place: Place, prometheus: str) -> None:
    job = place.job("measured", training__epochs=1000)
    job.wait_step(5, 300)
    mine = f'{{namespace="{place.name}",name="measured"}}'
    for series in ("finetune_job_step", "finetune_job_loss", "finetune_job_progress_ratio"):
        found = wait(series, lambda series=series: query(prometheus, series + mine), 60)
        assert len(found) == 1
    for series in (
        "finetune_reconcile_seconds_count",
        "finetune_queue_depth",
        "finetune_jobs",
        "finetune_api_requests_total",
    ):
        assert wait(series, lambda series=series: query(prometheus, series), 60)
    job.delete()
    wait("the series of a deleted job to go", lambda: not query(prometheus, f"finetune_job_step{mine}"), 120)


def test_the_secret_is_found_nowhere(place: Place, tmp_path: Path) -> None:
    """The storage's secret key, in all that a job and the operator leave behind: objects, logs, events, files."""
    job = place.job("discreet")
    wrong = place.job("noisy", data__columns={"text": "body", "label": "label"})
    job.wait_succeeded(300)
    wrong.wait_failed(300)
    cluster = place.cluster
    places = {
        "objects": cluster.kubectl(
            "get", "finetunejobs,jobs,pods,services,configmaps,events", "-n", place.name, "-o", "yaml"
        ),
        "operator objects": cluster.kubectl("get", "pods,configmaps,events", "-n", SYSTEM, "-o", "yaml"),
        "operator log": cluster.kubectl("logs", "-n", SYSTEM, "deployment/finetune-operator"),
    }
    for pod in cluster.kubectl("get", "pods", "-n", place.name, "-o", "name").split():
        places[pod] = cluster.kubectl("logs", pod, "-n", place.name)
    assert sum(len(text) for text in places.values()) > 10_000
    found = [name for name, text in places.items() if SECRET_KEY in text]
    folder = place.storage.download(BUCKET, place.output("discreet"), tmp_path / "out")
    found += [str(path) for path in folder.rglob("*") if path.is_file() and SECRET_KEY.encode() in path.read_bytes()]
    assert os.listdir(folder)
    assert not found
