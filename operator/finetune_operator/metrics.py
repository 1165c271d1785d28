"""Prometheus: how the operator does, and how each job trains.

The training series are read from a bounded table at each scrape, so a job's series are gone the moment the job is, and
the number of jobs and of evaluation metrics a job has is bounded: a user cannot make the time series explode.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_api.status import Phase, Status
from finetune_api.times import seconds
from finetune_operator.store.key import Key

_GAUGES = {
    "finetune_job_step": "Optimizer steps done.",
    "finetune_job_total_steps": "Optimizer steps of the whole job.",
    "finetune_job_progress_ratio": "Share of the steps done, 0 to 1.",
    "finetune_job_loss": "Mean training loss of the last reporting interval.",
    "finetune_job_learning_rate": "Current learning rate.",
    "finetune_job_tokens_per_second": "Real tokens a second over all workers.",
    "finetune_job_rows_per_second": "Rows a second over all workers.",
    "finetune_job_eta_seconds": "Estimated time to the end.",
    "finetune_job_checkpoint_age_seconds": "Age of the newest checkpoint.",
    "finetune_job_checkpoint_step": "Step of the newest checkpoint.",
    "finetune_job_attempts": "Sets of worker pods made so far.",
    "finetune_job_restarts": "Restarts so far.",
    "finetune_job_goodput_ratio": "Share of the workers' time that went into steps that were kept.",
}
disable_created_metrics()  # they double the series and say nothing here
METRICS_PER_JOB = 12
"""Evaluation metrics of one job and split."""


@dataclass(slots=True)
class _Series:
    """One job's values as of its last status."""

    values: dict[str, float] = field(default_factory=dict)
    evaluation: dict[tuple[str, str], float] = field(default_factory=dict)  # (split, metric)
    checkpoint_time: float | None = None
    finished: bool = False


