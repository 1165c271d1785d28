"""`kubectl finetune` against an API server that answers as told: what people see of jobs, logs and refusals."""

from __future__ import annotations

import copy
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from cli.conftest import MANIFEST, Terminal
from support.control_plane import ControlPlane

JOB: dict[str, Any] = {
    "apiVersion": "finetune-operator.io/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "spam-filter", "namespace": "ml", "uid": "u-1", "creationTimestamp": "2026-01-31T12:00:00Z"},
    "spec": yaml.safe_load(MANIFEST)["spec"],
    "status": {
        "phase": "Running",
        "startTime": "2026-01-31T12:00:01Z",
        "attempt": 2,
        "progress": {
            "step": 61,
            "totalSteps": 144,
            "epoch": 1.2,
            "percent": 42.3,
            "loss": 0.113,
            "rowsPerSecond": 10.9,
            "etaSeconds": 190,
        },
        "evaluation": {"macro-f1": 0.961, "loss": 0.12},
        "resolved": {"columns": {"text": "body", "label": "kind"}},
        "best": {"step": 48, "metric": "macro-f1", "value": 0.961},
        "data": {
            "trainRows": 4597,
            "validationRows": 510,
            "objects": 5,
            "bytes": 3145728,
            "labels": ["ham", "spam"],
            "labelCount": 2,
        },
        "checkpoints": [
            {
                "step": 48,
                "uri": "s3://m/o/ckpt/1/48",
                "bytes": 2048,
                "digest": "d",
                "time": "2026-01-31T12:02:00Z",
                "best": True,
            }
        ],
        "attempts": [
            {"number": 2, "startTime": "2026-01-31T12:05:00Z", "fromStep": 48},
            {
                "number": 1,
                "startTime": "2026-01-31T12:00:30Z",
                "reason": "Evicted",
                "fromStep": 0,
                "lastStep": 50,
                "lostSteps": 2,
            },
        ],
        "goodput": 0.91,
        "display": {"model": "minilm", "progress": "42%", "loss": "0.113", "best": "macro-f1=0.961", "eta": "3m10s"},
    },
}
FAILED = {
    "phase": "Failed",
    "completionTime": "2026-01-31T12:00:31Z",
    "startTime": "2026-01-31T12:00:01Z",
    "failure": {
        "reason": "InvalidData",
        "message": "train/1.jsonl:7 is not JSON",
        "hint": "Mend the line.",
        "field": "spec.data.train.uri",
    },
}


def pod(name: str, component: str, attempt: int, index: int | None, phase: str = "Succeeded") -> dict[str, Any]:
    labels = {
        "finetune-operator.io/job-uid": "u-1",
        "finetune-operator.io/component": component,
        "finetune-operator.io/attempt": str(attempt),
    }
    marks = {} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)}
    return {
        "metadata": {"name": name, "namespace": "ml", "labels": labels, "annotations": marks},
        "status": {"phase": phase},
    }


class Api:
    """An API server of one job in namespace ml."""

    def __init__(self) -> None:
        self.job = copy.deepcopy(JOB)
        self.pods = [
            pod("p-prepare", "prepare", 1, None),
            pod("p-1-0", "worker", 1, 0),
            pod("p-2-10", "worker", 2, 10),
            pod("p-2-2", "worker", 2, 2),
            pod("p-2-0", "worker", 2, 0),
            pod("p-2-1", "worker", 2, 1, "Pending"),
        ]
        self.refuse: tuple[int, str] | None = None
        self.patches: list[Any] = []

    def answer(self, method: str, url: str, body: bytes) -> tuple[int, Any]:
        parts = urlsplit(url)
        path, query = parts.path, parse_qs(parts.query)
        jobs = "/apis/finetune-operator.io/v1alpha1/namespaces/ml/finetunejobs"
        if self.refuse:
            return self.refuse[0], {"message": self.refuse[1]}
        if method == "PATCH" and path == f"{jobs}/spam-filter":
            self.patches.append(json.loads(body))
            return 200, self.job
        if path == f"{jobs}/spam-filter":
            return 200, self.job
        if path in (jobs, "/apis/finetune-operator.io/v1alpha1/finetunejobs"):
            return 200, {"items": [self.job]}
        if path == "/api/v1/namespaces/ml/pods" and query["labelSelector"] == ["finetune-operator.io/job-uid=u-1"]:
            return 200, {"kind": "PodList", "apiVersion": "v1", "items": self.pods}
        if path.startswith("/api/v1/namespaces/ml/pods/") and query["container"] == ["trainer"]:
            return 200, f"first of {path.split('/')[-2]}\nlast"
        return 404, {"message": f'finetunejobs.finetune-operator.io "{path}" not found'}


