"""The prepare step over S3 and a hub: what is read and written, and the reason of each failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from finetune_api.exits import Reason
from finetune_api.run import HubAccess, RunConfig, StorageAccess
from finetune_trainer.storage.s3.client import client_for
from support.control_plane import free_ports
from support.hub import Hub
from support.jobs import job_config
from support.models import mails, write_jsonl
from support.s3 import S3Server


def test_over_s3_everything_works_and_fails_with_its_reason(
    folder: Path, bert: Path, s3_server: S3Server, s3_credentials: None, run: Any
) -> None:
    bucket, client = s3_server.bucket(), s3_server.client
    for path in bert.iterdir():
        client.upload_file(str(path), bucket, f"models/bert/{path.name}")
    for n in range(3):
        text = "".join(json.dumps(row) + "\n" for row in mails(100, seed=n))
        client.put_object(Bucket=bucket, Key=f"train/{n}.jsonl.zst", Body=zstandard.compress(text.encode()))

    def config(out: str = "out", **spec: Any) -> RunConfig:
        spec = {
            "model": {"uri": f"s3://{bucket}/models/bert"},
            "data": {"train": {"uri": f"s3://{bucket}/train/*.jsonl.zst"}},
        } | spec
        return job_config(folder, storage=s3_server.access, output={"uri": f"s3://{bucket}/{out}"}, **spec)

    assert run(config()).data.train_rows == 300
    assert {item["Key"] for item in client.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]} == {
        "out/job.json",
        "out/prepare/manifest.json.zst",
        "out/prepare/profile.json",
    }
    error = run.refused(config("o2", data={"train": {"uri": f"s3://{bucket}/trian/*.jsonl.zst"}}))
    assert error.reason == Reason.DATA_NOT_FOUND
    assert f"s3://{bucket}/train/0.jsonl.zst" in error.message
    error = run.refused(config("o3", data={"train": {"uri": "s3://no-such-bucket-at-all/x.jsonl"}}))
    assert (error.reason, error.field) == (Reason.BUCKET_NOT_FOUND, "spec.data.train.uri")
    error = run.refused(config("o4", model={"uri": f"s3://{bucket}/models/none"}))
    assert (error.reason, error.field) == (Reason.MODEL_NOT_FOUND, "spec.model.uri")
    error = run.refused(
        config().model_copy(
            update={"output": config().output.model_copy(update={"uri": "s3://no-such-bucket-at-all/x"})}
        )
    )
    assert (error.reason, error.field) == (Reason.BUCKET_NOT_FOUND, "spec.output.uri")


def test_a_dead_endpoint_is_storage_unavailable(
    folder: Path, s3_credentials: None, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.storage.open.PATIENCE_SECONDS", 0.5)
    access = StorageAccess(endpoint=f"http://127.0.0.1:{free_ports(1)[0]}")
    error = run.refused(job_config(folder, storage=access, output={"uri": "s3://bucket/out"}))
    assert (error.reason, error.field) == (Reason.STORAGE_UNAVAILABLE, "spec.output.uri")


def test_model_and_data_may_lie_on_the_hub(folder: Path, bert: Path, hub: Hub, run: Any) -> None:
    model = hub.add("models", "lab/bert", bert)
    data = hub.add(
        "datasets", "lab/mails", {"train.jsonl": "".join(json.dumps(row) + "\n" for row in mails(50)).encode()}
    )
    spec: dict[str, Any] = {"model": {"uri": "hf://lab/bert"}, "data": {"train": {"uri": "hf://lab/mails"}}}
    profile = run(job_config(folder, hub=HubAccess(endpoint=hub.endpoint), **spec))
    assert profile.data.train_rows == 50
    assert (profile.resolved.model_revision, profile.resolved.data_revision) == (model, data)
    fetched = [p for p in bert.iterdir() if p.name != ".fetched.json"]
    assert profile.resolved.model_bytes == sum(p.stat().st_size for p in fetched)
    read = [sent for method, path, sent in hub.requests if path.endswith("model.safetensors") and method == "GET"]
    assert read
    assert all("Range" in sent or "range" in sent for sent in read), "of the weights only the header"


def test_storage_without_conditional_writes_is_told(
    folder: Path, moto: S3Server, s3_credentials: None, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_jsonl(folder / "data" / "a.jsonl", mails(20))
    output = {"uri": f"s3://{moto.bucket()}/out"}
    profile = run(job_config(folder, storage=moto.access, output=output))
    assert "NoConditionalWrites" not in [finding.kind for finding in profile.data.findings]
    deaf = moto.access.model_copy(
        update={"region": "us-east-2"}
    )  # a client of its own, whose server does not hear the condition

    def drop(params: dict[str, Any], **_: Any) -> None:
        params["headers"].pop("If-None-Match", None)

    client_for(deaf).meta.events.register("before-call.s3.PutObject", drop)
    profile = run(job_config(folder, storage=deaf, output={"uri": f"{output['uri']}-2"}))
    (found,) = [finding for finding in profile.data.findings if finding.kind == "NoConditionalWrites"]
    assert f"{output['uri']}-2 ignores If-None-Match" in found.message
    assert not profile.conditional_writes
    assert run.reported.findings == profile.data.findings
    assert "no conditional writes" in caplog.text
