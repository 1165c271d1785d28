"""The prepare step finds out what the job needs, writes it down once, and ends with its exit code and last word."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exits import EXITS, JobError, Reason
from finetune_api.report import Outcome, Report
from finetune_api.run import StorageAccess, World
from finetune_trainer.__main__ import main as start
from finetune_trainer.prepare import load_profile, main
from finetune_trainer.storage import location
from finetune_trainer.stream import Stream
from support.jobs import job_config
from support.models import chats, mails, write_jsonl
from support.rows import HAM, SPAM, write_lines


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
        patch.setattr(
            "finetune_trainer.prepare.rows.evidence.survey", lambda *_: pytest.fail("looked at the rows again")
        )
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
    assert run.refused(job_config(folder)).reason == Reason.DATA_CHANGED
    (folder / "data" / "c.jsonl").unlink()
    assert run(job_config(folder, world=World(workers=4))) == second
    assert run.refused(job_config(folder, training={"learningRate": 0.1})).reason == Reason.CHECKPOINT_MISMATCH


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
    write_lines(folder / "data", "a.csv", ["text,label", *(f"a,{n}" for n in (10, 9, 2, 2, 10, 9))])
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


def test_the_step_ends_with_its_exit_code_and_last_word(folder: Path) -> None:
    write_lines(folder / "data", "a.jsonl", [HAM, "broken"])
    assert main(job_config(folder)) == EXITS[Reason.INVALID_DATA].code
    outcome = Outcome.model_validate_json((folder / "termination").read_bytes())
    assert outcome.problem is not None
    assert outcome.problem.reason == Reason.INVALID_DATA
    assert "a.jsonl:2: not valid JSON" in outcome.problem.message
    reports = [Report.model_validate_json(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
    assert reports[-1].problem == outcome.problem
    write_lines(folder / "data", "a.jsonl", [HAM, SPAM])
    assert main(job_config(folder)) == 0
    outcome = Outcome.model_validate_json((folder / "termination").read_bytes())
    assert outcome.data is not None
    assert outcome.data.train_rows == 2


def test_a_configuration_that_a_newer_operator_wrote_is_read_and_what_is_unknown_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_lines(folder / "data", "a.jsonl", [HAM, SPAM])
    config = job_config(folder).to_json()
    config |= {"yetToCome": 1, "training": config["training"] | {"noise": 0.1}}
    (folder / "run.json").write_text(json.dumps(config))
    assert start(["prepare", "--config", str(folder / "run.json")]) == 0
    assert "training.noise, yetToCome" in caplog.text


def test_the_step_builds_the_model_without_libraries_that_only_training_needs(folder: Path) -> None:
    write_jsonl(folder / "data" / "a.jsonl", mails(30))
    (folder / "run.json").write_text(json.dumps(job_config(folder).to_json()))
    code = (
        "import sys; from finetune_trainer.__main__ import main; sys.argv[1:] = ['prepare', '--config',"
        " 'run.json']\ntry:\n    code = main() or 0\nexcept SystemExit as end:\n    code = end.code or 0\nassert code"
        " == 0, code; heavy = {'datasets', 'peft', 'pandas', 'sympy', 'torch._inductor'} & set(sys.modules); assert not"
        " heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_finished_job_is_told_again_without_torch() -> None:
    code = "import sys; import finetune_trainer.launch.completed; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