@pytest.fixture
def api(terminal: Terminal) -> Iterator[Api]:
    """It is running, and the terminal's kubeconfig names it."""
    served = Api()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, answer = served.answer(self.command, self.path, body)
            raw = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PATCH = reply

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "users": [{"name": "me", "user": {}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "me", "namespace": "ml"}},
            {"name": "empty", "context": {"cluster": "c", "user": "me"}},
        ],
    }
    path = terminal.folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    terminal.environment["KUBECONFIG"] = str(path)
    yield served
    server.shutdown()
    server.server_close()


def plugin(terminal: Terminal, *arguments: str) -> Any:
    return terminal.run(*arguments, program="finetune_cli.kubectl.command")


def test_a_running_job(terminal: Terminal, api: Api) -> None:
    done = plugin(terminal, "status", "spam-filter")
    assert done.returncode == 0
    for words in (
        "spam-filter in ml: Running",
        "lora tuning of file:///models/minilm for text-classification",
        "█████████████░░░░░░░░░░░░░░░░░ step 61/144 (42%), loss 0.113, 10.9 rows/s, ETA 3m10s",
        "macro-f1 0.961 at step 48",
        "4,597 rows to learn from",
        "Columns:     text = body, label = kind",
        "(best)  s3://m/o/ckpt/1/48",
        "1: Evicted, steps 0 to 50, 2 steps lost",
        "91% of the workers' time",
    ):
        assert words in done.stdout


def test_a_failed_job_says_why_and_what_to_do(terminal: Terminal, api: Api) -> None:
    api.job["status"] = FAILED
    done = plugin(terminal, "status", "spam-filter")
    assert done.returncode == 1
    assert "InvalidData: spec.data.train.uri: train/1.jsonl:7 is not JSON" in done.stdout
    assert "Mend the line." in done.stdout
    assert "finished in 30s" in done.stdout


def test_a_job_that_the_operator_has_not_seen_and_one_of_a_newer_operator(terminal: Terminal, api: Api) -> None:
    del api.job["status"]
    assert "spam-filter in ml: Pending" in plugin(terminal, "status", "spam-filter").stdout
    api.job["status"] = {"phase": "Running", "fromTheFuture": {"x": 1}}
    assert "spam-filter in ml: Running" in plugin(terminal, "status", "spam-filter").stdout


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_status_for_programs(terminal: Terminal, api: Api, form: str, read: Any) -> None:
    assert read(plugin(terminal, "status", "spam-filter", "-o", form).stdout) == JOB["status"]


def test_the_list(terminal: Terminal, api: Api) -> None:
    head, row = plugin(terminal, "list").stdout.splitlines()
    assert head.split() == ["NAME", "PHASE", "MODEL", "METHOD", "PROGRESS", "LOSS", "BEST", "ETA", "AGE"]
    assert row.split()[:8] == ["spam-filter", "Running", "minilm", "lora", "42%", "0.113", "macro-f1=0.961", "3m10s"]
    assert plugin(terminal, "list", "-A").stdout.splitlines()[1].startswith("ml ")
    assert json.loads(plugin(terminal, "list", "-o", "json").stdout) == [JOB]


def test_logs_of_the_prepare_step_and_rank_0_of_the_newest_attempt(terminal: Terminal, api: Api) -> None:
    done = plugin(terminal, "logs", "spam-filter")
    assert done.stdout.splitlines() == [
        "[prepare] first of p-prepare",
        "[prepare] last",
        "[worker-0] first of p-2-0",
        "[worker-0] last",
    ]
    assert "first of p-1-0" in plugin(terminal, "logs", "spam-filter", "--attempt", "1").stdout


def test_logs_of_all_ranks_in_the_order_of_ranks(terminal: Terminal, api: Api) -> None:
    lines = plugin(terminal, "logs", "spam-filter", "--all").stdout.splitlines()
    assert [line.split("]")[0] for line in lines[::2]] == ["[prepare", "[worker-0", "[worker-2", "[worker-10"]


def test_followed_logs_end_with_the_job(terminal: Terminal, api: Api) -> None:
    api.job["status"] = FAILED
    lines = plugin(terminal, "logs", "spam-filter", "-f", "--all").stdout.splitlines()
    assert sorted(lines[1::2] + lines[::2]) == sorted(
        plugin(terminal, "logs", "spam-filter", "--all").stdout.splitlines()
    )


