"""The prepare step finds everything before a worker is asked for: exact counts, file and line, the field to change."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from finetune_api.exits import EXITS, JobError, Reason
from finetune_api.report import Outcome, Report
from finetune_api.run import HubAccess, RunConfig, StorageAccess, World
from finetune_trainer.prepare import load_profile, main
from finetune_trainer.storage import location
from finetune_trainer.stream import Stream
from support.control_plane import free_ports
from support.hub import Hub
from support.jobs import job_config
from support.models import chats, mails, write_jsonl
from support.s3 import S3Server


def lines(folder: Path, name: str, texts: list[str]) -> None:
    path = folder / "data" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(text + "\n" for text in texts))


def refused(run: Any, config: RunConfig) -> JobError:
    with pytest.raises(JobError) as caught:
        run(config)
    assert caught.value.message
    assert caught.value.hint
    return caught.value


# ---------------------------------------------------------------------- what it finds out


def test_a_good_set_is_profiled_and_reported(folder: Path, run: Any) -> None:
    rows = mails(300)
    write_jsonl(folder / "data" / "a.jsonl", rows[:200])
    write_jsonl(folder / "data" / "b.jsonl", rows[200:])
    config = job_config(
        folder,
        data={
            "train": {"uri": f"{folder.as_uri()}/data/*"},
            "validation": {"fraction": 0.1},
            "test": {"fraction": 0.1},
        },
    )
    profile = run(config)
    data = profile.data
    assert data.train_rows + data.validation_rows + data.test_rows == 300
    assert data.objects == 2
    assert data.bytes == sum(path.stat().st_size for path in (folder / "data").iterdir())
    assert data.labels == ("ham", "spam")
    assert profile.labels == ("ham", "spam")
    assert profile.columns == {"text": "text", "label": "label"}
    assert data.lengths is not None
    assert 2 < data.lengths.p50 <= data.lengths.p95 <= data.lengths.max <= 34
    assert data.tokens_per_epoch is not None
    assert profile.resolved.global_batch_size == 16
    assert profile.resolved.total_steps == 3 * -(-data.train_rows // 16)
    assert profile.resolved.architecture == "BertForSequenceClassification"
    assert run.reporters[0].snapshot.data == data
    assert run.reporters[0].snapshot.resolved == profile.resolved
    again, loaded = load_profile(location(config.output.uri, config.storage), config.job.id)
    assert loaded == profile
    assert again.digest == data.manifest_digest
    for split in ("train", "validation", "test"):
        with Stream(config, again, loaded, split) as stream:
            assert stream.row_count == getattr(data, f"{split}_rows")


def test_the_profile_is_reused_while_nothing_changed_and_made_anew_when_it_did(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(folder / "data" / "a.jsonl", mails(50))
    first = run(job_config(folder))
    with monkeypatch.context() as patch:
        patch.setattr("finetune_trainer.prepare.pipeline.survey", lambda *_: pytest.fail("looked at the rows again"))
        assert run(job_config(folder, attempt=2)) == first
    write_jsonl(folder / "data" / "b.jsonl", mails(10, seed=1))
    second = run(job_config(folder))
    assert second.data.train_rows == 60
    assert second.digest != first.digest
    # Once there are checkpoints, other data would go on with other rows: that is refused.
    (folder / "out" / "ckpt" / "1" / "10").mkdir(parents=True)
    (folder / "out" / "ckpt" / "1" / "10" / "MANIFEST.json").write_text("{}")
    assert run(job_config(folder)) == second
    write_jsonl(folder / "data" / "c.jsonl", mails(10, seed=2))
    assert refused(run, job_config(folder)).reason == Reason.DATA_CHANGED
    (folder / "data" / "c.jsonl").unlink()
    assert run(job_config(folder, world=World(workers=4))) == second
    assert refused(run, job_config(folder, training={"learningRate": 0.1})).reason == Reason.CHECKPOINT_MISMATCH


def test_a_step_killed_between_manifest_and_profile_starts_over(folder: Path, run: Any) -> None:
    write_jsonl(folder / "data" / "a.jsonl", mails(50))
    run(job_config(folder))
    manifest = (folder / "out" / "prepare" / "manifest.json.zst").read_bytes()
    write_jsonl(folder / "data" / "b.jsonl", mails(10))
    second = run(job_config(folder))
    (folder / "out" / "prepare" / "manifest.json.zst").write_bytes(manifest)
    with pytest.raises(JobError, match="no profile"):
        load_profile(location((folder / "out").as_uri(), StorageAccess()))
    assert run(job_config(folder)) == second


def test_labels_are_exact_and_in_their_natural_order(folder: Path, run: Any) -> None:
    lines(folder, "a.csv", ["text,label", *(f"a,{n}" for n in (10, 9, 2, 2, 10, 9))])
    assert run(job_config(folder)).labels == ("2", "9", "10")


def test_a_chat_set_is_profiled(folder: Path, llama: Path, run: Any) -> None:
    shutil.rmtree(folder / "model")
    shutil.copytree(llama, folder / "model")
    write_jsonl(folder / "data" / "a.jsonl", chats(100))
    profile = run(job_config(folder, task="causal-lm"))
    assert profile.columns == {"messages": "messages"}
    assert profile.labels is None
    assert profile.data.labels is None
    assert profile.data.train_rows == 100
    assert profile.resolved.metric == "loss"


# ---------------------------------------------------------------------- rows that are wrong

GOOD = '{"text": "the meeting", "label": "ham"}'
ALSO = '{"text": "free prize", "label": "spam"}'


@pytest.mark.parametrize(
    ("bad", "kind", "says"),
    [
        ("{not json", "InvalidJson", "not valid JSON"),
        ("[1, 2]", "InvalidJson", "array"),
        ('"text"', "InvalidJson", "holds a JSON string"),
        ('{"body": "x", "label": "ham"}', "MissingColumn", "no column 'text'; its columns are 'body', 'label'"),
        ('{"text": null, "label": "ham"}', "InvalidRow", "missing or null"),
        ('{"text": 5, "label": "ham"}', "InvalidRow", "int"),
        ('{"text": "x", "label": {}}', "InvalidRow", "dict"),
        ('{"text": "half \\ud800", "label": "ham"}', "InvalidEncoding", "surrogate"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(folder: Path, run: Any, bad: str, kind: str, says: str) -> None:
    lines(folder, "a.jsonl", [GOOD, ALSO] * 3)
    lines(folder, "b.jsonl", [GOOD, "", ALSO, bad, GOOD, bad])
    error = refused(run, job_config(folder))
    assert error.reason == Reason.INVALID_DATA
    file = f"{folder}/data/b.jsonl".lstrip("/")
    assert error.message.startswith(f"{file}:4: ")
    assert says in error.message
    assert f"2 bad rows (2 {kind}), 0 allowed" in error.message


def test_rows_within_the_allowance_are_left_out_counted_and_found_again(folder: Path, run: Any) -> None:
    lines(folder, "a.jsonl", [GOOD, "nonsense", ALSO, '{"text": "x"}', GOOD, ALSO])
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "maxBadRows": 2}
    config = job_config(folder, data=data)
    profile = run(config)
    assert (profile.data.train_rows, profile.data.bad_rows) == (4, 2)
    assert profile.bad == {"train": {0: (1, 3)}}
    found = {f.kind: (f.count, f.line) for f in profile.data.findings}
    assert found["InvalidJson"] == (1, 2)
    assert found["MissingColumn"] == (1, 4)
    error = refused(
        run,
        job_config(folder, job_id="job-2", data=data | {"maxBadRows": 1}, output={"uri": (folder / "out2").as_uri()}),
    )
    assert "2 bad rows (1 InvalidJson, 1 MissingColumn), 1 allowed; first MissingColumn at" in error.message


def test_a_set_of_nothing_but_bad_rows_is_given_up_early(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.prepare.tally.GIVE_UP_AFTER", 5)
    lines(folder, "a.jsonl", ["nonsense"] * 50)
    assert "at least 5 bad rows" in refused(run, job_config(folder)).message


def test_a_wrong_column_names_those_that_are_there(folder: Path, run: Any) -> None:
    write_jsonl(folder / "data" / "a.jsonl", mails(20))
    error = refused(
        run,
        job_config(
            folder, data={"train": {"uri": f"{folder.as_uri()}/data/*"}, "columns": {"text": "texts", "label": "label"}}
        ),
    )
    assert error.reason == Reason.INVALID_DATA
    assert error.field == "spec.data.columns.text"
    assert "'texts'" in error.message
    assert "its columns are 'text', 'label'" in error.message
    assert error.hint.startswith("Did you mean 'text'?")


def test_a_label_that_is_not_listed_is_named(folder: Path, run: Any) -> None:
    lines(folder, "a.jsonl", [GOOD, ALSO, '{"text": "x", "label": "eggs"}'])
    error = refused(
        run, job_config(folder, data={"train": {"uri": f"{folder.as_uri()}/data/*"}, "labels": ["ham", "spam"]})
    )
    assert ":3: class 'eggs'" in error.message


def test_held_out_objects_may_not_have_classes_of_their_own(folder: Path, run: Any) -> None:
    lines(folder, "train.jsonl", [GOOD, ALSO])
    lines(folder, "test.jsonl", [GOOD, '{"text": "x", "label": "eggs"}'])
    data = {
        "train": {"uri": f"{folder.as_uri()}/data/train.jsonl"},
        "test": {"uri": f"{folder.as_uri()}/data/test.jsonl"},
    }
    assert "test.jsonl:2: class 'eggs'" in refused(run, job_config(folder, data=data)).message


def test_one_class_alone_is_refused(folder: Path, run: Any) -> None:
    lines(folder, "a.jsonl", [GOOD] * 5)
    error = refused(run, job_config(folder))
    assert error.reason == Reason.INVALID_DATA
    assert "'ham'" in error.message


def test_a_column_that_is_no_class_is_refused(folder: Path, run: Any) -> None:
    lines(folder, "a.jsonl", [json.dumps({"text": "x", "label": f"free text {n}"}) for n in range(1100)])
    error = refused(run, job_config(folder))
    assert error.field == "spec.data.columns.label"


@pytest.mark.parametrize("content", [[], [""], ["", "  "]])
def test_empty_objects_are_refused(folder: Path, run: Any, content: list[str]) -> None:
    lines(folder, "a.jsonl", content)
    error = refused(run, job_config(folder))
    assert error.reason == Reason.INVALID_DATA
    assert "no usable rows" in error.message


def test_a_share_without_rows_is_refused(folder: Path, run: Any) -> None:
    lines(folder, "a.jsonl", [GOOD, ALSO])
    error = refused(
        run, job_config(folder, data={"train": {"uri": f"{folder.as_uri()}/data/*"}, "validation": {"fraction": 0.001}})
    )
    assert error.field == "spec.data.validation"


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "user", "content": "hi"}], "assistant"),
        ([{"role": "wizard", "content": "hi"}, {"role": "assistant", "content": "yo"}], "wizard"),
    ],
)
def test_chats_with_wrong_roles_are_named(
    folder: Path, llama: Path, run: Any, messages: list[dict[str, str]], says: str
) -> None:
    shutil.rmtree(folder / "model")
    shutil.copytree(llama, folder / "model")
    write_jsonl(folder / "data" / "a.jsonl", [*chats(3), {"messages": messages}])
    error = refused(run, job_config(folder, task="causal-lm"))
    assert "a.jsonl:4: " in error.message
    assert says in error.message


# ---------------------------------------------------------------------- what would learn nothing, or less than it seems


def test_chats_of_which_nothing_is_left_are_refused(folder: Path, llama: Path, run: Any) -> None:
    shutil.rmtree(folder / "model")
    shutil.copytree(llama, folder / "model")
    rows = [
        {"messages": [{"role": "user", "content": "long question " * 10}, {"role": "assistant", "content": "no"}]}
    ] * 20
    write_jsonl(folder / "data" / "a.jsonl", rows)
    error = refused(run, job_config(folder, task="causal-lm", training={"maxLength": 32}))
    assert error.reason == Reason.NOTHING_TO_LEARN
    assert error.field == "spec.training.maxLength"
    write_jsonl(folder / "data" / "b.jsonl", chats(20))
    found = {f.kind: f for f in run(job_config(folder, task="causal-lm", training={"maxLength": 64})).data.findings}
    assert found["NothingToLearn"].count == 20
    assert found["NothingToLearn"].line == 1


def test_a_length_above_the_models_is_refused(folder: Path, run: Any) -> None:
    write_jsonl(folder / "data" / "a.jsonl", mails(20))
    error = refused(run, job_config(folder, training={"maxLength": 129}))
    assert error.reason == Reason.INVALID_CONFIG
    assert error.field == "spec.training.maxLength"
    assert "128" in error.message


def test_truncation_duplicates_overlap_contradictions_and_rare_classes_are_found(folder: Path, run: Any) -> None:
    rows = [{"text": f"meeting {n} " * (60 if n < 30 else 1), "label": "ham"} for n in range(200)]
    rows += [
        {"text": "Free  PRIZE", "label": "spam"},
        {"text": "free prize", "label": "ham"},
        {"text": "ＦＲＥＥ prize\n", "label": "spam"},
    ]
    write_jsonl(folder / "data" / "train.jsonl", rows)
    write_jsonl(
        folder / "data" / "test.jsonl", [{"text": "new text", "label": "ham"}, {"text": "FREE prize", "label": "spam"}]
    )
    base = folder.as_uri()
    data = {
        "train": {"uri": f"{base}/data/train.jsonl"},
        "test": {"uri": f"{base}/data/test.jsonl"},
        "labels": ["ham", "spam", "eggs"],
    }
    profile = run(job_config(folder, data=data, training={"maxLength": 32}))
    found = {f.kind: f for f in profile.data.findings}
    assert list(found) == [
        "Overlap",
        "Contradiction",
        "Truncated",
        "UnseenLabel",
        "Imbalance",
    ]  # five at most, the gravest first
    assert found["Overlap"].file is not None
    assert found["Overlap"].file.endswith("test.jsonl")
    assert (found["Overlap"].count, found["Overlap"].line) == (1, 2)
    assert found["Contradiction"].count >= 1
    assert found["Truncated"].count == 30
    assert profile.data.lengths is not None
    assert profile.data.lengths.truncated_fraction == pytest.approx(30 / 203, abs=1e-3)
    assert "eggs" in found["UnseenLabel"].message
    assert "'spam' has 2 of 203" in found["Imbalance"].message


def test_a_finding_has_the_right_line_or_none(folder: Path, run: Any) -> None:
    lines(folder, "a.csv", ["text,label", "one,ham", "two,spam", "one,ham"])
    assert [(f.kind, f.line) for f in run(job_config(folder)).data.findings] == [("Duplicates", 4)]
    lines(folder, "a.csv", ["text,label", '"two', 'lines",ham', "two,spam", '"two', 'lines",ham'])
    assert [(f.kind, f.line) for f in run(job_config(folder)).data.findings] == [("Duplicates", None)]


# ---------------------------------------------------------------------- storage and model


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
        "out/job.json", "out/prepare/manifest.json.zst", "out/prepare/profile.json",
    }  # fmt: skip
    error = refused(run, config("o2", data={"train": {"uri": f"s3://{bucket}/trian/*.jsonl.zst"}}))
    assert error.reason == Reason.DATA_NOT_FOUND
    assert f"s3://{bucket}/train/0.jsonl.zst" in error.message
    error = refused(run, config("o3", data={"train": {"uri": "s3://no-such-bucket-at-all/x.jsonl"}}))
    assert (error.reason, error.field) == (Reason.BUCKET_NOT_FOUND, "spec.data.train.uri")
    error = refused(run, config("o4", model={"uri": f"s3://{bucket}/models/none"}))
    assert (error.reason, error.field) == (Reason.MODEL_NOT_FOUND, "spec.model.uri")
    error = refused(
        run,
        config().model_copy(
            update={"output": config().output.model_copy(update={"uri": "s3://no-such-bucket-at-all/x"})}
        ),
    )
    assert (error.reason, error.field) == (Reason.BUCKET_NOT_FOUND, "spec.output.uri")


def test_a_dead_endpoint_is_storage_unavailable(
    folder: Path, s3_credentials: None, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.storage.open.PATIENCE_SECONDS", 0.5)
    access = StorageAccess(endpoint=f"http://127.0.0.1:{free_ports(1)[0]}")
    error = refused(run, job_config(folder, storage=access, output={"uri": "s3://bucket/out"}))
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
    assert not any(path.endswith("model.safetensors") and method == "GET" for method, path, _ in hub.requests)


# ---------------------------------------------------------------------- the process


def test_the_step_ends_with_its_exit_code_and_last_word(folder: Path) -> None:
    lines(folder, "a.jsonl", [GOOD, "broken"])
    assert main(job_config(folder)) == EXITS[Reason.INVALID_DATA].code
    outcome = Outcome.model_validate_json((folder / "termination").read_bytes())
    assert outcome.problem is not None
    assert outcome.problem.reason == Reason.INVALID_DATA
    assert "a.jsonl:2: not valid JSON" in outcome.problem.message
    reports = [Report.model_validate_json(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
    assert reports[-1].problem == outcome.problem
    lines(folder, "a.jsonl", [GOOD, ALSO])
    assert main(job_config(folder)) == 0
    outcome = Outcome.model_validate_json((folder / "termination").read_bytes())
    assert outcome.data is not None
    assert outcome.data.train_rows == 2


def test_the_step_never_imports_torch_or_the_datasets_library(folder: Path) -> None:
    write_jsonl(folder / "data" / "a.jsonl", mails(30))
    (folder / "run.json").write_text(json.dumps(job_config(folder).to_json()))
    code = (
        "import sys; from finetune_trainer.__main__ import main; sys.argv[1:] = ['prepare', '--config', 'run.json']\n"
        "try:\n    code = main() or 0\nexcept SystemExit as end:\n    code = end.code or 0\n"
        "assert code == 0, code; heavy = {'torch', 'datasets', 'peft', 'accelerate', 'pandas'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
