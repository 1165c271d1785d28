"""What the outside sees of a job: a real Prometheus finds its series, and nobody finds a secret's value anywhere."""

from __future__ import annotations

import base64
import json
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
from .storage import ACCESS_KEY, SECRET_KEY, free_port


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


OPERATOR_SERIES = (
    "finetune_operator_reconcile_seconds_count",
    "finetune_operator_queue_depth",
    'finetune_operator_jobs{phase="Running"}',
    "finetune_operator_api_requests_total",
    "finetune_operator_reports_total",
    "finetune_operator_leading",
)
JOB_SERIES = (
    "finetune_job_step",
    "finetune_job_loss",
    "finetune_job_progress_ratio",
    "finetune_job_tokens_per_second",
    "finetune_job_checkpoint_age_seconds",
    "finetune_job_attempts",
)


def test_prometheus_finds_the_series_of_operator_and_job(place: Place, prometheus: str) -> None:
    job = place.job(
        "measured",
        training__epochs=1000,
        checkpoints__everySteps=20,
        evaluation__everySteps=20,
        checkpoints__keepLast=1,
    )
    job.wait_step(40, 300)
    mine = f'namespace="{place.name}",name="measured"'
    for series in JOB_SERIES:
        found = wait(series, lambda series=series: query(prometheus, f"{series}{{{mine}}}"), 60)
        assert len(found) == 1
    evaluated = f'finetune_job_metric{{{mine},split="validation",metric="macro-f1"}}'
    assert len(wait(evaluated, lambda: query(prometheus, evaluated), 60)) == 1
    for series in OPERATOR_SERIES:
        assert wait(series, lambda series=series: query(prometheus, series), 60)
    errors = query(prometheus, "finetune_operator_reconcile_errors_total")
    print("reconcile errors by cause:", {each["metric"]["cause"]: each["value"][1] for each in errors})
    job.delete()
    wait("the series of a deleted job to go", lambda: not query(prometheus, f"finetune_job_step{{{mine}}}"), 120)


CANARIES = {
    "the storage's key": SECRET_KEY,
    "a refused storage key": "canary-51d0be-refused-key",
    "the hub's token": "hf_canary44e1c27c90cf3aPQ",
    "a user's own variable": 'canary-9be2 "with" odd/letters+',
}


def test_no_secret_is_found_anywhere(place: Place, tmp_path: Path) -> None:
    """Each secret's value, in all that jobs and operator leave behind: objects, status, events, logs, metrics,
    files.
    """
    cluster = place.cluster
    secrets = {
        "wrong": {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": CANARIES["a refused storage key"]},
        "hub": {"HF_TOKEN": CANARIES["the hub's token"]},
        "own": {"word": CANARIES["a user's own variable"]},
    }
    for name, data in secrets.items():
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
        cluster.apply(secret, namespace=place.name)
    own = [{"name": "WEATHER", "secretKeyRef": {"name": "own", "key": "word"}}]
    every: dict[str, Any] = {"workers__env": own, "hub__tokenSecret": {"name": "hub"}}
    ends = {
        "discreet": (place.job("discreet", **every), "Succeeded"),
        "noisy": (place.job("noisy", data__columns={"text": "body", "label": "label"}, **every), "Failed"),
        "refused": (place.job("refused", storage__credentialsSecret="wrong", **every), "Failed"),
    }
    for job, phase in ends.values():
        job.wait_phase(phase, 300)
    worker = ends["discreet"][0].workers()[0]["spec"]["containers"][0]
    assert {"WEATHER", "HF_TOKEN"} <= {each["name"] for each in worker["env"]}, "the secrets did reach the pod"

    kinds = "finetunejobs,jobs,pods,services,endpointslices,configmaps,events,replicasets,deployments,leases"
    metrics = f"/api/v1/namespaces/{SYSTEM}/services/finetune-operator-metrics:8080/proxy/metrics"
    places = {
        **{
            f"objects in {each}": cluster.kubectl("get", kinds, "-n", each, "-o", "yaml")
            for each in (place.name, SYSTEM)
        },
        "metrics": cluster.kubectl("get", "--raw", metrics),
    }
    for namespace in (place.name, SYSTEM):
        for pod in cluster.kubectl("get", "pods", "-n", namespace, "-o", "name").split():
            places[f"log of {pod}"] = cluster.kubectl("logs", pod, "-n", namespace, "--all-containers")
    assert "finetune_job_step{" in places["metrics"]
    assert sum("log of pod/ft-discreet-" in name for name in places) == 2, "a prepare pod and a worker"
    files = place.storage.download(BUCKET, f"out/{place.name}", tmp_path / "out")
    read = {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}
    assert {"discreet/report.html", "discreet/README.md", "discreet/events.jsonl"} <= set(read)
    places |= {name: content.decode(errors="replace") for name, content in read.items()}

    for what, value in CANARIES.items():
        forms = {
            value,
            json.dumps(value)[1:-1],
            urllib.parse.quote(value, safe=""),
            base64.b64encode(value.encode()).decode(),
        }
        found = [name for name, text in places.items() if any(form in text for form in forms)]
        assert not found, f"{what} stands in {found}"
    print(f"{len(CANARIES)} secrets, none found in {len(places)} places, {sum(map(len, places.values())) / 1e6:.1f} MB")
