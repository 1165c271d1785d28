"""Rows answered by what a job left: as its evaluation judged them, whatever file they come in; bad ones are named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from finetune_api.exits import EXITS, Reason
from finetune_trainer.storage import location
from predict.conftest import TEST, Predict
from support.models import chats, write_jsonl
from support.s3 import S3Server


def bare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without labels, with a column of their own."""
    return [{"id": i, "text": row["text"]} for i, row in enumerate(rows)]


@pytest.mark.parametrize("kind", ["full", "lora", "merged"])
def test_answers_are_those_that_the_evaluation_judged(
    kind: str, outputs: dict[str, Path], predict: Predict, tmp_path: Path
) -> None:
    done = predict(outputs[kind], write_jsonl(tmp_path / "rows.jsonl", bare(TEST)))
    assert (done.code, done.last.problem) == (0, None)
    assert (done.last.rows, done.last.total, done.last.stage) == (60, 60, "done")
    assert [row["id"] for row in done.rows] == list(range(60))
    assert [row["text"] for row in done.rows] == [row["text"] for row in TEST]
    right = sum(row["prediction"]["label"] == true["label"] for row, true in zip(done.rows, TEST, strict=True))
    judged = json.loads((outputs[kind] / "metrics.json").read_text())["test"]
    assert judged["accuracy"] == pytest.approx(right / 60, abs=1e-9)
    assert judged["accuracy"] > 0.5, "the test can tell something from nothing"
    shares = [row["prediction"]["scores"][true["label"]] for row, true in zip(done.rows, TEST, strict=True)]
    assert judged["loss"] == pytest.approx(-sum(map(math.log, shares)) / 60, abs=2e-4)


def csv_of(rows: list[dict[str, Any]], mark: str = ",") -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), delimiter=mark)
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


def test_every_format_gives_the_same_answers(outputs: dict[str, Path], predict: Predict, tmp_path: Path) -> None:
    rows = bare(TEST[:9])
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist([row | {"raw": b"\xff\x00"} for row in rows]), table)
    files = {
        "a.jsonl": lines,
        "b.csv": csv_of(rows),
        "c.tsv": csv_of(rows, "\t"),
        "d.parquet": table.getvalue(),
        "e.jsonl.gz": gzip.compress(lines),
        "f.csv.zst": zstandard.compress(csv_of(rows)),
        "g.json": json.dumps(rows).encode(),
    }
    answers = []
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        done = predict(outputs["full"], tmp_path / name)
        assert done.code == 0, (name, done.last)
        assert [int(row["id"]) for row in done.rows] == list(range(9)), name
        assert all(row.keys() == {"id", "text", "prediction"} for row in done.rows), name
        answers.append([row["prediction"] for row in done.rows])
    assert all(answer == answers[0] for answer in answers)
    texts = [row["text"] for row in rows if "\n" not in row["text"]]
    (tmp_path / "h.txt").write_text("\n\n".join(texts))
    done = predict(outputs["full"], tmp_path / "h.txt")
    assert [row["text"] for row in done.rows] == texts
    by_text = dict(zip((row["text"] for row in rows), answers[0], strict=True))
    assert [row["prediction"] for row in done.rows] == [by_text[text] for text in texts]


def test_bad_rows_are_named_and_left_out_only_where_that_is_allowed(
    outputs: dict[str, Path], predict: Predict, tmp_path: Path
) -> None:
    lines = ['{"text": "lunch"}', '{"text": 5}', "{", '{"txt": "a"}', '{"text": "a \\ud800 b"}', '{"text": "[MASK]"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    refused = predict(outputs["full"], tmp_path / "rows.jsonl")
    assert refused.code == EXITS[Reason.INVALID_DATA].code
    assert refused.rows == []
    for words in ("rows.jsonl:2: column 'text' holds int", "4 bad rows", "0 allowed", "--max-bad-rows"):
        assert words in refused.said
    assert "spec." not in refused.said
    done = predict(outputs["full"], tmp_path / "rows.jsonl", max_bad_rows=4)
    assert done.code == 0
    assert [row["text"] for row in done.rows] == ["lunch", "[MASK]"]
    assert sum(finding.count for finding in done.last.findings) == 4
    assert {finding.line for finding in done.last.findings} == {2, 3, 4, 5}
    assert predict(outputs["full"], tmp_path / "rows.jsonl", max_bad_rows=3).code == refused.code


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ([{"texts": "a"}], {}, "no column 'text', which the model takes for the text; its columns are 'texts' | Did"),
        ([{"texts": "a"}], {}, "Did you mean 'texts'? Name the right one: --column text=NAME"),
        ([{"text": "a", "prediction": 1}], {}, "a column 'prediction' of their own | Choose another name"),
        ([{"text": "a"}], {"columns": {"txt": "text"}}, "no column for 'txt'; it has label, text, textPair | Did you"),
        ([{"text": "a"}], {"columns": {"text": "body"}}, "no column 'body'"),
        ([{"text": "a"}], {"columns": {"textPair": "b"}}, "rows.jsonl:1: column 'b' is missing or null"),
    ],
)
def test_columns_that_are_not_there(
    rows: list[dict[str, Any]],
    more: dict[str, Any],
    words: str,
    outputs: dict[str, Path],
    predict: Predict,
    tmp_path: Path,
) -> None:
    done = predict(outputs["full"], write_jsonl(tmp_path / "rows.jsonl", rows), **more)
    assert words in done.said


