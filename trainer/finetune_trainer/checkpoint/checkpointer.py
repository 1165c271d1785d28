"""Save, find and verify checkpoints of one job, by one process group (I3, I5).

Rank 0 claims a generation, which fixes where the group resumes, and alone writes: the parts, and last of all the
manifest, by a conditional write. Without conditional writes in the store, a claim is checked by reading before writing,
with a race of milliseconds in which two groups may take the same generation; their parts still never mix, since each
writer names its own.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api import resolve
from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_api.status import CHECKPOINTS, Checkpoint
from finetune_api.times import rfc3339
from finetune_trainer.checkpoint import free_memory, generations, manifest, parts, retention
from finetune_trainer.checkpoint.best import is_better
from finetune_trainer.checkpoint.compare import identity_of
from finetune_trainer.checkpoint.manifest import CheckpointManifest
from finetune_trainer.checkpoint.reader import CheckpointReader, ref_of
from finetune_trainer.checkpoint.snapshot import CheckpointRef, Snapshot
from finetune_trainer.checkpoint.uploader import Save, Uploader
from finetune_trainer.storage import Location, Unfinished

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Generation:
    """A claimed generation and the checkpoint that it goes on from."""

    number: int
    resume: CheckpointRef | None


class Checkpointer:
    """One per process. Ranks other than 0 only `load`.

    `identity` adds to what must match on a resume, `facts` is `environment(...)`; `on_commit` hears of every change of
    the list of checkpoints, from the background thread.
    """

    def __init__(
        self,
        config: RunConfig,
        out: Location,
        rank: int,
        *,
        facts: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
        on_commit: Callable[[tuple[Checkpoint, ...]], None] = lambda listed: None,
    ) -> None:
        self._config, self._out, self._rank = config, out, rank
        self._facts = dict(facts or {})
        self._identity = identity_of(config, identity or {})
        self._on_commit = on_commit
        self._metric = resolve.metric(config.task, config.evaluation.metric)
        self._reader = CheckpointReader(config, out, identity=self._identity, facts=self._facts)
        self._writer = uuid.uuid4().hex[:8]
        self._uploader = Uploader()
        self._generation: Generation | None = None
        self._refs: list[CheckpointRef] = []  # committed and verified or our own, any order
        self._saved: set[int] = set()  # steps given to the uploader
        self._best: dict[str, float] | None = None  # the best evaluation given to save, or found
        self._swept = False
        self._left: list[Unfinished] = []
        self._missed = False

    # ------------------------------------------------------------------ resuming

    def claim(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Generation:
        """Find and verify the newest good checkpoint and take the next generation. Rank 0, before the first step.

        `shapes` of all "model.…" tensors are compared where given. Raises FENCED when another process group took over,
        OUTPUT_IN_USE when the output is another job's, CHECKPOINT_MISMATCH.
        """
        assert self._rank == 0
        assert self._generation is None
        self._check_owner()
        while True:
            newest = max(generations.numbers(self._out), default=0)
            before = generations.read(self._out, newest) if newest else None
            if before is not None and before.attempt > self._config.attempt:
                raise self._overtaken(before)
            found = self.latest(shapes)
            own = (found.generation, found.step) if found and found.generation is not None else None
            record = generations.GenerationRecord(newest + 1, self._config.attempt, own, self._writer)
            source = found.uri if found and found.generation is None else None
            self._left = list(self._out.unfinished())  # all of writers that this claim fences
            if generations.put(self._out, record, _now(), source):
                break
            other = generations.read(self._out, record.number)
            if other is None or other.attempt >= self._config.attempt:
                raise self._overtaken(other)
        best = self.best()
        self._best = best.metrics if best else None
        self._generation = Generation(record.number, found)
        return self._generation

    def latest(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> CheckpointRef | None:
        """The newest good checkpoint that counts; of another job, by checkpoints.resumeFrom, while there is none."""
        found, self._refs = self._reader.find(shapes)
        self._on_commit(self.listed())
        return found

    def read_ahead(self) -> None:
        """Other ranks, while rank 0 claims: read what is newest, which it most likely chooses."""
        self._reader.read_ahead()

    def load(self, ref: CheckpointRef, *, only: str | None = None) -> Snapshot:
        """The verified snapshot of a checkpoint; `only`: just the tensors whose names begin so. Every rank."""
        return self._reader.load(ref, only=only)

    @property
    def generation(self) -> int:
        """The one that was claimed. Rank 0."""
        assert self._generation is not None, "claim() first"
        return self._generation.number

    @property
    def notes(self) -> list[str]:
        """What people should know of the checkpoints that were found."""
        return self._reader.warnings

    # ------------------------------------------------------------------ saving

    def save(
        self, snapshot: Snapshot, *, metrics: Mapping[str, float] | None = None, wait: bool = False, moved: bool = False
    ) -> None:
        """Copy the state and commit it in the background; `wait`: return when it is committed. Does nothing on other
        ranks.

        Where storage is slower than the saves follow each other, a newer one takes the place of one that waits; never
        of the best: then this one is not taken, and `missed`. Two snapshots at most are in memory.

        A step that is saved already is not saved again, but for one that this group resumed from before it was judged:
        with its metrics it is saved as this group's own, since manifests are never changed. So is one with `moved`:
        the state is no longer that of the step's checkpoint. Raises what an earlier background save failed with.
        """
        if self._rank != 0:
            return
        assert self._generation is not None, "claim() first"
        self._uploader.check()
        resume = self._generation.resume
        resumed = resume is not None and resume.generation is not None and resume.step == snapshot.step
        judged_anew = resumed and bool(metrics) and resume is not None and not resume.metrics
        if not (snapshot.step in self._saved or (resumed and not judged_anew and not moved)):
            if wait and self._uploader.busy:
                self._uploader.drain()
            self._take(snapshot, {k: float(v) for k, v in metrics.items()} if metrics else None)
        if wait:
            self._uploader.drain()

    def _take(self, snapshot: Snapshot, judged: dict[str, float] | None) -> None:
        """Give a snapshot to the uploader, where there is a place and memory for it.

        Where not even one copy fits into memory the step waits instead, and the state is written as it lies there.
        """
        best = self._is_best(judged)
        fits = self._uploader.waits or free_memory.fits(sum(tensor.nbytes for tensor in snapshot.tensors.values()))
        self._missed = not self._uploader.has_place(best=best) or (self._uploader.busy and not fits)
        if self._missed:
            log.info("the checkpoint of step %d waits: the storage is slower than the saves follow", snapshot.step)
            return
        self._reader.forget()
        self._uploader.make_place()
        copy = Snapshot(
            snapshot.step,
            json.loads(json.dumps(snapshot.cursor)),
            (parts.copies if fits else parts.as_they_are)(snapshot.tensors),
            json.loads(json.dumps(snapshot.meta)),
            dict(snapshot.blobs),
        )
        if best:
            self._best = judged
        self._saved.add(snapshot.step)
        self._uploader.submit(Save(lambda: self._commit(copy, judged), best, lambda: self._saved.discard(copy.step)))
        if not fits:
            self._missed = not self._uploader.try_once()

    @property
    def missed(self) -> bool:
        """Whether a snapshot was not taken, and may be now."""
        return self._missed and not self._uploader.busy

    def check(self) -> None:
        """Raise what a background save failed with, such as FENCED. Costs nothing."""
        self._uploader.check()

    def check_newest(self) -> None:
        """Raise FENCED if another process group has taken over the output since this one claimed it."""
        assert self._generation is not None
        generations.check_newest(self._out, self._generation.number, self._writer)

    def close(self) -> None:
        """Wait for background saves and clear up what no checkpoint needs.

        Raises FENCED if a newer generation exists.
        """
        if self._rank != 0 or self._generation is None:
            return
        self._uploader.drain()
        self.check_newest()
        retention.sweep(self._out, self._refs, self._generation.number)

    def listed(self) -> tuple[Checkpoint, ...]:
        """The committed checkpoints as status lists them, newest first."""
        best = self.best()
        newest = sorted(self._refs, key=lambda r: (r.step, r.generation or 0), reverse=True)
        return tuple(ref.listed(ref is best) for ref in newest[:CHECKPOINTS])

    def best(self) -> CheckpointRef | None:
        """The committed checkpoint with the best value of the metric that chooses."""
        return retention.best_of(tuple(self._refs), self._metric)

    def best_ones(self) -> list[CheckpointRef]:
        """As many of the best committed checkpoints as are averaged, the best first."""
        return retention.best_first(tuple(self._refs), self._metric)[: self._config.checkpoints.average_best or 1]

    def among_best(self, judged: Mapping[str, float]) -> bool:
        """Whether an evaluation is better than one of `best_ones`, or these are fewer than wanted. Rank 0."""
        ones = self.best_ones()
        few = len(ones) < (self._config.checkpoints.average_best or 1)
        return self._rank == 0 and (few or is_better(judged, ones[-1].metrics, self._metric))

    def _is_best(self, judged: dict[str, float] | None) -> bool:
        """Whether a snapshot is the best of all that were given to save."""
        return bool(judged and self._config.checkpoints.keep_best and is_better(judged, self._best, self._metric))

    def _commit(self, snapshot: Snapshot, metrics: dict[str, float] | None) -> None:
        """Parts, then the manifest, then the list, then what may go. Runs in the background."""
        assert self._generation is not None
        number = self._generation.number
        if any((ref.generation, ref.step) == (number, snapshot.step) for ref in self._refs):
            return  # given twice, since the first try failed, and was tried again
        where = self._out.child(manifest.folder(number, snapshot.step))
        written = []
        try:
            for part, data in parts.pack(snapshot, self._writer):
                where.put_from(part.name, data.size, data.read)
                written.append(part)
            self.check_newest()
            sealed, text = self._sealed(snapshot, metrics, tuple(written))
            _put_once(where, text)
        except BaseException:
            self._saved.discard(snapshot.step)
            raise
        self._refs = [*self._refs, ref_of(sealed, where, number)]
        self._on_commit(self.listed())
        self._retain(number)

    def _retain(self, number: int) -> None:
        """Remove what keepLast and keepBest do not hold; the first time also what dead writers left."""
        rule = self._config.checkpoints
        keep = retention.kept(self._refs, rule.keep_last, rule.keep_best, self._metric, rule.average_best or 1)
        gone = [ref for ref in self._refs if ref not in keep]
        if gone or not self._swept:
            self.check_newest()  # never delete what a newer generation may be reading
        self._refs = [ref for ref in self._refs if ref in keep]
        if gone:
            self._on_commit(self.listed())
            retention.delete(self._out, gone)
        if not self._swept:
            retention.sweep(self._out, self._refs, number - 1)
            self._out.discard(self._left)
            self._swept, self._left = True, []

    def _sealed(
        self, snapshot: Snapshot, metrics: dict[str, float] | None, written: tuple[manifest.Part, ...]
    ) -> tuple[CheckpointManifest, bytes]:
        assert self._generation is not None
        before = max(self._refs, key=lambda r: (r.step, r.generation or 0), default=self._generation.resume)
        parent = {"uri": before.uri, "step": before.step, "digest": before.digest} if before else None
        return CheckpointManifest(
            job_id=self._config.job.id,
            job_name=self._config.job.name,
            attempt=self._config.attempt,
            generation=self._generation.number,
            step=snapshot.step,
            time=_now(),
            writer=self._writer,
            cursor=snapshot.cursor,
            meta=snapshot.meta,
            identity=self._identity,
            facts=self._facts,
            parts=written,
            metrics=metrics,
            parent=parent,
        ).sealed()

    # ------------------------------------------------------------------ helpers

    def _check_owner(self) -> None:
        try:
            text = self._out.find("job.json")
            owner = None if text is None else json.loads(text)
        except ValueError:
            owner = {}
        if owner is None or owner.get("jobId") != self._config.job.id:
            # Whose it is now may be another tenant's affair: no name is told.
            said = "is gone: somebody removed it" if owner is None else "names another job, which has taken it over"
            raise JobError(
                Reason.OUTPUT_IN_USE, f"the owner's mark {self._out.uri('job.json')} {said}", field="spec.output.uri"
            )

    def _overtaken(self, other: generations.GenerationRecord | None) -> JobError:
        by = f"generation {other.number} of attempt {other.attempt}" if other else "another process group"
        return JobError(Reason.FENCED, f"{by} has taken over {self._out.uri()}; this is attempt {self._config.attempt}")


def _put_once(where: Location, text: bytes) -> None:
    """Write the manifest; a copy that is ours already (an answer was lost) is success, another's is FENCED."""
    try:
        where.put(manifest.NAME, text, if_none_match=True)
    except FileExistsError:
        if where.find(manifest.NAME) != text:
            raise JobError(Reason.FENCED, f"another writer has committed {where.uri()}") from None


def _now() -> str:
    return rfc3339(time.time())
