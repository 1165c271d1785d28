"""The profile: what the prepare step found out, stored beside the data manifest for every rank of every attempt.

`digest` stands for all that decides the order of the rows besides seed and batch size: manifest, columns, bad rows,
what each split takes, the version of the order where it is not the first, and the parts where there are any (I2). It
says which job and configuration it belongs to, so that a second prepare step can reuse it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_api.status import DataProfile, Resolved
from finetune_trainer.storage import Location
from finetune_trainer.stream.manifest import Block, DataManifest
from finetune_trainer.stream.order import WHOLE_BLOCKS
from finetune_trainer.stream.parts import save_parts

PROFILE_VERSION = 1
MANIFEST_KEY = "prepare/manifest.json.zst"
PROFILE_KEY = "prepare/profile.json"

ExcludedRows = Mapping[str, Mapping[int, tuple[int, ...]]]
"""source -> number of the object -> rows of it that are left out, sorted: they are in no split."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the numbers to be learned, over the source of the training rows: bounds, mean and standard deviation; and
    `learned`, the mean of the training rows alone.
    """

    low: float
    high: float
    mean: float
    deviation: float
    learned: float | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """columns: role -> column. labels: classes in the order of the model's outputs. basis: what it was made from."""

    job_id: str
    basis: str
    digest: str
    data: DataProfile
    resolved: Resolved
    columns: dict[str, str]
    labels: tuple[str, ...] | None = None
    bad: ExcludedRows = field(default_factory=dict)
    model_revision: str | None = None
    conditional_writes: bool = True
    order: int = WHOLE_BLOCKS
    held_out: Mapping[str, tuple[Block, ...]] = field(default_factory=dict)
    """split -> blocks of the job's cache that hold copies of its rows: those of a fraction of the training rows."""
    now: str | None = None
    """What chat templates take for the present, ISO 8601; None (an older profile): the real clock."""
    ends: tuple[int, ...] | None = None
    """Tokens that are learned as the end of a turn or a text; None: not looked for."""
    label_counts: tuple[int, ...] | None = None
    """Training rows of each of `labels`; None: not counted (an older profile)."""
    label_names: tuple[str, ...] | None = None
    """The data set's names of the numbers that the label column holds."""
    spread: Spread | None = None
    """Of the numbers to be learned; None where there are none."""
    set_rows: Mapping[str, int] = field(default_factory=dict)
    """split -> usable rows, of each set of spec.evaluation.sets."""
    parts: str | None = None
    """Digest of the parts of the training source; None where its splits have all of its rows."""
    fold_rows: tuple[int, ...] = ()
    """Training rows of each fold."""

    @property
    def moment(self) -> datetime | None:
        """`now` as a moment."""
        return None if self.now is None else datetime.fromisoformat(self.now)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "version": PROFILE_VERSION,
            "jobId": self.job_id,
            "basis": self.basis,
            "digest": self.digest,
            "data": self.data.to_json(),
            "resolved": self.resolved.to_json(),
            "columns": self.columns,
            "labels": None if self.labels is None else list(self.labels),
            "modelRevision": self.model_revision,
            "bad": {role: {str(n): list(rows) for n, rows in numbers.items()} for role, numbers in self.bad.items()},
            "conditionalWrites": self.conditional_writes,
            "order": self.order,
            "now": self.now,
            "ends": None if self.ends is None else list(self.ends),
            "labelNames": None if self.label_names is None else list(self.label_names),
            "heldOut": {split: [list(astuple(block)) for block in blocks] for split, blocks in self.held_out.items()},
            **({} if self.label_counts is None else {"labelCounts": list(self.label_counts)}),
            **({"foldRows": list(self.fold_rows)} if self.fold_rows else {}),
            **({} if self.spread is None else {"spread": asdict(self.spread)}),
            **({"setRows": dict(self.set_rows)} if self.set_rows else {}),
            **({} if self.parts is None else {"parts": self.parts}),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Profile:
        """The inverse of to_json. Raises ValueError for another version."""
        if data.get("version") != PROFILE_VERSION:
            raise ValueError(f"profile of version {data.get('version')}, not {PROFILE_VERSION}")
        return Profile(
            job_id=data["jobId"],
            basis=data["basis"],
            digest=data["digest"],
            data=DataProfile.model_validate_json(json.dumps(data["data"])),
            resolved=Resolved.model_validate_json(json.dumps(data["resolved"])),
            columns=data["columns"],
            labels=None if data["labels"] is None else tuple(data["labels"]),
            model_revision=data["modelRevision"],
            bad={role: {int(n): tuple(rows) for n, rows in numbers.items()} for role, numbers in data["bad"].items()},
            conditional_writes=data["conditionalWrites"],
            order=data.get("order", WHOLE_BLOCKS),
            held_out={split: tuple(Block(*b) for b in blocks) for split, blocks in data.get("heldOut", {}).items()},
            now=data.get("now"),
            ends=_tuple(data.get("ends")),
            label_counts=_tuple(data.get("labelCounts")),
            label_names=_tuple(data.get("labelNames")),
            spread=Spread(**data["spread"]) if data.get("spread") else None,
            set_rows=data.get("setRows", {}),
            parts=data.get("parts"),
            fold_rows=tuple(data.get("foldRows", ())),
        )


def _tuple(value: list[Any] | None) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)


def order_digest(
    manifest: DataManifest,
    columns: Mapping[str, str],
    bad: ExcludedRows,
    sources: Mapping[str, tuple[object, ...] | None],
    order: int = WHOLE_BLOCKS,
    parts: str | None = None,
) -> str:
    """SHA-256 of all that decides which rows there are, and how they are laid out."""
    wrong = {role: {str(n): list(rows) for n, rows in numbers.items()} for role, numbers in bad.items()}
    facts: list[Any] = [manifest.digest, dict(sorted(columns.items())), wrong, sources]
    if order != WHOLE_BLOCKS:
        facts.append(order)
    if parts is not None:
        facts.append({"parts": parts})
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def save_profile(out: Location, manifest: DataManifest, profile: Profile, parts: np.ndarray | None = None) -> None:
    """Write them; the profile last, so that it exists only with its manifest and its parts."""
    import zstandard

    if parts is not None:
        save_parts(out, parts)
    out.put(MANIFEST_KEY, zstandard.compress(json.dumps(manifest.to_json(), separators=(",", ":")).encode()))
    out.put(PROFILE_KEY, json.dumps(profile.to_json(), indent=1).encode())


def find_profile(out: Location) -> tuple[DataManifest, Profile] | None:
    """What a prepare step left here; None if nothing, or nothing that this version reads."""
    import zstandard

    profile, manifest = out.find(PROFILE_KEY), out.find(MANIFEST_KEY)
    if profile is None or manifest is None:
        return None
    try:
        found = DataManifest.from_json(json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(manifest)))
        made = Profile.from_json(json.loads(profile))
    except (ValueError, KeyError, TypeError, zstandard.ZstdError):
        return None
    return (found, made) if made.data.manifest_digest == found.digest else None  # else killed between writing the two


def load_profile(out: Location, job_id: str | None = None) -> tuple[DataManifest, Profile]:
    """The manifest and the profile of this output. Raises JobError when there is none, or it is another job's."""
    found = find_profile(out)
    if found is None:
        raise JobError(
            Reason.INVALID_CONFIG,
            f"{out.uri('prepare')} has no profile that can be read",
            hint="Run the prepare step first.",
        )
    if job_id is not None and found[1].job_id != job_id:
        raise JobError(Reason.OUTPUT_IN_USE, f"{out.uri()} was prepared for another job", field="spec.output.uri")
    return found
