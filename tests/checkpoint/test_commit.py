"""A checkpoint exists if and only if its manifest does: it is written last, once, and outages of the storage are waited
out.
"""

from __future__ import annotations

import gc
import threading
import weakref
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from finetune_api.exits import JobError, Reason
from finetune_trainer.checkpoint import free_memory, manifest, parts, uploader
from finetune_trainer.storage import Location
from support.checkpoints import faulty, same, state
from support.launch import until

OUTAGE = JobError(Reason.STORAGE_UNAVAILABLE, "the storage is away")


def test_the_manifest_is_written_last_and_conditionally(start, out: Location) -> None:
    order: list[str] = []
    writer = start(
        faulty(
            out,
            lambda operation, key, done: order.append(key.rpartition("/")[2]) if operation == "put" and done else None,
        )
    )
    writer.claim()
    writer.save(state(4), wait=True)
    assert order[0] == "1.json"
    assert len(order) == 5
    assert order[-1] == "MANIFEST.json"
    with pytest.raises(FileExistsError):
        out.put("ckpt/1/4/MANIFEST.json", b"again", if_none_match=True)


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_save_that_fails_at_any_write_leaves_no_checkpoint_and_the_next_one_works(
    start, out: Location, failing: int
) -> None:
    writes = 0

    def fail_once(operation: str, key: str, done: bool) -> None:
        nonlocal writes
        if operation == "put" and "ckpt/" in key and not done:
            writes += 1
            if writes == failing:
                raise OUTAGE

    writer = start(faulty(out, fail_once))
    writer.claim()
    with pytest.raises(JobError, match="away"):
        writer.save(state(4), wait=True)
    assert start().latest() is None
    writer.save(state(4), wait=True)  # the same step may be saved again
    reader = start()
    assert same(reader.load(reader.claim().resume), state(4))


