"""I10: what others make, label, name, own or report leaves a job and its children bit-equal.

Each try is made by somebody who may write in a namespace of their own, or who may make pods or Jobs in the victim's.
The victim is a job whose workers run; afterwards it ends as if nothing had been.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from fakecluster.api import FakeApi
from fakecluster.driver import KEY, NAMESPACE, REF, SPEC, Driver, job
from fakecluster.node import COMPONENT, Node, success
from finetune_api import KIND
from finetune_api.report import Outcome, Report
from finetune_operator.kube.kinds import FINETUNE_JOB, JOB, POD
from finetune_operator.plan import names
from finetune_operator.report_server.server import ReportServer
from finetune_operator.report_server.tokens import Tokens
from finetune_operator.wiring import taker

ELSEWHERE = "attacker"
DIGITS = "9" * 5000
KINDS = {"pods": POD, "jobs": JOB, "finetunejobs": FINETUNE_JOB}


class World:
    """The victim, and what an attacker can do."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        node = Node(api.objects)
        node.end = lambda pod: None if pod["metadata"]["labels"][COMPONENT] == "worker" else success(pod)
        self.driver = Driver(api, node)
        self.take = taker(self.driver.store, self.driver.queue, self.driver.relister, self.driver.metrics)

    async def begin(self) -> None:
        self.api.objects.create("finetunejobs", NAMESPACE, job())
        for _ in range(8):
            await self.driver.round()
            self.driver.node.tick()
        await self.driver.round()
        assert self.driver.status()["attempt"] == 1
        self.uid: str = self.api.objects.get(REF)["metadata"]["uid"]
        self.victim = set(self.api.objects.all)
        (self.job,) = [o for o in self.api.objects.list("jobs") if o["metadata"]["name"] == self.name()]
        self.pods = self.api.objects.owned("pods", self.job["metadata"]["uid"])
        self.pod = self.pods[0]

    def name(self, component: str = names.WORKER, number: int = 1) -> str:
        return names.child(KEY.name, self.uid, component, number)

    def picture(self) -> str:
        """All of the victim's, version by version, and what else is in its namespace."""
        return json.dumps({"/".join(ref): self.api.objects.all.get(ref) for ref in sorted(self.victim)}, indent=1)

    def end(self) -> None:
        """The victim's workers do what they were to do."""
        for pod in self.pods:
            self.driver.node._ended(pod, success(pod))
        self.driver.node._finish(("jobs", NAMESPACE, self.name()), "Complete", "CompletionsReached", succeeded=2)

    def make(self, plural: str, namespace: str, name: str = "forged", **fields: Any) -> None:
        """An object with all our labels; `meta`, `status`, `spec` as given."""
        labels = names.labels(KEY.name, self.uid, names.WORKER, 1) | fields.pop("labels", {})
        meta = {"name": name, "labels": labels} | fields.pop("meta", {})
        made = self.api.objects.create(plural, namespace, {"metadata": meta, "spec": {}, "status": {}} | fields)
        if plural in KINDS:
            self.take(KINDS[plural], {"type": "ADDED", "object": made})

    def owner(self, kind: str, name: str, uid: str) -> dict[str, Any]:
        return {"ownerReferences": [{"kind": kind, "name": name, "uid": uid, "controller": True}]}

    def by_job(self) -> dict[str, Any]:
        return self.owner("Job", self.job["metadata"]["name"], self.job["metadata"]["uid"])

    def by_victim(self) -> dict[str, Any]:
        return self.owner(KIND, KEY.name, self.uid)

    def said(self, code: int, **fields: Any) -> dict[str, Any]:
        words = Outcome(job_id=self.uid, attempt=1, exit_code=code, **fields).to_message()
        ended = {"exitCode": code, "message": words, "finishedAt": "2026-01-01T00:00:00Z"}
        return {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": names.CONTAINER, "state": {"terminated": ended}}],
        }

    async def report(self, token: str, *, path: str = str(KEY), code: int = 401, body: bytes | None = None) -> None:
        """Send a report that would end in a wrong status."""
        driver = self.driver
        server = ReportServer(
            driver.store,
            driver.queue,
            Tokens(driver.kube, "auto"),
            driver.metrics,
            interval=0,
            leading=lambda: True,
            clock=lambda: driver.now,
        )
        forged = Report(
            job_id=self.uid,
            attempt=1,
            sequence=10**9,
            time=1,
            stage="finished",
            output={"uri": "s3://evil"},  # type: ignore[arg-type]
        )
        namespace, _, name = path.partition("/")
        async with TestClient(TestServer(server.app())) as client:
            data = forged.model_dump_json(by_alias=True).encode() if body is None else body
            url = f"/v1/namespaces/{namespace}/jobs/{name}/report"
            async with client.post(url, data=data, headers={"Authorization": f"Bearer {token}"}) as answer:
                assert answer.status == code, await answer.text()

    def token(self, audience: str, namespace: str, pod: str, uid: str) -> str:
        extra = {"authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [uid]}
        self.api.tokens["forged"] = (audience, {"username": f"system:serviceaccount:{namespace}:d", "extra": extra})
        return "forged"

    def uid_of(self, namespace: str, name: str = "forged") -> str:
        return str(self.api.objects.get(("pods", namespace, name))["metadata"]["uid"])


Trick = Callable[[World], Awaitable[None] | None]
TRICKS: dict[str, Trick] = {
    # another namespace: labels
    "a running pod": lambda w: w.make("pods", ELSEWHERE, status={"phase": "Running"}),
    "a pod of a later attempt": lambda w: w.make("pods", ELSEWHERE, labels={names.ATTEMPT: "9"}),
    "a pod of attempt 999999999999": lambda w: w.make("pods", ELSEWHERE, labels={names.ATTEMPT: "999999999999"}),
    "a pod of attempt 9999999": lambda w: w.make("pods", ELSEWHERE, labels={names.ATTEMPT: "9999999"}),
    "a pod of attempt -1": lambda w: w.make("pods", ELSEWHERE, labels={names.ATTEMPT: "-1"}),
    "a pod of attempt 0": lambda w: w.make("pods", ELSEWHERE, labels={names.ATTEMPT: "0"}),
    "a pod of an attempt in other digits": lambda w: w.make("pods", ELSEWHERE, labels={names.ATTEMPT: "\u0669"}),
    "a pod without an attempt": lambda w: w.make("pods", ELSEWHERE, labels={names.ATTEMPT: ""}),
    "a pod of the prepare step": lambda w: w.make("pods", ELSEWHERE, labels={names.COMPONENT: names.PREPARE}),
    "a pod of an unknown component": lambda w: w.make("pods", ELSEWHERE, labels={names.COMPONENT: "x"}),
    # another namespace: names and owners
    "a pod of the victim's pod's name": lambda w: w.make("pods", ELSEWHERE, w.pod["metadata"]["name"]),
    "a pod that names the victim's Job as its owner": lambda w: w.make("pods", ELSEWHERE, meta=w.by_job()),
    "a pod that names the victim as its owner": lambda w: w.make("pods", ELSEWHERE, meta=w.by_victim()),
    "a pod that leaves and names the victim's Job": lambda w: w.make(
        "pods", ELSEWHERE, meta=w.by_job() | {"deletionTimestamp": "2030-01-01T00:00:00Z"}
    ),
    "a Job of the victim's Job's name": lambda w: w.make("jobs", ELSEWHERE, w.name(), meta=w.by_victim()),
    "a Job of the next attempt": lambda w: w.make("jobs", ELSEWHERE, w.name(number=2), meta=w.by_victim()),
    "a Job that failed": lambda w: w.make(
        "jobs", ELSEWHERE, w.name(), meta=w.by_victim(), status={"conditions": [{"type": "Failed", "status": "True"}]}
    ),
    "a Job that is complete": lambda w: w.make(
        "jobs", ELSEWHERE, w.name(), meta=w.by_victim(), status={"conditions": [{"type": "Complete", "status": "True"}]}
    ),
    "a ConfigMap of the next attempt's name": lambda w: w.make("configmaps", ELSEWHERE, w.name(number=2)),
    "a Service of the victim's Service's name": lambda w: w.make("services", ELSEWHERE, w.name()),
    "a Service of the victim's name and owner": lambda w: w.make("services", ELSEWHERE, w.name(), meta=w.by_victim()),
    # another namespace: last words, conditions
    "a last word of failure": lambda w: w.make("pods", ELSEWHERE, meta=w.by_job(), status=w.said(20)),
    "a last word of success": lambda w: w.make(
        "pods", ELSEWHERE, meta=w.by_job(), status=w.said(0, step=10**9, output={"uri": "s3://evil"})
    ),
    "a pod that is disrupted": lambda w: w.make(
        "pods",
        ELSEWHERE,
        meta=w.by_job(),
        status={"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "x"}]},
    ),
    # another namespace: huge and malformed values
    "an index of 5000 digits": lambda w: w.make(
        "pods", ELSEWHERE, meta={"annotations": {names.INDEX: DIGITS}} | w.by_job()
    ),
    "a budget of 5000 digits": lambda w: w.make(
        "jobs", ELSEWHERE, w.name(), meta={"annotations": {names.RESTARTS_USED: DIGITS}} | w.by_victim()
    ),
    "conditions without a type": lambda w: w.make(
        "pods", ELSEWHERE, meta=w.by_job(), status={"conditions": [{}, None, 1]}
    ),
    "containers that are none": lambda w: w.make("pods", ELSEWHERE, meta=w.by_job(), status={"containerStatuses": "x"}),
    "owners that are none": lambda w: w.make(
        "pods", ELSEWHERE, meta={"ownerReferences": [{"controller": True, "uid": "x"}]}
    ),
    "a moment that is none": lambda w: w.make(
        "pods", ELSEWHERE, meta=w.by_job() | {"deletionTimestamp": "soon"}, status={"phase": {}}
    ),
    "a parallelism that is none": lambda w: w.make(
        "jobs", ELSEWHERE, w.name(), meta=w.by_victim(), spec={"parallelism": "x"}
    ),
    "a message of 1 MB": lambda w: w.make("pods", ELSEWHERE, meta=w.by_job(), status={"message": "x" * 10**6}),
    # another namespace: FineTuneJobs
    "a job of the same name and output": lambda w: w.make("finetunejobs", ELSEWHERE, KEY.name, spec=SPEC),
    "a job that writes within the victim's output": lambda w: w.make(
        "finetunejobs", ELSEWHERE, spec=SPEC | {"output": {"uri": "s3://models/spam-filter/x"}}
    ),
    "a job that writes around the victim's output": lambda w: w.make(
        "finetunejobs", ELSEWHERE, spec=SPEC | {"output": {"uri": "s3://models"}}
    ),
    "a job whose spec is none": lambda w: w.make(
        "finetunejobs", ELSEWHERE, spec={"output": {"uri": 7}, "storage": "x"}
    ),
    "a job whose time to live is none": lambda w: w.make(
        "finetunejobs", ELSEWHERE, spec=SPEC | {"ttlSecondsAfterFinished": "soon"}
    ),
    # the victim's namespace: somebody who may make pods
    "a neighbour's pod": lambda w: w.make("pods", NAMESPACE, status={"phase": "Running"}),
    "a neighbour's pod that failed": lambda w: w.make("pods", NAMESPACE, status=w.said(20)),
    "a neighbour's pod of a later attempt": lambda w: w.make("pods", NAMESPACE, labels={names.ATTEMPT: "999999999999"}),
    "a neighbour's pod of a ReplicaSet": lambda w: w.make(
        "pods", NAMESPACE, meta=w.owner("ReplicaSet", w.name(), w.job["metadata"]["uid"]), status=w.said(20)
    ),
    "a neighbour's pod of the victim itself": lambda w: w.make(
        "pods", NAMESPACE, meta=w.by_victim(), status=w.said(20)
    ),
    "a neighbour's pod of a Job by another name": lambda w: w.make(
        "pods", NAMESPACE, meta=w.owner("Job", w.name(number=2), w.job["metadata"]["uid"]), status=w.said(20)
    ),
    "a neighbour's pod of an unknown Job of that name": lambda w: w.make(
        "pods", NAMESPACE, meta=w.owner("Job", w.name(), "unknown"), status={"phase": "Running"}
    ),
    "a neighbour's pod that leaves a Job of that name": lambda w: w.make(
        "pods", NAMESPACE, meta=w.owner("Job", w.name(), "unknown") | {"deletionTimestamp": "2030-01-01T00:00:00Z"}
    ),
    "a neighbour's pod that leaves the next attempt": lambda w: w.make(
        "pods",
        NAMESPACE,
        meta=w.owner("Job", w.name(number=2), "unknown") | {"deletionTimestamp": "2030-01-01T00:00:00Z"},
    ),
    "a neighbour's index of 5000 digits": lambda w: w.make(
        "pods", NAMESPACE, meta={"annotations": {names.INDEX: DIGITS}}
    ),
    # the victim's namespace: somebody who may make Jobs
    "a neighbour's Job": lambda w: w.make("jobs", NAMESPACE, labels={names.ATTEMPT: "9"}),
    "a neighbour's Job of another owner": lambda w: w.make(
        "jobs", NAMESPACE, w.name(number=7), meta=w.owner(KIND, KEY.name, "another")
    ),
    "a neighbour's Job far beyond the last attempt": lambda w: w.make(
        "jobs", NAMESPACE, w.name(number=names.MOST), meta=w.by_victim()
    ),
    # reports
    "a report without a token that anybody knows": lambda w: w.report("nonsense"),
    "a report with a token that is no text": lambda w: w.report("\u00e9" * 100),
    "a report with a token whose header nests deep": lambda w: w.report(
        base64.urlsafe_b64encode(b"[" * 5000).decode() + ".e30.x"
    ),
    "a report of another namespace's pod": lambda w: (
        w.make("pods", ELSEWHERE, meta=w.by_job()),
        w.report(w.token(w.uid, ELSEWHERE, "forged", w.uid_of(ELSEWHERE)), code=403),
    )[1],
    "a report of another namespace's pod that has the name of the victim's": lambda w: w.report(
        w.token(w.uid, ELSEWHERE, w.pod["metadata"]["name"], w.pod["metadata"]["uid"]), code=403
    ),
    "a report of a neighbour's pod": lambda w: (
        w.make("pods", NAMESPACE, meta=w.owner("Job", w.name(), "unknown")),
        w.report(w.token(w.uid, NAMESPACE, "forged", w.uid_of(NAMESPACE)), code=403),
    )[1],
    "a report with a token for another job": lambda w: w.report(
        w.token("another", NAMESPACE, w.pod["metadata"]["name"], w.pod["metadata"]["uid"])
    ),
}


def test_there_are_enough_tries() -> None:
    assert len(TRICKS) >= 40


@pytest.mark.parametrize("name", TRICKS)
async def test_a_stranger_changes_nothing(name: str) -> None:
    world = World(FakeApi())
    await world.begin()
    before = world.picture()
    again = TRICKS[name](world)
    if again is not None:
        await again
    for _ in range(3):
        await world.driver.round(1.0)
    assert world.picture() == before
    world.end()  # and it goes on
    await world.driver.round(1.0)
    status = world.driver.status()
    assert (status["phase"], status["attempt"], status["output"]["uri"]) == ("Succeeded", 1, "s3://models/out")
    await world.driver.close()