def test_no_pod_has_a_log_yet(terminal: Terminal, api: Api) -> None:
    api.pods = [pod("p", "prepare", 1, None, "Pending")]
    done = plugin(terminal, "logs", "spam-filter")
    assert done.returncode == 1
    assert "has no pod with a log yet" in done.stderr


def test_suspend_and_resume(terminal: Terminal, api: Api) -> None:
    assert plugin(terminal, "resume", "spam-filter").stderr == "spam-filter is not suspended already\n"
    assert plugin(terminal, "suspend", "spam-filter").returncode == 0
    api.job["spec"]["suspend"] = True
    assert plugin(terminal, "resume", "spam-filter").returncode == 0
    assert api.patches == [{"spec": {"suspend": True}}, {"spec": {"suspend": False}}]
    api.job["status"] = FAILED
    assert "is over (Failed)" in plugin(terminal, "resume", "spam-filter").stderr


def test_refusals_are_one_line_with_a_remedy(terminal: Terminal, api: Api) -> None:
    assert "no FineTuneJob other in namespace ml" in plugin(terminal, "status", "other").stderr
    assert (
        "no FineTuneJob spam-filter in namespace default"
        in plugin(terminal, "status", "spam-filter", "--context", "empty").stderr
    )
    api.refuse = (403, "finetunejobs is forbidden: User me cannot list")
    assert (
        "the cluster refuses this in all namespaces: finetunejobs is forbidden" in plugin(terminal, "list", "-A").stderr
    )
    api.refuse = (404, "the server could not find the requested resource")
    assert "this cluster has no FineTuneJobs" in plugin(terminal, "list").stderr
    assert "no cluster to talk to" in plugin(terminal, "list", "--context", "nowhere").stderr
    assert "no cluster to talk to" in plugin(terminal, "list", "--kubeconfig", "nowhere").stderr


def test_a_server_that_does_not_answer(terminal: Terminal, api: Api) -> None:
    path = terminal.folder / "kubeconfig"
    config = yaml.safe_load(path.read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    path.write_text(yaml.safe_dump(config))
    done = plugin(terminal, "list")
    assert done.returncode == 1
    assert "the API server does not answer" in done.stderr.splitlines()[-2]


def test_help_is_prefixed_with_kubectl(terminal: Terminal) -> None:
    shown = plugin(terminal, "status", "--help").stdout
    assert shown.startswith("Usage: kubectl finetune status")
    assert plugin(terminal, "validate", "none.yaml").stdout == "none.yaml: no such file; check the path\n"


@pytest.mark.apiserver
def test_against_a_real_api_server(terminal: Terminal, control_plane: ControlPlane) -> None:
    """Also as kubectl runs it: a program kubectl-finetune on the PATH."""
    folder = terminal.folder
    definition = Path(__file__).parents[2] / "crds/finetune-operator.io_finetunejobs.yaml"
    control_plane.kubectl("apply", "--server-side", "-f", str(definition))
    control_plane.kubectl(
        "wait", "--for=condition=Established", "crd/finetunejobs.finetune-operator.io", "--timeout=60s"
    )
    control_plane.kubectl("create", "namespace", "cli-test")
    job = MANIFEST.replace("file:///", "s3://b/").replace("OUTPUT", "s3://b/out")
    control_plane.kubectl("apply", "-n", "cli-test", "-f", "-", stdin=job)
    script = folder / "kubectl-finetune"
    script.write_text(f'#!/bin/sh\nexec {" ".join(terminal.command(program="finetune_cli.kubectl.command"))} "$@"\n')
    script.chmod(0o755)
    os.environ["PATH"], before = f"{folder}:{os.environ['PATH']}", os.environ["PATH"]
    try:
        listed = control_plane.kubectl("finetune", "list", "-A")
        assert "cli-test    spam-filter   Pending" in listed.stdout
        told = control_plane.kubectl("finetune", "status", "spam-filter", "-n", "cli-test")
        assert "spam-filter in cli-test: Pending" in told.stdout
        control_plane.kubectl("finetune", "suspend", "spam-filter", "-n", "cli-test")
        stored = control_plane.kubectl("get", "ftj", "spam-filter", "-n", "cli-test", "-o", "jsonpath={.spec.suspend}")
        assert stored.stdout == "true"
    finally:
        os.environ["PATH"] = before
        control_plane.kubectl("delete", "namespace", "cli-test", "--wait=false")
