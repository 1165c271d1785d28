"""Make the artefacts the result: every file first, result.json with their digests last and once.

A job is complete if and only if result.json is there and its own: a complete job is never run again, and a run that is
killed while it uploads leaves no result. The final report is inside, so that a later process can tell it once more.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.report import Report, Stage
from finetune_api.run import RunConfig
from finetune_api.status import OutputStatus
from finetune_trainer.storage import Location

NAME = "result.json"
UPLOADS = 4
OUR_FOLDERS = ("ckpt/", "generations/", "prepare/")


@dataclass(frozen=True, slots=True)
class Completed:
    """A result that exists: its output, and the final report as its attempt sent it."""

    output: OutputStatus
    report: Report


def completed(out: Location, config: RunConfig) -> Completed | None:
    """The committed result of this job, if there is one and all its files are there."""
    found = _read(out)
    if found is None or found["jobId"] != config.job.id:
        return None
    there = {info.key: info.size for info in out.list() if not info.key.startswith(OUR_FOLDERS)}
    if any(there.get(name) != file["bytes"] for name, file in found["files"].items()):
        return None  # somebody removed part of it: the run goes on from the last checkpoint and writes it again
    report = Report.model_validate_json(json.dumps(found["report"]))
    assert report.output is not None
    return Completed(report.output, report)


def commit(out: Location, folder: Path, config: RunConfig, report: Report) -> OutputStatus:
    """Upload all files of `folder`, then result.json. Returns what status says of it. Raises FENCED if another attempt was first."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    names = [p.relative_to(folder).as_posix() for p in paths]
    assert not any(name == NAME or name == "job.json" or name.startswith(OUR_FOLDERS) for name in names)
    earlier = _read(out)
    if earlier is not None:  # of another job whose output this one took over, or incomplete: see completed()
        out.delete([NAME])
        out.delete(name for name in earlier["files"] if name not in names)
    with ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload") as pool:
        digests = list(pool.map(_digest, paths))
        list(pool.map(lambda pair: out.put_file(pair[0], pair[1]), zip(names, paths, strict=True)))
    files: dict[str, Any] = {
        n: {"bytes": p.stat().st_size, "sha256": d} for n, p, d in zip(names, paths, digests, strict=True)
    }
    output = OutputStatus(
        uri=out.uri(),
        bytes=sum(file["bytes"] for file in files.values()),
        report=out.uri("report.html") if "report.html" in files else None,
    )
    last = report.model_copy(update={"stage": Stage.FINISHED, "output": output})
    result = {
        "version": 1, "jobId": config.job.id, "job": config.job.name, "attempt": config.attempt, "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "files": files, "report": last.to_json(),
    }  # fmt: skip
    try:
        out.put(NAME, json.dumps(result, indent=1).encode(), if_none_match=True)
    except FileExistsError:
        raise JobError(Reason.FENCED, f"another attempt of this job has committed {out.uri(NAME)}") from None
    return output


def _read(out: Location) -> dict[str, Any] | None:
    """result.json, or None where there is none; an unreadable one counts as another job's."""
    text = out.find(NAME)
    if text is None:
        return None
    try:
        found = json.loads(text)
        return {"jobId": str(found["jobId"]), "files": dict(found["files"]), "report": found["report"]}
    except (ValueError, TypeError, KeyError):
        return {"jobId": "", "files": {}, "report": {}}


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
