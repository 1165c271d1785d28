"""The prepare step: everything is checked before a worker is asked for, and its findings land in status."""

from __future__ import annotations

import dataclasses

import pytest

from fakecluster.planning import START, Cluster
from finetune_api.exits import BY_CODE, Reason, Retry
from finetune_api.report import Problem, Stage
from finetune_api.status import DataProfile, Finding, Resolved
from finetune_operator.job.observed import Rival
from finetune_operator.plan import names

FINDING = Finding(
    kind="InvalidJson", count=1, file="s3://mail/train/a.jsonl", line=37, message="the line ends in a string"
)
PROFILE = DataProfile(train_rows=59, bad_rows=1, findings=(FINDING,))


def begun() -> Cluster:
    c = Cluster()
    c.reconcile()
    c.control()
    c.start(c.pod(0, names.PREPARE))
    c.reconcile()
    return c


def end(c: Cluster, code: int, **fields: object) -> None:
    c.exit(c.pod(0, names.PREPARE), code, **fields)  # type: ignore[arg-type]
    c.control()
    c.control()
    c.reconcile()


@pytest.mark.parametrize("code", [code for code, row in BY_CODE.items() if row.retry is Retry.NEVER])
def test_a_users_mistake_fails_the_job_and_no_worker_was_ever_made(code: int) -> None:
    c = begun()
    problem = Problem(
        reason=BY_CODE[code].reason, message="a.jsonl:37: not JSON", hint="mend it", field="spec.data.train.uri"
    )
    end(c, code, problem=problem, data=PROFILE)
    status = c.status
    assert status.phase == "Failed"
    assert status.failure
    assert (
        status.failure.reason,
        status.failure.message,
        status.failure.hint,
        status.failure.field,
        status.failure.exit_code,
    ) == (BY_CODE[code].reason, "a.jsonl:37: not JSON", "mend it", "spec.data.train.uri", code)
    assert status.failure.rank is None
    assert status.data
    assert status.data.findings == (FINDING,)
    assert {x.type: x.status for x in status.conditions} == {
        "Validated": "False",
        "Running": "False",
        "Succeeded": "False",
        "Failed": "True",
    }
    assert not c.jobs(names.WORKER)
    assert c.notes == ["Failed"]


def test_findings_of_the_report_are_kept_where_the_last_word_had_no_room() -> None:
    c = begun()
    c.say(stage=Stage.PREPARING, component=names.PREPARE, data=PROFILE, resolved=Resolved(total_steps=6))
    end(c, 0, data=PROFILE.model_copy(update={"findings": ()}), resolved=Resolved(total_steps=6))
    assert c.status.data == PROFILE
    assert c.status.resolved == Resolved(total_steps=6)


def test_the_last_word_alone_is_enough_after_the_operator_was_away() -> None:
    c = begun()
    end(c, 0, data=PROFILE, resolved=Resolved(total_steps=6, micro_batch_size=4))
    assert c.status.data == PROFILE
    assert c.status.resolved == Resolved(total_steps=6, micro_batch_size=4)
    assert c.jobs(names.WORKER)


def test_what_was_found_out_stays_when_the_pod_and_the_report_are_gone() -> None:
    c = begun()
    end(c, 0, data=PROFILE, resolved=Resolved(total_steps=6))
    c.report = None
    c.pods.clear()
    for job in c.jobs(names.PREPARE):
        del c.objects["Job", job["metadata"]["name"]]
    c.reconcile()
    assert c.status.data == PROFILE
    assert len(c.jobs(names.PREPARE)) == 0, "what has passed is never made again"


def test_storage_that_does_not_answer_is_tried_again_within_the_budget() -> None:
    c = begun()
    for attempt in range(1, 6):
        end(c, 42)
        c.wait(300)
        c.reconcile()
        assert c.jobs(names.PREPARE)[-1]["metadata"]["name"].endswith(f"-p{attempt + 1}")
        assert len(c.jobs(names.PREPARE)) == 2, "the last two stay for their logs"
        c.control()
        c.start(c.pod(0, names.PREPARE))
        c.reconcile()
    end(c, 42)
    assert c.status.failure
    assert c.status.failure.reason == Reason.TOO_MANY_RESTARTS
    assert "StorageUnavailable" in c.status.failure.message


