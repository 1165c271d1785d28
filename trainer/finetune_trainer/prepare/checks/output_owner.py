"""One job owns an output prefix: job.json says which, and exactly one job can write it.

An earlier job of the same name that never came to train is taken over without being asked: whoever mends a manifest and
applies it again loses nothing. Else a take-over is asked for by output.overwrite. It is marked first and swept then, so
that a crash between the two sweeps again and never lets an earlier job's checkpoints pass for this one's.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_api.run import RunConfig
from finetune_api.times import rfc3339, seconds
from finetune_trainer.methods import adapter_files
from finetune_trainer.storage import Location, blaming

MARKER = "job.json"
FIELD = "spec.output.uri"
_SWEPT = ("result.json", "ckpt/", "generations/", "prepare/")
_MODELS = ("model.safetensors", "model.safetensors.index.json")


def claim_output(config: RunConfig, out: Location) -> None:
    """Make this job the owner of its output, which proves that it can be written.

    Raises JobError, OutputInUse among others.
    """
    with blaming(FIELD):
        if out.find(MARKER) is None:
            _refuse_foreign_model(config, out)
        try:
            out.put(MARKER, _marker(config, swept=True), if_none_match=True)
            return
        except FileExistsError:
            found = _read(out)
        if found.get("jobId") != config.job.id:
            namesake = found.get("name") == config.job.name
            if not config.output.overwrite and not (namesake and _never_trained(out)):
                raise _in_use(config, out, found, namesake)
            out.put(MARKER, _marker(config, swept=False))
            found = {"swept": False}
        if not found.get("swept", True):
            sweep_output(out)
            out.put(MARKER, _marker(config, swept=True))
        else:
            out.put("prepare/.writable", b"")  # the marker is older than the credentials may be
            out.delete(["prepare/.writable"])


def claimed_at(out: Location) -> datetime:
    """When the owner claimed its output, in UTC: the same at each later prepare step of the job."""
    claimed = seconds(_read(out).get("created"))
    return datetime.fromtimestamp(int(time.time() if claimed is None else claimed), UTC)


def _never_trained(out: Location) -> bool:
    """Whether nothing but the prepare step's findings would be lost: no workers ever came as far as to claim a
    generation.
    """
    return not any(True for prefix in ("generations/", "ckpt/", "result.json") for _ in out.list(prefix))


def _in_use(config: RunConfig, out: Location, found: dict[str, Any], namesake: bool) -> JobError:
    name = str(found.get("name") or found.get("jobId") or "(unknown)")
    foreign = "/" in name and name.partition("/")[0] != config.job.name.partition("/")[0]
    whose = f"{out.uri()} belongs to {'a job of another namespace' if foreign else f'job {name}'}"
    if not namesake:
        return JobError(Reason.OUTPUT_IN_USE, whose)
    if _finished(out):
        done = "Give this job another spec.output.uri, or set spec.output.overwrite if that model may go."
        return JobError(Reason.OUTPUT_IN_USE, f"{whose}: an earlier one of this name, which has finished", hint=done)
    again = "Set spec.output.overwrite to start over"
    if any(True for _ in out.list("ckpt/")):
        again += (
            f", or give this job another spec.output.uri and name the newest checkpoint under {out.uri('ckpt')} in"
            " spec.checkpoints.resumeFrom"
        )
    return JobError(
        Reason.OUTPUT_IN_USE, f"{whose}: an earlier one of this name, which had begun to train", hint=again + "."
    )


def _finished(out: Location) -> bool:
    """Whether result.json says what a run came to; one that holds the place of a commit that broke off does not."""
    try:
        return "report" in json.loads(out.find("result.json") or b"{}")
    except (ValueError, TypeError):
        return False


def _marker(config: RunConfig, swept: bool) -> bytes:
    created = rfc3339(time.time())
    return json.dumps(
        {"jobId": config.job.id, "name": config.job.name, "created": created, "swept": swept}, indent=1
    ).encode()


def _read(out: Location) -> dict[str, Any]:
    try:
        found = json.loads(out.find(MARKER) or b"{}")
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _refuse_foreign_model(config: RunConfig, out: Location) -> None:
    """A model that no job of ours wrote is not overwritten by accident."""
    if config.output.overwrite:
        return
    there = next((name for name in (*_MODELS, *adapter_files()) if out.head(name) is not None), None)
    if there:
        raise JobError(
            Reason.OUTPUT_IN_USE,
            f"{out.uri(there)} exists, and no job of this operator wrote it",
            hint="Choose an empty prefix, or set spec.output.overwrite if that model may go.",
        )


def sweep_output(out: Location) -> None:
    """Remove what an earlier job left: its commit marker first, the files that this named, then its working state."""
    result = out.find("result.json")
    out.delete(["result.json"])
    if result is not None:
        out.delete(_files(result))
    for prefix in _SWEPT[1:]:
        out.delete([info.key for info in out.list(prefix)])
    out.discard(list(out.unfinished()))


def _files(result: bytes) -> list[str]:
    try:
        files = json.loads(result)["files"]
    except (ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in files if name and not str(name).startswith("/")]
