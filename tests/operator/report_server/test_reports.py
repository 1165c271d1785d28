"""The report server: only a live pod of that very job is heard, only its latest word counts, and writes are few."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest

from fakecluster.api import Call, FakeApi
from fakecluster.desk import OTHER, PATH, UID, Desk
from fakecluster.driver import KEY, NAMESPACE, child
from fakecluster.objects import Refusal
from finetune_api.report import Report, Stage
from finetune_operator.kube.kinds import FINETUNE_JOB, JOB, POD
from finetune_operator.report_server.server import BODY_BYTES, BURST, PEER_BURST

# ------------------------------------------------------------------ who is heard


async def test_a_live_pod_of_the_job_is_heard(desk: Desk) -> None:
    assert await desk.send(7) == (200, "taken")
    report = desk.taken()
    assert report
    assert (report.sequence, report.stage) == (7, "training")
    assert desk.counted("taken") == 1


@pytest.mark.parametrize("token", [None, "", "unknown"])
async def test_no_token_or_an_unknown_one_is_refused(desk: Desk, token: str | None) -> None:
    assert (await desk.send(token=token))[0] == 401
    assert desk.taken() is None


async def test_a_token_for_another_audience_is_refused(desk: Desk) -> None:
    desk.let_in("api", "https://kubernetes.default.svc", "p-spam-filter")
    assert await desk.send(token="api") == (401, "bad-token")


async def test_another_jobs_pod_is_refused_even_with_a_token_for_this_job(desk: Desk) -> None:
    assert await desk.send(token="others") == (401, "bad-token")  # its audience is the other job
    desk.let_in("forged", UID, "p-other")
    assert await desk.send(token="forged") == (403, "foreign-pod")


async def test_a_pod_that_only_carries_our_labels_is_refused(desk: Desk) -> None:
    desk.store.put(POD, desk.pod("impostor", UID, "some-replica-set"))
    desk.let_in("impostor", UID, "impostor")
    assert await desk.send(token="impostor") == (403, "foreign-pod")


async def test_a_pod_of_another_namespace_is_refused(desk: Desk) -> None:
    desk.let_in("abroad", UID, "p-spam-filter", namespace="elsewhere")
    assert await desk.send(token="abroad") == (403, "foreign-pod")


async def test_a_pod_that_has_ended_or_is_gone_is_refused_though_its_token_is_cached(desk: Desk) -> None:
    assert (await desk.send(1))[0] == 200
    ended = desk.pod("p-spam-filter", UID, "j-spam-filter", version=9)
    ended["status"] = {"phase": "Failed"}
    desk.store.put(POD, ended)
    assert await desk.send(2) == (403, "dead-pod")
    desk.store.drop(POD, "p-spam-filter")
    assert await desk.send(3) == (403, "foreign-pod")


async def test_a_pod_that_is_being_deleted_may_still_report_its_checkpoint(desk: Desk) -> None:
    leaving = desk.pod("p-spam-filter", UID, "j-spam-filter", version=9)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    desk.store.put(POD, leaving)
    assert await desk.send(2) == (200, "taken")


async def test_a_report_about_another_job_is_refused(desk: Desk) -> None:
    assert await desk.send(job_id=OTHER) == (403, "foreign-job")


async def test_nobody_learns_whether_a_job_exists(desk: Desk) -> None:
    assert await desk.send(path=PATH.replace("spam-filter", "nothing")) == (401, "bad-token")


async def test_a_standby_operator_takes_nothing(desk: Desk) -> None:
    desk.leading = False
    assert await desk.send() == (503, "not-leading")


async def test_an_api_server_that_cannot_judge_is_no_verdict_and_nothing_is_remembered(desk: Desk) -> None:
    def down(call: Call) -> None:
        if call.plural == "tokenreviews":
            raise Refusal(500, "InternalError", "etcd is away")

    desk.api.faults.append(down)
    assert await desk.send() == (503, "unverified")
    desk.api.faults.clear()
    assert await desk.send() == (200, "taken")


async def test_a_verdict_is_kept_for_a_minute_and_not_longer(desk: Desk) -> None:
    def reviews() -> int:
        return sum(call.plural == "tokenreviews" for call in desk.api.calls)

    for sequence in range(5):
        await desk.send(sequence)
    assert reviews() == 1
    desk.api.tokens.clear()  # the token is revoked
    desk.now += 61
    assert await desk.send(9) == (401, "bad-token")
    assert reviews() == 2


# ------------------------------------------------------------------ what counts


async def test_late_and_repeated_reports_are_dropped(desk: Desk) -> None:
    assert await desk.send(5) == (200, "taken")
    assert await desk.send(5) == (409, "late")
    assert await desk.send(4) == (409, "late")
    assert await desk.send(6) == (200, "taken")
    assert desk.counted("late") == 2


async def test_an_older_attempts_pod_is_late_once_a_newer_attempt_was_made(desk: Desk) -> None:
    desk.store.put(JOB, child("Job", "", UID, uid="j2", version=20, attempt=2))
    assert await desk.send(50) == (409, "late")


async def test_the_next_attempt_counts_its_sequence_anew(desk: Desk) -> None:
    await desk.send(50)
    desk.store.put(JOB, child("Job", "", UID, uid="j2", version=20, attempt=2))
    desk.store.put(POD, desk.pod("p2", UID, "j2", version=21, attempt=2))
    desk.let_in("second", UID, "p2")
    assert await desk.send(1, token="second", attempt=1) == (409, "foreign-attempt")
    assert await desk.send(1, token="second", attempt=2) == (200, "taken")


async def test_a_finished_job_takes_no_more_reports(desk: Desk) -> None:
    desk.store.put(FINETUNE_JOB, desk.resource("spam-filter", UID, 30, phase="Succeeded"))
    assert await desk.send(5) == (409, "late")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"version": 2}', b'{"version":1,"jobId":7}', b"\xff\xfe", b"[" * 50_000]
)
async def test_a_malformed_report_is_refused(desk: Desk, body: bytes) -> None:
    assert await desk.send(body=body) == (400, "malformed")
    assert desk.taken() is None


async def test_not_a_number_is_refused(desk: Desk) -> None:
    body = {
        "version": 1,
        "jobId": UID,
        "attempt": 1,
        "sequence": 1,
        "time": 1,
        "stage": "training",
        "progress": {"step": 1, "loss": float("nan")},
    }
    assert await desk.send(body=json.dumps(body).encode()) == (400, "malformed")


async def test_what_a_newer_trainer_adds_is_left_out(desk: Desk) -> None:
    body = {"version": 1, "jobId": UID, "attempt": 1, "sequence": 1, "time": 1, "stage": "training", "mood": "good"}
    assert await desk.send(body=json.dumps(body).encode()) == (200, "taken")


async def test_a_report_over_the_bound_is_refused_whether_or_not_it_says_so(desk: Desk) -> None:
    big = b"x" * (BODY_BYTES + 1)
    assert await desk.send(body=big) == (413, "too-large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * (BODY_BYTES // 10)

    async with desk.client.post(PATH, data=chunks(), headers={"Authorization": "Bearer good"}) as answer:
        assert answer.status == 413


async def test_a_job_that_reports_too_often_is_told_to_wait_and_others_are_not(desk: Desk) -> None:
    codes = [(await desk.send(i))[0] for i in range(int(BURST) + 5)]
    assert codes.count(200) >= BURST
    assert codes[-1] == 429
    other = f"/v1/namespaces/{NAMESPACE}/jobs/other/report"
    assert await desk.send(1, token="others", path=other, job_id=OTHER) == (200, "taken")


async def test_nobody_else_can_use_up_a_jobs_allowance(desk: Desk) -> None:
    for i in range(int(BURST) + 5):
        assert (await desk.send(token=f"guess-{i}"))[0] == 401
    assert await desk.send(1) == (200, "taken")


async def test_an_address_that_guesses_tokens_is_stopped_before_the_api_server_is_asked_and_known_pods_are_not(
    desk: Desk,
) -> None:
    assert await desk.send(1) == (200, "taken")
    answers = [await desk.send(token=f"guess-{i}") for i in range(int(PEER_BURST) + 50)]
    assert (401, "bad-token") in answers
    assert (429, "too-many") in answers
    asked = sum(call.plural == "tokenreviews" for call in desk.api.calls)
    assert asked <= answers.count((401, "bad-token")) + 1
    assert await desk.send(2) == (200, "taken")  # from the same address, by a token that is known


async def test_no_token_gets_into_the_log(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "canary-7f3a-token"
    desk.let_in(canary, UID, "p-other")
    await desk.send(token=canary)
    await desk.send(token=canary + "x")
    assert canary not in caplog.text


# ------------------------------------------------------------------ when it is written


@pytest.mark.looptime(start=0.0)
async def test_progress_waits_for_the_interval_and_a_new_stage_does_not(api: FakeApi) -> None:
    """Straight into the server's offer: its clock is the loop's."""
    desk = Desk(api)
    await desk.client.close()
    loop, base = asyncio.get_running_loop(), 1_000_000.0
    desk.server._clock = lambda: base + loop.time()
    pod = desk.store.pod(UID, "p-spam-filter")
    assert pod

    def offer(sequence: int, stage: str = "training") -> None:
        desk.server._offer(KEY, UID, pod, Report(job_id=UID, attempt=1, sequence=sequence, time=1, stage=Stage(stage)))

    async def written() -> float:
        key = await desk.queue.get()
        desk.store.memory(UID).status_written(base + loop.time())
        desk.queue.done(key)
        return loop.time()

    offer(0, "loading")
    assert await written() == 0  # the first one at once
    await asyncio.sleep(2)
    for sequence in range(1, 50):
        offer(sequence, "loading")
    assert await written() == pytest.approx(5)  # 49 reports, one write
    await asyncio.sleep(1.5)
    offer(60, "loading")
    offer(61, "training")
    assert await written() == pytest.approx(6.5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(desk.queue.get(), 3)