def test_an_evicted_prepare_pod_does_not_count() -> None:
    c = Cluster({"restartPolicy": {"maxRestarts": 0}})
    c.reconcile()
    c.control()
    pod = c.pod(0, names.PREPARE)
    c.start(pod)
    c.disrupt(pod, "TerminationByKubelet")
    end(c, 137, outcome=False)
    assert c.jobs(names.PREPARE)[-1]["metadata"]["name"].endswith("-p2")
    c.control()
    c.start(c.pod(0, names.PREPARE))
    end(c, 0)
    assert c.jobs(names.WORKER)


def test_an_older_job_owns_the_output() -> None:
    rival = Rival("first", START - 100, "x", active=True)
    c = Cluster()
    c.rivals = (rival, Rival("second", START - 50, "y", active=True))
    c.reconcile()
    status = c.status
    assert status.phase == "Failed"
    assert status.failure
    assert status.failure.reason == Reason.OUTPUT_IN_USE
    assert "FineTuneJob first" in status.failure.message
    assert status.failure.field == "spec.output.uri"
    assert not c.created


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ("s3://models/spam-filter", "s3://models/spam-filter is in use by"),
        ("s3://models", "s3://models/spam-filter lies within s3://models, which is in use by"),
        ("s3://models/spam-filter/a", "s3://models/spam-filter holds s3://models/spam-filter/a, which is in use by"),
    ],
)
def test_an_output_within_an_older_jobs_output_is_refused_and_says_how_they_meet(theirs: str, words: str) -> None:
    c = Cluster()
    c.rivals = (Rival("first", START - 100, "x", active=True, uri=theirs),)
    c.reconcile()
    assert c.status.failure
    assert c.status.failure.reason == Reason.OUTPUT_IN_USE
    assert f"{words} the older FineTuneJob first" in c.status.failure.message


@pytest.mark.parametrize(
    "rival",
    [
        Rival("later", START + 5, "x", active=True),
        Rival("ended", START - 5, "x", active=False),
        Rival("twin", START, "ffff", active=True),  # same second: the UID decides, for both alike
    ],
)
def test_later_and_finished_jobs_do_not_matter(rival: Rival) -> None:
    c = Cluster()
    c.rivals = (rival,)
    c.reconcile()
    assert c.phase == "Pending"
    assert c.created


def test_of_two_jobs_of_one_second_exactly_one_goes_on() -> None:
    c = Cluster()
    c.rivals = (Rival("twin", START, "0000", active=True),)
    c.reconcile()
    assert c.phase == "Failed"


def test_a_spec_that_cannot_be_read_fails_before_anything_is_made() -> None:
    c = Cluster({"output": {"uri": "file:///tmp/out"}})
    c.reconcile()
    status = c.status
    assert status.failure
    assert (status.phase, status.failure.reason, status.failure.field) == (
        "Failed",
        Reason.INVALID_CONFIG,
        "spec.output.uri",
    )
    assert "file://" in status.failure.message
    assert not c.created
    before = c.status
    c.wait(10)
    c.reconcile()
    assert c.status == before


def test_a_running_job_whose_spec_a_newer_operator_wrote_is_left_alone() -> None:
    c = Cluster()
    c.prepare()
    c.train(10)
    c.job["spec"]["task"] = "speech-recognition"
    made, deleted = len(c.created), len(c.deleted)
    c.reconcile()
    assert c.phase == "Running"
    assert (len(c.created), len(c.deleted)) == (made, deleted)
    assert "cannot read the spec" in (c.status.message or "")


