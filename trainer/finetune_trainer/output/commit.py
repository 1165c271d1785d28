"""Make the artefacts the result: every file first, result.json with their digests last and once.

A job is complete if and only if result.json is there, is the job's own and holds a report. A complete job is never run
again, and a run that is killed while it uploads leaves no result. The final report is inside, so that a later process
can send it once more.

An attempt that was overtaken may wake at any moment, so every write is conditional on what was there before the fence
was asked: whatever a later attempt has written since makes it fail. Where an earlier commit broke off, its author may
still be about to write result.json: the place is taken first, by a result.json without a report. So the files of two
attempts never pass for one result, and what is committed stays as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.report import Report, Stage
from finetune_api.run import RunConfig
from finetune_api.status import OutputStatus
from finetune_api.times import rfc3339
from finetune_trainer.storage import Location, ObjectInfo

NAME = "result.json"
UPLOADS = 4
TRIES = 8
"""A write is repeated where an overtaken attempt's came in between, of which at most UPLOADS are under way."""
OUR_FOLDERS = ("ckpt/", "generations/", "prepare/")


@dataclass(frozen=True, slots=True)
class Completed:
    """A result that exists: its output, and the final report as its attempt sent it."""

    output: OutputStatus
    report: Report


def completed(out: Location, config: RunConfig) -> Completed | None:
    """The committed result of this job, if there is one and all its files are there."""
    return _complete(out, _read(out.find(NAME)), config)


def commit(out: Location, folder: Path, config: RunConfig, report: Report, fence: Callable[[], None]) -> OutputStatus:
    """Upload all files of `folder`, then result.json; a job that is complete already stays as it is.

    Returns what the status says of the output. Raises FENCED, as `fence` does, if a later attempt has taken over.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    names = [p.relative_to(folder).as_posix() for p in paths]
    assert not any(name == NAME or name == "job.json" or name.startswith(OUR_FOLDERS) for name in names)
    begun = _take_place(out, names, config, fence)
    if isinstance(begun, Completed):
        return begun.output
    taken, leftovers = begun
    with ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload") as pool:
        digests = list(pool.map(_digest, paths))
        list(pool.map(lambda pair: _upload(out, pair[0], pair[1], fence), zip(names, paths, strict=True)))
    files: dict[str, Any] = {
        n: {"bytes": p.stat().st_size, "sha256": d} for n, p, d in zip(names, paths, digests, strict=True)
    }
    output = OutputStatus(
        uri=out.uri(),
        bytes=sum(file["bytes"] for file in files.values()),
        report=out.uri("report.html") if "report.html" in files else None,
    )
    last = report.model_copy(update={"stage": Stage.FINISHED, "output": output})
    fence()
    written = _put(out, {**_head(config), "files": files, "report": last.to_json()}, taken)
    if written is None:
        raise JobError(Reason.FENCED, f"another attempt of this job has committed {out.uri(NAME)}")
    if leftovers:
        fence()
        if out.head(NAME) == written:
            out.delete(leftovers)
    return output


def _take_place(
    out: Location, names: list[str], config: RunConfig, fence: Callable[[], None]
) -> Completed | tuple[ObjectInfo | None, list[str]]:
    """Make sure that no other attempt's result.json can come any more; a result that is complete is left alone.

    Returns the result.json of ours that holds the place, None where none is needed, and files that an earlier one
    named.
    """
    for _ in range(TRIES):
        info = out.head(NAME)
        try:
            earlier = _read(out.get(NAME, if_match=info.etag)) if info else None
        except (FileNotFoundError, JobError):
            continue  # it changed in between: look again
        found = _complete(out, earlier, config)
        if found is not None:
            return found
        there = {o.key for o in out.list() if not o.key.startswith(OUR_FOLDERS)}
        fence()
        leftovers = sorted(set(earlier["files"]) - set(names)) if earlier else []
        if info is None and there.isdisjoint(names):
            return None, leftovers
        files: dict[str, Any] = {name: {} for name in [*leftovers, *names]}
        taken = _put(out, {**_head(config), "committing": uuid.uuid4().hex, "files": files}, info)
        if taken is not None:
            return taken, leftovers
    raise _overtaken(out, NAME)


def _upload(out: Location, name: str, path: Path, fence: Callable[[], None]) -> None:
    """Write one file, over what an earlier attempt may have left; never over a later one's."""
    for _ in range(TRIES):
        before = out.head(name)
        fence()  # after the look: what a later attempt writes from here on differs from what was seen
        with contextlib.suppress(FileExistsError):
            out.put_file(name, path, if_none_match=before is None, if_match=before.etag if before else None)
            return
    raise _overtaken(out, name)


def _put(out: Location, result: dict[str, Any], before: ObjectInfo | None) -> ObjectInfo | None:
    """Write result.json in the place of the one that was there; None if it is another by now."""
    try:
        text = json.dumps(result, indent=1).encode()
        return out.put(NAME, text, if_none_match=before is None, if_match=before.etag if before else None)
    except FileExistsError:
        return None


def _head(config: RunConfig) -> dict[str, Any]:
    now = rfc3339(time.time())
    return {"version": 1, "jobId": config.job.id, "job": config.job.name, "attempt": config.attempt, "time": now}


def _overtaken(out: Location, name: str) -> JobError:
    return JobError(Reason.FENCED, f"{out.uri(name)} is being written by another attempt of this job")


def _complete(out: Location, found: dict[str, Any] | None, config: RunConfig) -> Completed | None:
    if found is None or found["jobId"] != config.job.id or found["report"] is None:
        return None
    there = {info.key: info.size for info in out.list() if not info.key.startswith(OUR_FOLDERS)}
    if any(there.get(name) != file["bytes"] for name, file in found["files"].items()):
        return None  # somebody removed part of it: the run goes on from the last checkpoint and writes it again
    report = Report.model_validate_json(json.dumps(found["report"]))
    assert report.output is not None
    return Completed(report.output, report)


def _read(text: bytes | None) -> dict[str, Any] | None:
    """result.json, or None where there is none; an unreadable one counts as another job's.

    Without a report it is no result.
    """
    if text is None:
        return None
    try:
        found = json.loads(text)
        return {"jobId": str(found["jobId"]), "files": dict(found["files"]), "report": found.get("report")}
    except (ValueError, TypeError, KeyError):
        return {"jobId": "", "files": {}, "report": None}


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
