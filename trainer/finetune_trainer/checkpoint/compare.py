"""Does a checkpoint fit this run? Identity must match, or the run would be wrong; the environment should, or bits
differ.

`identity` is what the state means something to: task, model, method, and the order of the rows. `environment` is what
the last bits depend on (I3): a difference is named in one warning and the run goes on.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.optimizers import DEFAULT_OPTIMIZER
from finetune_api.run import RunConfig
from finetune_trainer.methods import identity_fields, method_for, packages

_FIELDS = {
    "task": "spec.task",
    "model": "spec.model.uri",
    "modelRevision": "spec.model.revision",
    "method": "spec.method.type",
    "optimizer": "spec.training.optimizer",
    "seed": "spec.training.seed",
    "globalBatchSize": "spec.training.globalBatchSize",
    "dataManifest": "spec.data",
    "folds": "spec.evaluation.folds",
}
"""Where the user wrote what an identity is made of; a method says so of its own settings."""


def identity_of(config: RunConfig, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal; `extra` adds what only the run knows (digest of the data manifest, resolved values)."""
    method = method_for(config.method)
    settings = method.settings(config.method)
    return {
        "task": config.task,
        "model": config.model.uri,
        "modelRevision": config.model.revision,
        "method": method.name,
        "optimizer": config.training.optimizer_info.name,
        "seed": config.training.seed,
        **{name: setting.value(settings) for name, setting in method.identity.items()},
        **extra,
    }


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """ "name: a there, b here" for each name that both know and that differs."""
    return [
        f"{k}: {theirs[k]!r} there, {ours[k]!r} here" for k in sorted(set(theirs) & set(ours)) if theirs[k] != ours[k]
    ]


def check_identity(uri: str, theirs: Mapping[str, Any], ours: Mapping[str, Any], field: str | None) -> None:
    """Raise CHECKPOINT_MISMATCH that says what differs, in the manifest's words."""
    theirs = {"optimizer": DEFAULT_OPTIMIZER, "folds": 0, **theirs}  # there were no others when they were not written
    both = {k for k in set(theirs) & set(ours) if theirs[k] != ours[k]}
    if both:
        fields = _FIELDS | identity_fields()
        said = "; ".join(f"{fields.get(k, k)} is {ours[k]!r}, the checkpoint's is {theirs[k]!r}" for k in sorted(both))
        raise JobError(
            Reason.CHECKPOINT_MISMATCH, f"the checkpoint {uri} was written by a different job: {said}", field=field
        )


def check_shapes(
    uri: str, theirs: Mapping[str, tuple[int, ...]], ours: Mapping[str, tuple[int, ...]], field: str | None
) -> None:
    """Raise CHECKPOINT_MISMATCH that names the tensors that are missing, too many or of another shape."""
    said = [
        f"{n} is {list(ours[n])} in this model, {list(theirs[n])} there"
        for n in ours
        if n in theirs and tuple(ours[n]) != tuple(theirs[n])
    ]
    for words, names in (
        ("not in the checkpoint", [n for n in ours if n not in theirs]),
        ("not in this model", [n for n in theirs if n not in ours]),
    ):
        said += (
            [f"{len(names)} tensors are {words} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"]
            if names
            else []
        )
    if said:
        more = f"; and {len(said) - 4} more" if len(said) > 4 else ""
        raise JobError(
            Reason.CHECKPOINT_MISMATCH,
            f"the checkpoint {uri} does not fit the model: {'; '.join(said[:4])}{more}",
            field=field,
        )


def environment(
    *, world_size: int, threads: int, micro_batch: int, device: str = "cpu", **more: str | int
) -> dict[str, str | int]:
    """The facts that a bit-exact resume depends on."""
    return {
        "worldSize": world_size,
        "threads": threads,
        "microBatch": micro_batch,
        "device": device,
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers", *packages())},
        "cpuFlags": cpu_flags_digest(),
        "cpuCapability": _cpu_capability(),
        **more,
    }


def cpu_flags_digest(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """A short digest of the CPU's instruction-set flags; empty where the system does not tell."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return hashlib.sha256(" ".join(sorted(flags)).encode()).hexdigest()[:12]


def _cpu_capability() -> str:
    import torch

    return str(torch.backends.cpu.get_cpu_capability())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