def test_fields_of_a_newer_version_are_named_and_otherwise_ignored() -> None:
    c = Cluster({"hyperdrive": True})
    c.reconcile()
    condition = next(x for x in c.status.conditions if x.type == "FieldsIgnored")
    assert condition.status == "True"
    assert "spec.hyperdrive" in condition.message
    assert c.created


def test_the_prepare_step_waits_for_the_pod_of_a_deleted_try() -> None:
    c = begun()
    c._delete("Job", c.jobs()[0]["metadata"]["name"])
    c.reconcile()
    assert not c.jobs()
    c.sweep()
    c.reconcile()
    assert len(c.jobs(names.PREPARE)) == 1


def test_reports_of_the_prepare_step_come_before_the_workers() -> None:
    """A prepare step of attempt 1 must not hide the reports of the workers' attempt 1."""
    c = begun()
    c.say(stage=Stage.FINISHED, component=names.PREPARE)
    end(c, 0)
    c.control()
    c.start(c.pod(0), c.pod(1))
    c.reconcile()
    assert c.phase == "Starting", "the prepare step's report says nothing of the workers"
    assert dataclasses.replace(c.observed(), report=None).report is None


def test_hints_about_resources_name_those_of_the_prepare_step() -> None:
    c = begun()
    end(c, 137, reason="OOMKilled", outcome=False)
    assert c.status.failure
    assert (c.status.failure.reason, c.status.failure.hint) == (
        Reason.OOM_KILLED,
        "Raise spec.prepare.resources.limits.memory.",
    )
    c = Cluster()
    c.reconcile()
    c.control()
    c.pod(0, names.PREPARE)["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    ]
    c.reconcile()
    assert "spec.prepare.resources" in (c.status.message or "")
    assert "spec.workers" not in (c.status.message or "")


def test_a_prepare_step_that_fails_twice_at_the_same_place_is_not_tried_again() -> None:
    c = begun()
    problem = Problem(reason=Reason.INTERNAL_ERROR, message="IndexError: 7 (in a.py:3)", place="IndexError@aaa")
    end(c, 44, problem=problem)
    assert c.jobs(names.PREPARE)[-1]["metadata"]["name"].endswith("-p2")
    c.control()
    c.start(c.pod(0, names.PREPARE))
    c.reconcile()
    end(c, 44, problem=problem)
    assert c.status.failure
    assert c.status.failure.reason == Reason.INTERNAL_ERROR
    assert "IndexError: 7" in c.status.failure.message
    assert len(c.jobs(names.PREPARE)) == 2


def test_a_passed_step_that_said_nothing_but_its_end_is_enough() -> None:
    c = Cluster()
    pod = c.check()
    c.exit(pod, 0, outcome=False)
    c.control()
    c.reconcile()
    validated = next(x for x in c.status.conditions if x.type == "Validated")
    assert (validated.status, validated.message) == ("True", "storage, model and data are in order")


def test_rows_that_are_all_good_are_not_counted_as_bad() -> None:
    c = Cluster()
    c.check()
    c.say(stage=Stage.PREPARING, component=names.PREPARE, data=PROFILE.model_copy(update={"bad_rows": 0}))
    c.exit(c.pod(0, names.PREPARE), 0)
    c.control()
    c.reconcile()
    assert "bad rows" not in next(x.message for x in c.status.conditions if x.type == "Validated")


def test_workers_prove_that_a_step_of_which_nothing_is_left_has_passed() -> None:
    c = Cluster()
    c.prepare()
    for job in c.jobs(names.PREPARE):
        c.pods = {name: pod for name, pod in c.pods.items() if pod not in c.pods_of(job)}
        del c.objects["Job", job["metadata"]["name"]]
    status = c.job["status"]
    status["conditions"] = [x for x in status["conditions"] if x["type"] != "Validated"]
    del status["image"]
    c.reconcile()
    assert next(x.status for x in c.status.conditions if x.type == "Validated") == "True"
    assert c.status.image is None, "what ran is not known"
    assert not c.jobs(names.PREPARE)
