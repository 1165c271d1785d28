"""keepLast and keepBest hold what they promise; the rest goes manifest first, and orphans of dead writers are swept."""

from __future__ import annotations

import pytest

from finetune_trainer.checkpoint import CheckpointRef
from finetune_trainer.checkpoint.retention import best_of, kept
from finetune_trainer.storage import Location
from support.checkpoints import faulty, state


def ref(step: int, value: float | None = None, metric: str = "macro-f1", generation: int = 1) -> CheckpointRef:
    return CheckpointRef(generation, step, f"u/{step}", "d", 1, "t", None if value is None else {metric: value})


def test_the_newest_and_the_best_are_kept() -> None:
    refs = [ref(1, 0.5), ref(2, 0.9), ref(3, 0.7), ref(4), ref(5, 0.6)]
    assert [r.step for r in kept(refs, 2, True, "macro-f1")] == [5, 4, 2]
    assert [r.step for r in kept(refs, 2, False, "macro-f1")] == [5, 4]
    assert [r.step for r in kept(refs, 9, True, "macro-f1")] == [5, 4, 3, 2, 1]
    assert [r.step for r in kept([ref(1), ref(2)], 1, True, "macro-f1")] == [2]


@pytest.mark.parametrize(
    ("metric", "name", "best"),
    [("macro-f1", "macro-f1", 2), ("accuracy", "accuracy", 2), ("loss", "loss", 1), ("perplexity", "perplexity", 1)],
)
def test_best_knows_which_way_is_better(metric: str, name: str, best: int) -> None:
    assert best_of([ref(1, 0.1, name), ref(2, 0.8, name), ref(3, 0.5, name)], metric).step == best


def test_of_equally_good_checkpoints_the_earlier_is_the_best() -> None:
    assert best_of([ref(3, 0.5), ref(2, 0.5), ref(4, 0.5)], "macro-f1").step == 2
    assert best_of([ref(3), ref(2)], "macro-f1") is None


def test_of_equal_scores_the_lower_validation_loss_is_the_best() -> None:
    def judged(step: int, f1: float, loss: float) -> CheckpointRef:
        return CheckpointRef(1, step, f"u/{step}", "d", 1, "t", {"loss": loss, "macro-f1": f1})

    assert best_of([judged(1, 0.5, 0.3), judged(2, 0.5, 0.1), judged(3, 0.5, 0.2)], "macro-f1").step == 2
    assert best_of([judged(1, 0.6, 0.9), judged(2, 0.5, 0.1)], "macro-f1").step == 1


def test_a_step_that_was_resumed_from_and_judged_then_is_the_best_and_counts_once(start, out: Location) -> None:
    """A stop in the midst of an evaluation saves the step without its score; the next attempt has the score."""
    first = start(checkpoints={"keepLast": 2})
    first.claim()
    first.save(state(1), metrics={"macro-f1": 0.2}, wait=True)
    first.save(state(2), wait=True)
    again = start(attempt=2, checkpoints={"keepLast": 2})
    assert again.claim().resume.step == 2
    again.save(state(2), metrics={"macro-f1": 0.9}, wait=True)
    again.save(state(2), metrics={"macro-f1": 0.9}, wait=True)
    assert [(c.step, c.best) for c in again.listed()] == [(2, True), (1, False)]
    assert again.best().generation == 2
    assert {"/".join(info.key.split("/")[1:3]) for info in out.list("ckpt/")} == {"1/1", "2/2"}
    last = start(attempt=3, checkpoints={"keepLast": 2})
    assert last.claim().resume == again.best()
    assert last.notes == []


def test_old_checkpoints_go_manifest_first_and_the_best_stays_over_restarts(start, out: Location) -> None:
    deleted: list[str] = []
    where = faulty(
        out,
        lambda operation, key, done: deleted.append(key[len(out.prefix) :]) if operation == "delete" and done else None,
    )
    scores = {1: 0.1, 2: 0.9, 3: 0.3, 4: 0.4}
    writer = start(where, checkpoints={"keepLast": 1})
    writer.claim()
    for step, score in scores.items():
        writer.save(state(step), metrics={"macro-f1": score}, wait=True)
    assert [(c.step, c.best) for c in writer.listed()] == [(4, False), (2, True)]
    for step in (1, 3):
        keys = [key for key in deleted if key.startswith(f"ckpt/1/{step}/")]
        assert len(keys) == 4
        assert keys[0].endswith("MANIFEST.json")
    assert {info.key.split("/")[2] for info in out.list("ckpt/")} == {"2", "4"}

    again = start(where, attempt=2, checkpoints={"keepLast": 1})
    again.claim()
    again.save(state(5), metrics={"macro-f1": 0.5}, wait=True)
    again.close()
    assert [(c.step, c.best) for c in again.listed()] == [(5, False), (2, True)]
    assert again.best().step == 2
    assert {"/".join(info.key.split("/")[1:3]) for info in out.list("ckpt/")} == {"1/2", "2/5"}


def test_torn_uploads_of_dead_writers_are_swept_with_the_first_save(start, out: Location) -> None:
    first = start()
    first.claim()
    first.save(state(1), wait=True)
    for name in ("model-00000-dead.safetensors", "optimizer-00001-dead.safetensors"):
        out.put(f"ckpt/1/2/{name}", b"torn")
    second = start(attempt=2)
    second.claim()
    # Nothing is deleted before there is something better.
    assert out.find("ckpt/1/2/model-00000-dead.safetensors") is not None
    second.save(state(2), wait=True)
    assert list(out.list("ckpt/1/2/")) == []
    assert out.find("ckpt/1/1/MANIFEST.json") is not None


def test_our_own_failed_uploads_are_swept_at_the_end(start, out: Location) -> None:
    writer = start()
    writer.claim()
    out.put("ckpt/1/7/model-00000-torn.safetensors", b"torn")
    writer.save(state(8), wait=True)
    writer.close()
    assert {info.key.split("/")[2] for info in out.list("ckpt/")} == {"8"}


def test_garbage_collection_that_dies_halfway_leaves_no_half_checkpoint(start, out: Location) -> None:
    def die(operation: str, key: str, done: bool) -> None:
        if operation == "delete" and done and key.endswith("ckpt/1/1/MANIFEST.json"):
            raise RuntimeError("killed")

    writer = start(faulty(out, die), checkpoints={"keepLast": 1, "keepBest": False})
    writer.claim()
    writer.save(state(1), wait=True)
    with pytest.raises(RuntimeError):
        writer.save(state(2), wait=True)
    assert len(list(out.list("ckpt/1/1/"))) == 3
    again = start(attempt=2, checkpoints={"keepLast": 1, "keepBest": False})
    assert again.claim().resume.step == 2
    assert again.notes == []
    again.save(state(3), wait=True)
    again.close()
    assert {info.key.split("/")[2] for info in out.list("ckpt/")} == {"3"}