def test_other_columns_and_other_names_for_the_answers(
    outputs: dict[str, Path], predict: Predict, tmp_path: Path
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"body": "free prize", "prediction": "mine"}])
    done = predict(outputs["full"], rows, columns={"text": "body"}, answer="spam")
    assert done.rows[0]["prediction"] == "mine"
    assert done.rows[0]["spam"]["label"] in ("ham", "spam")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "task.json").unlink(), "has no task.json: an older version wrote it"),
        (lambda folder: (folder / "result.json").unlink(), "has not finished"),
        (lambda folder: drop(folder, "result.json", "job.json"), "holds a model, but no job's output"),
        (lambda folder: [shutil.rmtree(folder), folder.mkdir()], "is no job's output: there is no result.json"),
        (lambda folder: shutil.rmtree(folder), "is no job's output"),
        (lambda folder: change(folder / "result.json", report=None), "has not finished"),
        (lambda folder: change(folder / "task.json", task="soothsaying"), "is of task 'soothsaying', and this version"),
        (lambda folder: change(folder / "task.json", version=9), "is of version 9"),
        (lambda folder: (folder / "task.json").write_text("{"), "task.json cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
    ],
)
def test_what_is_no_output(spoil: Any, words: str, copied: Path, predict: Predict, tmp_path: Path) -> None:
    spoil(copied)
    done = predict(copied, write_jsonl(tmp_path / "rows.jsonl", bare(TEST[:1])))
    assert words in done.said
    assert done.rows == []


def drop(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_an_adapter_whose_base_is_gone_says_where_it_was(
    outputs: dict[str, Path], predict: Predict, tmp_path: Path
) -> None:
    copy = shutil.copytree(outputs["lora"], tmp_path / "copy")
    change(copy / "adapter_config.json", base_model_name_or_path=str(tmp_path / "gone"))
    done = predict(copy, write_jsonl(tmp_path / "rows.jsonl", bare(TEST[:1])))
    assert "the adapter's base" in done.said
    assert str(tmp_path / "gone") in done.said


def test_rows_that_name_nothing(outputs: dict[str, Path], predict: Predict, tmp_path: Path) -> None:
    assert "no object" in predict(outputs["full"], tmp_path / "none.jsonl").said.lower()


def test_a_chat_is_answered_and_needs_no_answer_of_its_own(
    outputs: dict[str, Path], predict: Predict, tmp_path: Path
) -> None:
    asked = [{"messages": row["messages"][:-1]} for row in chats(3, seed=5)]
    whole = chats(3, seed=5)
    long = {"messages": [{"role": "user", "content": "x" * 400}]}
    open_, full = (
        predict(outputs["chat"], write_jsonl(tmp_path / "rows.jsonl", rows)) for rows in ([*asked, long], whole)
    )
    assert open_.code == full.code == 0, (open_.last, full.last)
    assert [row["prediction"] for row in open_.rows[:3]] == [row["prediction"] for row in full.rows]
    assert all(isinstance(row["prediction"]["text"], str) for row in full.rows)
    assert open_.rows[3]["prediction"]["text"] is None
    assert "tokens" in open_.rows[3]["prediction"]["problem"]


def test_an_output_on_s3_is_fetched(
    moto: S3Server, s3_credentials: None, outputs: dict[str, Path], predict: Predict, tmp_path: Path
) -> None:
    rows, bucket = write_jsonl(tmp_path / "rows.jsonl", bare(TEST[:5])), moto.bucket()
    for kind in ("full", "lora", "merged"):
        uri = f"s3://{bucket}/out-{kind}"
        there = location(uri, moto.access)
        for path in outputs[kind].rglob("*"):
            if path.is_file():
                there.put(path.relative_to(outputs[kind]).as_posix(), path.read_bytes())
        here, away = predict(outputs[kind], rows), predict(uri, rows, storage=moto.access)
        assert away.code == 0, away.last
        assert away.rows == here.rows
