"""What the prepare step says of plain texts and of models that cannot fill gaps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.base import FieldError
from finetune_api.exits import Reason
from prepare.conftest import Runs
from support.families import masked_bert
from support.jobs import job_config
from support.models import mails, write_jsonl


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked_bert(tmp_path_factory.mktemp("gaps"))


def job(folder: Path, model: Path, rows: list[Any], **spec: Any) -> Any:
    write_jsonl(folder / "data" / "train.jsonl", rows)
    return job_config(folder, task="masked-lm", model={"uri": model.as_uri()}, **spec)


GOOD = [{"text": row["text"]} for row in mails(20)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": ""}, "train.jsonl:3: column 'text' is empty: nothing to learn"),
        ({"text": " \t"}, "train.jsonl:3: column 'text' is empty: nothing to learn"),
        ({"text": None}, "train.jsonl:3: column 'text' is missing or null"),
        ({"text": 5}, "train.jsonl:3: column 'text' holds int, not text"),
        ({"text": ["a", "b"]}, "train.jsonl:3: column 'text' holds list, not text"),
        ({"txt": "a"}, "train.jsonl:3: has no column 'text'; its columns are 'txt'"),
    ],
)
def test_rows_that_are_no_texts(tmp_path: Path, gaps: Path, run: Runs, row: dict[str, Any], words: str) -> None:
    error = run.refused(job(tmp_path, gaps, [*GOOD[:2], row, *GOOD[2:]]))
    assert error.reason is Reason.INVALID_DATA
    assert words in error.message


def test_each_line_of_a_text_is_a_row(tmp_path: Path, gaps: Path, run: Runs) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("\n\n".join(row["text"] for row in GOOD))
    config = job_config(tmp_path, task="masked-lm", model={"uri": gaps.as_uri()})
    assert run(config).data.train_rows == len(GOOD)
    classes = job_config(tmp_path, model={"uri": gaps.as_uri()}, output={"uri": (tmp_path / "out2").as_uri()})
    error = run.refused(classes)
    assert error.field == "spec.data.columns.label"
    assert "'text'" in error.message
    (folder / "a.txt").write_bytes(b"one\n\xff\n")
    error = run.refused(job_config(tmp_path, task="masked-lm", model={"uri": gaps.as_uri()}))
    assert "a.txt:2: the line is not valid UTF-8" in error.message


def test_a_file_without_a_column_of_texts(tmp_path: Path, gaps: Path, run: Runs) -> None:
    error = run.refused(job(tmp_path, gaps, [{"titel": "a"}], data={"train": {"uri": f"{tmp_path.as_uri()}/data/*"}}))
    assert error.field == "spec.data.columns.text"
    assert "'titel'" in error.message


def test_texts_of_which_the_model_knows_no_word(tmp_path: Path, gaps: Path, run: Runs) -> None:
    error = run.refused(job(tmp_path, gaps, [{"text": "漢字"}] * 3))
    assert error.reason is Reason.NOTHING_TO_LEARN
    assert "knows no word" in error.message
    run(job(tmp_path, gaps, [*GOOD, {"text": "漢字"}], output={"uri": (tmp_path / "out2").as_uri()}))
    (finding,) = [f for f in run.reported.findings if f.kind == "NothingToLearn"]
    assert finding.count == 1


def test_long_texts_are_taken_whole(tmp_path: Path, gaps: Path, run: Runs) -> None:
    long = " ".join(row["text"] for row in mails(20))
    profile = run(job(tmp_path, gaps, [*GOOD, {"text": long}], training={"maxLength": 32}))
    assert {f.kind for f in profile.data.findings} & {"Windows", "Truncated"} == {"Windows"}
    assert profile.data.lengths is not None
    assert profile.data.lengths.truncated_fraction == 0.0


def test_a_decoder_fills_no_gaps(tmp_path: Path, llama: Path, run: Runs) -> None:
    error = run.refused(job(tmp_path, llama, GOOD))
    assert error.reason is Reason.UNSUPPORTED_MODEL
    assert "'llama' does not support masked-lm" in error.message


def test_a_tokenizer_without_a_mask(tmp_path: Path, run: Runs) -> None:
    base = masked_bert(tmp_path / "base")
    said = json.loads((base / "tokenizer_config.json").read_text())
    said.pop("mask_token")
    (base / "tokenizer_config.json").write_text(json.dumps(said))
    error = run.refused(job(tmp_path, base, GOOD))
    assert error.reason is Reason.UNSUPPORTED_MODEL
    assert "no mask token" in error.message


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"maskShare": 0}, "maskedLm.maskShare"),
        ({"maskShare": 15}, "maskedLm.maskShare"),
        ({"maskShare": "a lot"}, "maskedLm.maskShare"),
        ({"maskshare": 0.1}, "maskedLm"),
        ({"wholeWords": "often"}, "maskedLm.wholeWords"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, gaps: Path, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        job(tmp_path, gaps, GOOD, maskedLm=settings)
    assert str(caught.value).startswith(field)
