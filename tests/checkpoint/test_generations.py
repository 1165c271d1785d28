"""One writer at a time: generations are claimed once, older writers are fenced, and what they wrote too late does not
count.
"""

from __future__ import annotations

import json
import threading

import pytest

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.checkpoint import Checkpointer, Generation
from finetune_trainer.storage import Location
from support.checkpoints import faulty, own, same, state


def _reason(call) -> Reason:
    with pytest.raises(JobError) as caught:
        call()
    return caught.value.reason


def test_each_process_group_takes_the_next_generation_and_records_where_it_resumed(start, out: Location) -> None:
    first = start()
    assert first.claim().number == 1
    first.save(state(5), wait=True)
    second = start(attempt=2)
    assert second.claim().number == 2
    record = json.loads(out.get("generations/2.json"))
    assert (record["attempt"], record["resumeFrom"]) == (2, {"generation": 1, "step": 5})
    assert json.loads(out.get("generations/1.json"))["resumeFrom"] is None


@pytest.mark.parametrize("racers", [2, 8])
def test_of_writers_racing_for_a_generation_one_wins_and_the_others_are_fenced(
    anywhere: tuple[Location, RunConfig], racers: int
) -> None:
    out, settings = anywhere
    barrier = threading.Barrier(racers)
    met = threading.local()

    def wait_before_the_claim(operation: str, key: str, done: bool) -> None:
        if operation == "put" and "generations/" in key and not done and not hasattr(met, "once"):
            met.once = True
            barrier.wait(30)

    results: list[Generation | JobError] = []

    def race() -> None:
        try:
            results.append(Checkpointer(settings, faulty(out, wait_before_the_claim), 0).claim())
        except JobError as error:
            results.append(error)

    threads = [threading.Thread(target=race) for _ in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    winners = [r for r in results if isinstance(r, Generation)]
    losers = [r for r in results if isinstance(r, JobError)]
    assert [w.number for w in winners] == [1]
    assert [e.reason for e in losers] == [Reason.FENCED] * (racers - 1)
    assert [info.key for info in out.list("generations/")] == ["generations/1.json"]


def test_a_newer_attempt_that_loses_the_race_to_an_older_one_takes_the_generation_after_it(
    start, out: Location
) -> None:
    old, raced = start(attempt=1), []

    def older_is_faster(operation: str, key: str, done: bool) -> None:
        if operation == "put" and key.endswith("generations/1.json") and not raced:
            raced.append(old.claim())

    new = start(faulty(out, older_is_faster), attempt=2)
    assert new.claim().number == 2
    assert _reason(lambda: old.save(state(1), wait=True)) is Reason.FENCED


def test_an_older_attempt_that_starts_late_is_fenced_at_once(start) -> None:
    start(attempt=3).claim()
    assert _reason(start(attempt=2).claim) is Reason.FENCED


def test_the_writer_of_an_older_generation_is_fenced_at_its_next_save_and_at_close(start, out: Location) -> None:
    old = start()
    old.claim()
    old.save(state(5), wait=True)
    new = start()
    new.claim()
    assert _reason(old.close) is Reason.FENCED
    old.save(state(6))  # in the background: the next call tells
    assert _reason(lambda: old.save(state(7), wait=True)) is Reason.FENCED
    assert out.find("ckpt/1/6/MANIFEST.json") is None
    new.save(state(6), wait=True)
    new.close()


def test_what_an_older_writer_commits_past_the_resume_step_is_ignored_and_swept(start, out: Location) -> None:
    old = start()
    old.claim()
    old.save(state(5), wait=True)
    new_began = []

    def new_claims_in_between(operation: str, key: str, done: bool) -> None:
        if operation == "put" and key.endswith("ckpt/1/10/MANIFEST.json") and not done:
            new = start(attempt=2)
            assert new.claim().resume.step == 5
            new_began.append(new)

    old._out = faulty(out, new_claims_in_between)
    old.save(state(10), wait=True)  # it passed the fence before the claim, so its manifest is written
    assert _reason(lambda: old.save(state(11), wait=True)) is Reason.FENCED
    assert out.find("ckpt/1/10/MANIFEST.json") is not None
    assert out.find("ckpt/1/5/MANIFEST.json") is not None

    (new,) = new_began
    third = start(attempt=3)
    assert (third.claim().resume.generation, third.latest().step) == (1, 5)
    assert _reason(lambda: new.save(state(9), wait=True)) is Reason.FENCED
    third.save(state(8), wait=True)
    assert {info.key.split("/")[1] + "/" + info.key.split("/")[2] for info in out.list("ckpt/")} == {"1/5", "3/8"}
    reader = start(attempt=4)
    assert same(reader.load(reader.claim().resume), state(8))


def test_a_zombie_that_was_overtaken_deletes_nothing(start, out: Location) -> None:
    old = start(checkpoints={"keepLast": 1, "keepBest": False})
    old.claim()
    old.save(state(1), wait=True)

    def overtaken_after_commit(operation: str, key: str, done: bool) -> None:
        if operation == "put" and key.endswith("ckpt/1/2/MANIFEST.json") and not done:
            start(attempt=2).claim()  # resumes from step 1, which the old writer is about to collect

    old._out = faulty(out, overtaken_after_commit)
    assert _reason(lambda: old.save(state(2), wait=True)) is Reason.FENCED
    assert start(attempt=3).claim().resume.step == 1


def test_resuming_goes_on_along_a_long_chain_with_gaps(start) -> None:
    step = 0
    for attempt in range(1, 12):
        group = start(attempt=attempt, checkpoints={"keepLast": 3})
        resume = group.claim().resume
        assert (resume.step if resume else 0) == step
        if attempt % 3:  # every third group dies before it saves anything
            step += 1
            group.save(state(step), wait=True)


def test_an_unreadable_generation_record_does_not_lose_the_checkpoints_before_it(start, out: Location) -> None:
    first = start()
    first.claim()
    first.save(state(5), wait=True)
    start(attempt=2).claim()
    out.put("generations/2.json", b"{torn")
    third = start(attempt=3)
    assert (third.claim().number, third.latest().step) == (3, 5)


def test_the_output_of_another_job_is_not_touched(start, out: Location) -> None:
    own(out, "uid-9")
    with pytest.raises(JobError, match="names another job, which") as caught:
        start().claim()
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    out.put("job.json", b"not json")
    assert _reason(start().claim) is Reason.OUTPUT_IN_USE
    out.delete(["job.json"])
    with pytest.raises(JobError, match="is gone"):
        start().claim()
    assert list(out.list()) == []


def test_a_claim_whose_answer_was_lost_is_still_ours(start, out: Location) -> None:
    def lose_the_answer(operation: str, key: str, done: bool) -> None:
        if operation == "put" and done and "generations/" in key:
            raise FileExistsError(key)  # what a retry of the very same request hears

    assert start(faulty(out, lose_the_answer)).claim().number == 1
