"""Find, verify and load checkpoints: of this job by the generations that count, or of another by its URI (I5).

All parts of what is chosen are read and verified before it is used; damaged checkpoints are passed over with a warning.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_trainer.checkpoint import generations, manifest, parts
from finetune_trainer.checkpoint.compare import check_identity, check_shapes, differences
from finetune_trainer.checkpoint.manifest import CheckpointManifest, DamagedError
from finetune_trainer.checkpoint.snapshot import CheckpointRef, Snapshot
from finetune_trainer.storage import Location, location

log = logging.getLogger(__name__)

RESUME_FIELD = "spec.checkpoints.resumeFrom"


class CheckpointReader:
    """Reads for one process. What `find` or `read_ahead` read is kept until `load` takes it, or `forget`."""

    def __init__(
        self, config: RunConfig, out: Location, *, identity: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> None:
        self._config, self._out = config, out
        self._identity, self._facts = identity, facts
        self._loaded: tuple[CheckpointRef, Snapshot] | None = None
        self.warnings: list[str] = []

    def find(
        self, shapes: Mapping[str, tuple[int, ...]] | None = None
    ) -> tuple[CheckpointRef | None, list[CheckpointRef]]:
        """The newest good checkpoint that counts, and all of this job's that are not damaged.

        While this job has none, the first is another job's, by checkpoints.resumeFrom.
        """
        refs: list[CheckpointRef] = []
        good: tuple[CheckpointRef, Snapshot] | None = None
        for generation, step in generations.candidates(self._out):
            where = self._out.child(manifest.folder(generation, step))
            try:
                found = self._manifest(where, (generation, step))
                ref = ref_of(found, where, generation)
                if good is None:
                    check_identity(ref.uri, found.identity, self._identity, None)
                    _check_shapes(ref.uri, found, shapes, None)
                    good = ref, parts.unpack(where, found)
                    self._compare_environment(ref.uri, found)
                refs.append(ref)
            except DamagedError as error:
                self._warn(f"checkpoint {where.uri()} is damaged: {error}; falling back to the one before it")
        if good is None and self._config.checkpoints.resume_from:
            good = self._resume_from(self._config.checkpoints.resume_from, shapes)
        self._loaded = good
        return (good[0] if good else None), refs

    def read_ahead(self) -> None:
        """Other ranks, while rank 0 claims: read what is newest, which it most likely chooses.

        No failure matters here.
        """
        with contextlib.suppress(JobError, DamagedError, FileNotFoundError):
            for place in generations.candidates(self._out):
                where = self._out.child(manifest.folder(*place))
                found = self._manifest(where, place)
                self._loaded = ref_of(found, where, place[0]), parts.unpack(where, found)
                return

    def load(self, ref: CheckpointRef, *, only: str | None = None) -> Snapshot:
        """The verified snapshot of a checkpoint; `only`: just the tensors whose names begin so. Every rank."""
        if self._loaded is not None and self._loaded[0] == ref and only is None:
            snapshot, self._loaded = self._loaded[1], None
            return snapshot
        self._loaded = None if only is None else self._loaded
        where = self._where(ref)
        try:
            found = self._manifest(where, (ref.generation, ref.step) if ref.generation is not None else None)
            if found.digest != ref.digest:
                raise DamagedError("its manifest is not the one that was chosen")
            return parts.unpack(where, found, only=only, full=ref.generation is None)
        except DamagedError as error:
            raise JobError(
                Reason.STORAGE_UNAVAILABLE,
                f"checkpoint {ref.uri} could be read a moment ago and is damaged now: {error}",
                hint="The next attempt falls back to the checkpoint before it.",
            ) from error

    def forget(self) -> None:
        """Let go of what was read: a snapshot takes as much memory as the state itself."""
        self._loaded = None

    def _manifest(self, where: Location, place: tuple[int, int] | None) -> CheckpointManifest:
        """The manifest at `where`; with `place` it must be this job's and stand where it says. Raises DamagedError."""
        text = where.find(manifest.NAME)
        if text is None:
            raise DamagedError("its manifest is missing")
        found = manifest.parse(text)
        if place is not None and (found.generation, found.step) != place:
            raise DamagedError(f"its manifest is that of generation {found.generation}, step {found.step}")
        if place is not None and found.job_id != self._config.job.id:
            raise DamagedError(f"it is another job's ({found.job_name})")
        return found

    def _resume_from(self, uri: str, shapes: Mapping[str, tuple[int, ...]] | None) -> tuple[CheckpointRef, Snapshot]:
        where = location(uri, self._config.storage)
        try:
            found = self._manifest(where, None)
            check_identity(uri, found.identity, self._identity, RESUME_FIELD)
            _check_shapes(uri, found, shapes, RESUME_FIELD)
            snapshot = parts.unpack(where, found, full=True)
        except DamagedError as error:
            raise JobError(
                Reason.CHECKPOINT_MISMATCH,
                f"{uri} is not a good checkpoint: {error}",
                field=RESUME_FIELD,
                hint="Name a checkpoint as status.checkpoints lists it: s3://…/ckpt/<generation>/<step>.",
            ) from error
        self._compare_environment(uri, found)
        return ref_of(found, where, None), snapshot

    def _compare_environment(self, uri: str, found: CheckpointManifest) -> None:
        differ = differences(found.facts, self._facts)
        if differ:
            self._warn(
                f"the environment differs from that of {uri}, so the last bits of the results may differ too (the rows"
                f" do not): {'; '.join(differ)}"
            )

    def _where(self, ref: CheckpointRef) -> Location:
        if ref.generation is None:
            return location(ref.uri, self._config.storage)
        return self._out.child(manifest.folder(ref.generation, ref.step))

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        log.warning(message)


def ref_of(found: CheckpointManifest, where: Location, generation: int | None) -> CheckpointRef:
    return CheckpointRef(generation, found.step, where.uri(), found.digest, found.size, found.time, found.metrics)


def _check_shapes(
    uri: str, found: CheckpointManifest, shapes: Mapping[str, tuple[int, ...]] | None, field: str | None
) -> None:
    if shapes is not None:
        check_shapes(uri, found.shapes("model"), shapes, field)
