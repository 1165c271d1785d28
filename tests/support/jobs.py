"""RunConfigs for tests, from the same spec that a user writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune_api.base import parse
from finetune_api.job import Spec
from finetune_api.run import HubAccess, Identity, Reporting, RunConfig, StorageAccess, World, run_config


def job_config(
    folder: Path,
    *,
    job_id: str = "job-1",
    name: str = "test/job",
    attempt: int = 1,
    world: World | None = None,
    storage: StorageAccess | None = None,
    hub: HubAccess | None = None,
    **spec: Any,
) -> RunConfig:
    """A RunConfig: text-classification from folder/model and folder/data to folder/out, unless `spec` says
    otherwise.
    """
    plain: dict[str, Any] = {
        "task": "text-classification",
        "model": {"uri": (folder / "model").as_uri()},
        "data": {"train": {"uri": f"{folder.as_uri()}/data/*"}},
        "output": {"uri": (folder / "out").as_uri()},
    }
    return run_config(
        parse(Spec, plain | spec, local=True),
        job=Identity(name=name, id=job_id),
        attempt=attempt,
        world=world or World(),
        storage=storage or StorageAccess(),
        hub=hub or HubAccess(),
        scratch=str(folder / "scratch"),
        reporting=Reporting(file=str(folder / "reports.jsonl"), termination_file=str(folder / "termination")),
    )
