"""What status shows: merged reports, ready strings, goodput, silence; bounded and steady."""

from __future__ import annotations

import dataclasses

import pytest

from fakecluster.planning import SPEC, START, Cluster
from finetune_api.base import parse
from finetune_api.job import Spec
from finetune_api.report import Outcome, Report, Stage
from finetune_api.status import (
    ATTEMPTS,
    AttemptStatus,
    Best,
    Checkpoint,
    Failure,
    OutputStatus,
    Point,
    Progress,
    Resolved,
    Status,
)
from finetune_api.status_budget import STATUS_BYTES, size
from finetune_api.times import rfc3339, seconds
from finetune_operator.job.children import objects
from finetune_operator.job.decide import plan
from finetune_operator.job.status.display import duration, model_name, number
from finetune_operator.job.status.goodput import goodput
from finetune_operator.job.status.merge import status_at_end, status_from_report, with_outcome, with_report
from finetune_operator.plan import names


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0s"),
        (45.4, "45s"),
        (59.6, "1m00s"),
        (190, "3m10s"),
        (3600, "1h00m"),
        (7500, "2h05m"),
        (3 * 86400 + 4 * 3600, "3d04h"),
        (-5, "0s"),
    ],
)
def test_durations(value: float, text: str) -> None:
    assert duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1127, "0.113"),
        (1.2, "1.200"),
        (37.123, "37.1"),
        (53100.0, "5.31e+04"),
        (1.2e-5, "1.2e-05"),
        (0.0, "0.000"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://models/minilm/", "minilm"),
        ("hf://org/SmolLM2-135M", "SmolLM2-135M"),
        ("s3://m/" + "x" * 99, "x" * 62 + "…"),
    ],
)
def test_model_names(uri: str, name: str) -> None:
    assert model_name(uri) == name


@pytest.mark.parametrize("moment", [0.0, 1_800_000_000.0, 4_000_000_000.0])
def test_times_survive(moment: float) -> None:
    assert seconds(rfc3339(moment)) == moment
    assert seconds("2027-01-15T08:00:00.123456Z") == 1_800_000_000.123456


def entry(number: int, **fields: object) -> AttemptStatus:
    known = {"start_time": rfc3339(START), "end_time": rfc3339(START + 100)}
    return AttemptStatus(number=number, **known | fields)  # type: ignore[arg-type]


def test_goodput_leaves_out_queues_and_counts_lost_steps() -> None:
    assert goodput(()) is None
    assert goodput((entry(1),)) is None, "no step was made yet"
    assert goodput((entry(1, seconds={"train": 80.0, "start": 20.0}),)) == 0.8
    assert goodput((entry(1, seconds={"queue": 50.0, "train": 25.0, "start": 5.0}),)) == 0.5
    lost = entry(1, seconds={"train": 80.0, "start": 20.0}, from_step=0, last_step=40, lost_steps=20)
    assert goodput((lost,)) == 0.4
    assert goodput((entry(2, end_time=None, seconds={"train": 100.0}), lost)) == 0.7


def test_a_report_replaces_what_it_says_and_leaves_the_rest() -> None:
    old = Status(
        evaluation={"loss": 1.0},
        resolved=Resolved(total_steps=10, learning_rate=0.1),
        best=Best(step=1, metric="loss", value=1.0),
    )
    report = Report(
        job_id="j",
        attempt=1,
        sequence=0,
        time=0.0,
        stage=Stage.TRAINING,
        progress=Progress(step=3),
        resolved=Resolved(precision="bf16"),
    )
    new = with_report(old, report, START)
    assert new.progress == Progress(step=3)
    assert new.evaluation == {"loss": 1.0}
    assert new.best == old.best
    assert new.resolved == Resolved(total_steps=10, learning_rate=0.1, precision="bf16")
    assert with_report(new, report, START) == new


def test_the_last_word_adds_a_checkpoint_and_never_goes_back() -> None:
    def checkpoint(step: int) -> Checkpoint:
        return Checkpoint(step=step, uri=f"s3://o/ckpt/1/{step}", bytes=1, digest="d", time=rfc3339(START))

    old = Status(progress=Progress(step=50, total_steps=100, percent=50.0), checkpoints=(checkpoint(40),))
    said = Outcome(job_id="j", attempt=1, exit_code=40, step=60, checkpoint=checkpoint(60))
    new = with_outcome(old, said)
    assert new.progress
    assert (new.progress.step, new.progress.percent) == (60, 60.0)
    assert [x.step for x in new.checkpoints] == [60, 40]
    assert with_outcome(new, said) == new
    assert with_outcome(new, Outcome(job_id="j", attempt=1, exit_code=40, step=55)) == new


def test_a_checkpoint_written_on_the_way_out_is_seen_though_its_report_was_lost() -> None:
    c = Cluster()
    c.prepare()
    c.train(40, resumed_from_step=0, checkpoints=(c.checkpoint(30),))
    c.job["spec"]["suspend"] = True
    c.reconcile()
    c.exit(c.pod(0), 40, step=44, checkpoint=c.checkpoint(44))
    c.reconcile()
    c.sweep()
    c.reconcile()
    assert c.phase == "Suspended"
    assert [x.step for x in c.status.checkpoints] == [44, 30]
    assert c.status.progress
    assert c.status.progress.step == 44
    assert c.status.attempts[0].last_step == 44