class Metrics:
    """All series of one operator, in a registry of its own."""

    def __init__(self, *, max_jobs: int = 500, clock: Callable[[], float] | None = None) -> None:
        self.registry = CollectorRegistry()
        self._max_jobs, self._clock = max_jobs, clock or (lambda: datetime.datetime.now(datetime.UTC).timestamp())
        self._jobs: dict[Key, _Series] = {}
        registry = self.registry
        buckets = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
        self._reconciles = Histogram(
            "finetune_operator_reconcile_seconds",
            "Time of one reconcile.",
            ["outcome"],
            registry=registry,
            buckets=buckets,
        )
        self._errors = Counter(
            "finetune_operator_reconcile_errors", "Reconciles that failed, by cause.", ["cause"], registry=registry
        )
        self._requests = Counter(
            "finetune_operator_api_requests",
            "Requests to the API server; code 0: no answer.",
            ["verb", "kind", "code"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "finetune_operator_api_request_seconds",
            "Time of one request.",
            ["verb"],
            registry=registry,
            buckets=buckets,
        )
        self._reports = Counter(
            "finetune_operator_reports", "Reports received, by what became of them.", ["result"], registry=registry
        )
        self._cuts = Counter(
            "finetune_operator_connections_cut",
            "Connections to a server of ours that were ended or refused: late (deadline), or too many (address,"
            " total).",
            ["cause"],
            registry=registry,
        )
        self._watch_events = Counter(
            "finetune_operator_watch_events", "Watch events received.", ["kind"], registry=registry
        )
        self._unreadable = Counter(
            "finetune_operator_malformed_objects",
            "Objects that could not be read and were left out, each time one was seen.",
            ["kind"],
            registry=registry,
        )
        self._relists = Counter("finetune_operator_relists", "Full relists.", ["result"], registry=registry)
        self._ghosts = Counter(
            "finetune_operator_relist_corrections",
            "Objects that a relist found and the watch had missed.",
            registry=registry,
        )
        self._state: Callable[[], Iterable[Metric]] = lambda: ()
        registry.register(_Live(self))

    # ------------------------------------------------------------ the operator

    def reconciled(self, outcome: str, seconds: float) -> None:
        self._reconciles.labels("ok" if outcome == "ok" else "error").observe(seconds)
        if outcome != "ok":
            self._errors.labels(outcome).inc()

    def requested(self, verb: str, kind: str, code: int, seconds: float) -> None:
        self._requests.labels(verb, kind, str(code)).inc()
        self._request_seconds.labels(verb).observe(seconds)

    def reported(self, result: str) -> None:
        """`result` is "taken" or the cause of dropping."""
        self._reports.labels(result).inc()

    def connection_cut(self, cause: str) -> None:
        self._cuts.labels(cause).inc()

    def watched(self, kind: str) -> None:
        self._watch_events.labels(kind).inc()

    def malformed(self, kind: str) -> None:
        self._unreadable.labels(kind).inc()

    def relisted(self, result: str, corrections: int = 0) -> None:
        self._relists.labels(result).inc()
        self._ghosts.inc(corrections)

    def track(
        self,
        *,
        phases: Callable[[], dict[str, int]],
        depth: Callable[[], int],
        delayed: Callable[[], int],
        oldest: Callable[[], float],
        leading: Callable[[], bool],
        hidden: Callable[[], Iterable[str]] = tuple,
        standing_by: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """Read these at each scrape."""

        def state() -> Iterator[Metric]:
            jobs = GaugeMetricFamily("finetune_operator_jobs", "FineTuneJobs by phase.", labels=["phase"])
            counts = {phase.value: 0 for phase in Phase} | phases()  # a phase without jobs is 0, not a series that ends
            for phase, count in counts.items():
                jobs.add_metric([phase], count)
            yield jobs
            out_of_sight = GaugeMetricFamily(
                "finetune_operator_namespace_hidden",
                "1 for a namespace that is to be watched and may not be read.",
                labels=["namespace"],
            )
            others = GaugeMetricFamily(
                "finetune_operator_standing_by",
                "1 for a namespace that another operator works on; empty: for all.",
                labels=["namespace"],
            )
            for family, found in ((out_of_sight, hidden()), (others, standing_by())):
                for namespace in found:
                    family.add_metric([namespace], 1)
                yield family
            for name, text, value in (
                ("queue_depth", "Keys that wait for a worker.", depth()),
                ("queue_delayed", "Keys that wait for their time.", delayed()),
                ("queue_oldest_seconds", "How long the oldest key has waited.", oldest()),
                ("leading", "1 while this operator may write.", float(leading())),
            ):
                yield GaugeMetricFamily(f"finetune_operator_{name}", text, value=value)

        self._state = state

    # ------------------------------------------------------------ the jobs

    def observe(self, key: Key, status: Status, now: float) -> None:
        """Take the training series over from a status."""
        finished = status.phase in ("Succeeded", "Failed")
        if key not in self._jobs and not self._make_room(finished):
            return
        series = _Series(finished=finished)
        progress = status.progress
        if progress:
            rates = (
                {}
                if finished
                else {
                    "finetune_job_tokens_per_second": progress.tokens_per_second,
                    "finetune_job_rows_per_second": progress.rows_per_second,
                    "finetune_job_eta_seconds": progress.eta_seconds,
                }
            )
            self._take(
                series,
                finetune_job_step=progress.step,
                finetune_job_total_steps=progress.total_steps,
                finetune_job_progress_ratio=progress.percent / 100,
                finetune_job_loss=progress.loss,
                finetune_job_learning_rate=progress.learning_rate,
                **rates,
            )
        self._take(
            series,
            finetune_job_attempts=status.attempt,
            finetune_job_restarts=status.restarts,
            finetune_job_goodput_ratio=status.goodput,
        )
        if status.checkpoints:
            newest = max(status.checkpoints, key=lambda c: c.step)
            self._take(series, finetune_job_checkpoint_step=newest.step)
            series.checkpoint_time = None if finished else seconds(newest.time)
        for split, metrics in (("validation", status.evaluation), ("test", status.test)):
            for name, value in sorted((metrics or {}).items())[:METRICS_PER_JOB]:
                series.evaluation[split, name] = value
        self._jobs[key] = series

    def forget(self, key: Key) -> None:
        """The job is deleted: so are its series."""
        self._jobs.pop(key, None)

    def _make_room(self, finished: bool) -> bool:
        """Whether one more job has room; a finished one makes room for one that runs."""
        if len(self._jobs) < self._max_jobs:
            return True
        if finished:
            return False
        victim = next((key for key, series in self._jobs.items() if series.finished), None)
        if victim is None:
            return False
        del self._jobs[victim]
        return True

    @staticmethod
    def _take(series: _Series, **values: float | None) -> None:
        series.values.update({name: float(value) for name, value in values.items() if value is not None})

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape."""
        yield from self._state()
        now = self._clock()
        families = {name: GaugeMetricFamily(name, text, labels=["namespace", "name"]) for name, text in _GAUGES.items()}
        evaluation = GaugeMetricFamily(
            "finetune_job_metric", "Evaluation metrics.", labels=["namespace", "name", "split", "metric"]
        )
        for key, series in self._jobs.items():
            for name, value in series.values.items():
                families[name].add_metric([key.namespace, key.name], value)
            if series.checkpoint_time is not None:
                age = max(0.0, now - series.checkpoint_time)
                families["finetune_job_checkpoint_age_seconds"].add_metric([key.namespace, key.name], age)
            for (split, metric), value in series.evaluation.items():
                evaluation.add_metric([key.namespace, key.name, split, metric], value)
        yield from families.values()
        yield evaluation
        yield GaugeMetricFamily(
            "finetune_operator_jobs_with_series", "Jobs that have training series.", value=len(self._jobs)
        )


class _Live(Collector):
    """Hands each scrape on; registering it asks for nothing."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        return self._metrics.collect()


def metrics_app(metrics: Metrics, why_not_ready: Callable[[], str]) -> web.Application:
    """GET /metrics, and GET /readyz: 200 once this operator holds a lease and has seen everything, else 503 and why."""

    async def scrape(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def readyz(request: web.Request) -> web.Response:
        why = why_not_ready()
        return web.Response(status=503, text=f"{why}\n") if why else web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", scrape), web.get("/readyz", readyz)])
    return app
