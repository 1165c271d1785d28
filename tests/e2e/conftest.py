"""The stage of every end-to-end test: a cluster with our chart on it, an S3 server with tiny models and data,
namespaces.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from examples import data

from support import models

from .cluster import ROOT, SYSTEM, Cluster, Job, Object, env
from .storage import ACCESS_KEY, SECRET_KEY, Storage, running_storage

CHART = ROOT / "charts" / "finetune-operator"
BUCKET = "e2e"
MAILS = 2000
"""So many real mails are learned from."""
_seconds: list[tuple[str, float, str]] = []
_measured: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With E2E_STRICT=1 nothing is skipped: what lacks a tool, data or a hook has failed. CI runs so."""
    report = yield
    if report.skipped and env("E2E_STRICT") and Path(__file__).parent in item.path.parents:
        where = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, and E2E_STRICT allows no skips: {where[2] if isinstance(where, tuple) else where}"
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "tests/e2e/" in report.nodeid and (report.when == "call" or (report.when == "setup" and report.duration > 5)):
        name = report.nodeid.split("tests/e2e/")[-1] + ("" if report.when == "call" else " (set-up)")
        _seconds.append((name, report.duration, report.outcome))
        if report.when == "call" and report.passed:  # what a failed test printed stands with its failure
            _measured.extend(f"{name.split('::')[0]}: {line}" for line in report.capstdout.splitlines() if line)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _measured:
        terminalreporter.section("end to end, what was measured")
        for line in _measured:
            terminalreporter.write_line(line)
    if _seconds:
        terminalreporter.section("end to end, seconds")
        for name, seconds, outcome in _seconds:
            terminalreporter.write_line(f"{seconds:7.1f}  {outcome:8} {name}")
        terminalreporter.write_line(f"{sum(seconds for _, seconds, _ in _seconds):7.1f}  in all")


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    for tool in ("kubectl", "helm"):
        if not shutil.which(tool):
            pytest.skip(f"no {tool} on PATH: the end-to-end tests need it")
    found = Cluster()
    answer = found.kubectl("get", "nodes", "-o", "name", check=False)
    if not answer.startswith("node/"):
        pytest.skip(f"no cluster with a node behind KUBECONFIG: {answer.strip()[-200:]}")
    return found


def image_values(name: str, variable: str, default: str) -> list[str]:
    repository, _, tag = (env(variable) or default).rpartition(":")
    return ["--set", f"{name}.repository={repository}", "--set", f"{name}.tag={tag}"]


@dataclasses.dataclass(frozen=True)
class Chart:
    """Our release in the cluster."""

    cluster: Cluster

    def install(self, *values: str, wait: bool = True) -> str:
        """Install or upgrade, and wait until the operator is ready.

        The annotation makes a rebuilt image of the same tag run.
        """
        sets = [part for value in values for part in ("--set", value)]
        return self.cluster.helm(
            *("upgrade", "--install", "finetune", str(CHART), "-n", SYSTEM, "--create-namespace", "--take-ownership"),
            *image_values("image", "OPERATOR_IMAGE", "localhost/finetune-operator:dev"),
            *image_values("trainer.image", "TRAINER_IMAGE", "localhost/finetune-trainer:dev"),
            *("--set-string", f"podAnnotations.e2e={time.time():.0f}", *sets),
            *(("--wait", "--timeout", "120s") if wait else ()),
        )


