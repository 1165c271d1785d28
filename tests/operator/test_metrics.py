"""Prometheus series: what a job says about itself, bounded, and gone with the job."""

from __future__ import annotations

import pytest

from finetune_api import KIND
from finetune_api.status import Checkpoint, Phase, Progress, Status
from finetune_operator.metrics import METRICS_PER_JOB, Metrics, metrics_app
from finetune_operator.store.key import Key

KEY = Key(KIND, "team", "spam-filter")
LABELS = {"namespace": "team", "name": "spam-filter"}


def status(phase: Phase = Phase.RUNNING, **fields: object) -> Status:
    progress = Progress(
        step=50,
        total_steps=200,
        percent=25.0,
        loss=0.5,
        tokens_per_second=900.0,
        rows_per_second=12.0,
        eta_seconds=60.0,
    )
    checkpoint = Checkpoint(step=40, uri="s3://o/ckpt/1/40", bytes=1, digest="d", time="2026-01-01T00:00:00Z")
    values = {
        "phase": phase,
        "progress": progress,
        "checkpoints": (checkpoint,),
        "evaluation": {"macro-f1": 0.9},
        "attempt": 2,
        "restarts": 1,
        "goodput": 0.8,
    }
    return Status(**(values | fields))  # type: ignore[arg-type]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, LABELS | labels)


def names(metrics: Metrics) -> set[str]:
    return {s.labels["name"] for family in metrics.registry.collect() for s in family.samples if "name" in s.labels}


def test_a_running_job_has_its_series() -> None:
    metrics = Metrics(clock=lambda: 1767225600.0 + 30)  # 30 s after the checkpoint
    metrics.observe(KEY, status(), 0)
    assert value(metrics, "finetune_job_step") == 50
    assert value(metrics, "finetune_job_progress_ratio") == 0.25
    assert value(metrics, "finetune_job_loss") == 0.5
    assert value(metrics, "finetune_job_tokens_per_second") == 900
    assert value(metrics, "finetune_job_checkpoint_age_seconds") == 30
    assert value(metrics, "finetune_job_attempts") == 2
    assert value(metrics, "finetune_job_metric", split="validation", metric="macro-f1") == 0.9


def test_a_phase_without_jobs_is_zero_and_not_missing() -> None:
    metrics, counts = Metrics(), {"Running": 2}
    metrics.track(phases=lambda: counts, depth=lambda: 0, delayed=lambda: 0, oldest=lambda: 0.0, leading=lambda: True)

    def jobs(phase: str) -> float | None:
        return metrics.registry.get_sample_value("finetune_operator_jobs", {"phase": phase})

    assert {phase: jobs(phase) for phase in Phase} == dict.fromkeys(Phase, 0) | {Phase.RUNNING: 2}
    counts.clear()
    assert jobs("Running") == 0


def test_a_finished_job_no_longer_claims_a_speed() -> None:
    metrics = Metrics()
    metrics.observe(KEY, status(), 0)
    metrics.observe(KEY, status(Phase.SUCCEEDED), 0)
    assert value(metrics, "finetune_job_tokens_per_second") is None
    assert value(metrics, "finetune_job_checkpoint_age_seconds") is None
    assert value(metrics, "finetune_job_step") == 50


def test_a_deleted_job_leaves_no_series() -> None:
    metrics = Metrics()
    metrics.observe(KEY, status(), 0)
    metrics.forget(KEY)
    assert names(metrics) == set()


def test_the_number_of_jobs_with_series_is_bounded_and_running_ones_go_first() -> None:
    metrics = Metrics(max_jobs=2)
    metrics.observe(KEY._replace(name="done"), status(Phase.SUCCEEDED), 0)
    metrics.observe(KEY._replace(name="a"), status(), 0)
    metrics.observe(KEY._replace(name="b"), status(), 0)  # takes the finished one's place
    metrics.observe(KEY._replace(name="c"), status(), 0)
    assert names(metrics) == {"a", "b"}
    assert metrics.registry.get_sample_value("finetune_operator_jobs_with_series") == 2


def test_the_number_of_evaluation_metrics_is_bounded_by_the_contract() -> None:
    metrics = Metrics()
    metrics.observe(KEY, status(evaluation={f"m{i}": 0.1 for i in range(METRICS_PER_JOB)}), 0)
    assert (
        len([s for f in metrics.registry.collect() if f.name == "finetune_job_metric" for s in f.samples])
        == METRICS_PER_JOB
    )


@pytest.mark.parametrize("ready", [True, False])
async def test_a_scrape_and_the_readiness_probe(ready: bool) -> None:
    from aiohttp.test_utils import TestClient, TestServer

    metrics = Metrics()
    metrics.track(
        phases=lambda: {"Running": 3}, depth=lambda: 1, delayed=lambda: 2, oldest=lambda: 0.5, leading=lambda: ready
    )
    metrics.requested("get", "Job", 200, 0.01)
    metrics.reconciled("conflict", 0.01)
    async with TestClient(TestServer(metrics_app(metrics, lambda: "" if ready else "waiting"))) as client:
        text = await (await client.get("/metrics")).text()
        assert 'finetune_operator_jobs{phase="Running"} 3.0' in text
        assert 'finetune_operator_api_requests_total{code="200",kind="Job",verb="get"} 1.0' in text
        assert 'finetune_operator_reconcile_errors_total{cause="conflict"} 1.0' in text
        assert "_created" not in text
        assert (await client.get("/readyz")).status == (200 if ready else 503)