def test_the_local_run_shows_the_same_status() -> None:
    spec = parse(Spec, SPEC)
    status = status_from_report(None, None, spec, now=START)
    assert (status.phase, status.start_time) == ("Pending", rfc3339(START))

    def report(stage: Stage, **fields: object) -> Report:
        return Report(job_id="j", attempt=1, sequence=0, time=0.0, stage=stage, **fields)  # type: ignore[arg-type]

    for stage, phase in [
        (Stage.PREPARING, "Validating"),
        (Stage.LOADING, "Starting"),
        (Stage.TRAINING, "Running"),
        (Stage.EXPORTING, "Evaluating"),
    ]:
        status = status_from_report(
            report(stage, progress=Progress(step=5, total_steps=10, percent=50.0)), status, spec, now=START + 5
        )
        assert status.phase == phase
    assert status.display
    assert status.display.progress == "50%"
    done = status_at_end(status, spec, failure=None, said=None, now=START + 60)
    assert (done.phase, done.output) == ("Succeeded", OutputStatus(uri="s3://models/spam-filter"))
    assert {x.type: x.status for x in done.conditions} == {"Validated": "True", "Running": "False", "Succeeded": "True"}
    said = Outcome(job_id="j", attempt=1, exit_code=0, step=10)
    last = status_at_end(status, spec, failure=None, said=said, now=START + 60)
    assert last.progress
    assert last.progress.step == 10
    failed = status_at_end(status, spec, failure=Failure(reason="InvalidData", message="m"), said=None, now=START + 60)
    assert (failed.phase, failed.reason, failed.message) == ("Failed", "InvalidData", "m")
    assert {x.type: x.status for x in failed.conditions}["Failed"] == "True"


def test_silence_is_shown_and_ends_with_the_next_report() -> None:
    c = Cluster()
    c.prepare()
    c.train(10)
    c.wait(59)
    found = c.reconcile()
    assert found.requeue_after == 1
    assert not [x for x in c.status.conditions if x.type == "ReportsDegraded"]
    c.wait(1)
    c.reconcile()
    condition = next(x for x in c.status.conditions if x.type == "ReportsDegraded")
    assert condition.status == "True"
    assert c.phase == "Running", "training goes on"
    before = c.status
    c.wait(1000)
    c.reconcile()
    assert c.status == before, "nothing to say anew"
    c.say(50)
    c.reconcile()
    assert next(x.status for x in c.status.conditions if x.type == "ReportsDegraded") == "False"
    assert c.notes.count("ReportsDegraded") == 1


def test_an_operator_that_was_away_does_not_call_its_own_absence_silence() -> None:
    c = Cluster()
    c.prepare()
    c.train(10)
    c.wait(600)
    c.report, c.received, c.listening_since = None, None, c.now
    c.reconcile()
    assert not [x for x in c.status.conditions if x.type == "ReportsDegraded"]
    assert c.phase == "Running", "what was known is not forgotten"
    c.wait(60)
    c.reconcile()
    assert [x.status for x in c.status.conditions if x.type == "ReportsDegraded"] == ["True"]


def test_pods_that_wait_are_not_silent() -> None:
    c = Cluster()
    c.prepare()
    c.control()
    c.wait(1000)
    c.reconcile()
    assert not [x for x in c.status.conditions if x.type == "ReportsDegraded"]


def test_a_new_report_ca_reaches_workers_once() -> None:
    c = Cluster()
    c.prepare()
    c.train(10)
    c.settings = dataclasses.replace(c.settings, report_ca="NEW")
    name = c.jobs(names.WORKER)[0]["metadata"]["name"]
    c.reconcile()
    assert c.objects["ConfigMap", name]["data"]["ca.crt"] == "NEW"
    assert c.objects["ConfigMap", name]["data"]["run.json"]
    assert c.objects["Job", name]["metadata"]["annotations"][names.CA_DIGEST] == objects.ca_digest("NEW")
    assert not plan(c.observed()).patch


def test_conditions_move_their_time_only_with_their_status() -> None:
    c = Cluster()
    c.prepare()
    c.train(10)
    before = {x.type: x.last_transition_time for x in c.status.conditions}
    c.wait(30)
    c.job["metadata"]["generation"] = 2
    c.say(20)
    c.reconcile()
    assert {x.type: x.last_transition_time for x in c.status.conditions} == before
    assert c.status.observed_generation == 2
    assert {x.observed_generation for x in c.status.conditions if x.type == "Running"} == {2}


def test_seconds_go_by_what_they_went_into() -> None:
    c = Cluster()
    c.prepare()
    c.control()
    c.wait(7)
    c.start(c.pod(0), c.pod(1))
    for pod in (c.pod(0), c.pod(1)):
        pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] = rfc3339(c.now + 3)
    c.say(10, resumed_from_step=0, seconds={"import": 4.0, "train": 30.0})
    c.reconcile()
    assert c.status.attempts[0].seconds == {"queue": 7.0, "start": 3.0, "import": 4.0, "train": 30.0}
    assert c.status.goodput == round(30 / 37, 4)


def test_the_status_stays_within_its_bounds_after_many_attempts() -> None:
    c = Cluster({"restartPolicy": {"maxRestarts": 1000}})
    c.prepare()
    history = tuple(
        Point(step=i, loss=0.123456789, metrics={"macro-f1": 0.123456789, "eval_loss": 0.123456789}) for i in range(128)
    )
    for step in range(10, 250, 10):
        checkpoints = tuple(c.checkpoint(s) for s in range(step, max(0, step - 120), -10))
        c.train(step, total=1000, resumed_from_step=step - 10, checkpoints=checkpoints, history=history)
        for pod in (c.pod(0), c.pod(1)):
            c.exit(pod, 44)
        c.control()
        c.control()
        c.reconcile()
    assert c.status.restarts == 24
    assert 1 <= len(c.status.attempts) <= ATTEMPTS
    assert size(c.status) <= STATUS_BYTES
    assert plan(c.observed()).status == c.status