@pytest.fixture(scope="session")
def chart(cluster: Cluster) -> Chart:
    """The chart, installed for the session; its namespace enforces the restricted standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}})
    release = Chart(cluster)
    try:
        release.install()
    except AssertionError:
        print(cluster.kubectl("describe", "pods", "-n", SYSTEM, check=False))
        print(cluster.operator_log())
        raise
    return release


@pytest.fixture(scope="session")
def storage(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with running_storage(cluster, tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket(BUCKET)
        yield server


def shard(rows: list[dict[str, Any]], parts: int) -> list[bytes]:
    """Rows as so many jsonl.zst objects."""
    chunks = [rows[index::parts] for index in range(parts)]
    return [zstandard.compress("".join(json.dumps(row) + "\n" for row in chunk).encode()) for chunk in chunks]


@pytest.fixture(scope="session")
def tiny(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """The storage with s3://e2e/models/{bert,llama}, s3://e2e/mail/{train,test}/*.jsonl.zst and
    s3://e2e/chat/*.jsonl.
    """
    folder = tmp_path_factory.mktemp("tiny")
    storage.put_folder(BUCKET, "models/bert", models.tiny_bert(folder / "bert"))
    storage.put_folder(BUCKET, "models/llama", models.tiny_llama(folder / "llama"))
    for name, rows in (("train", models.mails(480, seed=1)), ("test", models.mails(160, seed=2))):
        for index, body in enumerate(shard(rows, 4)):
            storage.put(BUCKET, f"mail/{name}/part-{index}.jsonl.zst", body)
    chats = "".join(json.dumps(row) + "\n" for row in models.chats(200, seed=3))
    storage.put(BUCKET, "chat/train.jsonl", chats.encode())
    return storage


@pytest.fixture(scope="session")
def mail(storage: Storage) -> list[dict[str, str]]:
    """s3://e2e/models/minilm, s3://e2e/spam/{train,test}: the model, 2,000 mails to learn from and 1,000 to test;
    returns the test mails.
    """
    try:
        mails, minilm = data.mails(), data.minilm()
    except data.Unavailable as error:
        pytest.skip(str(error))
    rows = [row for path in sorted(mails.glob("train-*.jsonl.zst")) for row in data.read_shard(path)][:MAILS]
    test = data.read_shard(mails / "test.jsonl.zst")
    storage.put_folder(BUCKET, "models/minilm", minilm)
    for index, body in enumerate(shard(rows, 8)):
        storage.put(BUCKET, f"spam/train/part-{index}.jsonl.zst", body)
    storage.put(BUCKET, "spam/test/part-0.jsonl.zst", shard(test, 1)[0])
    return test


@dataclasses.dataclass(frozen=True)
class Place:
    """A namespace with the storage's Secret in it."""

    cluster: Cluster
    storage: Storage
    name: str

    def job(self, name: str, **changes: Any) -> Job:
        """Apply a FineTuneJob: the tiny classification, changed by dotted paths given with __ (training__epochs=2)."""
        self.cluster.apply(self.manifest(name, **changes), namespace=self.name)
        return Job(self.cluster, self.name, name)

    def manifest(self, name: str, **changes: Any) -> Object:
        spec: Object = {
            "task": "text-classification",
            "model": {"uri": f"s3://{BUCKET}/models/bert"},
            "data": {
                "train": {"uri": f"s3://{BUCKET}/mail/train/*.jsonl.zst"},
                "validation": {"fraction": 0.1},
                "test": {"uri": f"s3://{BUCKET}/mail/test/*.jsonl.zst"},
            },
            "training": {"epochs": 4, "globalBatchSize": 16, "learningRate": 5e-3, "maxLength": 64},
            "output": {"uri": f"s3://{BUCKET}/out/{self.name}/{name}"},
            "workers": {"resources": {"requests": {"cpu": "250m", "memory": "600Mi"}, "limits": {"memory": "2Gi"}}},
            "prepare": {"resources": {"requests": {"cpu": "100m", "memory": "400Mi"}, "limits": {"memory": "2Gi"}}},
            "storage": {"endpoint": self.storage.inside, "credentialsSecret": "s3"},
        }
        for path, value in changes.items():
            *parents, last = path.split("__")
            target = spec
            for parent in parents:
                target = target.setdefault(parent, {})
            if value is None:
                target.pop(last, None)
            else:
                target[last] = value
        return {
            "apiVersion": "finetune-operator.io/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name},
            "spec": spec,
        }

    def output(self, name: str) -> str:
        """The prefix of this job's output in the bucket."""
        return f"out/{self.name}/{name}"


@pytest.fixture(scope="session")
def make_place(cluster: Cluster, storage: Storage) -> Iterator[Callable[..., Place]]:
    """Make a namespace that enforces the restricted Pod Security standard, with the Secret `s3`."""
    made: list[str] = []

    def make(title: str = "e2e", secret: str = SECRET_KEY) -> Place:
        name = f"{title}-{uuid.uuid4().hex[:6]}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        made.append(name)
        data = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": secret}
        cluster.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": data}, namespace=name
        )
        return Place(cluster, storage, name)

    yield make
    if not env("E2E_KEEP"):
        for name in made:
            cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture
def place(request: pytest.FixtureRequest, make_place: Callable[..., Place], chart: Chart, tiny: Storage) -> Place:
    """A namespace of this test's own, with chart, storage and tiny inputs in place."""
    title = request.node.name.removeprefix("test_").split("[")[0].replace("_", "-")[:24].strip("-")
    return make_place(title)