def test_outages_are_waited_out_for_so_long_from_the_first_failure(
    start, out: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, failures = 1000.0, 0
    monkeypatch.setattr(uploader, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(uploader, "time", SimpleNamespace(monotonic=lambda: now))
    away = True

    def fault(operation: str, key: str, done: bool) -> None:
        nonlocal failures
        if away and operation == "put" and "ckpt/" in key:
            failures += 1
            raise OUTAGE

    writer = start(faulty(out, fault))
    writer.claim()
    writer.save(state(1))
    until(lambda: failures >= 20)  # tried again and again, however often
    now += uploader.PATIENCE_SECONDS - 1
    writer.check()
    away = False
    writer._uploader.wait()
    writer.check()
    assert [c.step for c in writer.listed()] == [1]
    now += uploader.PATIENCE_SECONDS  # the first failure is forgotten after a success
    away, failures = True, 0
    writer.save(state(2))
    until(lambda: failures >= 20)
    writer.check()
    now += uploader.PATIENCE_SECONDS
    writer._uploader.wait()
    with pytest.raises(JobError, match="away"):
        writer.check()


def test_errors_other_than_outages_are_told_at_the_next_save(start, out: Location) -> None:
    def fault(operation: str, key: str, done: bool) -> None:
        if operation == "put" and "ckpt/" in key:
            raise JobError(Reason.ACCESS_DENIED, "no")

    writer = start(faulty(out, fault))
    writer.claim()
    writer.save(state(1))
    writer._uploader.wait()
    with pytest.raises(JobError) as caught:
        writer.save(state(2))
    assert caught.value.reason is Reason.ACCESS_DENIED


def test_a_commit_whose_answer_was_lost_is_a_success(start, out: Location) -> None:
    def lose_the_answer(operation: str, key: str, done: bool) -> None:
        if operation == "put" and done and key.endswith("MANIFEST.json"):
            raise FileExistsError(key)

    writer = start(faulty(out, lose_the_answer))
    writer.claim()
    writer.save(state(4), wait=True)
    assert [c.step for c in writer.listed()] == [4]


def test_another_writers_manifest_in_our_place_fences_us(start, out: Location) -> None:
    writer = start()
    writer.claim()
    out.put("ckpt/1/4/MANIFEST.json", b"{}")
    with pytest.raises(JobError) as caught:
        writer.save(state(4), wait=True)
    assert caught.value.reason is Reason.FENCED


def test_a_step_is_saved_once(start, out: Location) -> None:
    writer = start()
    writer.claim()
    writer.save(state(4))
    writer.save(state(4), wait=True)  # as SIGTERM right after the interval's save
    assert [info.key for info in out.list("ckpt/")] == [info.key for info in out.list("ckpt/1/4/")]
    again = start()
    again.claim()
    again.save(state(4), wait=True)  # stopped before its first step
    assert list(out.list("ckpt/2/")) == []


def test_manifests_name_their_parent(start, out: Location) -> None:
    writer = start(checkpoints={"keepLast": 9})
    writer.claim()
    writer.save(state(1), wait=True)
    writer.save(state(2), wait=True)
    again = start(checkpoints={"keepLast": 9})
    again.claim()
    again.save(state(3), wait=True)
    found = [manifest.parse(out.get(f"ckpt/{place}/MANIFEST.json")) for place in ("1/1", "1/2", "2/3")]
    assert found[0].parent is None
    for before, after in pairwise(found):
        assert after.parent["digest"] == before.digest


def test_the_list_of_checkpoints_is_told_after_each_commit(start, out: Location) -> None:
    told = []
    writer = start(checkpoints={"keepLast": 2, "keepBest": False})
    writer._on_commit = told.append
    writer.claim()
    for step in (1, 2, 3):
        writer.save(state(step), metrics={"macro-f1": 1 / step}, wait=True)
    assert [[c.step for c in listed] for listed in told] == [[], [1], [2, 1], [3, 2, 1], [3, 2]]
    newest = told[-1][0]
    assert newest.uri == out.uri("ckpt/1/3")
    assert newest.digest == manifest.parse(out.get("ckpt/1/3/MANIFEST.json")).digest
    assert newest.bytes == sum(info.size for info in out.list("ckpt/1/3/") if not info.key.endswith("json"))


def test_slow_storage_never_holds_up_the_run_and_two_snapshots_at_most_are_in_memory(
    start, out: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, begun = threading.Event(), threading.Event()
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0
    copy = parts.copies

    def snapshot(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nonlocal most
        made = copy(tensors)
        alive.append(weakref.ref(made["model.layer.weight"]))
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        return made

    monkeypatch.setattr(parts, "copies", snapshot)

    def fault(operation: str, key: str, done: bool) -> None:
        if operation == "put" and "ckpt/" in key and not done:
            begun.set()
            assert slow.wait(30)

    writer = start(faulty(out, fault), checkpoints={"keepLast": 9})
    writer.claim()
    writer.save(state(1))
    assert begun.wait(30)
    for step, score in {2: None, 3: 0.5, 4: 0.9, 5: 0.7, 6: None, 7: None}.items():
        writer.save(state(step), metrics={"macro-f1": score} if score else None)  # none of them waits for storage
    assert most == 2
    assert not writer.missed  # it is, but there is no place yet
    slow.set()
    until(lambda: writer.missed)  # and now there is
    assert [(c.step, c.best) for c in writer.listed()] == [(4, True), (1, False)]
    writer.save(state(8))
    assert not writer.missed
    writer.save(state(6), wait=True)  # what was not taken may be saved after all
    assert {c.step for c in writer.listed()} == {1, 4, 6, 8}


def test_where_no_copy_fits_into_memory_the_step_waits(start, out: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "fits", lambda size: False)
    monkeypatch.setattr(parts, "copies", lambda tensors: pytest.fail("a copy was made"))
    writer = start()
    writer.claim()
    live = state(4)
    writer.save(live)
    for tensor in live.tensors.values():
        tensor.zero_()  # the run goes on: what was saved is the step's all the same
    assert same(start().load(writer._refs[0]), state(4))


def test_memory_is_what_the_container_may_still_use(tmp_path: Path) -> None:
    group, proc = tmp_path / "sys/fs/cgroup", tmp_path / "proc"
    assert free_memory.available(tmp_path) is None
    assert free_memory.fits(1 << 40, tmp_path)
    for folder in (group, proc):
        folder.mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   4194304 kB\n")
    assert free_memory.available(tmp_path) == 4 << 30
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text(f"{3 << 30}\n")
    assert free_memory.available(tmp_path) == 4 << 30
    (group / "memory.max").write_text(f"{4 << 30}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {1 << 30}\n")
    assert free_memory.available(tmp_path) == 2 << 30
    assert free_memory.fits((2 << 30) - free_memory.MARGIN_BYTES, tmp_path)
    assert not free_memory.fits(2 << 30, tmp_path)


def test_an_outage_does_not_lose_the_best(start, out: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploader, "PAUSE_SECONDS", 0.001)
    left = 1

    def fault(operation: str, key: str, done: bool) -> None:
        nonlocal left
        if operation == "put" and "ckpt/" in key and left:
            left -= 1
            raise OUTAGE

    writer = start(faulty(out, fault))
    writer.claim()
    writer.save(state(1), metrics={"macro-f1": 0.9})
    writer._uploader.wait()
    writer.save(state(2), metrics={"macro-f1": 0.1})
    writer.close()
    assert [(c.step, c.best) for c in writer.listed()] == [(2, False), (1, True)]
