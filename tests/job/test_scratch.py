"""The scratch volume follows the model's size where the spec leaves it open; the prepare pod fetches no weights."""

from __future__ import annotations

from typing import Any

import pytest

from fakecluster.planning import SPEC, Cluster
from finetune_api.base import parse
from finetune_api.job import Spec
from finetune_api.report import Stage
from finetune_api.status import Resolved
from finetune_operator.job.children import pod, scratch
from finetune_operator.job.observed import PlanSettings, Resource
from finetune_operator.plan import names

GIB = 1 << 30


def spec_of(**workers: Any) -> Spec:
    return parse(Spec, SPEC | ({"workers": workers} if workers else {}))


def limit(spec: Spec, component: str) -> str:
    job = Resource(name="job", namespace="team", uid="0" * 36, generation=1, created=0.0)
    volumes = {v["name"]: v for v in pod.volumes(job, spec, PlanSettings(trainer_image="t"), component, "config")}
    found: str = volumes["scratch"]["emptyDir"]["sizeLimit"]
    return found


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (None, "10Gi"),
        (90 << 20, "10Gi"),
        (2 * GIB, "10Gi"),
        (14 * GIB, "46Gi"),
        (14 * GIB + 1, "47Gi"),
        (140 * GIB, "424Gi"),
    ],
)
def test_the_workers_volume_follows_the_models_bytes(model: int | None, wanted: str) -> None:
    found = scratch.sized(spec_of(), Resolved(model_bytes=model))
    assert limit(found, names.WORKER) == wanted
    assert limit(spec_of(), names.PREPARE) == "10Gi"


def test_a_given_size_holds_for_both_and_an_earlier_status_is_no_matter() -> None:
    given = scratch.sized(spec_of(scratchSize="3Gi"), Resolved(model_bytes=14 * GIB))
    assert limit(given, names.WORKER) == limit(given, names.PREPARE) == "3Gi"
    assert limit(scratch.sized(spec_of(), None), names.WORKER) == "10Gi"


def test_workers_are_made_with_the_size_that_the_prepare_step_found() -> None:
    c = Cluster()
    pod_of_step = c.check()
    c.say(stage=Stage.PREPARING, component=names.PREPARE, resolved=Resolved(total_steps=10, model_bytes=14 * GIB))
    c.reconcile()
    c.exit(pod_of_step, 0)
    c.control()
    c.reconcile()
    (job,) = c.jobs(names.WORKER)
    volumes = {v["name"]: v for v in job["spec"]["template"]["spec"]["volumes"]}
    assert volumes["scratch"]["emptyDir"] == {"sizeLimit": "46Gi"}
